"""Translates OCI device rules to cgroup version 1 lines and to a version 2 eBPF program.  Pure.

The last matching rule decides, as in version 1, whose files are written in order; a request without a matching rule is
allowed.  Documents: admin-guide/cgroup-v1/devices.rst, admin-guide/cgroup-v2.rst ("Device
controller"), include/uapi/linux/bpf.h (struct bpf_cgroup_dev_ctx).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydock_core.errors import InvalidError

_ACCESS = {"m": 1, "r": 2, "w": 4}
_ALL = 7
_TYPES = {"b": 1, "c": 2, "u": 2}


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """A rule: ``kind`` is "a" (both), "b" or "c"; None stands for any number; ``access`` is a subset of "rwm"."""

    allow: bool
    kind: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"

    @property
    def is_for_everything(self) -> bool:
        return (
            self.kind == "a" and self.major is None and self.minor is None and set(self.access) == set("rwm")
        )


DEFAULT_RULES = (
    DeviceRule(True, "c", None, None, "m"),
    DeviceRule(True, "b", None, None, "m"),
    *(DeviceRule(True, "c", 1, minor) for minor in (3, 5, 7, 8, 9)),
    DeviceRule(True, "c", 5, 0),
    DeviceRule(True, "c", 5, 2),
    DeviceRule(True, "c", 136, None),
)
"""Rules for every container, as in runc: creating nodes, the default devices, its terminals."""


def parse_rules(entries: Iterable[Mapping[str, Any]]) -> list[DeviceRule]:
    """Read ``linux.resources.devices`` and append the default rules; an empty list stays empty (no filter).

    Raises:
        InvalidError: an unknown type or access.
    """
    rules: list[DeviceRule] = []
    for entry in entries:
        kind = str(entry.get("type") or "a")
        access = str(entry.get("access") or "rwm")
        if kind != "a" and kind not in _TYPES:
            raise InvalidError(f"linux.resources.devices: unknown device type {kind}")
        if set(access) - set(_ACCESS):
            raise InvalidError(f"linux.resources.devices: unknown access {access}")
        major, minor = (_number(entry.get(name)) for name in ("major", "minor"))
        rules.append(DeviceRule(bool(entry.get("allow")), "c" if kind == "u" else kind, major, minor, access))
    return [*rules, *DEFAULT_RULES] if rules else []


def _number(value: int | None) -> int | None:
    return None if value is None or value < 0 else value


def build_v1_lines(rules: Sequence[DeviceRule]) -> list[tuple[str, str]]:
    """Return (file, line) pairs to be written in order."""
    lines = []
    for rule in rules:
        file = "devices.allow" if rule.allow else "devices.deny"
        if rule.is_for_everything:
            lines.append((file, "a"))
            continue
        numbers = ":".join("*" if number is None else str(number) for number in (rule.major, rule.minor))
        kinds = ("c", "b") if rule.kind == "a" else (rule.kind,)
        lines += [(file, f"{kind} {numbers} {rule.access}") for kind in kinds]
    return lines


# eBPF registers: r2 type, r3 access, r4 major, r5 minor, r1 scratch, r0 the verdict.
_LOAD_WORD = 0x61
_AND = 0x57
_SHIFT_RIGHT = 0x77
_MOVE_REGISTER = 0xBF
_MOVE_VALUE = 0xB7
_JUMP_NOT_EQUAL_VALUE = 0x55
_JUMP_NOT_EQUAL_REGISTER = 0x5D
_JUMP_EQUAL_VALUE = 0x15
_EXIT = 0x95


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, destination | source << 4, offset, value)


def build_v2_program(rules: Sequence[DeviceRule]) -> bytes:
    """Assemble an eBPF program of type CGROUP_DEVICE, 8 bytes an instruction.

    It tests the rules from the last to the first and returns 1 (allow) or 0 (deny) at the first match.  Rules before a
    rule for everything are left out, because the kernel's verifier refuses unreachable code.
    """
    parts = [
        _instruction(_LOAD_WORD, 2, 1, 0),
        _instruction(_MOVE_REGISTER, 3, 2),
        _instruction(_AND, 2, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, 3, value=16),
        _instruction(_LOAD_WORD, 4, 1, 4),
        _instruction(_LOAD_WORD, 5, 1, 8),
    ]
    for rule in reversed(rules):
        parts.append(_build_rule(rule))
        if rule.is_for_everything:
            return b"".join(parts)
    parts.append(_return(allow=True))
    return b"".join(parts)


def _return(*, allow: bool) -> bytes:
    return _instruction(_MOVE_VALUE, 0, value=int(allow)) + _instruction(_EXIT)


def _build_rule(rule: DeviceRule) -> bytes:
    """Assemble one rule: tests that jump past it if they fail, and then the verdict."""
    access = sum(_ACCESS[letter] for letter in set(rule.access))
    tests: list[tuple[bytes, int, int, int, int]] = []  # before the jump; code, destination, source, value
    if rule.kind != "a":
        tests.append((b"", _JUMP_NOT_EQUAL_VALUE, 2, 0, _TYPES[rule.kind]))
    if access != _ALL:
        masked = _instruction(_MOVE_REGISTER, 1, 3) + _instruction(_AND, 1, value=access)
        # An allowing rule must cover every requested access; a denying rule matches if it covers any of them.
        code = _JUMP_NOT_EQUAL_REGISTER if rule.allow else _JUMP_EQUAL_VALUE
        tests.append((masked, code, 1, 3 if rule.allow else 0, 0))
    if rule.major is not None:
        tests.append((b"", _JUMP_NOT_EQUAL_VALUE, 4, 0, rule.major))
    if rule.minor is not None:
        tests.append((b"", _JUMP_NOT_EQUAL_VALUE, 5, 0, rule.minor))
    block = _return(allow=rule.allow)
    for before, code, destination, source, value in reversed(tests):
        block = before + _instruction(code, destination, source, len(block) // 8, value) + block
    return block
