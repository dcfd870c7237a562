"""Enforces a profile's rules on socket families by closing two ways around them.  Pure.

The upper half of a register: ``socket(2)`` takes an int, of which the kernel reads 32 bits, but seccomp compares
64.  ``socket(1 << 32 | AF_ALG, ...)`` is "greater than AF_VSOCK" for Docker's profile, and AF_ALG for the kernel.  So a
condition on the family is expanded into comparisons of 32 bits over the existing families.

``socketcall(2)`` of 32-bit x86 (int 0x80, also from a 64-bit program) passes the family through a pointer, which a
filter cannot follow.  libseccomp allows it with each rule that allows ``socket``.  Unless a profile names it,
it gets ENOSYS: musl falls back to ``socket``, and 32-bit programs that use glibc have no sockets.
Sources: CVE-2026-31431; moby/moby pull requests 52494 (refuse) and 52547 (leave it to AppArmor and SELinux).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_FAMILIES = 64
"""An upper limit of the families: AF_MAX is 46 in Linux 6.18."""
_ENOSYS = 38
_WORD = 0xFFFFFFFF

_CONDITIONS: dict[str, Callable[[int, int, int], bool]] = {
    "SCMP_CMP_NE": lambda family, value, second: family != value,
    "SCMP_CMP_LT": lambda family, value, second: family < value,
    "SCMP_CMP_LE": lambda family, value, second: family <= value,
    "SCMP_CMP_EQ": lambda family, value, second: family == value,
    "SCMP_CMP_GE": lambda family, value, second: family >= value,
    "SCMP_CMP_GT": lambda family, value, second: family > value,
    "SCMP_CMP_MASKED_EQ": lambda family, value, second: family & value == second,
}


def narrow_sockets(rules: Sequence[Mapping[str, Any]], default_action: str) -> list[dict[str, Any]]:
    """Return a profile's rules, with those on ``socket`` valid for every entry to the kernel.

    Args:
        rules: of an OCI ``linux.seccomp`` object.
        default_action: of that object.
    """
    narrowed: list[dict[str, Any]] = []
    has_conditions = False
    for rule in rules:
        if "socket" not in rule["names"] or not rule.get("args"):
            narrowed.append(dict(rule))
            continue
        has_conditions = True
        others = [name for name in rule["names"] if name != "socket"]
        if others:
            narrowed.append({**rule, "names": others})
        narrowed += [{**rule, "names": ["socket"], "args": args} for args in _spell_out(rule["args"])]
    is_named = any("socketcall" in rule["names"] for rule in rules)
    if not has_conditions or is_named or default_action == "SCMP_ACT_ALLOW":
        return narrowed
    # First, because libseccomp then adds no rule of its own; ENOSYS, because a rule equal to the default is dropped.
    return [{"names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS}, *narrowed]


def _spell_out(arguments: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the alternatives of a rule's conditions, with the family compared by 32 bits."""
    indices = [argument.get("index") for argument in arguments]
    # Several conditions on one argument are alternatives, as in runc.
    alternatives = [list(arguments)] if len(set(indices)) == len(indices) else [[each] for each in arguments]
    spelled: list[list[dict[str, Any]]] = []
    for conditions in alternatives:
        family = next((each for each in conditions if each.get("index") == 0), None)
        others = [dict(each) for each in conditions if each is not family]
        holds = _CONDITIONS.get(str(family.get("op"))) if family is not None else None
        if family is None or holds is None:
            spelled.append([dict(each) for each in conditions])  # an unknown operator is refused later
            continue
        value, second = int(family["value"]) & _WORD, int(family.get("valueTwo") or 0) & _WORD
        families = [number for number in range(_FAMILIES) if holds(number, value, second)]
        spelled += [[_block(start, size), *others] for start, size in _blocks(families)]
    return spelled


def _blocks(families: Sequence[int]) -> list[tuple[int, int]]:
    """Split numbers into blocks of one mask each: start and size, a power of two that divides the start."""
    blocks: list[tuple[int, int]] = []
    left = set(families)
    for number in families:
        if number not in left:
            continue
        size = 1
        while number % (2 * size) == 0 and left.issuperset(range(number, number + 2 * size)):
            size *= 2
        blocks.append((number, size))
        left.difference_update(range(number, number + size))
    return blocks


def _block(start: int, size: int) -> dict[str, Any]:
    return {"index": 0, "value": _WORD & ~(size - 1), "valueTwo": start, "op": "SCMP_CMP_MASKED_EQ"}
