"""The subset of DNS's wire format for a containers' name server (RFC 1035, RFC 6891).  Pure.

Queries are hostile input: every message except one well-formed question raises :class:`MalformedQuery`.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, PTR, AAAA, OPT = 1, 12, 28, 41
INTERNET = 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NAME_ERROR, NOT_IMPLEMENTED = range(5)
HEADER_BYTES = 12
PLAIN_UDP_BYTES = 512
"""The maximum answer to a client that announces no other size (RFC 1035, section 4.2.1)."""
LARGEST_BYTES = 65535

_RESPONSE, _TRUNCATED, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800
_LONGEST_LABEL, _LONGEST_NAME = 63, 255
_MOST_ADDITIONAL = 4
_QUESTION_POINTER = b"\xc0\x0c"
_EDNS_BYTES = 1232


class MalformedQuery(ValueError):
    """The data is not a query; ``identifier`` is its id, None if it has none or must not be answered."""

    def __init__(self, reason: str, identifier: int | None = None) -> None:
        super().__init__(reason)
        self.identifier = identifier


@dataclass(frozen=True, slots=True)
class Query:
    """A query.

    Attributes:
        identifier: the client's query id.
        flags: flags of the header.
        name: the name in lower case, without the final dot; a dot or a backslash in a label is escaped.
        kind: the requested record type.
        question: the question section, unchanged.
        size_bytes: the maximum size of an answer over UDP.
        has_edns: whether the client sent an OPT record.
    """

    identifier: int
    flags: int
    name: str
    kind: int
    question: bytes
    size_bytes: int
    has_edns: bool

    @property
    def is_standard(self) -> bool:
        """Whether it is a standard query for the Internet's records."""
        return not self.flags & _OPCODE and self.question[-2:] == b"\0\1"


def parse_query(data: bytes) -> Query:
    """Read a query.

    Raises:
        MalformedQuery: the data is not a query.
    """
    if len(data) < HEADER_BYTES:
        raise MalformedQuery("shorter than a header")
    identifier, flags, questions, answers, authorities, additional = struct.unpack_from(">6H", data)
    if flags & _RESPONSE:
        raise MalformedQuery("a response")
    if questions != 1 or answers or authorities or additional > _MOST_ADDITIONAL:
        raise MalformedQuery("not one question", identifier)
    try:
        labels, offset = _read_name(data, HEADER_BYTES)
        kind, _ = struct.unpack_from(">2H", data, offset)
        offset += 4
        question = data[HEADER_BYTES:offset]
        size_bytes = _read_size(data, offset, additional)
    except (struct.error, IndexError) as error:
        raise MalformedQuery("cut short", identifier) from error
    except MalformedQuery as error:
        raise MalformedQuery(str(error), identifier) from error
    name = ".".join(map(_show_label, labels)).lower()
    return Query(identifier, flags, name, kind, question, size_bytes or PLAIN_UDP_BYTES, bool(size_bytes))


def _read_name(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """Read a name without pointers; a question's name cannot contain any."""
    labels: list[bytes] = []
    begin = offset
    while length := data[offset]:
        if length > _LONGEST_LABEL:
            raise MalformedQuery("a pointer or a long label in the question")
        label = data[offset + 1 : offset + 1 + length]
        if len(label) < length:
            raise MalformedQuery("cut short")
        labels.append(label)
        offset += 1 + length
        if offset - begin >= _LONGEST_NAME:
            raise MalformedQuery("a name longer than 255 bytes")
    return labels, offset + 1


def _show_label(label: bytes) -> str:
    return label.decode("latin-1").replace("\\", "\\\\").replace(".", "\\.")


def _read_size(data: bytes, offset: int, count: int) -> int:
    """Return the UDP size of an OPT record among the additional ones, at least the plain size; 0 without one."""
    size_bytes = 0
    for _ in range(count):
        labels, offset = _read_name(data, offset)
        kind, size, _, length = struct.unpack_from(">2HIH", data, offset)
        offset += 10 + length
        if offset > len(data):
            raise MalformedQuery("cut short")
        if kind == OPT and not labels and not size_bytes:
            size_bytes = max(size, PLAIN_UDP_BYTES)
    return size_bytes


def build_answer(
    query: Query, records: Sequence[tuple[int, bytes]] = (), code: int = NO_ERROR, *, limit_bytes: int
) -> bytes:
    """Return the answer to a query.

    Args:
        records: type and data of each record; its name is the question's, its time to live 0.
        limit_bytes: maximum size; a longer answer is cut at a record and marked as truncated.
    """
    edns = struct.pack(">B2HIH", 0, OPT, _EDNS_BYTES, 0, 0) if query.has_edns else b""
    body = b""
    count = flags = 0
    for kind, data in records:
        record = _QUESTION_POINTER + struct.pack(">2HIH", kind, INTERNET, 0, len(data)) + data
        if HEADER_BYTES + len(query.question) + len(body) + len(record) + len(edns) > limit_bytes:
            flags = _TRUNCATED
            break
        body += record
        count += 1
    kept = query.flags & (_OPCODE | _RECURSION_DESIRED)
    flags |= _RESPONSE | kept | _RECURSION_AVAILABLE | code
    header = struct.pack(">6H", query.identifier, flags, 1, count, 0, 1 if edns else 0)
    return header + query.question + body + edns


def build_format_error(identifier: int) -> bytes:
    """Return the answer to a malformed query."""
    return struct.pack(">6H", identifier, _RESPONSE | _RECURSION_AVAILABLE | FORMAT_ERROR, 0, 0, 0, 0)


def is_answer_to(query: Query, data: bytes, identifier: int) -> bool:
    """Whether data is a server's answer to a query that was sent under another id; the question is compared too."""
    if len(data) < HEADER_BYTES:
        return False
    found, flags, questions = struct.unpack_from(">3H", data)
    if found != identifier or not flags & _RESPONSE:
        return False
    # A format error may come without the question.
    end = HEADER_BYTES + len(query.question)
    return questions == 0 or data[HEADER_BYTES:end].lower() == query.question.lower()


def with_identifier(data: bytes, identifier: int) -> bytes:
    """Return a message with its id replaced."""
    return struct.pack(">H", identifier) + data[2:]


def encode_name(name: str) -> bytes:
    """Return a host name as the data of a PTR record; labels that are too long or empty are left out."""
    labels = (label.encode("latin-1", "replace")[:_LONGEST_LABEL] for label in name.split("."))
    return b"".join(bytes([len(label)]) + label for label in labels if label)[: _LONGEST_NAME - 1] + b"\0"


def reverse_address(name: str) -> str:
    """Return the address of a name below in-addr.arpa or ip6.arpa; "" if it is none (RFC 1035 3.5, RFC 3596 2.5)."""
    labels = name.split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return str(ipaddress.IPv4Address(".".join(reversed(labels[:4]))))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
            return str(ipaddress.IPv6Address(bytes.fromhex("".join(reversed(labels[:32])))))
    except ValueError:
        pass
    return ""
