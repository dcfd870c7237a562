"""Edits of a container's root filesystem for a device: links, modes, the loader's cache, covered files.

They replace the hooks of NVIDIA's toolkit (create-symlinks, chmod, update-ldcache, enable-cuda-compat,
disable-device-node-modification).  Init (embedded executor) or a createContainer hook
(:mod:`pydock_core.runtime.root_edit_hook`) applies them before the container's program runs.  They execute no file of the
container and write only below its root: every path is resolved by openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_XDEV, so an
image's link cannot lead an edit into a volume or a bind mount.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import FailedError, PyDockError
from pydock_core.loader_cache import MACHINE_FLAGS, CacheEntry, merge_cache
from pydock_core.runtime.inside import make_inside, open_inside, opened_inside

HOOK_PROGRAM = str(Path(__file__).with_name("root_edit_hook.py"))
"""The program that applies the edits for an OCI runtime program; its argument is a file of edits."""
CACHE = "/etc/ld.so.cache"
CONFIGURATION_DIRECTORY = "/etc/ld.so.conf.d"
CUDA_COMPAT = "/usr/local/cuda/compat"
"""The directory of a newer user-mode driver in CUDA images (NVIDIA's "CUDA compatibility" guide)."""

_LARGEST_CACHE_BYTES = 64 << 20
_CONFIGURATION_FILE = "00-pydock-devices.conf"
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
_COMPAT_DRIVER = re.compile(r"libcuda\.so\.(\d+)\.\d+(?:\.\d+)?")
_SONAME = re.compile(r"lib[A-Za-z0-9_+-]+\.so\.\d+")
_SAME_MOUNT_HINT = "mount nothing over that directory of the container"


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link: its text, and its path in the container."""

    target: str
    path: str


@dataclass(frozen=True, slots=True)
class Mode:
    """The permission bits of a directory or a file of the container."""

    path: str
    bits: int


@dataclass(frozen=True, slots=True)
class Cover:
    """A file of the host to mount read-only over a file of the container's /proc; ignored if that is missing."""

    source: str
    path: str


@dataclass(frozen=True, slots=True)
class RootEdits:
    """The edits of one start.

    Attributes:
        own_dev: whether the container's /dev is its own tmpfs, so that links and modes may be set there.
        update_cache: whether to write the loader's cache.
        folders: directories of the libraries, for a later ldconfig in the container.
        libraries: soname, path in the container, and the loader's flags.
        host_driver: version of the host's NVIDIA driver if a newer one in the image takes precedence; otherwise empty.
    """

    links: tuple[Link, ...] = ()
    modes: tuple[Mode, ...] = ()
    covers: tuple[Cover, ...] = ()
    own_dev: bool = True
    update_cache: bool = False
    folders: tuple[str, ...] = ()
    libraries: tuple[tuple[str, str, int], ...] = ()
    host_driver: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the edits as plain data; :meth:`from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RootEdits:
        """Rebuild edits that :meth:`to_json` wrote."""
        return cls(
            links=tuple(Link(**entry) for entry in document["links"]),
            modes=tuple(Mode(**entry) for entry in document["modes"]),
            covers=tuple(Cover(**entry) for entry in document["covers"]),
            own_dev=document["own_dev"],
            update_cache=document["update_cache"],
            folders=tuple(document["folders"]),
            libraries=tuple((soname, path, flags) for soname, path, flags in document["libraries"]),
            host_driver=document["host_driver"],
        )


def build_hook(python: str, file: str) -> dict[str, Any]:
    """Return the createContainer hook that applies the edits in ``file``; the embedded executor applies them itself."""
    return {"path": python, "args": [python, "-I", "-S", HOOK_PROGRAM, file]}


def split_hooks(hooks: Mapping[str, Any]) -> tuple[RootEdits | None, dict[str, Any]]:
    """Return the root edits of a configuration's hooks, and the remaining hooks."""
    edits: RootEdits | None = None
    others = []
    for hook in hooks.get("createContainer") or ():
        words = list(hook.get("args") or ())
        if len(words) == 5 and words[3] == HOOK_PROGRAM:
            edits = read_edits(Path(words[4]))
        else:
            others.append(hook)
    left = {**hooks, "createContainer": others}
    return edits, {name: entries for name, entries in left.items() if entries}


def read_edits(file: Path) -> RootEdits:
    """Read a file of edits."""
    try:
        return RootEdits.from_json(json.loads(file.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FailedError(f"device edits {file}: {error}") from error


def apply_edits(root_fd: int, edits: RootEdits) -> None:
    """Apply the edits below a container's root; idempotent.

    Args:
        root_fd: the container's root directory in this process's mount namespace, with all mounts below it.

    Raises:
        FailedError: an edit cannot be applied; the error names its path; exit code 125.
    """
    _Editor(root_fd, edits).run()


class _Editor:
    def __init__(self, root_fd: int, edits: RootEdits) -> None:
        self._root_fd = root_fd
        self._edits = edits

    def run(self) -> None:
        for link in self._edits.links:
            with _explained("link", link.path):
                self._make_link(link)
        for mode in self._edits.modes:
            with _explained("mode of", mode.path):
                self._set_mode(mode)
        if self._edits.update_cache:
            with _explained("file", CACHE):
                self._update_cache()
        for cover in self._edits.covers:
            with _explained("file", cover.path):
                self._cover(cover)

    # -- links and modes ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _base(self, path: str) -> Iterator[tuple[int, str]]:
        """Yield the start directory of a path (the root or the container's own /dev) and the rest of the path."""
        normal = posixpath.normpath("/" + path.lstrip("/"))
        if self._edits.own_dev and normal.startswith("/dev/"):
            dev_fd = open_inside(self._root_fd, "/dev", follow=False)
            try:
                yield dev_fd, normal.removeprefix("/dev")
            finally:
                os.close(dev_fd)
        else:
            yield self._root_fd, normal

    def _make_link(self, link: Link) -> None:
        with self._base(link.path) as (base_fd, path):
            directory, name = posixpath.split(path)
            parent_fd = make_inside(base_fd, directory, directory=True, same_mount=True)
            try:
                try:
                    if os.readlink(name, dir_fd=parent_fd) == link.target:
                        return
                    os.unlink(name, dir_fd=parent_fd)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if error.errno != errno.EINVAL:  # not a link
                        raise
                    os.unlink(name, dir_fd=parent_fd)
                os.symlink(link.target, name, dir_fd=parent_fd)
            finally:
                os.close(parent_fd)

    def _set_mode(self, mode: Mode) -> None:
        with self._base(mode.path) as (base_fd, path):
            try:
                place_fd = open_inside(base_fd, path, same_mount=True)
            except FileNotFoundError:
                return
            try:
                kind = os.fstat(place_fd).st_mode
                if not stat.S_ISDIR(kind) and not stat.S_ISREG(kind):
                    return  # a device node keeps its mode
                os.chmod(f"/proc/self/fd/{place_fd}", mode.bits)
            finally:
                os.close(place_fd)

    # -- the loader's cache ------------------------------------------------------------------------------

    def _update_cache(self) -> None:
        compat = self._find_compat()
        data = self._read_cache()
        if data is None:
            if not any(self._exists(loader) for loader in _LOADERS):
                return  # another loader, such as musl's, has no cache
            data = b""
        libraries = [CacheEntry(soname, path, flags) for soname, path, flags in self._edits.libraries]
        with self._made("/etc") as etc_fd:
            _replace(etc_fd, posixpath.basename(CACHE), merge_cache(data, [*compat, *libraries]))
        folders = [*([CUDA_COMPAT] if compat else []), *self._edits.folders]
        try:
            directory_fd = open_inside(
                self._root_fd, CONFIGURATION_DIRECTORY, syscalls.O_PATH | os.O_DIRECTORY, same_mount=True
            )
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            text = "".join(f"{folder}\n" for folder in folders)
            _replace(directory_fd, _CONFIGURATION_FILE, text.encode("utf-8", "surrogateescape"))
        finally:
            os.close(directory_fd)

    @contextlib.contextmanager
    def _made(self, path: str) -> Iterator[int]:
        directory_fd = make_inside(self._root_fd, path, directory=True, same_mount=True)
        try:
            yield directory_fd
        finally:
            os.close(directory_fd)

    def _exists(self, path: str) -> bool:
        try:
            with opened_inside(self._root_fd, path):
                return True
        except OSError:
            return False

    def _read_cache(self) -> bytes | None:
        """Return the container's cache; None if it is missing or not a valid cache."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        try:
            file_fd = open_inside(self._root_fd, CACHE, flags, same_mount=True)
        except FileNotFoundError:
            return None
        with open(file_fd, "rb") as file:
            is_file = stat.S_ISREG(os.fstat(file_fd).st_mode)
            return file.read(_LARGEST_CACHE_BYTES) if is_file else b""

    def _find_compat(self) -> list[CacheEntry]:
        """Return the image's own user-mode driver if its branch is newer than the host's."""
        if not self._edits.host_driver:
            return []
        flags = os.O_RDONLY | os.O_DIRECTORY
        try:
            with opened_inside(self._root_fd, CUDA_COMPAT, flags) as directory_fd:
                names = sorted(os.listdir(directory_fd))
        except OSError:
            return []
        branches = [int(match[1]) for name in names if (match := _COMPAT_DRIVER.fullmatch(name))]
        if not branches or max(branches) <= int(self._edits.host_driver.partition(".")[0]):
            return []
        machine_flags = MACHINE_FLAGS.get(syscalls.MACHINE, 0)
        return [
            CacheEntry(name, f"{CUDA_COMPAT}/{name}", machine_flags)
            for name in names
            if _SONAME.fullmatch(name)
        ]

    # -- covered files -----------------------------------------------------------------------------------

    def _cover(self, cover: Cover) -> None:
        try:
            target_fd = open_inside(self._root_fd, cover.path, follow=False)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if syscalls.filesystem_magic(target_fd) != syscalls.PROC_SUPER_MAGIC:
                raise FailedError(
                    f"device edit: {cover.path} of the container is not the kernel's",
                    "mount nothing over /proc of the container",
                    exit_code=125,
                )
            source_fd = syscalls.open_tree(syscalls.AT_FDCWD, cover.source, syscalls.OPEN_TREE_CLONE)
            try:
                syscalls.mount_setattr(
                    source_fd,
                    attributes_set=syscalls.MOUNT_ATTR_RDONLY
                    | syscalls.MOUNT_ATTR_NOSUID
                    | syscalls.MOUNT_ATTR_NODEV
                    | syscalls.MOUNT_ATTR_NOEXEC,
                    propagation=syscalls.MS_PRIVATE,
                )
                syscalls.move_mount(source_fd, target_fd)
            finally:
                os.close(source_fd)
        finally:
            os.close(target_fd)


def _replace(directory_fd: int, name: str, data: bytes) -> None:
    """Write a file under a temporary name and rename it; an existing file or link is neither followed nor opened."""
    temporary = f".{name}.pydock"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory_fd)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o644, dir_fd=directory_fd), "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), 0o644)
    os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)


@contextlib.contextmanager
def _explained(what: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise FailedError(
                f"device edit: the {what} {path} would be written to a mount of the container",
                _SAME_MOUNT_HINT,
                exit_code=125,
            ) from error
        raise FailedError(
            f"device edit: {what} {path} of the container: {error.strerror}",
            "the image has something else in its place",
            exit_code=125,
        ) from error
    except PyDockError as error:
        error.exit_code = 125
        raise


def find_root(bundle: Path, config: Mapping[str, Any]) -> Path:
    """Return the host path of a bundle's root filesystem."""
    return bundle / str((config.get("root") or {}).get("path") or "rootfs")


def run_hook(arguments: Sequence[str], state: Mapping[str, Any]) -> None:
    """Apply the edits as a createContainer hook.

    Args:
        arguments: the file of edits.
        state: the container's OCI state (runtime.md).
    """
    bundle = Path(state["bundle"])
    root = find_root(bundle, json.loads((bundle / "config.json").read_bytes()))
    root_fd = os.open(root, syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _writable(root_fd):
            apply_edits(root_fd, read_edits(Path(arguments[0])))
    finally:
        os.close(root_fd)


@contextlib.contextmanager
def _writable(root_fd: int) -> Iterator[None]:
    """Lift a root's read-only flag during a block: crun sets it before the hooks, runc and the embedded executor after them."""
    if not os.fstatvfs(root_fd).f_flag & os.ST_RDONLY:
        yield
        return
    mount_fd = os.open(f"/proc/self/fd/{root_fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.mount_setattr(mount_fd, attributes_clear=syscalls.MOUNT_ATTR_RDONLY)
        try:
            yield
        finally:
            syscalls.mount_setattr(mount_fd, attributes_set=syscalls.MOUNT_ATTR_RDONLY)
    finally:
        os.close(mount_fd)
