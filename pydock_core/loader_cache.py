"""The reading and writing of glibc's /etc/ld.so.cache.

The format is ``struct cache_file_new`` of glibc's sysdeps/generic/dl-cache.h ("glibc-ld.so.cache1.1"): a
header of 48 bytes, entries of 24 bytes sorted by the loader's own order, the strings, and an extension that names
the glibc-hwcaps directories.  Offsets count from the header.  A subset of sorted entries is sorted.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

LIBC6_FLAG = 0x0003
"""FLAG_ELF_LIBC6, in the lowest byte of an entry's flags."""
MACHINE_FLAGS = {"x86_64": 0x0303, "aarch64": 0x0A03}
"""The flags of a library of the machine's own word size, by ``uname -m``."""
COMPAT32_FLAGS = {"x86_64": 0x0003}
"""The flags of a 32-bit library, by ``uname -m``."""

_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER = struct.Struct("=20sIIB3xI12x")
_ENTRY = struct.Struct("=iIIIQ")
_SECTION = struct.Struct("=IIII")
_LITTLE, _BIG = 2, 3  # cache_file_new_flags_endian_*
_EXTENSION = 1 << 62  # DL_CACHE_HWCAP_EXTENSION: the entry is for glibc-hwcaps, listed in an extension
_EXTENSION_MAGIC = 0xEAA42174
_HWCAPS_TAG = 1  # cache_extension_tag_glibc_hwcaps
_PART = re.compile(r"[0-9]{1,18}|\D|\d")
_LONGEST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A library: its soname, its path, and the loader's fields."""

    soname: str
    path: str
    flags: int
    os_version: int = 0
    hwcap: int = 0


def parse_cache(data: bytes) -> list[CacheEntry]:
    """Return the entries of a cache, in its order; none if it has another format."""
    start = data.find(_MAGIC)
    if start < 0 or len(data) < start + _HEADER.size:
        return []
    body = data[start:]
    _, count, _, _, _ = _HEADER.unpack_from(body)
    if len(body) < _HEADER.size + count * _ENTRY.size:
        return []
    entries = []
    for index in range(count):
        flags, key, value, os_version, hwcap = _ENTRY.unpack_from(body, _HEADER.size + index * _ENTRY.size)
        entries.append(CacheEntry(_text(body, key), _text(body, value), flags, os_version, hwcap))
    return entries


def parse_hwcaps(data: bytes) -> list[str]:
    """Return the names of a cache's glibc-hwcaps directories, indexed by the hwcap fields of its entries."""
    start = data.find(_MAGIC)
    if start < 0 or len(data) < start + _HEADER.size:
        return []
    place = _HEADER.unpack_from(data, start)[4]  # from the beginning of the file
    if not place or place + 8 > len(data):
        return []
    magic, sections = struct.unpack_from("=II", data, place)
    if magic != _EXTENSION_MAGIC or place + 8 + sections * _SECTION.size > len(data):
        return []
    for index in range(sections):
        tag, _, offset, size = _SECTION.unpack_from(data, place + 8 + index * _SECTION.size)
        if tag == _HWCAPS_TAG and offset + size <= len(data):
            body = data[start:]
            return [
                _text(body, name)
                for (name,) in struct.iter_unpack("=I", data[offset : offset + size // 4 * 4])
            ]
    return []


def _text(body: bytes, offset: int) -> str:
    """Return a string of the table, cut at the maximum length of a path, because a damaged table may have no end."""
    end = body.find(b"\0", offset, offset + _LONGEST_BYTES)
    return body[offset : end if end >= 0 else offset + _LONGEST_BYTES].decode("utf-8", "surrogateescape")


def build_cache(entries: list[CacheEntry], keep: Callable[[str], bool]) -> bytes:
    """Return a cache of the entries whose path ``keep`` accepts, without glibc-hwcaps variants."""
    return _pack([entry for entry in entries if not entry.hwcap & _EXTENSION and keep(entry.path)], ())


def merge_cache(data: bytes, added: Iterable[CacheEntry]) -> bytes:
    """Return a cache with further libraries.

    A library replaces all entries of the same soname and flags; the first of several added ones wins.

    Args:
        data: a cache; data that is empty or of another format counts as a cache without entries.
        added: libraries in any order.
    """
    chosen: dict[tuple[str, int], CacheEntry] = {}
    for entry in added:
        chosen.setdefault((entry.soname, entry.flags), entry)
    kept = [entry for entry in parse_cache(data) if (entry.soname, entry.flags) not in chosen]
    # The sort is stable: entries of one soname stay in ldconfig's order, by which the loader chooses.
    ordered = sorted([*chosen.values(), *kept], key=lambda entry: loader_key(entry.soname), reverse=True)
    return _pack(ordered, parse_hwcaps(data))


def loader_key(soname: str) -> list[tuple[int, int]]:
    """Return a sort key in the order of glibc's _dl_cache_libcmp(): numbers by value, and after other characters."""
    return [
        (1, int(part)) if part.isascii() and part.isdigit() else (0, ord(part))
        for part in _PART.findall(soname)
    ]


def _pack(entries: Sequence[CacheEntry], hwcaps: Sequence[str]) -> bytes:
    strings, places = bytearray(), {}
    base = _HEADER.size + len(entries) * _ENTRY.size
    for text in (*(text for entry in entries for text in (entry.soname, entry.path)), *hwcaps):
        if text not in places:
            places[text] = base + len(strings)
            strings += text.encode("utf-8", "surrogateescape") + b"\0"
    extension = b""
    if hwcaps:
        strings += b"\0" * (-(base + len(strings)) % 4)
        place = base + len(strings)
        names = struct.pack(f"={len(hwcaps)}I", *(places[name] for name in hwcaps))
        extension = struct.pack("=II", _EXTENSION_MAGIC, 1)
        extension += _SECTION.pack(_HWCAPS_TAG, 0, place + 8 + _SECTION.size, len(names)) + names
    order = _LITTLE if sys.byteorder == "little" else _BIG
    offset = base + len(strings) if hwcaps else 0
    packed = [_HEADER.pack(_MAGIC, len(entries), len(strings), order, offset)]
    packed += [
        _ENTRY.pack(entry.flags, places[entry.soname], places[entry.path], entry.os_version, entry.hwcap)
        for entry in entries
    ]
    return b"".join(packed) + bytes(strings) + extension
