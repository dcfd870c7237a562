"""Compilation of seccomp profiles, and the prologue for newer system calls."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from pydock_core import syscalls
from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.runtime import seccomp
from pydock_core.runtime.seccomp import build_prologue, prepare_program, read_flags
from pydock_core.spec.defaults import CAPABILITIES
from pydock_core.spec.seccomp_profile import read_default_profile, resolve_profile

ALLOW, ERRNO, LIMIT = 0x7FFF0000, 0x00050000, 400
NATIVE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}.get(syscalls.MACHINE, 0)
needs_machine = pytest.mark.skipif(not NATIVE, reason=f"no seccomp numbers for {syscalls.MACHINE}")


def run(program: bytes, number: int, architecture: int, arguments: tuple[int, ...] = ()) -> int:
    """Interpret a classic BPF program as seccomp(2) does; -1 where it runs past its end."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *(*arguments, *(0,) * (6 - len(arguments))))
    accumulator, position, memory = 0, 0, [0] * 16
    while position * 8 < len(program):
        code, on_true, on_false, value = struct.unpack_from("=HBBI", program, position * 8)
        position += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x54:
                accumulator &= value
            case 0x02:
                memory[value] = accumulator
            case 0x60:
                accumulator = memory[value]
            case 0x05:
                position += value
            case 0x15:
                position += on_true if accumulator == value else on_false
            case 0x25:
                position += on_true if accumulator > value else on_false
            case 0x35:
                position += on_true if accumulator >= value else on_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"instruction {code:#x}")
    return -1


@pytest.mark.parametrize(
    ("number", "expected"),
    [(452, ALLOW), (5, -1), (LIMIT, -1), (LIMIT + 1, ERRNO | 38), (0x40000005, -1), (462, ALLOW)],
)
def test_the_prologue(number: int, expected: int) -> None:
    program = build_prologue([452, 462], LIMIT, 77)
    assert run(program, number, 77) == expected
    assert run(program, number, 78) == -1


def test_the_prologue_without_calls() -> None:
    assert run(build_prologue([], LIMIT, 77), LIMIT + 1, 77) == ERRNO | 38


@needs_machine
def test_the_default_profile() -> None:
    profile = resolve_profile(read_default_profile(), CAPABILITIES, syscalls.MACHINE, (6, 1))
    program = prepare_program(profile)
    assert len(program) % 8 == 0
    numbers = {"x86_64": (0, 165, 435), "aarch64": (63, 40, 435)}[syscalls.MACHINE]
    verdicts = [run(program, number, NATIVE) for number in numbers]
    assert verdicts == [ALLOW, ERRNO | 1, ERRNO | 38]  # read, mount, clone3
    assert run(program, 452, NATIVE) == ALLOW  # fchmodat2, which libseccomp may not know
    assert run(program, 0x3FFFFFF, NATIVE) == ERRNO | 38


@needs_machine
def test_programs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}],
    }
    monkeypatch.setattr(seccomp, "_kept", {})
    program = prepare_program(profile, tmp_path)
    (kept,) = tmp_path.iterdir()

    def refuse(_: Any) -> bytes:
        raise AssertionError("compiled anew")

    with monkeypatch.context() as patched:
        patched.setattr(seccomp, "_compile", refuse)
        assert prepare_program(profile, tmp_path) == program
        patched.setattr(seccomp, "_kept", {})
        assert prepare_program(profile, tmp_path) == program
    # A torn file is not believed.
    kept.write_bytes(kept.read_bytes()[:-8])
    monkeypatch.setattr(seccomp, "_kept", {})
    assert prepare_program(profile, tmp_path) == program


@needs_machine
def test_conditions_on_one_argument_are_alternatives() -> None:
    conditions = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (5, 6)]
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": conditions}],
    }
    program = prepare_program(profile)
    number = {"x86_64": 135, "aarch64": 92}[syscalls.MACHINE]
    assert [run(program, number, NATIVE, (value,)) for value in (4, 5, 6)] == [ALLOW, ERRNO | 1, ERRNO | 1]


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"},
        {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW"]},
    ],
)
def test_what_cannot_be_done_is_refused(profile: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        prepare_program(profile)


@needs_machine
def test_an_unknown_operator() -> None:
    rule = {
        "names": ["read"],
        "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_ODD"}],
    }
    with pytest.raises(InvalidError):
        prepare_program({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})


def test_flags() -> None:
    assert read_flags({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}) == 6
