"""System calls that Python's os module lacks; the only module that uses ctypes.

Every function raises :class:`OSError` with the kernel's errno.  Descriptors that are returned are
close-on-exec.  The numbers are those of x86_64 and aarch64 (arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h); calls from 424 on have one number on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from typing import Any

MACHINE = os.uname().machine

# -- constants -------------------------------------------------------------------------------------------

CLONE_PARENT = 0x00008000
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MNT_DETACH = 2

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

O_PATH = 0x200000
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

PROC_SUPER_MAGIC = 0x9FA0
TMPFS_MAGIC = 0x01021994
SYSFS_MAGIC = 0x62656572
DEVPTS_SUPER_MAGIC = 0x1CD1
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

KEYCTL_JOIN_SESSION_KEYRING = 1

_SYNC_FILE_RANGE_WRITE = 2
_RENAME_NOREPLACE = 1

SECCOMP_SET_MODE_FILTER = 1

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2

_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_PER_MACHINE = {
    "x86_64": {
        "clone": 56,
        "capget": 125,
        "capset": 126,
        "pivot_root": 155,
        "keyctl": 250,
        "renameat2": 316,
        "seccomp": 317,
        "bpf": 321,
    },
    "aarch64": {
        "clone": 220,
        "capget": 90,
        "capset": 91,
        "pivot_root": 41,
        "keyctl": 219,
        "renameat2": 276,
        "seccomp": 277,
        "bpf": 280,
    },
}
_NUMBERS = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    **_PER_MACHINE.get(MACHINE, {}),
}

CLOSE_RANGE_CLOEXEC = 4

IN_ATTRIB = 0x4
IN_DELETE_SELF = 0x400

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# Holds the interpreter's lock during the call, which a fork needs.
_libc_with_lock = ctypes.PyDLL(None, use_errno=True)
_libc_with_lock.syscall.restype = ctypes.c_long
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_libc.mount.argtypes = (*(ctypes.c_char_p,) * 3, ctypes.c_ulong, ctypes.c_char_p)
_libc.personality.argtypes = (ctypes.c_ulong,)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def _check(result: int, subject: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
    return result


def _syscall(name: str, *arguments: Any, subject: str | None = None) -> int:
    """Call by number.  Plain integers are widened: a variadic C int would leave the upper half undefined."""
    number = _NUMBERS.get(name)
    if number is None:
        raise OSError(38, f"unknown system call number: {name} on {MACHINE}", subject)
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _check(int(_libc.syscall(ctypes.c_long(number), *wide)), subject)


def fork(flags: int) -> int:
    """os.fork() with flags of clone(2): CLONE_NEWPID, CLONE_PARENT and others that do not share memory.

    For a process of one thread.  What os.fork() does around the system call is done here too.

    Returns:
        The child's pid in the caller's PID namespace; 0 in the child.
    """
    number = _NUMBERS.get("clone")
    if number is None:
        raise OSError(38, f"unknown system call number: clone on {MACHINE}")
    # The exit signal is the lowest byte; with CLONE_PARENT the kernel takes the caller's own instead.  All the
    # other arguments are zero: without a stack of its own, the child continues here, as after fork(2).
    arguments = [ctypes.c_long(value) for value in (number, flags | signal.SIGCHLD, 0, 0, 0, 0)]
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(_libc_with_lock.syscall(*arguments))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    error_number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(error_number, os.strerror(error_number))
    return pid


# -- namespaces ------------------------------------------------------------------------------------------


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags))


def setns(descriptor: int, kinds: int) -> None:
    """setns(2): join the namespace of a file, or with a pidfd (Linux 5.8) all of ``kinds`` at once."""
    _check(_libc.setns(descriptor, kinds))


def set_domain_name(name: str) -> None:
    """setdomainname(2): the NIS domain name of the UTS namespace."""
    data = name.encode()
    _check(_libc.setdomainname(data, ctypes.c_size_t(len(data))), name)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2); ``(".", ".")`` stacks the old root over the new one, ready to be detached."""
    _syscall("pivot_root", os.fsencode(new_root), os.fsencode(put_old), subject=new_root)


# -- mounts ----------------------------------------------------------------------------------------------


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2), the old interface: propagation changes, and overlays of older kernels."""
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode(),
            flags,
            os.fsencode(data) if data else None,
        ),
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def open_tree(directory_fd: int, path: str, flags: int) -> int:
    """open_tree(2): with OPEN_TREE_CLONE a detached copy of a mount, as a descriptor."""
    return _syscall(
        "open_tree", directory_fd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC, subject=path or None
    )


def move_mount(from_fd: int, to_fd: int) -> None:
    """move_mount(2): attach the detached mount ``from_fd`` on what ``to_fd`` refers to; no path is looked up."""
    _syscall("move_mount", from_fd, b"", to_fd, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def fsopen(kind: str) -> int:
    """fsopen(2): a context in which a filesystem of this kind is configured."""
    return _syscall("fsopen", kind.encode(), FSOPEN_CLOEXEC, subject=kind)


def fsconfig_set(context_fd: int, key: str, value: str | None = None) -> None:
    """fsconfig(2): set a string parameter (at most 255 bytes, a limit of the kernel), or a flag (None)."""
    if value is None:
        _syscall("fsconfig", context_fd, _FSCONFIG_SET_FLAG, key.encode(), None, 0, subject=key)
    else:
        data = os.fsencode(value)
        _syscall(
            "fsconfig", context_fd, _FSCONFIG_SET_STRING, key.encode(), data, 0, subject=f"{key}={value}"
        )


def fsconfig_create(context_fd: int) -> None:
    """fsconfig(2): make the superblock."""
    _syscall("fsconfig", context_fd, _FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(context_fd: int, attributes: int = 0) -> int:
    """fsmount(2): a detached mount of the configured filesystem; ``attributes`` are MOUNT_ATTR_*."""
    return _syscall("fsmount", context_fd, FSMOUNT_CLOEXEC, attributes)


def mount_setattr(
    mount_fd: int,
    *,
    attributes_set: int = 0,
    attributes_clear: int = 0,
    propagation: int = 0,
    recursive: bool = False,
) -> None:
    """mount_setattr(2) (Linux 5.12) on the mount that ``mount_fd`` refers to, or on the tree below it too."""
    record = struct.pack("=QQQQ", attributes_set, attributes_clear, propagation, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _syscall("mount_setattr", mount_fd, b"", flags, record, len(record))


def openat2(directory_fd: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2) (Linux 5.6); the descriptor is close-on-exec."""
    record = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _syscall("openat2", directory_fd, os.fsencode(path), record, len(record), subject=path)


def rename_noreplace(source_dir: int, source: str, target_dir: int, target: str) -> None:
    """renameat2(2) with RENAME_NOREPLACE: FileExistsError if the target exists."""
    _syscall(
        "renameat2",
        source_dir,
        os.fsencode(source),
        target_dir,
        os.fsencode(target),
        _RENAME_NOREPLACE,
        subject=source,
    )


def filesystem_magic(descriptor: int) -> int:
    """fstatfs(2): the f_type of the filesystem that a descriptor (O_PATH too) is on."""
    # struct statfs is 120 bytes on both machines and begins with a word-sized f_type.
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.fstatfs(descriptor, buffer))
    return int(ctypes.c_long.from_buffer(buffer).value) & 0xFFFFFFFF


def sync_file_range(descriptor: int, offset: int, count: int) -> None:
    """sync_file_range(2) with SYNC_FILE_RANGE_WRITE: start writing a range to disk, without waiting.

    It makes nothing durable (the metadata stays out); a later fsync(2) finds less to do.
    """
    _check(_libc.sync_file_range(descriptor, offset, count, _SYNC_FILE_RANGE_WRITE))


def syncfs(descriptor: int) -> None:
    """syncfs(2): write the dirty data of a descriptor's filesystem to its device."""
    _check(_libc.syncfs(descriptor))


# -- credentials and limits ------------------------------------------------------------------------------


def prctl(option: int, argument2: int = 0, argument3: int = 0, argument4: int = 0, argument5: int = 0) -> int:
    """prctl(2) with integer arguments."""
    return _check(_libc.prctl(option, argument2, argument3, argument4, argument5))


def capget() -> tuple[int, int, int]:
    """capget(2) of the calling thread: the effective, permitted and inheritable sets as bit masks."""
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    _syscall("capget", header, data)
    low_e, low_p, low_i, high_e, high_p, high_i = struct.unpack("=6I", data.raw)
    return low_e | high_e << 32, low_p | high_p << 32, low_i | high_i << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) on the calling thread; the sets are bit masks."""
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    sets = (effective, permitted, inheritable)
    data = struct.pack("=6I", *(value & low for value in sets), *(value >> high for value in sets))
    _syscall("capset", header, data)


def close_range(first_fd: int, last_fd: int = 0x7FFFFFFF, flags: int = 0) -> None:
    """close_range(2) (Linux 5.9; CLOSE_RANGE_CLOEXEC 5.11)."""
    _syscall("close_range", first_fd, last_fd, flags)


def close_except(*kept_fds: int) -> None:
    """Close every descriptor above the standard streams except the given ones."""
    first = 3
    for kept_fd in sorted(kept_fds):
        if first < kept_fd:
            close_range(first, kept_fd - 1)
        first = max(first, kept_fd + 1)
    close_range(first)


def inotify_init() -> int:
    """inotify_init1(2): a queue of file events; the descriptor does not block and is close-on-exec."""
    return _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def inotify_add_watch(queue_fd: int, path: str, mask: int) -> int:
    """inotify_add_watch(2): queue the events of a file that are in ``mask`` (IN_*)."""
    return _check(_libc.inotify_add_watch(queue_fd, os.fsencode(path), ctypes.c_uint32(mask)), path)


def join_new_session_keyring() -> None:
    """keyctl(2): leave the caller's session keyring for a new, anonymous one."""
    _syscall("keyctl", KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)


def personality(persona: int) -> int:
    """personality(2): set the execution domain, return the previous one."""
    return _check(_libc.personality(persona))


def seccomp_load(program: bytes, flags: int = 0) -> None:
    """seccomp(2): install a classic BPF program (8 bytes an instruction) on the calling thread."""
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a 16-bit length, padding to a pointer's alignment, the pointer.
    header = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _syscall("seccomp", SECCOMP_SET_MODE_FILTER, flags, header)


def bpf_load_device_program(instructions: bytes) -> int:
    """bpf(2): load an eBPF program of type CGROUP_DEVICE (8 bytes an instruction); return its descriptor."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attribute = struct.pack(
        "=IIQQIIQII",
        BPF_PROG_TYPE_CGROUP_DEVICE,
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
    )
    program_fd = _syscall("bpf", BPF_PROG_LOAD, attribute, len(attribute))
    os.set_inheritable(program_fd, False)
    return program_fd


def bpf_attach_device_program(cgroup_fd: int, program_fd: int) -> None:
    """bpf(2): attach a device program to a version 2 cgroup; programs attached above it stay in force."""
    attribute = struct.pack("=IIIII", cgroup_fd, program_fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI, 0)
    _syscall("bpf", BPF_PROG_ATTACH, attribute, len(attribute))
