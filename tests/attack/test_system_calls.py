"""The default seccomp profile by every door that an x86-64 kernel has: 64-bit, x32, and 32-bit by int 0x80."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

from pydock_core import syscalls
from pydock_core.spec.seccomp_profile import read_default_profile
from tests.support.call_program import X32, Call, build_program, read_results
from tests.support.executor_box import UNCONFINED, Box, with_profile
from tests.support.executor_fixtures import only

pytestmark = pytest.mark.skipif(syscalls.MACHINE != "x86_64", reason="needs x86-64: the doors are its own")

AF_UNIX, AF_INET, AF_ALG, AF_VSOCK, STREAM, SEQPACKET = 1, 2, 38, 40, 1, 5
NEWUSER, FS = 0x10000000, 0x200
HIGH = 1 << 32
"""A bit that the kernel does not read of an int, and seccomp compares."""

REFUSED = {
    # With these arguments, an unfiltered kernel says something else, or does it.
    "socket AF_VSOCK": ("socket", (AF_VSOCK, STREAM, 0)),
    "socket AF_ALG": ("socket", (AF_ALG, SEQPACKET, 0)),
    "unshare": ("unshare", (NEWUSER | 1,)),
    "clone": ("clone", (NEWUSER | FS,)),
    "clone3": ("clone3", (0, 0)),
    "setns": ("setns", (-1, 0)),
    "keyctl": ("keyctl", (999,)),
    "add_key": ("add_key", (0, 0, 0, 0, 0)),
    "request_key": ("request_key", (0, 0, 0, 0)),
    "bpf": ("bpf", (999, 0, 0)),
    "userfaultfd": ("userfaultfd", (0x7FFF,)),
    "io_uring_setup": ("io_uring_setup", (0, 0)),
    "personality": ("personality", (0x0040000,)),
    "perf_event_open": ("perf_event_open", (0, 0, 0, 0, 0)),
    "open_by_handle_at": ("open_by_handle_at", (-1, 0, 0)),
    "mount": ("mount", (0, 0, 0, 0, 0)),
    "move_mount": ("move_mount", (-1, 0, -1, 0, 0)),
    "kcmp": ("kcmp", (0, 0, 99, 0, 0)),
    "move_pages": ("move_pages", (0, 0, 0, 0, 0, 99)),
    "mbind": ("mbind", (1, 0, 0, 0, 0, 0)),
    "finit_module": ("finit_module", (-1, 0, 99)),
}
NUMBERS = {
    # arch/x86/entry/syscalls/syscall_64.tbl, with x32's own where it has them, and syscall_32.tbl
    "socket": (41, 359),
    "unshare": (272, 310),
    "clone": (56, 120),
    "clone3": (435, 435),
    "setns": (308, 346),
    "keyctl": (250, 288),
    "add_key": (248, 286),
    "request_key": (249, 287),
    "bpf": (321, 357),
    "userfaultfd": (323, 374),
    "io_uring_setup": (425, 425),
    "personality": (135, 136),
    "perf_event_open": (298, 336),
    "open_by_handle_at": (304, 342),
    "mount": (165, 21),
    "move_mount": (429, 429),
    "kcmp": (312, 349),
    "move_pages": (279, 317),
    "mbind": (237, 274),
    "finit_module": (313, 350),
}
SOCKETCALL, SYS_SOCKET = 102, 1


def socketcall(family: int, kind: int) -> Call:
    """socket(2) by the 32-bit multiplexer, its arguments behind a pointer."""
    return Call("int80", SOCKETCALL, (SYS_SOCKET, struct.pack("<III", family, kind, 0)))


def doors() -> dict[str, Call]:
    """Every refused call by every door."""
    calls: dict[str, Call] = {}
    for what, (name, arguments) in REFUSED.items():
        native, compat = NUMBERS[name]
        calls[f"{what}, 64-bit"] = Call("syscall", native, arguments)
        calls[f"{what}, 32-bit"] = Call("int80", compat, arguments)
        calls[f"{what}, x32"] = Call("syscall", native | X32, arguments)
    for family, kind in ((AF_VSOCK, STREAM), (AF_ALG, SEQPACKET)):
        calls[f"family {family}, socketcall"] = socketcall(family, kind)
        calls[f"family {family}, high bits"] = Call("syscall", 41, (HIGH | family, kind, 0))
        calls[f"family {family}, all high bits"] = Call("syscall", 41, ((HIGH - 1) << 32 | family, kind, 0))
        calls[f"family {family}, high bits, x32"] = Call("syscall", 41 | X32, (HIGH | family, kind, 0))
    calls["personality, high bits"] = Call("syscall", 135, (HIGH | 0x0040000,))
    calls["ptrace, x32"] = Call("syscall", 521 | X32, (99, 0, 0, 0))
    return calls


ALLOWED = {
    "AF_INET": Call("syscall", 41, (AF_INET, STREAM, 0)),
    "AF_INET with high bits": Call("syscall", 41, (HIGH | AF_INET, STREAM, 0)),
    "AF_UNIX": Call("syscall", 41, (AF_UNIX, STREAM, 0)),
    "AF_INET, 32-bit": Call("int80", 359, (AF_INET, STREAM, 0)),
    "AF_UNIX, 32-bit": Call("int80", 359, (AF_UNIX, STREAM, 0)),
}


def results(box: Box, calls: dict[str, Call], **host: Any) -> list[dict[str, int]]:
    """Make the calls in a container's first process and in an exec; what each returned."""
    program = box.make_rootfs() / "bin" / "calls"
    program.write_bytes(build_program(list(calls.values())))
    program.chmod(0o755)
    box.give(program.parent)
    script = ("sh", "-c", "calls | od -An -v -tx1")
    ended = [box.run(*script, host=host), box.start("sleep", "1000", host=host).exec(*script)]
    assert [result.code for result in ended] == [0, 0]
    written = [bytes.fromhex("".join(result.out.split())) for result in ended]
    return [dict(zip(calls, read_results(each), strict=True)) for each in written]


@only("embedded", "embedded-userns", "crun")
def test_no_door_opens_what_another_refuses(box: Box) -> None:
    calls = doors() | ALLOWED
    refusals = (-errno.EPERM, -errno.ENOSYS)
    for returned in results(box, calls):
        opened = {what for what, value in returned.items() if what not in ALLOWED and value not in refusals}
        assert opened == set()
        assert [what for what in ALLOWED if returned[what] < 0] == []


@only("embedded")
def test_the_doors_are_there_without_a_filter(box: Box) -> None:
    """Else what is refused above may be refused by the kernel alone."""
    returned, _ = results(box, doors(), **UNCONFINED, Privileged=True)
    refusals = (-errno.EPERM, -errno.ENOSYS)
    optional = (
        "io_uring_setup",
        "userfaultfd",
        "kcmp",
        "mbind",
        "move_pages",
        "bpf",
        "keyctl",
        "_key",
        "module",
    )
    # Of x32 few kernels have anything (CONFIG_X86_X32_ABI).
    unexplained = {
        what
        for what, value in returned.items()
        if value in refusals and "x32" not in what and not any(name in what for name in optional)
    }
    assert unexplained == set()
    for family in (AF_VSOCK, AF_ALG):
        native = returned["socket AF_VSOCK, 64-bit" if family == AF_VSOCK else "socket AF_ALG, 64-bit"]
        for door in ("socketcall", "high bits"):
            assert (returned[f"family {family}, {door}"] >= 0) == (native >= 0)


@only("embedded")
def test_a_profile_of_ones_own(box: Box) -> None:
    calls = {"inet": socketcall(AF_INET, STREAM), "alg": Call("syscall", 41, (HIGH | AF_ALG, SEQPACKET, 0))}
    denying = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {
                "names": ["socket"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 99,
                "args": [{"index": 0, "value": AF_ALG, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    assert [each["alg"] for each in results(box, calls, **with_profile(denying))] == [-99, -99]
    default = read_default_profile()
    opened = {
        **default,
        "syscalls": [*default["syscalls"], {"names": ["socketcall"], "action": "SCMP_ACT_ALLOW"}],
    }
    assert all(each["inet"] >= 0 for each in results(box, calls, **with_profile(opened)))
    assert all(each["inet"] == -errno.ENOSYS for each in results(box, calls))
