"""What the caller of an exec believes of the process in the container."""

from __future__ import annotations

import json
import os
import time

import pytest

from pydock_core.errors import FailedError, NotFoundError
from pydock_core.runtime import exec_caller, exec_report

WHOLE = {"code": "not_found", "message": "m", "hint": "h", "exit_code": 127}


def test_an_error_comes_through_the_pipe() -> None:
    read_fd, write_fd = os.pipe()
    exec_report.send(write_fd, NotFoundError("no " + "\U0001f433" * 5000, "look", exit_code=127))
    os.close(write_fd)
    error = exec_report.parse(exec_caller.read_report(read_fd, time.monotonic() + 5))
    os.close(read_fd)
    assert type(error) is NotFoundError
    assert (error.message[:4], error.hint, error.exit_code) == ("no \U0001f433", "look", 127)
    assert len(error.message) == 1000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[" * 10_000,
        b"[1]",
        b'{"ok": true, "event": "console"}',
        json.dumps({**WHOLE, "more": 1}).encode(),
        json.dumps({**WHOLE, "message": ["m"]}).encode(),
        json.dumps({**WHOLE, "exit_code": 0}).encode(),
        json.dumps({**WHOLE, "exit_code": True}).encode(),
        json.dumps({**WHOLE, "exit_code": [127]}).encode(),
        json.dumps(WHOLE).encode() + b" " * exec_report.REPORT_BYTES,
    ],
)
def test_what_is_no_report_is_one_plain_failure(data: bytes) -> None:
    error = exec_report.parse(data)
    assert type(error) is FailedError
    assert error.exit_code is None


def test_a_report_cannot_drive_a_terminal() -> None:
    error = exec_report.parse(json.dumps({**WHOLE, "message": "\x1b[2Jgone\nfake", "hint": "\r"}).encode())
    assert error.message == " [2Jgone fake"
    assert error.hint == " "


def test_reading_ends_at_the_limit_and_at_the_deadline() -> None:
    read_fd, write_fd = os.pipe()
    try:
        os.write(write_fd, b"x" * (exec_report.REPORT_BYTES + 1))
        # The write end stays open, as with a container that keeps it.
        assert len(exec_caller.read_report(read_fd, time.monotonic() + 5)) == exec_report.REPORT_BYTES + 1
        with pytest.raises(FailedError, match="did not start its program in time"):
            exec_caller.read_report(read_fd, time.monotonic())
    finally:
        os.close(read_fd)
        os.close(write_fd)
