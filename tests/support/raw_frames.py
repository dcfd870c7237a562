"""Ethernet frames as bytes, and sending and catching them: what a container with CAP_NET_RAW can do."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TypeVar

from pydock_core import syscalls

T = TypeVar("T")
_ALL = 0x0003  # ETH_P_ALL
BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(text: str) -> bytes:
    """A MAC address as bytes."""
    return bytes.fromhex(text.replace(":", ""))


def ethernet(destination: str, source: str, kind: int, payload: bytes, *, tag: bool = False) -> bytes:
    """A frame; ``tag`` puts a priority tag (VLAN 0, IEEE 802.1Q) in it."""
    vlan = b"\x81\x00\x00\x00" if tag else b""
    return mac(destination) + mac(source) + vlan + kind.to_bytes(2, "big") + payload


def arp_reply(sender_mac: str, sender: str, target_mac: str, target: str) -> bytes:
    """The payload that says "sender is at sender_mac" (RFC 826)."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
    return head + mac(sender_mac) + _v4(sender) + mac(target_mac) + _v4(target)


def udp(source: str, source_port: int, destination: str, port: int, data: bytes) -> bytes:
    """An IPv4 packet with a datagram that has no checksum."""
    segment = struct.pack("!HHHH", source_port, port, 8 + len(data), 0) + data
    return ipv4(source, destination, socket.IPPROTO_UDP, segment)


def ipv4(source: str, destination: str, protocol: int, data: bytes) -> bytes:
    """An IPv4 packet."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, protocol, 0)
    head += _v4(source) + _v4(destination)
    return head[:10] + _checksum(head) + head[12:] + data


def icmp_redirect(source: str, destination: str, gateway: str, original: bytes) -> bytes:
    """The packet by which a gateway says that another one is nearer (RFC 792)."""
    message = struct.pack("!BBH", 5, 1, 0) + _v4(gateway) + original[:28]
    message = message[:2] + _checksum(message) + message[4:]
    return ipv4(source, destination, socket.IPPROTO_ICMP, message)


def router_advertisement(source_mac: str, prefix: str, source: str = "fe80::bad") -> bytes:
    """An IPv6 packet that offers a default route and a prefix for autoconfiguration (RFC 4861)."""
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    message += struct.pack("!BB", 1, 1) + mac(source_mac)
    message += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 86400, 0) + IPv6Address(prefix).packed
    return icmpv6(source, "ff02::1", message)


def neighbour_advertisement(source: str, target: str, target_mac: str, destination: str) -> bytes:
    """An IPv6 packet that says "target is at target_mac", and overrides what was known (RFC 4861, section 4.4)."""
    message = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + IPv6Address(target).packed
    return icmpv6(source, destination, message + struct.pack("!BB", 2, 1) + mac(target_mac))


def redirect6(source: str, destination: str, target: str) -> bytes:
    """An IPv6 packet by which a router says that another one is nearer (RFC 4861, section 4.5)."""
    message = (
        struct.pack("!BBHI", 137, 0, 0, 0) + IPv6Address(target).packed + IPv6Address("2001:db8::1").packed
    )
    return icmpv6(source, destination, message)


def icmpv6(source: str, destination: str, message: bytes) -> bytes:
    """An IPv6 packet with an ICMPv6 message, whose checksum is filled in."""
    ends = IPv6Address(source).packed + IPv6Address(destination).packed
    pseudo = ends + struct.pack("!II", len(message), socket.IPPROTO_ICMPV6)
    message = message[:2] + _checksum(pseudo + message) + message[4:]
    return struct.pack("!IHBB", 0x60000000, len(message), socket.IPPROTO_ICMPV6, 255) + ends + message


def udp6(source: str, source_port: int, destination: str, port: int, data: bytes) -> bytes:
    """An IPv6 packet with a datagram."""
    ends = IPv6Address(source).packed + IPv6Address(destination).packed
    length = 8 + len(data)
    segment = struct.pack("!HHHH", source_port, port, length, 0) + data
    pseudo = ends + struct.pack("!II", length, socket.IPPROTO_UDP)
    segment = segment[:6] + _checksum(pseudo + segment) + segment[8:]
    return struct.pack("!IHBB", 0x60000000, length, socket.IPPROTO_UDP, 64) + ends + segment


def _v4(text: str) -> bytes:
    return IPv4Address(text).packed


def _checksum(data: bytes) -> bytes:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


class Namespace:
    """The network namespace of a process, for what is done inside in a thread."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/ns/net")

    @classmethod
    def at(cls, path: str) -> Namespace:
        """The namespace that a file stands for."""
        made = cls(0)
        made._path = Path(path)
        return made

    def __call__(self, function: Callable[[], T]) -> T:
        """Run a function inside; sockets that it makes stay there."""
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                with self._path.open("rb") as namespace:
                    syscalls.setns(namespace.fileno(), syscalls.CLONE_NEWNET)
                # Frames of one sender keep their order only on one processor.
                os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def send(self, frames: Sequence[bytes], device: str = "eth0") -> None:
        """Send frames as they are."""

        def work() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind((device, 0))
                for frame in frames:
                    assert raw.send(frame) == len(frame)

        self(work)

    def catch(self, device: str) -> Catch:
        """Catch the frames that arrive at a device."""
        return self(lambda: Catch(device))


class Catch:
    """A packet socket on one device of the caller's namespace; it sees what arrives before any filter does."""

    def __init__(self, device: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((device, _ALL))
        self._seen: list[bytes] = []

    def until(self, last: bytes, seconds: float = 10) -> list[bytes]:
        """Return the frames that have arrived, once one that contains ``last`` is among them."""
        end = time.monotonic() + seconds
        while not any(last in frame for frame in self._seen):
            left = end - time.monotonic()
            assert left > 0, f"{last!r} never arrived; {len(self._seen)} frames did"
            if select.select([self._socket], [], [], left)[0]:
                frame, (_, _, kind, _, _) = self._socket.recvfrom(65535)
                if kind != socket.PACKET_OUTGOING:
                    self._seen.append(frame)
        return self._seen

    def __enter__(self) -> Catch:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
