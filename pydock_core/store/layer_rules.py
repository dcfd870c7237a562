"""The rules for a layer's entries, common to all drivers: names, whiteouts and errors.

Rules (image specification, layer.md): an entry ``.wh.NAME`` hides NAME of the lower layers and becomes a
character device 0/0; ``.wh..wh..opq`` hides the lower layers' entries in its directory and
becomes an extended attribute (kernel, Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
directories").  Both apply only to the lower layers, wherever they stand in the archive.

A layer is applied by itself, without the lower layers.  Two things can depend on these: a directory that the archive
omits (an implied parent), and a hard link to a file that the archive does not contain.  Both are counted, and
:mod:`pydock_core.store.snapshots.chained` applies such a layer again when the lower layers are known.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from pydock_core.errors import DeniedError, FailedError, InvalidError, PyDockError, UnsupportedError
from pydock_core.store.durable import is_full, no_space

WHITEOUT_PREFIX = b".wh."
OPAQUE_NAME = b".wh..wh..opq"
_AUFS_PREFIX = b".wh..wh."
LINK_DEPTH = 16
"""The largest number of symbolic links on the way to an implied parent."""
OVERLAY_XATTR = b"trusted.overlay."
"""The prefix of overlayfs's own attributes (redirects, metadata-only copies), which an archive must not set."""
HOSTILE = "the archive is broken or hostile; do not use it"


@dataclass(slots=True)
class Applied:
    """The result of applying a layer.

    Attributes:
        size_bytes: contents of all files.
        entries: number of archive entries.
        opaque_root: the layer hides all lower layers.
        skipped_devices: device nodes left out, because a user namespace cannot have them.
        skipped_xattrs: extended attributes that the file system or the namespace does not support.
        implied_parents: directories that contain entries but have no entry of their own.
        unresolved_links: hard links to files that the archive does not contain; they were not made.
        whiteouts: whiteouts, including opaque markers.
    """

    size_bytes: int = 0
    entries: int = 0
    opaque_root: bool = False
    skipped_devices: int = 0
    skipped_xattrs: int = 0
    implied_parents: int = 0
    unresolved_links: int = 0
    whiteouts: int = 0


def clean_name(name: bytes, subject: str, link: bytes | None = None) -> bytes:
    """Return an entry's name relative to the layer's root, b"" for the root itself.

    An absolute name counts from the root, and ".." is resolved by its text, as Docker does.

    Args:
        name: of the entry, or of the target of a hard link.
        subject: names the layer in errors.
        link: the name of the hard link, if ``name`` is its target.

    Raises:
        InvalidError: the name leads out of the root.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                text = os.fsdecode(name)
                what = (
                    f"entry {text!r} leads"
                    if link is None
                    else f"hard link {os.fsdecode(link)!r} leads to {text!r},"
                )
                raise InvalidError(f"{subject}: {what} out of the image", HOSTILE)
            parts.pop()
        elif part and part != b".":
            parts.append(part)
    return b"/".join(parts)


def hidden_name(name: bytes, subject: str) -> bytes | None:
    """Return the name that a whiteout hides: OPAQUE_NAME for all names, None for nothing.

    AUFS's own bookkeeping (.wh..wh.aufs, .wh..wh.plnk) hides nothing; Docker ignores it too.

    Args:
        name: the last component of the entry's name, which begins with WHITEOUT_PREFIX.
        subject: names the layer in errors.

    Raises:
        InvalidError: it names nothing.
    """
    if name.startswith(_AUFS_PREFIX):
        return name if name == OPAQUE_NAME else None
    hidden = name.removeprefix(WHITEOUT_PREFIX)
    if hidden in (b"", b".", b".."):
        raise InvalidError(f"{subject}: whiteout {os.fsdecode(name)!r} names nothing", HOSTILE)
    return hidden


def map_error(
    error: OSError, subject: str, name: str | None = None, owner: tuple[int, int] = (0, 0)
) -> PyDockError:
    """Return the error that an errno means for a layer's entry; the same for every driver."""
    at = f"{subject}: entry {name!r}" if name is not None else subject
    reason = error.strerror or str(error)
    if is_full(error):
        return no_space(subject)
    if error.errno == errno.EINVAL and name is not None:
        return UnsupportedError(
            f"{at}: its owner {owner[0]}:{owner[1]} has no id here",
            "give the user more subordinate ids in /etc/subuid and /etc/subgid (dock doctor)",
        )
    if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOENT):
        return InvalidError(f"cannot apply {at}: {reason}", HOSTILE)
    if error.errno in (errno.EPERM, errno.EACCES):
        return DeniedError(f"cannot apply {at}: {reason}", "see dock doctor for what this host allows")
    return FailedError(f"cannot apply {at}: {reason}", "see dock doctor")
