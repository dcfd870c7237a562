"""The log: what is written can be read, by us and by whoever reads Docker's json-file format."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.runtime.logs import CHUNK_BYTES, LogReader, LogWriter, format_time, parse_time, read_log


def open_log(path: Path) -> LogWriter:
    return LogWriter(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))


@given(
    pieces=st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=200)), max_size=20)
)
def test_every_byte_of_each_stream_is_kept_in_order(pieces: list[tuple[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log.json"
        writer = open_log(path)
        for stream, data in pieces:
            writer.write(stream, data)
        writer.close()
        entries = list(read_log(path))
        for name in ("stdout", "stderr"):
            found = [entry.data for entry in entries if entry.stream == name]
            assert b"".join(found) == b"".join(data for stream, data in pieces if stream == name)
            assert all(data.endswith(b"\n") for data in found[:-1])
            assert all(data.count(b"\n") <= 1 for data in found)


def test_the_format_is_dockers(tmp_path: Path) -> None:
    writer = open_log(tmp_path / "log")
    writer.write("stdout", "käse\n".encode())
    writer.write("stderr", b"\xff\n")
    writer.close()
    first, second = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert first.keys() == {"log", "stream", "time"}
    assert (first["log"], first["stream"]) == ("käse\n", "stdout")
    assert second["log"].encode("utf-8", "replace") == b"?\n"
    assert parse_time(first["time"]) <= parse_time(second["time"])


def test_long_lines_are_split(tmp_path: Path) -> None:
    writer = open_log(tmp_path / "log")
    line = b"x" * (2 * CHUNK_BYTES + 100) + b"\n"
    for start in range(0, len(line), 1000):
        writer.write("stdout", line[start : start + 1000])
    writer.close()
    assert [len(entry.data) for entry in read_log(tmp_path / "log")] == [CHUNK_BYTES, CHUNK_BYTES, 101]


def test_a_partial_line_waits_for_its_end(tmp_path: Path) -> None:
    writer = open_log(tmp_path / "log")
    writer.write("stdout", b"half")
    assert not writer.flush()
    writer.write("stdout", b" a line\n")
    assert writer.flush()
    assert not writer.flush()
    assert [entry.data for entry in read_log(tmp_path / "log")] == [b"half a line\n"]
    writer.close()


def test_a_full_disk_is_survived() -> None:
    writer = LogWriter(os.open("/dev/full", os.O_WRONLY))
    for _ in range(3):
        writer.write("stdout", b"x\n")
        assert writer.flush()
    writer.close()


def test_a_torn_line_does_not_eat_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    writer = open_log(path)
    real_write = os.write
    room = [10]

    def short_write(fd: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        written = real_write(fd, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", short_write)
    writer.write("stdout", b"lost\n")
    writer.flush()
    writer.write("stdout", b"lost too\n")
    writer.flush()
    monkeypatch.setattr(os, "write", real_write)
    writer.write("stdout", b"kept\n")
    writer.close()
    assert [entry.data for entry in read_log(path)] == [b"kept\n"]


@pytest.mark.parametrize("tail", [0, 1, 3, 999, 1000, 1001])
def test_tail(tmp_path: Path, tail: int) -> None:
    writer = open_log(tmp_path / "log")
    lines = [f"{number} {'x' * (number % 200)}\n".encode() for number in range(1000)]
    writer.write("stdout", b"".join(lines))
    writer.close()
    assert [entry.data for entry in read_log(tmp_path / "log", tail=tail)] == (lines[-tail:] if tail else [])


def test_reading_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = LogReader(path, tail=1)
    assert list(reader.read()) == []
    writer = open_log(path)
    writer.write("stdout", b"a\nb\n")
    writer.flush()
    assert [entry.data for entry in reader.read()] == [b"b\n"]
    with open(path, "ab") as torn:
        torn.write(b'{"log":"c')
    assert list(reader.read()) == []
    with open(path, "ab") as rest:
        rest.write(b'\\n","stream":"stdout","time":"2025-01-02T03:04:05Z"}\n')
    assert [entry.data for entry in reader.read()] == [b"c\n"]
    writer.close()


def test_since_and_until(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(
        "".join(
            json.dumps({"log": f"{second}\n", "stream": "stdout", "time": f"2025-01-02T03:04:0{second}Z"})
            + "\n"
            for second in range(5)
        )
    )
    first = parse_time("2025-01-02T03:04:01Z")
    last = parse_time("2025-01-02T03:04:03.5Z")
    assert [entry.data for entry in read_log(path, since_ns=first, until_ns=last)] == [b"1\n", b"2\n", b"3\n"]


@given(time_ns=st.integers(0, 4_000_000_000 * 10**9))
def test_times_survive(time_ns: int) -> None:
    assert parse_time(format_time(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("1970-01-01T00:00:01Z", 10**9), ("1970-01-01T00:00:00.25Z", 250_000_000)]
)
def test_dockers_shorter_times_are_read(text: str, nanoseconds: int) -> None:
    assert parse_time(text) == nanoseconds
