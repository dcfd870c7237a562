"""Socket families in a seccomp profile: by 32 bits, and not by socketcall."""

from __future__ import annotations

from typing import Any

import pytest

from pydock_core import syscalls
from pydock_core.runtime.seccomp import prepare_program
from pydock_core.spec.defaults import CAPABILITIES
from pydock_core.spec.seccomp_profile import read_default_profile, resolve_profile
from pydock_core.spec.seccomp_sockets import narrow_sockets
from tests.unit.test_runtime_seccomp import ALLOW, run

EPERM, ENOSYS = 0x00050000 | 1, 0x00050000 | 38
X86_64, X86, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
AF_ALG, AF_VSOCK, AF_MAX = 38, 40, 46


def default_program(machine: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The default profile compiled for a machine, whatever this one is."""
    monkeypatch.setattr(syscalls, "MACHINE", machine)
    return prepare_program(resolve_profile(read_default_profile(), CAPABILITIES, machine, (6, 1)))


@pytest.mark.parametrize(
    ("machine", "architecture", "number", "bits"),
    [
        ("x86_64", X86_64, 41, 64),
        ("x86_64", X86_64, 41 | 0x40000000, 64),
        ("x86_64", X86, 359, 32),
        ("aarch64", AARCH64, 198, 64),
        ("aarch64", ARM, 281, 32),
    ],
)
def test_families_by_every_architecture(
    machine: str, architecture: int, number: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = default_program(machine, monkeypatch)
    for upper in (0, 1 << 32, 0xFFFFFFFF << 32) if bits == 64 else (0,):
        for family in range(AF_MAX):
            expected = EPERM if family in (AF_ALG, AF_VSOCK) else ALLOW
            assert run(program, number, architecture, (upper | family, 1, 0)) == expected, (upper, family)
    assert run(program, number, architecture, (1000, 1, 0)) == EPERM


def test_socketcall_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    program = default_program("x86_64", monkeypatch)
    assert {run(program, 102, X86, (call, 0)) for call in range(25)} == {ENOSYS}


def rule(op: str, value: int, *others: dict[str, Any], second: int = 0) -> dict[str, Any]:
    family = {"index": 0, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{op}"}
    return {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [family, *others]}


@pytest.mark.parametrize(
    ("op", "value", "second", "families"),
    [
        ("EQ", 1 << 32 | 2, 0, {2}),
        ("NE", 40, 0, set(range(64)) - {40}),
        ("LT", 3, 0, {0, 1, 2}),
        ("LE", 3, 0, {0, 1, 2, 3}),
        ("GE", 61, 0, {61, 62, 63}),
        ("GT", 61, 0, {62, 63}),
        ("MASKED_EQ", 0xFFFFFFFE, 4, {4, 5}),
    ],
)
def test_each_operator_is_spelled_out(op: str, value: int, second: int, families: set[int]) -> None:
    narrowed = narrow_sockets([rule(op, value, second=second)], "SCMP_ACT_ALLOW")
    conditions = [each["args"][0] for each in narrowed]
    assert {each["op"] for each in conditions} == {"SCMP_CMP_MASKED_EQ"}
    assert families == {
        number for number in range(64) for each in conditions if number & each["value"] == each["valueTwo"]
    }


def test_other_conditions_and_names_are_kept() -> None:
    kind = {"index": 1, "value": 3, "op": "SCMP_CMP_EQ"}
    mixed = {**rule("EQ", 2, kind), "names": ["socket", "connect"]}
    others, narrowed = narrow_sockets([mixed], "SCMP_ACT_ALLOW")
    assert others == {**mixed, "names": ["connect"]}
    assert narrowed["args"][1] == kind
    # Several conditions on one argument are alternatives.
    either = rule("EQ", 2, {"index": 0, "value": 10, "op": "SCMP_CMP_EQ"})
    assert [each["args"][0]["valueTwo"] for each in narrow_sockets([either], "SCMP_ACT_ALLOW")] == [2, 10]


def test_socketcall_follows_what_the_profile_says_of_families() -> None:
    refusal = {"names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    named = {"names": ["socketcall"], "action": "SCMP_ACT_ALLOW"}
    plain = {"names": ["socket"], "action": "SCMP_ACT_ALLOW"}
    assert narrow_sockets([rule("NE", 40)], "SCMP_ACT_ERRNO")[0] == refusal
    assert refusal not in narrow_sockets([rule("NE", 40), named], "SCMP_ACT_ERRNO")
    assert narrow_sockets([plain], "SCMP_ACT_ERRNO") == [plain]
