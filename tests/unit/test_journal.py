"""The journal's protocol, against a socket that takes datagrams as the journal does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.supervision.journal import JournalWriter, build_field


def parse(datagram: bytes) -> dict[str, bytes]:
    """Read one entry as the journal does."""
    fields = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + size], datagram[8 + size + 1 :]
        fields[name.decode()] = value
    return fields


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.setblocking(False)
        yield str(tmp_path / "socket"), listener


def received(listener: socket.socket) -> list[dict[str, bytes]]:
    entries = []
    while True:
        try:
            entries.append(parse(listener.recv(1 << 20)))
        except BlockingIOError:
            return entries


def test_fields() -> None:
    assert build_field("A", b"x") == b"A=x\n"
    assert parse(build_field("A", b"x\ny") + build_field("B", b"z")) == {"A": b"x\ny", "B": b"z"}


def test_lines_become_entries(journal: tuple[str, socket.socket]) -> None:
    path, listener = journal
    writer = JournalWriter({"CONTAINER_NAME": "web"}, 1_000_000, path)
    writer.write("stdout", b"one\ntw")
    writer.write("stderr", b"bad\n")
    writer.write("stdout", b"o\nrest")
    assert writer.flush()
    entries = received(listener)
    assert [(entry["MESSAGE"], entry["PRIORITY"]) for entry in entries] == [
        (b"one", b"6"),
        (b"bad", b"3"),
        (b"two", b"6"),
    ]
    assert entries[0]["CONTAINER_NAME"] == b"web"
    writer.close()
    assert [entry["MESSAGE"] for entry in received(listener)] == [b"rest"]


def test_a_long_line_comes_in_pieces(journal: tuple[str, socket.socket]) -> None:
    path, listener = journal
    writer = JournalWriter({}, 1_000_000, path)
    writer.write("stdout", b"x" * 40_000 + b"\n")
    writer.flush()
    entries = received(listener)
    assert b"".join(entry["MESSAGE"] for entry in entries) == b"x" * 40_000
    assert [entry.get("CONTAINER_PARTIAL_MESSAGE") for entry in entries] == [b"true", b"true", None]
    writer.close()


def test_a_journal_that_does_not_read_is_not_waited_for(journal: tuple[str, socket.socket]) -> None:
    """What it does not take is bounded, and the newest of it survives."""
    path, listener = journal
    writer = JournalWriter({}, 10_000, path)
    for number in range(5_000):
        writer.write("stdout", b"%08d\n" % number)
        writer.flush()
    assert writer.has_waiting
    messages = []
    while writer.has_waiting:
        messages += [entry["MESSAGE"] for entry in received(listener)]
        writer.flush()
    messages += [entry["MESSAGE"] for entry in received(listener)]
    assert messages[0] == b"00000000"
    assert messages[-1] == b"00004999"
    assert len(messages) < 5_000
    writer.close()


def test_a_journal_that_is_started_anew(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(path)
        writer = JournalWriter({}, 10_000, path)
    writer.write("stdout", b"one\n")
    assert not writer.flush()
    (tmp_path / "socket").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(path)
        second.setblocking(False)
        assert writer.flush()
        assert [entry["MESSAGE"] for entry in received(second)] == [b"one"]
    writer.close()


def test_without_a_journal(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JournalWriter({}, 1, str(tmp_path / "none"))
