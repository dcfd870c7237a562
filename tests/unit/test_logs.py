"""The log: what is written can be read, by us and by whoever reads Docker's json-file format."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.supervision import log_files, logs
from pydock_core.supervision.log_files import LogLimits
from pydock_core.supervision.logs import (
    CHUNK_BYTES,
    LogEntry,
    LogReader,
    LogWriter,
    format_time,
    parse_time,
    read_log,
)


def open_log(path: Path, file_bytes: int = 0, files: int = 1) -> LogWriter:
    return LogWriter(str(path), LogLimits(file_bytes, files))


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
    writer = LogWriter("/dev/full")
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
    reader.close()
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


# -- rotation --------------------------------------------------------------------------------------------


def numbers(first: int, last: int) -> list[bytes]:
    return [f"{number}\n".encode() for number in range(first, last)]


def data(entries: Iterable[LogEntry]) -> list[bytes]:
    return [entry.data for entry in entries]


def sizes(path: Path) -> dict[str, int]:
    return {file.name.removeprefix(path.name): file.stat().st_size for file in path.parent.iterdir()}


@pytest.mark.parametrize(("files", "names"), [(1, {""}), (2, {"", ".1"}), (4, {"", ".1", ".2", ".3"})])
def test_no_more_is_kept_than_asked_for(tmp_path: Path, files: int, names: set[str]) -> None:
    path = tmp_path / "log"
    writer = open_log(path, 2000, files)
    for first in range(0, 1000, 50):  # a batch is larger than a file
        writer.write("stdout", b"".join(numbers(first, first + 50)))
        writer.flush()
        assert max(sizes(path).values()) <= 2000
        kept = data(read_log(path))
        assert kept == numbers(first + 50 - len(kept), first + 50)  # what is kept is the end, without a gap
    assert set(sizes(path)) == names
    writer.close()
    again = open_log(path, 2000, files)  # the next run of the container goes on in the same file
    again.write("stdout", b"".join(numbers(1000, 1003)))
    again.close()
    assert data(read_log(path, tail=4)) == numbers(999, 1003)
    assert max(sizes(path).values()) <= 2000


def test_a_line_without_an_end_is_rotated_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = open_log(path, 50_000, 2)
    for _ in range(100):
        writer.write("stdout", b"y" * 5000)
        writer.flush()
    assert set(sizes(path)) == {"", ".1"}
    assert max(sizes(path).values()) <= 50_000
    writer.close()


@pytest.mark.parametrize("tail", [0, 1, 30, 60, 99, 100, 101])
def test_the_tail_goes_back_across_files(tmp_path: Path, tail: int) -> None:
    path = tmp_path / "log"
    writer = open_log(path, 2000, 9)
    writer.write("stdout", b"".join(numbers(0, 100)))
    writer.close()
    assert len(sizes(path)) > 3
    assert data(read_log(path, tail=tail)) == (numbers(0, 100)[-tail:] if tail else [])


@given(steps=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=30))
def test_a_reader_misses_nothing_and_sees_nothing_twice(steps: list[tuple[int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log"
        writer = open_log(path, 1000, 200)
        reader = LogReader(path)
        seen: list[bytes] = []
        count = 0
        for amount, reads in steps:
            writer.write("stdout", b"".join(numbers(count, count + amount)))
            writer.flush()
            count += amount
            if reads:
                # Given up half way, as by a client that goes on later.
                seen += data(itertools.islice(reader.read(), amount // 2))
        seen += data(reader.read())
        assert seen == numbers(0, count)
        reader.close()
        writer.close()


def test_a_reader_keeps_a_file_that_rotation_removes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = open_log(path, 1000, 1)
    writer.write("stdout", b"".join(numbers(0, 5)))
    writer.flush()
    reader = LogReader(path)
    assert data(itertools.islice(reader.read(), 2)) == numbers(0, 2)
    writer.write("stdout", b"".join(numbers(5, 20)))
    writer.close()
    # What was removed before it came to be opened is lost; the rest is there, in order.
    seen = data(reader.read())
    assert seen[:3] == numbers(2, 5)
    assert seen[-1:] == numbers(19, 20)
    assert len(set(seen)) == len(seen)
    reader.close()


def test_a_rotation_between_two_looks_hides_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader opens file by file while the writer renames them: here, after each of its steps."""
    path = tmp_path / "log"
    for step in range(6):
        for file in list(tmp_path.iterdir()):
            file.unlink()
        writer = open_log(path, 700, 50)
        writer.write("stdout", b"".join(numbers(0, 40)))
        writer.flush()
        left = [step]

        def rotating(name: str, *words: Any, left: list[int] = left, writer: LogWriter = writer) -> Any:
            if left[0] == 0:
                writer.write("stdout", b"".join(numbers(40, 60)))
                writer.flush()
            left[0] -= 1
            return open(name, *words)

        reader = LogReader(path)
        monkeypatch.setattr(log_files, "open", rotating, raising=False)
        seen = data(reader.read())
        monkeypatch.delattr(log_files, "open")
        assert left[0] < 0
        assert [*seen, *data(reader.read())] == numbers(0, 60)
        reader.close()
        writer.close()


@pytest.mark.parametrize("done", range(4))
def test_a_crash_inside_a_rotation_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    path = tmp_path / "log"
    writer = open_log(path, 1000, 4)
    writer.write("stdout", b"".join(numbers(0, 30)))
    writer.flush()
    before = data(read_log(path))
    real_rename, left = os.rename, [done]

    def rename(source: str, target: str) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        real_rename(source, target)

    monkeypatch.setattr(os, "rename", rename)
    if done < 3:
        with pytest.raises(KeyboardInterrupt):
            log_files.rotate(str(path), 4)
    else:
        log_files.rotate(str(path), 4)
    monkeypatch.setattr(os, "rename", real_rename)
    assert data(read_log(path)) == before
    after = open_log(path, 1000, 4)
    after.write("stdout", b"".join(numbers(30, 32)))
    after.close()
    assert data(read_log(path)) == [*before, *numbers(30, 32)]


def test_a_log_that_grows_while_it_is_read_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = open_log(path)
    writer.write("stdout", b"".join(numbers(0, 10)))
    writer.flush()
    seen = []
    for entry in read_log(path):
        seen.append(entry.data)
        writer.write("stdout", b"more\n")
        writer.flush()
        assert len(seen) <= 10
    assert seen == numbers(0, 10)
    writer.close()


def test_a_disk_that_is_full_at_a_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    writer = open_log(path, 300, 2)
    writer.write("stdout", b"".join(numbers(0, 3)))
    writer.flush()

    def full(name: str) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(logs, "open_log", full)
        writer.write("stdout", b"".join(numbers(3, 20)))
        writer.flush()
    writer.write("stdout", b"".join(numbers(20, 22)))
    writer.close()
    kept = data(read_log(path))
    assert kept == [*numbers(0, len(kept) - 2), *numbers(20, 22)]
    assert len(kept) < 10
