"""Directories and files that no other user of the host can read or redirect.

The rule for a directory's path is that of sshd's StrictModes (sshd_config(5)) and of sudo's plugins: root or the
caller owns each directory on it, and nobody else may write to it.  A sticky directory (/tmp) may be writable by all,
because others can neither remove nor rename files of root or the caller in it.  Root or the caller must also own each
symbolic link on the path.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from pydock_core.errors import DeniedError

_LINK_LIMIT = 40
"""The kernel's limit: path_resolution(7)."""
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_UNMAPPED_ID = 65534
"""The id that stat(2) shows for an owner without an id in this user namespace: user_namespaces(7)."""
_OTHER_DIRECTORY = "set PYDOCK_ROOT to a directory of your own"


def make_private(path: Path) -> None:
    """Make a directory and its missing parents, accessible to the caller only.

    An existing directory with a wider mode gets 0700, unless others could have written to it: its contents may be
    theirs.  New directories have mode 0700 from the start.

    Args:
        path: absolute.

    Raises:
        DeniedError: another user owns the directory, can change its contents, or can redirect the path.
        OSError: another errno of openat(2) or mkdirat(2); its ``filename`` is absolute.
    """
    fd = _walk(path, make=True)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise DeniedError(
                f"state directory {path} belongs to {_user_name(status.st_uid)}, not to {_user_name(os.geteuid())}",
                _OTHER_DIRECTORY,
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            if _is_writable_by_others(fd, status):
                raise DeniedError(
                    f"state directory {path} can be written to by other users, so its contents cannot be trusted",
                    f"{_OTHER_DIRECTORY}, or after a look at what is there: chmod go-rwx {path}",
                )
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)


def check_way(path: Path) -> None:
    """Check the existing part of a directory's path, as :func:`make_private` does; change nothing.

    Raises:
        DeniedError, OSError: as :func:`make_private`.
    """
    with suppress(FileNotFoundError):
        os.close(_walk(path, make=False))


def make_directories(path: Path) -> None:
    """Make a directory below a private one, with its parents, each with mode 0700; leave an existing one unchanged."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_directories(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def open_private(path: str, flags: int) -> int:
    """Open a file, with mode 0600 if it is new; an ``opener`` for open()."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _walk(path: Path, *, make: bool) -> int:
    """Return an O_PATH descriptor of a directory after checking each component of its path."""
    pending = list(reversed(path.parts[1:]))
    links = 0
    taken: list[str] = []  # the components so far, for messages
    fd = os.open("/", _LOOK | os.O_DIRECTORY)
    try:
        _check(fd, "/", path)
        while pending:
            name = pending.pop()
            at = "/" + "/".join([*taken, name])
            try:
                step_fd = _open_step(fd, name, make=make)
            except OSError as error:
                raise OSError(error.errno, error.strerror, at) from None
            try:
                target = _check(step_fd, at, path)
            except BaseException:
                os.close(step_fd)
                raise
            if target is None:
                os.close(fd)
                fd = step_fd
                taken.append(name)
                continue
            os.close(step_fd)
            links += 1
            if links > _LINK_LIMIT:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), at)
            pending += [step for step in reversed(target.split("/")) if step]
            if target.startswith("/"):
                os.close(fd)
                fd = os.open("/", _LOOK | os.O_DIRECTORY)
                taken.clear()
        return fd
    except BaseException:
        os.close(fd)
        raise


def _open_step(parent_fd: int, name: str, *, make: bool) -> int:
    try:
        return os.open(name, _LOOK, dir_fd=parent_fd)
    except FileNotFoundError:
        if not make:
            raise
        with suppress(FileExistsError):  # another process was first
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        return os.open(name, _LOOK, dir_fd=parent_fd)


def _check(fd: int, at: str, path: Path) -> str | None:
    """Check one path component; return its target if it is a symbolic link."""
    status = os.fstat(fd)
    if status.st_uid not in (0, os.geteuid()) and not _is_unmapped(status.st_uid):
        raise DeniedError(
            f"state directory {path}: {at} belongs to {_user_name(status.st_uid)}, who can change where it leads",
            _OTHER_DIRECTORY,
        )
    if stat.S_ISLNK(status.st_mode):
        return os.readlink("", dir_fd=fd)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), at)
    if not status.st_mode & stat.S_ISVTX and _is_writable_by_others(fd, status):
        raise DeniedError(
            f"state directory {path}: {at} can be written to by other users, who can change where it leads",
            f"chmod go-w {at}, or {_OTHER_DIRECTORY}",
        )
    return None


def _is_writable_by_others(fd: int, status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_private_group(fd, status)


def _is_private_group(fd: int, status: os.stat_result) -> bool:
    """Whether the caller is the only member of a directory's group, according to the account database.

    This holds if each user has a group ("usergroups" of pam_umask(8)), and in a Jupyter image, where the home of the only
    user is writable by the group "users" or by the volume's group in Kubernetes (fsGroup).  With an access control list,
    the mode's group bits are its mask (acl(5)), so the answer is no.
    """
    import grp  # late: seldom needed
    import pwd

    gid = status.st_gid
    if gid not in (os.getegid(), *os.getgroups()) or _has_access_list(fd):
        return False
    accounts = pwd.getpwall()
    trusted = {account.pw_name for account in accounts if account.pw_uid in (0, os.geteuid())}
    members = {account.pw_name for account in accounts if account.pw_gid == gid}
    try:
        group = grp.getgrgid(gid)
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        return members <= trusted
    if (group.gr_name, gid) == (user.pw_name, user.pw_gid):
        return set(group.gr_mem) <= {user.pw_name}
    # A directory service often lists no accounts, so others may have the group if it does not list the caller's.
    return user.pw_name in trusted and members.union(group.gr_mem) <= trusted


def _has_access_list(fd: int) -> bool:
    try:
        os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access")
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP)
    return True


def _is_unmapped(uid: int) -> bool:
    """Whether an owner may be root of an outer user namespace, which has no id in this one."""
    if uid != _UNMAPPED_ID:
        return False
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def _user_name(uid: int) -> str:
    import pwd  # late: for an error only

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
