"""Copies between the host and a container's file system, and archives of it.  Runs in a worker.

The caller opens the directory on the host's side with its own permissions; this module resolves no path of the host.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO, cast

from pydock_core.errors import InvalidError
from pydock_core.progress import Progress
from pydock_core.store.compression import InflationLimit, open_plain, peek_compression, peekable
from pydock_core.store.container_extract import ContainerExtractor
from pydock_core.store.container_view import ContainerView, Place, mapped_errors
from pydock_core.store.copy_rules import CONTENT, CopyEnd, plan_copy, split_entry
from pydock_core.store.pipe import writing_archive
from pydock_core.store.tar_reader import TarReader
from pydock_core.store.tar_source import StreamSource
from pydock_core.store.tar_writer import TarWriter, write_all
from pydock_core.store.tree_copy import CopyRules, Owner, TreeCopy, same_owner
from pydock_core.store.tree_tar import TreeTar

_XATTRS_INTO = ("user.", "security.capability", "system.posix_acl_")
_XATTRS_OUT = ("user.",)
_OVERFLOW_ID = 65534
_ALL_IDS = 4294967295
# Go's os.FileMode, which the Engine API uses.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFREG: 0,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def stat_path(
    view: Mapping[str, Any], path: str, *, fds: Sequence[int] = (), progress: Progress | None = None
) -> dict[str, Any]:
    """Describe the entry at a path: {"name", "size", "mode", "mtime_ns", "linkTarget"}.  A worker function.

    Args:
        view: arguments of :class:`ContainerView`.
        path: path in the container; a link as its last component is not followed.
        fds, progress: unused; the signature is that of all worker functions.

    Raises:
        NotFoundError, InvalidError: the path does not exist, or leads through another kind of file.
    """
    with mapped_errors(f"container {view['name']}"), ContainerView(**view) as seen:
        return _describe(seen, seen.find(path))


def _describe(seen: ContainerView, place: Place) -> dict[str, Any]:
    status = place.status
    assert status is not None
    mode = status.st_mode & 0o777 | _GO_KINDS[stat.S_IFMT(status.st_mode)]
    mode |= sum(mode_bit for bit, mode_bit in _GO_BITS.items() if status.st_mode & bit)
    return {
        "name": split_entry(place.path)[1] if place.path != "/" else "/",
        "size": status.st_size,
        "mode": mode,
        "mtime_ns": status.st_mtime_ns,
        "linkTarget": seen.evaluate(place.path) if place.is_link else "",
    }


# -- archives --------------------------------------------------------------------------------------------


class _PlaceTar(TreeTar):
    """Writes an entry of a container with all below it; the entry has the path's last component as its name."""

    prefix = b""

    def archived_name(self, path: bytes) -> bytes:
        """Put the entry's name in front."""
        return self.prefix + path

    def write_root(self, directory_fd: int) -> None:
        """Write the directory itself."""
        status = os.fstat(directory_fd)
        self._put(b"", stat.S_IFDIR, status, self._xattrs(directory_fd, os.listxattr(directory_fd), b""))


def read_archive(
    view: Mapping[str, Any], path: str, *, fds: Sequence[int] = (), progress: Progress | None = None
) -> dict[str, Any]:
    """Write an entry, with all below it, as a tar archive.  A worker function.

    Args:
        view, path: see :func:`stat_path`.
        fds: destination of the archive: a file, a pipe or a socket.
        progress: unused.

    Returns:
        {"size_bytes", "entries", "notes"}.

    Raises:
        NotFoundError, InvalidError: the path does not exist, or leads through another kind of file.
        FailedError: the archive's reader has gone.
    """
    with mapped_errors(f"container {view['name']}"), ContainerView(**view) as seen:
        place = seen.find(path)
        output = TarWriter(partial(write_all, fds[0]), fds[0])
        subject = f"{path} of container {seen.name}"
        with writing_archive():
            if place.is_dir:
                directory_fd = os.open(
                    place.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place.directory_fd
                )
                tree = _PlaceTar(directory_fd, output, subject)
                name = split_entry(place.path)[1] if place.path != "/" else ""
                tree.prefix = os.fsencode(name) + b"/"
                tree.write_root(directory_fd)
                tree.write()
                os.close(directory_fd)
            else:
                tree = _PlaceTar(place.directory_fd, output, subject)
                assert place.status is not None
                write = tree.write_file if stat.S_ISREG(place.status.st_mode) else tree.write_other
                write(place.directory_fd, place.name, os.fsencode(place.name))
            output.finish()
        os.close(place.directory_fd)
        return {"size_bytes": output.size_bytes, "entries": tree.entries, "notes": tree.notes.lines}


def write_archive(
    view: Mapping[str, Any],
    path: str,
    owner: Sequence[int] | None,
    may_replace: bool,
    *,
    fds: Sequence[int] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Extract a tar archive, compressed or not, into a directory of a container.  A worker function.

    Args:
        view: see :func:`stat_path`.
        path: of the directory, in the container; links are followed within its root.
        owner: the user and the group of all entries; None for those in the archive.
        may_replace: a directory may be replaced by another kind of file, and the reverse.
        fds: source of the archive.
        progress: unused.

    Returns:
        {"size_bytes", "entries", "notes"}.

    Raises:
        NotFoundError, InvalidError: there is no such directory, or an entry leads out of it.
        CorruptError: the archive is damaged.
    """
    subject = f"the archive for {path} of container {view['name']}"
    with mapped_errors(subject), ContainerView(**view) as seen:
        place = seen.find(path, follow=True)
        if not place.is_dir:
            raise InvalidError(f"container {seen.name}: {path} is not a directory", "name a directory")
        os.close(place.directory_fd)
        directory = seen.evaluate(path)
        with os.fdopen(os.dup(fds[0]), "rb", buffering=0) as raw:
            stream = peekable(cast(BinaryIO, raw))
            plain = open_plain(
                stream, peek_compression(stream), subject, InflationLimit.for_file_system(seen.root_fd)
            )
            extractor = ContainerExtractor(
                seen.root_fd,
                directory,
                subject,
                owner=tuple(owner) if owner else None,
                squash_owners=_has_one_id(),
                may_replace=may_replace,
            )
            applied = extractor.apply(TarReader(StreamSource(plain), subject))
            while plain.read(
                1 << 20
            ):  # data after the end marker is read, so that the writer is not interrupted
                continue
        return {
            "size_bytes": applied.size_bytes,
            "entries": applied.entries,
            "notes": [f"{applied.skipped_devices} devices"] if applied.skipped_devices else [],
        }


# -- trees -----------------------------------------------------------------------------------------------


def copy_out(
    view: Mapping[str, Any],
    path: str,
    follow: bool,
    target: Mapping[str, Any],
    keep_owners: bool,
    *,
    fds: Sequence[int] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Copy an entry, with all below it, to the host.  A worker function.

    Args:
        view, path: see :func:`stat_path`.
        follow: follow a link that is the last component of the path.
        target: :class:`CopyEnd` of the host, as data.
        keep_owners: keep the owners of the container; otherwise the caller owns the files.
        fds: the target if it is a directory, otherwise its parent directory.
        progress: unused.

    Returns:
        {"size_bytes", "entries", "notes"}.

    Raises:
        NotFoundError, InvalidError: see :func:`plan_copy` and :class:`ContainerView`.
    """
    os.umask(0)
    with mapped_errors(f"{path} of container {view['name']}"), ContainerView(**view) as seen:
        place = seen.find(path, follow=follow)
        given = split_entry(path)[1] if follow else ""
        _, name = plan_copy(place.as_end(given), CopyEnd(**target))
        rules = CopyRules(same_owner if keep_owners else _no_owner, _XATTRS_OUT)
        copy = TreeCopy(place.directory_fd, fds[0], rules, f"{path} of container {seen.name}")
        return _run(copy, place.name, name)


def copy_in(
    view: Mapping[str, Any],
    path: str,
    source: Mapping[str, Any],
    source_name: str,
    owner: Sequence[int] | None,
    *,
    fds: Sequence[int] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Copy an entry of the host, with all below it, into a container.  A worker function.

    Args:
        view: see :func:`stat_path`.
        path: in the container.
        source: :class:`CopyEnd` of the host, as data.
        source_name: the entry's name in the directory ``fds[0]``.
        owner: the user and the group of all entries; None for the source's.
        fds: the source's parent directory.
        progress: unused.

    Returns, raises:
        see :func:`copy_out`.
    """
    os.umask(0)
    with mapped_errors(f"{path} of container {view['name']}"), ContainerView(**view) as seen:
        place = seen.locate(path)
        if place.is_link:
            place = seen.locate(seen.evaluate(path))
        if place.status is not None and not stat.S_ISREG(place.status.st_mode) and not place.is_dir:
            raise InvalidError(
                f"container {seen.name}: {path} is neither a directory nor a regular file",
                "name another target",
            )
        directory, name = plan_copy(CopyEnd(**source), place.as_end())
        target_fd = seen.open_directory(directory)
        rules = CopyRules(_owner_of(owner), _XATTRS_INTO, devices=True)
        copy = TreeCopy(fds[0], target_fd, rules, f"{path} of container {seen.name}")
        try:
            return _run(copy, source_name, name)
        finally:
            os.close(target_fd)
            os.close(place.directory_fd)


def _run(copy: TreeCopy, source_name: str, name: str) -> dict[str, Any]:
    if name == CONTENT:
        content_fd = os.open(
            source_name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=copy.source_fd
        )
        copy.source_fd = content_fd
        try:
            copy.copy_content()
        finally:
            os.close(content_fd)
    else:
        copy.copy_entry(source_name, name)
    return {"size_bytes": copy.size_bytes, "entries": copy.entries, "notes": copy.notes.lines}


def _no_owner(uid: int, gid: int) -> None:
    """Leave the caller as the owner: an :data:`Owner`."""


def _owner_of(owner: Sequence[int] | None) -> Owner:
    """Return the owner of files copied into a container.

    In a user namespace, root rather than nobody owns a file whose owner has no id there.
    """
    if _has_one_id():
        return lambda uid, gid: (0, 0)
    if owner:
        chosen = (owner[0], owner[1])
        return lambda uid, gid: chosen
    if _has_all_ids():
        return same_owner

    def mapped(uid: int, gid: int) -> tuple[int, int]:
        return (0 if uid == _OVERFLOW_ID else uid, 0 if gid == _OVERFLOW_ID else gid)

    return mapped


def _id_counts() -> list[int]:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return [int(line.split()[2]) for line in file]


def _has_all_ids() -> bool:
    return sum(_id_counts()) >= _ALL_IDS


def _has_one_id() -> bool:
    return sum(_id_counts()) == 1
