"""Linux capabilities: their names and numbers, and setting the five sets of a process.

The numbers are from include/uapi/linux/capability.h, and the order of the steps is from capabilities(7).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping

from pydock_core import syscalls
from pydock_core.errors import InvalidError

NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
_NUMBERS = {name: number for number, name in enumerate(NAMES)}
SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def normalize_name(name: str) -> str:
    """Return ``CAP_NAME`` for a capability in any case, with or without its prefix.

    Raises:
        InvalidError: no capability has this name.
    """
    upper = name.upper()
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in _NUMBERS:
        raise InvalidError(f"{name}: no capability has this name", "see capabilities(7) for the names")
    return full


def build_mask(names: Iterable[str]) -> int:
    """Return the bit mask of the capabilities named; InvalidError for an unknown name."""
    mask = 0
    for name in names:
        mask |= 1 << _NUMBERS[normalize_name(name)]
    return mask


def holds(mask: int, name: str) -> bool:
    """Whether a bit mask includes the capability ``name``."""
    return bool(mask & 1 << _NUMBERS[name])


def build_masks(sets: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Return the mask of each of the five sets of an OCI ``process.capabilities`` object (absent: empty)."""
    return {name: build_mask(sets.get(name) or ()) for name in SETS}


def drop_bounding(keep: int) -> None:
    """Drop the capabilities outside the mask ``keep`` from the bounding set; needs CAP_SETPCAP."""
    for number in range(64):
        if not keep >> number & 1:
            try:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return  # past the kernel's last capability
                raise


def apply_sets(masks: Mapping[str, int]) -> None:
    """Set the effective, permitted, inheritable and ambient sets; the bounding set has been dropped already.

    Capabilities that the process does not hold cannot be set and are left out, as in Docker with a confined runtime.
    """
    _, held, _ = syscalls.capget()
    permitted = masks["permitted"] & held
    inheritable = masks["inheritable"] & (held | masks["bounding"])
    syscalls.capset(masks["effective"] & permitted, permitted, inheritable & held)
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    ambient = masks["ambient"] & permitted & inheritable
    for number in range(len(NAMES)):
        if ambient >> number & 1:
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)
