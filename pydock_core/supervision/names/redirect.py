"""Redirects port 53 of 127.0.0.11 in the caller's network namespace to its name server's port.

This lets a container run its own name server on 0.0.0.0:53.  The rules are sent over netlink, because the nft program takes
longer than the rest of a start on a further network.  The formats are those of linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable

ADDRESS = "127.0.0.11"
PORT = 53
TABLE = "pydock-names"

_NETLINK_NETFILTER = 12
_NLMSG_ERROR, _BATCH_BEGIN, _BATCH_END = 2, 0x10, 0x11
_SUBSYSTEM = 10
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 3, 6
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_NESTED = 0x8000
_LOCAL_OUT, _DNAT_PRIORITY = 3, -100
_META_L4PROTO = 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_REGISTER_1, _REGISTER_2 = 1, 2
_TIMEOUT_SECONDS = 10.0


def redirect(udp_port: int, tcp_port: int) -> None:
    """Install the rules.

    Raises:
        OSError: the kernel refused; nothing is installed.
    """
    rules = ((socket.IPPROTO_UDP, udp_port), (socket.IPPROTO_TCP, tcp_port))
    changes = [_message(_NEW_TABLE, _text(1, TABLE), _CREATE), _message(_NEW_CHAIN, _chain(), _CREATE)]
    changes += [_message(_NEW_RULE, _rule(*rule), _CREATE | _APPEND) for rule in rules]
    batch = [_batch(_BATCH_BEGIN), *changes, _batch(_BATCH_END)]
    packet = b"".join(
        struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body
        for number, (kind, flags, body) in enumerate(batch)
    )
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(_TIMEOUT_SECONDS)
        netlink.bind((0, 0))
        netlink.send(packet)
        for code in _acknowledgements(netlink, len(changes)):
            if code:
                raise OSError(code, os.strerror(code))


def _acknowledgements(netlink: socket.socket, count: int) -> Iterable[int]:
    """Yield the error number of each change; 0 for success."""
    seen = 0
    while seen < count:
        data = netlink.recv(65536)
        while len(data) >= 20:
            length, kind = struct.unpack_from("=IH", data)
            if kind == _NLMSG_ERROR:
                yield -struct.unpack_from("=i", data, 16)[0]
                seen += 1
            data = data[(length + 3) & ~3 :]


def _batch(kind: int) -> tuple[int, int, bytes]:
    return kind, _REQUEST, struct.pack(">BBH", 0, 0, _SUBSYSTEM)


def _message(kind: int, attributes: bytes, flags: int) -> tuple[int, int, bytes]:
    body = struct.pack(">BBH", socket.AF_INET, 0, 0) + attributes
    return _SUBSYSTEM << 8 | kind, _REQUEST | _ACK | flags, body


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _nest(kind: int, *parts: bytes) -> bytes:
    return _attribute(kind | _NESTED, b"".join(parts))


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _number(kind: int, number: int) -> bytes:
    return _attribute(kind, struct.pack(">I", number & 0xFFFFFFFF))


def _chain() -> bytes:
    hook = _nest(4, _number(1, _LOCAL_OUT), _number(2, _DNAT_PRIORITY))
    return _text(1, TABLE) + _text(3, "output") + hook + _text(7, "nat")


def _rule(protocol: int, port: int) -> bytes:
    """ip daddr 127.0.0.11 PROTOCOL dport 53 dnat to 127.0.0.11:PORT."""
    address = socket.inet_aton(ADDRESS)
    expressions = (
        _payload(_NETWORK_HEADER, 16, 4),
        _equals(address),
        _expression("meta", _number(1, _REGISTER_1), _number(2, _META_L4PROTO)),
        _equals(bytes([protocol])),
        _payload(_TRANSPORT_HEADER, 2, 2),
        _equals(struct.pack(">H", PORT)),
        _immediate(_REGISTER_1, address),
        _immediate(_REGISTER_2, struct.pack(">H", port)),
        _expression(
            "nat",
            *(_number(1, 1), _number(2, socket.AF_INET)),
            *(
                _number(3, _REGISTER_1),
                _number(4, _REGISTER_1),
                _number(5, _REGISTER_2),
                _number(6, _REGISTER_2),
            ),
        ),
    )
    return _text(1, TABLE) + _text(2, "output") + _nest(4, *expressions)


def _expression(name: str, *attributes: bytes) -> bytes:
    return _nest(1, _text(1, name), _nest(2, *attributes))


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression(
        "payload", _number(1, _REGISTER_1), _number(2, base), _number(3, offset), _number(4, length)
    )


def _equals(data: bytes) -> bytes:
    return _expression("cmp", _number(1, _REGISTER_1), _number(2, 0), _nest(3, _attribute(1, data)))


def _immediate(register: int, data: bytes) -> bytes:
    return _expression("immediate", _number(1, register), _nest(2, _attribute(1, data)))
