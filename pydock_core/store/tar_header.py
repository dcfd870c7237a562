"""Parses the headers of a tar archive: pure functions over blocks of bytes.

Formats: POSIX ustar and pax (pax(1), "ustar Interchange Format", "pax Header Block"), GNU tar's old format with its long
names and sparse files ("GNU tar internals"), V7 and star (star(5)).  An ambiguous header is read as Go's archive/tar reads
it, which Docker, containerd and podman use for layers.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from zlib import adler32

BLOCK_BYTES = 512
SIZE_LIMIT = 1 << 60
_ADLER_MODULUS = 65521
_POSIX, _GNU, _STAR_TRAILER = b"ustar\0", b"ustar  \0", b"tar\0"
_TERMINATORS = (0, 32)
_SECOND = 1_000_000_000
_LARGEST_NS = (1 << 63) - 1
_LONGEST_NUMBER = 20
_SCHILY, _LIBARCHIVE, _SPARSE = b"SCHILY.xattr.", b"LIBARCHIVE.xattr.", b"GNU.sparse."
_CACHED = 1024

DIRECTORY, REGULAR, OLD_REGULAR, CONTIGUOUS, OLD_SPARSE = b"50\x007S"
LONG_NAME, LONG_LINK, PAX, SOLARIS_PAX, GLOBAL_PAX = b"LKxXg"
"""Values of a header's type field."""
_GNU_TYPES = (LONG_NAME, LONG_LINK, OLD_SPARSE)


class HeaderError(Exception):
    """A block is not a valid header; the message completes "is not a valid tar archive: "."""


class Header(NamedTuple):
    """The fields of a header.

    Attributes:
        type: the type field; DIRECTORY for a directory of V7, too.
        name: with its prefix; a directory's without trailing slashes.
        mode: permission bits, 0o7777 at most.
        uid, gid: not checked.
        size_bytes: 0 or more, below SIZE_LIMIT.
        mtime_ns: since the epoch, 0 or more.
        link: the target of a link.
        device: (major, minor).
    """

    type: int
    name: bytes
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    link: bytes
    device: tuple[int, int]


def check_sum(block: bytes) -> None:
    """Compare a header's checksum, of signed or unsigned bytes, with its content.

    adler32 computes the sum in C: its lower half is the sum of the bytes plus one, modulo 65521.

    Raises:
        HeaderError: the checksum is wrong.
    """
    digits = block[148:154]
    if digits.isdigit() and block[154] in _TERMINATORS:
        expected = _parse_octal(digits) - 256
    else:
        expected = parse_number(block[148:156]) - 256
    found = (adler32(block[156:], adler32(block[:148])) & 0xFFFF) - 1
    if (found - expected) % _ADLER_MODULUS:
        negative = sum(byte > 127 for byte in block[:148]) + sum(byte > 127 for byte in block[156:])
        if (found - (negative << 8) - expected) % _ADLER_MODULUS:
            raise HeaderError("a header has a wrong checksum")


def parse_header(block: bytes) -> Header:
    """Return the fields of a header whose checksum has been verified.

    Raises:
        HeaderError: a field is not a number, or the size is impossible.
    """
    kind = block[156]
    mode, uid, gid, device = _parse_owner(block[100:124] + block[329:345])
    size_bytes = parse_size(block)
    name = block[:100].partition(b"\0")[0]
    if kind == OLD_REGULAR and name.endswith(b"/"):
        kind = DIRECTORY
    if block[345] and kind not in _GNU_TYPES and (prefix := _prefix(block)):
        name = prefix + b"/" + name
    if kind == DIRECTORY:
        name = name.rstrip(b"/")
    link = block[157:257].partition(b"\0")[0] if block[157] else b""
    mtime_ns = _parse_time(block[136:148])
    return tuple.__new__(Header, (kind, name, mode, uid, gid, size_bytes, mtime_ns, link, device))


def parse_size(block: bytes) -> int:
    """Return the size field of a header.

    Raises:
        HeaderError: it is not a number, or the size is impossible.
    """
    digits = block[124:135]
    if digits.isdigit() and block[135] in _TERMINATORS:
        return _parse_octal(digits)
    return check_size(parse_number(block[124:136]))


def check_size(size_bytes: int) -> int:
    """Return a size.

    Raises:
        HeaderError: the size is negative, or larger than any file.
    """
    if not 0 <= size_bytes < SIZE_LIMIT:
        raise HeaderError(f"an entry claims a size of {size_bytes} bytes")
    return size_bytes


def parse_number(field: bytes) -> int:
    """Return a numeric field: octal digits, or GNU's and star's base-256; 0 for an empty one.

    Raises:
        HeaderError: the field is neither.
    """
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if value >> (bits - 1) else value
    return _parse_octal(field.partition(b"\0")[0].strip() or b"0")


def _parse_octal(digits: bytes) -> int:
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:  # a digit 8 or 9
            pass
    raise HeaderError("a header has a field that is not a number")


@lru_cache(_CACHED)
def _parse_owner(fields: bytes) -> tuple[int, int, int, tuple[int, int]]:
    """Parse (mode, uid, gid, device); cached, because many headers have the same."""
    mode, uid, gid, major, minor = (parse_number(fields[start : start + 8]) for start in range(0, 40, 8))
    return mode & 0o7777, uid, gid, (major, minor)


@lru_cache(_CACHED)
def _parse_time(field: bytes) -> int:
    return min(max(parse_number(field), 0), _LARGEST_NS // _SECOND) * _SECOND


def _prefix(block: bytes) -> bytes:
    """Return the prefix of a header's name.

    star stores times after a shorter prefix (star(5)); old GNU headers have times in its place, and V7 headers have
    nothing.  A defect of Go before 1.8 wrote a prefix into GNU headers; as in Go's archive/tar (reader.go), the field of
    such a header counts as a prefix if it is text and not a time.
    """
    if block[257:263] == _POSIX:
        end = 476 if block[508:512] == _STAR_TRAILER else 500
        return block[345:end].partition(b"\0")[0]
    if block[257:265] == _GNU:
        field = block[345:500].partition(b"\0")[0]
        if field.isascii() and not (_is_number(block[345:357]) and _is_number(block[357:369])):
            return field
    return b""


def _is_number(field: bytes) -> bool:
    try:
        parse_number(field)
    except HeaderError:
        return False
    return True


# -- extended headers ------------------------------------------------------------------------------------


class Extension(NamedTuple):
    """The fields of an extended header; None or b"" for absent ones.

    Attributes:
        path, link: replace the header's; the caller refuses zero bytes in them.
        size_bytes: of the stored data.
        mtime_ns, uid, gid: replace the header's.
        xattrs: (name, value) of each extended attribute.
        sparse: the GNU.sparse records without that prefix, in their order; a name may occur twice.
    """

    path: bytes
    link: bytes
    size_bytes: int | None
    mtime_ns: int | None
    uid: int | None
    gid: int | None
    xattrs: tuple[tuple[bytes, bytes], ...]
    sparse: tuple[tuple[bytes, bytes], ...]


Records = list[tuple[bytes, bytes]]


def parse_records(body: bytes) -> Records:
    """Return the (key, value) records of a pax header, in their order.

    Raises:
        HeaderError: a record is malformed.
    """
    records = []
    position, end = 0, len(body)
    while position < end and body[position]:
        space = body.find(b" ", position, position + _LONGEST_NUMBER + 1)
        digits = body[position:space]
        if space < 0 or not digits.isdigit():
            raise HeaderError("an extended header has a record without a length")
        stop = position + int(digits)
        equals = body.find(b"=", space, stop)
        if stop > end or equals <= space + 1 or body[stop - 1] != 10:
            raise HeaderError("an extended header has a record that its length does not fit")
        key = body[space + 1 : equals]
        if b"\0" in key:
            raise HeaderError("an extended header has a key with a null byte")
        records.append((key, body[equals + 1 : stop - 1]))
        position = stop
    return records


def parse_extension(records: Records) -> Extension:
    """Interpret records; the last one of a key counts, and an empty value leaves the header's field unchanged.

    Raises:
        HeaderError: a value is not a number.
    """
    path = link = b""
    size_bytes = mtime_ns = uid = gid = None
    xattrs: dict[bytes, bytes] | None = None
    sparse: list[tuple[bytes, bytes]] = []
    libarchive: Records = []
    for key, value in records:
        if key == b"mtime":
            mtime_ns = _parse_decimal_time(value) if value else None
        elif key == b"path":
            path = value
        elif key.startswith(_SCHILY):
            xattrs = xattrs or {}
            xattrs[key[len(_SCHILY) :]] = value
        elif key == b"linkpath":
            link = value
        elif key == b"size":
            size_bytes = check_size(_parse_decimal(value)) if value else None
        elif key == b"uid":
            uid = _parse_decimal(value) if value else None
        elif key == b"gid":
            gid = _parse_decimal(value) if value else None
        elif key.startswith(_SPARSE):
            sparse.append((key[len(_SPARSE) :], value))
        elif key.startswith(_LIBARCHIVE):
            libarchive.append((key[len(_LIBARCHIVE) :], value))
    if libarchive:
        xattrs = dict(map(_decode_libarchive, libarchive)) | (xattrs or {})
    attributes = tuple(xattrs.items()) if xattrs else ()
    return Extension(path, link, size_bytes, mtime_ns, uid, gid, attributes, tuple(sparse))


def _decode_libarchive(record: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Decode libarchive's record of an attribute: a quoted name, and the value in base64."""
    from urllib.parse import unquote_to_bytes  # late: only bsdtar writes such records

    name = unquote_to_bytes(record[0])
    try:
        value = binascii.a2b_base64(record[1] + b"=" * (-len(record[1]) % 4))
    except binascii.Error as error:
        raise HeaderError("an extended header has an attribute that is not base64") from error
    if not name or b"\0" in name:
        raise HeaderError("an extended header has an attribute without a valid name")
    return name, value


def _parse_decimal(text: bytes) -> int:
    if not text.removeprefix(b"-").isdigit() or len(text) > _LONGEST_NUMBER:
        raise HeaderError("an extended header has a field that is not a number")
    return int(text)


@lru_cache(_CACHED)
def _parse_decimal_time(text: bytes) -> int:
    """Return a time in nanoseconds; 0 for a time before the epoch, or a malformed one."""
    whole, _, fraction = text.partition(b".")
    if not whole.isdigit() or (fraction and not fraction.isdigit()) or len(whole) > _LONGEST_NUMBER:
        return 0
    return min(int(whole) * _SECOND + int(fraction[:9].ljust(9, b"0")), _LARGEST_NS)


# -- sparse files ----------------------------------------------------------------------------------------

Parts = list[tuple[int, int]]
"""(offset in the file, length) of each part with data."""


def parse_old_sparse(block: bytes) -> tuple[Parts, bool, int]:
    """Return the parts in a header of type OLD_SPARSE, whether more blocks of them follow, and the file's size.

    Raises:
        HeaderError: a field is not a number.
    """
    return _parse_parts(block[386:482]), bool(block[482]), check_size(parse_number(block[483:495]))


def parse_more_old_sparse(block: bytes) -> tuple[Parts, bool]:
    """Return the parts in a block that continues such a header, and whether another one follows.

    Raises:
        HeaderError: a field is not a number.
    """
    return _parse_parts(block[:504]), bool(block[504])


def _parse_parts(fields: bytes) -> Parts:
    """Parse a table; unused places and the end marker have the length 0."""
    numbers = [parse_number(fields[start : start + 12]) for start in range(0, len(fields), 12)]
    return [part for part in zip(numbers[::2], numbers[1::2], strict=True) if part[1]]


def is_sparse(record: tuple[bytes, bytes]) -> bool:
    """Whether a record describes a sparse file."""
    return record[0].startswith(_SPARSE)


def parse_sparse_size(fields: Mapping[bytes, bytes], stored_bytes: int) -> int:
    """Return the size of a sparse file, holes included; the stored size if its records do not give one.

    Raises:
        HeaderError: it is not a number, or the size is impossible.
    """
    text = fields.get(b"realsize") or fields.get(b"size")
    return check_size(_parse_decimal(text)) if text else stored_bytes


def parse_count(text: bytes) -> int:
    """Return the number of parts from the first line of a map of format 1.0.

    Raises:
        HeaderError: it is not a number.
    """
    return check_size(_parse_decimal(text))


def parse_sparse_records(sparse: Sequence[tuple[bytes, bytes]]) -> Parts:
    """Return the parts from the records of format 0.0 or 0.1.

    Raises:
        HeaderError: a value is not a number.
    """
    fields = dict(sparse)
    if b"map" in fields:
        numbers = [_parse_decimal(text) for text in fields[b"map"].split(b",")]
        return list(zip(numbers[::2], numbers[1::2], strict=False))
    offsets = [_parse_decimal(value) for key, value in sparse if key == b"offset"]
    lengths = [_parse_decimal(value) for key, value in sparse if key == b"numbytes"]
    return list(zip(offsets, lengths, strict=False))


def parse_sparse_map(numbers: list[bytes]) -> Parts:
    """Return the parts from a map of format 1.0, which precedes the data: one number per line.

    Raises:
        HeaderError: a line is not a number.
    """
    values = [_parse_decimal(text) for text in numbers]
    return list(zip(values[::2], values[1::2], strict=True))
