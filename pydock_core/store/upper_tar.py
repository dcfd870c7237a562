"""Writes a container's writable layer, the upper directory of an overlay, as a layer of an image.  Runs in a worker.

It is the inverse of :mod:`pydock_core.store.layer_rules`: the kernel's "whiteouts and opaque directories"
(Documentation/filesystems/overlayfs.rst) become the image specification's ``.wh.NAME`` and ``.wh..wh..opq`` (layer.md).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pydock_core.errors import UnsupportedError
from pydock_core.progress import Progress
from pydock_core.runtime.namespaces import enter_mapped
from pydock_core.store.durable import mapped
from pydock_core.store.growing_file import FollowingDigest
from pydock_core.store.layer_rules import OPAQUE_NAME, WHITEOUT_PREFIX
from pydock_core.store.layer_tar import ESCAPE
from pydock_core.store.tar_writer import TarWriter, build_header, write_all
from pydock_core.store.tree_tar import DIRECTORY_FLAGS, TreeTar

_PROGRESS_BYTES = 8 << 20


class UpperTar(TreeTar):
    """Writes an upper directory in the image specification's form.

    Args:
        user_xattrs: overlayfs's attributes are under "user.", not "trusted." (a mount with ``userxattr``).
    """

    user_xattrs = False

    def takes(self, name: str, path: bytes) -> bool:
        """Leave out a container's file named like a whiteout, which would hide another file when the layer is applied."""
        if os.fsencode(name).startswith(WHITEOUT_PREFIX):
            self.notes.add(f"/{os.fsdecode(path)} has a name that layers use for what is removed")
            return False
        return True

    def is_hidden(self, status: os.stat_result, xattrs: tuple[()] | list[str], path: bytes) -> bool:
        """Turn a whiteout into ``.wh.NAME``."""
        if not is_whiteout(status, xattrs, user_xattrs=self.user_xattrs):
            return False
        parent, slash, name = path.rpartition(b"/")
        self._put_mark(parent + slash + WHITEOUT_PREFIX + name)
        return True

    def after_directory(self, fd: int, path: bytes, xattrs: list[str]) -> None:
        """Turn the marker of an opaque directory into ``.wh..wh..opq``."""
        if is_opaque(fd, xattrs, user_xattrs=self.user_xattrs):
            self._put_mark(path + b"/" + OPAQUE_NAME)

    def xattr_name(self, name: str, path: bytes) -> str:
        """Drop overlayfs's own attributes, keep the file's, and unescape the name of an escaped one (Linux 6.7).

        Raises:
            UnsupportedError: a part of the entry is in another layer (redirect, metacopy).
        """
        own = overlay_xattr("", self.user_xattrs)
        if name in (own + "redirect", own + "metacopy"):
            raise UnsupportedError(
                f"/{os.fsdecode(path)} of the container's layer is kept as a reference to another layer ({name})",
                "it was mounted with redirect_dir or metacopy; copy its files into a new container",
            )
        if name.startswith(own + ESCAPE):
            name = own + name.removeprefix(own + ESCAPE)
        elif name.startswith(own):
            return ""
        return super().xattr_name(name, path)

    def _put_mark(self, path: bytes) -> None:
        self.entries += 1
        self.output.put(build_header(path, stat.S_IFREG))


def overlay_xattr(name: str, user_xattrs: bool) -> str:
    """Return the full name of one of overlayfs's attributes."""
    return f"{'user' if user_xattrs else 'trusted'}.overlay.{name}"


def is_whiteout(status: os.stat_result, xattrs: Sequence[str], *, user_xattrs: bool) -> bool:
    """Whether an entry of an upper directory is a whiteout: a device 0/0, or (Linux 6.7) an empty file with an attribute."""
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == 0
    return (
        bool(xattrs)
        and stat.S_ISREG(status.st_mode)
        and not status.st_size
        and overlay_xattr("whiteout", user_xattrs) in xattrs
    )


def is_opaque(fd: int, xattrs: Sequence[str], *, user_xattrs: bool) -> bool:
    """Whether a directory hides the lower layers' entries; the value "x" only means that it contains new-style whiteouts."""
    name = overlay_xattr("opaque", user_xattrs)
    return name in xattrs and os.getxattr(fd, name) == b"y"


def write_upper(
    upper: str,
    user_xattrs: bool,
    *,
    uid_mappings: Sequence[Mapping[str, Any]] = (),
    gid_mappings: Sequence[Mapping[str, Any]] = (),
    fds: Sequence[int] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the layer of an upper directory; the same tree gives the same bytes.  A worker function.

    Args:
        upper: its path; a missing one is an empty layer.
        user_xattrs: see :class:`UpperTar`.
        uid_mappings, gid_mappings: OCI id maps of the container's own user namespace, whose ids are written; empty for none.
        fds: an empty file, open for reading and writing.
        progress: receives {"status": "Committing", "current"} (bytes).

    Returns:
        {"digest", "size_bytes", "entries", "notes"}: of the layer, which is not yet synced.

    Raises:
        ConflictError: the tree changed too much during the walk.
        UnsupportedError: the layer depends on another one.
        UnavailableError: the disk is full.
    """
    file_fd = fds[0]
    reported = 0
    if uid_mappings:
        enter_mapped(uid_mappings, gid_mappings)
    with mapped("the container's layer", "write", "see dock doctor"), FollowingDigest(file_fd) as digest:

        def report(size_bytes: int) -> None:
            nonlocal reported
            if progress is not None and size_bytes - reported >= _PROGRESS_BYTES:
                reported = size_bytes
                progress({"status": "Committing", "current": size_bytes})

        output = TarWriter(partial(write_all, file_fd), file_fd, digest.advance)
        entries, notes = 0, list[str]()
        root_fd = _open_root(upper)
        if root_fd is not None:
            try:
                tree = UpperTar(root_fd, output, "the container's layer", report)
                tree.user_xattrs = user_xattrs
                tree.write()
                entries, notes = tree.entries, tree.notes.lines
            finally:
                os.close(root_fd)
        output.finish()
        return {
            "digest": digest.finish(),
            "size_bytes": output.size_bytes,
            "entries": entries,
            "notes": notes,
        }


def _open_root(upper: str) -> int | None:
    try:
        return os.open(upper, DIRECTORY_FLAGS)
    except FileNotFoundError:
        return None
