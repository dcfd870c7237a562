"""Applies the kernel's setxattr(2) rules to the attributes of files in an EROFS image."""

from __future__ import annotations

import errno
import os
import stat
import struct

from pydock_core.store.erofs import layout
from pydock_core.store.layer_rules import OVERLAY_XATTR

Xattrs = dict[bytes, bytes]
_NAME_LIMIT = 255
_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
# include/uapi/linux/posix_acl.h
_USER_OWNER, _USER, _GROUP_OWNER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_ORDER = (_USER_OWNER, _USER, _GROUP_OWNER, _GROUP, _MASK, _OTHER)
_ACCESS = b"system.posix_acl_access"
# include/uapi/linux/capability.h: the sizes of struct vfs_cap_data and vfs_ns_cap_data by revision.
_CAPABILITY_BYTES = {2: 20, 3: 24}


def add_xattrs(
    xattrs: Xattrs, added: tuple[tuple[bytes, bytes], ...], mode: int, kind: int
) -> tuple[int, int]:
    """Add the attributes that Linux supports to those of a file; return its mode, and the number of the others.

    Args:
        xattrs: the file's attributes so far; changed.
        added: (name, value) of each.
        mode: the permission bits.
        kind: of the file, stat.S_IF*.

    Raises:
        OSError: an attribute is too large (setxattr(2)).
    """
    skipped = 0
    for name, value in added:
        if name.startswith(OVERLAY_XATTR):
            continue
        if name.startswith(b"system.posix_acl_"):
            changed = apply_acl(mode, name, value, is_directory=kind == stat.S_IFDIR)
            if kind not in (stat.S_IFREG, stat.S_IFDIR) or changed is None:
                skipped += 1
                continue
            mode, is_kept = changed
            if is_kept:
                xattrs[name] = value
            else:
                xattrs.pop(name, None)
        elif _is_taken(name, value, kind):
            xattrs[name] = value
        else:
            skipped += 1
    return mode, skipped


def _is_taken(name: bytes, value: bytes, kind: int) -> bool:
    """Whether Linux supports an attribute for a kind of file (xattr(7)).

    Raises:
        OSError: the attribute is too large (setxattr(2)).
    """
    prefix = next((prefix for prefix, _ in layout.XATTR_PREFIXES if name.startswith(prefix)), None)
    if len(name) > _NAME_LIMIT:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    if len(value) > layout.XATTR_LIMIT:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    if prefix is None or name == prefix:
        return False
    if prefix == b"user.":
        return kind in (stat.S_IFREG, stat.S_IFDIR)
    if name == b"security.capability":
        return kind == stat.S_IFREG and is_capability(value)
    return True


def apply_acl(mode: int, name: bytes, value: bytes, *, is_directory: bool) -> tuple[int, bool] | None:
    """Return a file's mode after setting an access control list, and whether the list says more than a mode.

    Args:
        mode: the file's permission bits.
        name: of the attribute, "system.posix_acl_access" or "system.posix_acl_default".
        value: as for setxattr(2) (include/uapi/linux/posix_acl_xattr.h).

    Returns:
        None if Linux refuses it.
    """
    permissions = _parse(value)
    if permissions is None or (name != _ACCESS and not is_directory):
        return None
    if name != _ACCESS:
        return mode, bool(permissions)
    if not permissions:
        return mode, False  # an empty list removes the list
    group = permissions.get(_MASK, permissions[_GROUP_OWNER])
    basic = permissions[_USER_OWNER] << 6 | group << 3 | permissions[_OTHER]
    return mode & ~0o777 | basic, len(permissions) > 3


def _parse(value: bytes) -> dict[int, int] | None:
    """Return the permissions by tag, like posix_acl_valid() of fs/posix_acl.c; {} for an empty list."""
    if len(value) < _HEADER.size or (len(value) - _HEADER.size) % _ENTRY.size:
        return None
    if _HEADER.unpack_from(value)[0] != _VERSION:
        return None
    permissions: dict[int, int] = {}
    last = 0
    for tag, permission, _ in _ENTRY.iter_unpack(value[_HEADER.size :]):
        if tag not in _ORDER or permission > 7 or _ORDER.index(tag) < last:
            return None
        if tag in permissions and tag not in (_USER, _GROUP):
            return None
        last = _ORDER.index(tag)
        permissions[tag] = permission
    if not permissions:
        return permissions
    if not {_USER_OWNER, _GROUP_OWNER, _OTHER} <= permissions.keys():
        return None
    if (_USER in permissions or _GROUP in permissions) and _MASK not in permissions:
        return None
    return permissions


def is_capability(value: bytes) -> bool:
    """Whether Linux accepts a value for "security.capability" (security/commoncap.c, validheader())."""
    return len(value) >= 4 and _CAPABILITY_BYTES.get(value[3]) == len(value)
