"""Qualified names of devices: vendor.com/class=name.  Pure.

The rules are those of the CDI specification ("Kind", "CDI Devices"); a device's name may have colons too, as the
reference implementation allows (NVIDIA's MIG devices: 0:1).
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_VENDOR = re.compile(rf"(?=.{{1,253}}\Z)[A-Za-z](?:[A-Za-z0-9_-]{{0,61}}[A-Za-z0-9])?(?:\.{_LABEL})*")
_CLASS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")


class QualifiedName(NamedTuple):
    """A kind and a device's name."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}={self.name}"


def is_kind(text: str) -> bool:
    """Whether a text is vendor.com/class."""
    vendor, slash, kind = text.partition("/")
    return bool(slash and _VENDOR.fullmatch(vendor) and _CLASS.fullmatch(kind))


def is_device_name(text: str) -> bool:
    """Whether a text can name a device of a kind."""
    return bool(_NAME.fullmatch(text))


def parse_qualified(text: str) -> QualifiedName | None:
    """Parse vendor.com/class=name; return None for other texts, such as a path."""
    kind, equals, name = text.partition("=")
    return QualifiedName(kind, name) if equals and is_kind(kind) and is_device_name(name) else None


def is_qualified_name(text: str) -> bool:
    """Whether a text is vendor.com/class=name."""
    return parse_qualified(text) is not None
