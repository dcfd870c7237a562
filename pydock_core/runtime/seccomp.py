"""Compiles an OCI ``linux.seccomp`` object to a BPF program, caches it and loads it.

libseccomp compiles it (through the pyseccomp package, imported only for a profile that is not in the cache).  A
hand-written prologue covers system calls that are newer than the installed libseccomp: a call that the profile allows is
allowed by its number, and a call newer than every number known here gets ENOSYS, so that a C library falls back to an
older call instead of taking EPERM for a refusal.
"""

from __future__ import annotations

import binascii
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import FailedError, InvalidError, UnavailableError, UnsupportedError
from pydock_core.private_files import make_directories, open_private

_FORMAT = 3  # raise when the generated programs change, so that cached ones are compiled again

_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}
_OPERATORS = {
    "SCMP_CMP_NE": "NE",
    "SCMP_CMP_LT": "LT",
    "SCMP_CMP_LE": "LE",
    "SCMP_CMP_EQ": "EQ",
    "SCMP_CMP_GE": "GE",
    "SCMP_CMP_GT": "GT",
    "SCMP_CMP_MASKED_EQ": "MASKED_EQ",
}
_ARCHITECTURES = {
    "SCMP_ARCH_X86": "X86",
    "SCMP_ARCH_X86_64": "X86_64",
    "SCMP_ARCH_X32": "X32",
    "SCMP_ARCH_ARM": "ARM",
    "SCMP_ARCH_AARCH64": "AARCH64",
}
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # include/uapi/linux/audit.h

NEWER_CALLS = {
    "quotactl_fd": 443,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
    "memfd_secret": 447,
    "process_mrelease": 448,
    "futex_waitv": 449,
    "set_mempolicy_home_node": 450,
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
"""Calls by their number, which is one on every architecture from 424 on (up to Linux 6.17)."""

_RET_ALLOW = 0x7FFF0000
_RET_ERRNO_ENOSYS = 0x00050000 | 38
_X32_BIT = 0x40000000
_NO_LIMIT = 0xFFFFFFFF
_UNKNOWN = -1

_kept: dict[str, bytes] = {}


def build_prologue(allowed: list[int], highest_known: int, audit_architecture: int) -> bytes:
    """Assemble the classic BPF that runs before libseccomp's program (see the module's first lines).

    Args:
        allowed: numbers that are always allowed.
        highest_known: numbers above it get ENOSYS (x32 numbers excepted).
        audit_architecture: AUDIT_ARCH_* for which the numbers hold; others pass on.
    """
    load, jump_equal, jump_greater, jump_greater_equal, give = 0x20, 0x15, 0x25, 0x35, 0x06
    count = len(allowed)
    # After the body come: ENOSYS, ALLOW, and then libseccomp's program, whose first instruction loads anew.
    body: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (jump_equal, 0, count + 5, audit_architecture),
        (load, 0, 0, 0),  # seccomp_data.nr
        *((jump_equal, count - index + 2, 0, number) for index, number in enumerate(allowed)),
        (jump_greater_equal, 3, 0, _X32_BIT),
        (jump_greater, 0, 2, highest_known),
        (give, 0, 0, _RET_ERRNO_ENOSYS),
        (give, 0, 0, _RET_ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in body)


def read_flags(profile: Mapping[str, Any]) -> int:
    """Return the SECCOMP_FILTER_FLAG_* bits of a profile; UnsupportedError for an unsupported setting."""
    bits = 0
    for flag in profile.get("flags") or ():
        if flag not in _FLAGS:
            raise UnsupportedError(f"seccomp flag {flag} is not supported")
        bits |= _FLAGS[flag]
    if profile.get("listenerPath"):
        raise UnsupportedError(
            "seccomp.listenerPath is not supported", "use a profile without SCMP_ACT_NOTIFY"
        )
    return bits


def prepare_program(profile: Mapping[str, Any], cache_dir: Path | None = None) -> bytes:
    """Return the BPF program of an OCI ``linux.seccomp`` object; compile it once, then keep it.

    Args:
        profile: the object, with its conditions on capabilities and kernels resolved.
        cache_dir: directory for programs, one file each, named by a checksum of the input; None keeps none.

    Raises:
        InvalidError, UnsupportedError: the profile is malformed, or has an unsupported setting.
        UnavailableError: libseccomp or its binding is missing.
    """
    document = json.dumps([_FORMAT, syscalls.MACHINE, profile], sort_keys=True, separators=(",", ":"))
    program = _kept.get(document)
    if program is not None:
        return program
    read_flags(profile)
    origin = document.encode()
    path = cache_dir / f"seccomp-{binascii.crc32(origin):08x}.bpf" if cache_dir is not None else None
    program = _read_kept(path, origin) if path is not None else None
    if program is None:
        program = _compile(profile)
        if path is not None:
            _keep(path, origin, program)
    _kept[document] = program
    return program


# A kept file is what the program was made of, whole, a zero byte, the program's checksum, and the program.  So the
# checksum in its name may be a weak one (hashlib would bring OpenSSL into every supervisor); the other one guards
# against a torn write.  The directory is ours alone (0700).


def _read_kept(path: Path, origin: bytes) -> bytes | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    start = len(origin) + 5
    program = data[start:]
    if not program or data[:start] != _build_head(origin, program):
        return None
    return program


def _keep(path: Path, origin: bytes, program: bytes) -> None:
    make_directories(path.parent)
    temporary = path.with_suffix(f".{os.getpid()}")
    with open(temporary, "wb", opener=open_private) as file:
        file.write(_build_head(origin, program) + program)
    temporary.rename(path)


def _build_head(origin: bytes, program: bytes) -> bytes:
    return origin + b"\0" + struct.pack("=I", binascii.crc32(program))


def _compile(profile: Mapping[str, Any]) -> bytes:
    """Build the filter with libseccomp and export it, with the prologue in front."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError) as error:
        raise UnavailableError(
            f"cannot compile the seccomp profile: {error}",
            "install libseccomp (Debian: apt install libseccomp2), or use --security-opt seccomp=unconfined",
        ) from error
    native = _NATIVE.get(syscalls.MACHINE)
    if native is None:
        raise UnsupportedError(f"seccomp is not supported on {syscalls.MACHINE}", "use seccomp=unconfined")
    default = _build_action(pyseccomp, str(profile["defaultAction"]), profile.get("defaultErrnoRet"))
    program = pyseccomp.SyscallFilter(defaction=default)
    program.set_attr(pyseccomp.Attr.CTL_NNP, 0)  # no_new_privs is the process's own setting
    for architecture in profile.get("architectures") or (native,):
        name = _ARCHITECTURES.get(architecture)
        if name is None:
            continue  # of another machine: none of its calls can be made here
        arch = getattr(pyseccomp.Arch, name)
        if not program.exist_arch(arch):
            program.add_arch(arch)
    by_number: set[int] = set()
    for rule in profile.get("syscalls") or ():
        by_number.update(_add_rule(pyseccomp, program, rule, default))
    # As in runc: only a profile that refuses by an errno tells which calls its author knew.
    highest = _find_highest(pyseccomp, profile) if profile["defaultAction"] == "SCMP_ACT_ERRNO" else _NO_LIMIT
    return build_prologue(sorted(by_number), highest, _AUDIT_ARCH[syscalls.MACHINE]) + _export(program)


def _find_highest(binding: Any, profile: Mapping[str, Any]) -> int:
    """Return the highest number among the profile's calls: the newest call that its author can have known."""
    names = [name for rule in profile.get("syscalls") or () for name in rule["names"]]
    numbers = [max(_resolve(binding, name), NEWER_CALLS.get(name, 0)) for name in names]
    return max(numbers, default=_NO_LIMIT)


def _resolve(binding: Any, name: str) -> int:
    """Return libseccomp's number of a call; _UNKNOWN if it does not know the call."""
    try:
        return int(binding.resolve_syscall(binding.Arch.NATIVE, name))
    except ValueError:
        return _UNKNOWN


def _export(program: Any) -> bytes:
    with open(os.memfd_create("seccomp", os.MFD_CLOEXEC), "w+b") as stream:
        program.export_bpf(stream)
        stream.seek(0)
        return stream.read()


def _add_rule(binding: Any, program: Any, rule: Mapping[str, Any], default: int) -> list[int]:
    """Add one OCI rule; return the numbers of unconditionally allowed calls that are unknown to libseccomp."""
    action = _build_action(binding, str(rule["action"]), rule.get("errnoRet"))
    if action == default:
        return []  # libseccomp refuses a rule that changes nothing (EACCES)
    arguments = [_build_argument(binding, argument) for argument in rule.get("args") or ()]
    indices = [argument.get("index") for argument in rule.get("args") or ()]
    # Several conditions on one argument are alternatives, as runc and Docker have it (libseccomp ANDs them).
    alternatives = (
        [arguments] if len(set(indices)) == len(indices) else [[argument] for argument in arguments]
    )
    unknown: list[int] = []
    for name in rule["names"]:
        if _resolve(binding, name) == _UNKNOWN:
            if action == binding.ALLOW and not arguments and name in NEWER_CALLS:
                unknown.append(NEWER_CALLS[name])
            continue  # a call of another architecture or of another time cannot be made
        for conditions in alternatives:
            try:
                program.add_rule(action, name, *conditions)
            except OSError as error:
                raise FailedError(f"seccomp: the rule for {name} was refused: {error}") from error
    return unknown


def _build_action(binding: Any, action: str, errno_return: int | None) -> int:
    number = 1 if errno_return is None else int(errno_return)  # EPERM is the specification's default
    match action:
        case "SCMP_ACT_ALLOW":
            return int(binding.ALLOW)
        case "SCMP_ACT_ERRNO":
            return int(binding.ERRNO(number))
        case "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD":
            return int(binding.KILL_THREAD)
        case "SCMP_ACT_KILL_PROCESS":
            return int(binding.KILL_PROCESS)
        case "SCMP_ACT_TRAP":
            return int(binding.TRAP)
        case "SCMP_ACT_TRACE":
            return int(binding.TRACE(number))
        case "SCMP_ACT_LOG":
            return int(binding.LOG)
    raise UnsupportedError(f"seccomp action {action} is not supported")


def _build_argument(binding: Any, argument: Mapping[str, Any]) -> Any:
    operator = _OPERATORS.get(str(argument.get("op")))
    if operator is None:
        raise InvalidError(f"seccomp: unknown operator {argument.get('op')}")
    value, second = int(argument["value"]), int(argument.get("valueTwo") or 0)
    return binding.Arg(int(argument["index"]), getattr(binding, operator), value, second)
