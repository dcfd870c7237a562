"""A DNS client and server for tests, which share no code with the name server that they test."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

A, PTR, AAAA, MX = 1, 12, 28, 15
NAME_SERVER = ("127.0.0.11", 53)


def build_query(name: str, kind: int, identifier: int = 0x1234, *, edns: bool = False) -> bytes:
    """A query for one name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    header = struct.pack(">6H", identifier, 0x0100, 1, 0, 0, 1 if edns else 0)
    option = b"\0" + struct.pack(">2HIH", 41, 1232, 0, 0) if edns else b""
    return header + labels + b"\0" + struct.pack(">2H", kind, 1) + option


def read_answer(data: bytes) -> tuple[int, list[tuple[str, int]]]:
    """The response code, and the data of each answer with its time to live."""
    _, flags, questions, answers, _, _ = struct.unpack_from(">6H", data)
    assert flags & 0x8000
    offset = 12
    for _ in range(questions):
        offset = _skip_name(data, offset) + 4
    found = []
    for _ in range(answers):
        offset = _skip_name(data, offset)
        kind, _, seconds, length = struct.unpack_from(">2HIH", data, offset)
        value = data[offset + 10 : offset + 10 + length]
        offset += 10 + length
        shown = _read_name(value) if kind == PTR else str(ipaddress.ip_address(value))
        found.append((shown, seconds))
    return flags & 0xF, found


def _skip_name(data: bytes, offset: int) -> int:
    while data[offset]:
        if data[offset] >= 0xC0:
            return offset + 2
        offset += 1 + data[offset]
    return offset + 1


def _read_name(data: bytes) -> str:
    labels = []
    while length := data[0]:
        labels.append(data[1 : 1 + length].decode())
        data = data[1 + length :]
    return ".".join(labels)


def ask(
    name: str, kind: int = A, *, tcp: bool = False, timeout: float = 5, server: tuple[str, int] = NAME_SERVER
) -> tuple[int, list[str]]:
    """Ask a name server, by default the caller's namespace's; return the response code and the answers, which live 0 s."""
    query = build_query(name, kind)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.connect(server)
        if tcp:
            client.sendall(struct.pack(">H", len(query)) + query)
            data = b""
            while len(data) < 2 or len(data) < 2 + struct.unpack_from(">H", data)[0]:
                data += client.recv(65535)
            data = data[2:]
        else:
            client.send(query)
            data = client.recv(65535)
    assert data[:2] == query[:2]
    code, found = read_answer(data)
    assert all(seconds == 0 for _, seconds in found)
    return code, [value for value, _ in found]


def reverse(address: str) -> str:
    """The name that stands for an address in a PTR query."""
    return ipaddress.ip_address(address).reverse_pointer


@contextmanager
def serve(answer: Callable[[bytes], bytes | None], address: str = "127.0.0.1") -> Iterator[list[bytes]]:
    """A server on UDP and TCP port 53 of the caller's namespace; yield the queries that it gets."""
    asked: list[bytes] = []
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    udp.bind((address, 53))
    tcp.bind((address, 53))
    tcp.listen()

    def serve_udp() -> None:
        while True:
            data, client = udp.recvfrom(65535)
            if data == b"end":
                return
            asked.append(data)
            if (reply := answer(data)) is not None:
                udp.sendto(reply, client)

    def serve_tcp() -> None:
        while True:
            accepted, _ = tcp.accept()
            with accepted:
                head = accepted.recv(2)
                if len(head) < 2:
                    return
                data = accepted.recv(struct.unpack(">H", head)[0])
                asked.append(data)
                if (reply := answer(data)) is not None:
                    accepted.sendall(struct.pack(">H", len(reply)) + reply)

    threads = [threading.Thread(target=work) for work in (serve_udp, serve_tcp)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        udp.sendto(b"end", (address, 53))
        socket.create_connection((address, 53)).close()
        for thread in threads:
            thread.join()
        udp.close()
        tcp.close()


def answer_with(address: str) -> Callable[[bytes], bytes | None]:
    """A server's function that gives every name one address."""

    def answer(query: bytes) -> bytes:
        end = _skip_name(query, 12) + 4
        record = b"\xc0\x0c" + struct.pack(">2HIH", A, 1, 0, 4) + ipaddress.ip_address(address).packed
        return query[:2] + struct.pack(">5H", 0x8180, 1, 1, 0, 0) + query[12:end] + record

    return answer
