"""The reading of glibc's /etc/ld.so.cache, and its reduction to the image's libraries.

The format is ``struct cache_file_new`` of glibc's sysdeps/generic/dl-cache.h ("glibc-ld.so.cache1.1"): a
header of 48 bytes, entries of 24 bytes sorted by the loader's own order, then the strings; offsets count from
the header.  A subset of sorted entries is sorted.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER = struct.Struct("=20sIIB3xI12x")
_ENTRY = struct.Struct("=iIIIQ")
_LITTLE, _BIG = 2, 3  # cache_file_new_flags_endian_*
_EXTENSION = 1 << 62  # DL_CACHE_HWCAP_EXTENSION: the entry is for glibc-hwcaps, listed in an extension


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A library: its soname, its path, and the loader's own fields."""

    soname: str
    path: str
    flags: int
    os_version: int
    hwcap: int


def parse_cache(data: bytes) -> list[CacheEntry]:
    """Return the entries of a cache, in its order; none if it has another format."""
    start = data.find(_MAGIC)
    if start < 0 or len(data) < start + _HEADER.size:
        return []
    body = data[start:]
    _, count, _, _, _ = _HEADER.unpack_from(body)
    if len(body) < _HEADER.size + count * _ENTRY.size:
        return []

    def text(offset: int) -> str:
        end = body.find(b"\0", offset)
        return body[offset : end if end >= 0 else len(body)].decode("utf-8", "surrogateescape")

    entries = []
    for index in range(count):
        flags, key, value, os_version, hwcap = _ENTRY.unpack_from(body, _HEADER.size + index * _ENTRY.size)
        entries.append(CacheEntry(text(key), text(value), flags, os_version, hwcap))
    return entries


def build_cache(entries: list[CacheEntry], keep: Callable[[str], bool]) -> bytes:
    """Return a cache of the entries whose path ``keep`` accepts, without glibc-hwcaps variants."""
    kept = [entry for entry in entries if not entry.hwcap & _EXTENSION and keep(entry.path)]
    strings, places = bytearray(), {}
    base = _HEADER.size + len(kept) * _ENTRY.size
    for entry in kept:
        for text in (entry.soname, entry.path):
            if text not in places:
                places[text] = base + len(strings)
                strings += text.encode("utf-8", "surrogateescape") + b"\0"
    order = _LITTLE if sys.byteorder == "little" else _BIG
    packed = [_HEADER.pack(_MAGIC, len(kept), len(strings), order, 0)]
    packed += [
        _ENTRY.pack(entry.flags, places[entry.soname], places[entry.path], entry.os_version, entry.hwcap)
        for entry in kept
    ]
    return b"".join(packed) + bytes(strings)
