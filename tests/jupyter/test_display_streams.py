"""A command's output in a cell: bytes that come in pieces, and text that no message can have."""

from __future__ import annotations

import io

from pydock_jupyter.display.streams import CellWriter


def test_text_and_bytes_come_in_order() -> None:
    stream = io.StringIO()
    writer = CellWriter(stream)
    assert not writer.has_written
    writer.write_bytes(b"\xc3")
    writer.write_bytes(b"\xa4\xff")
    writer.write("x\ud800…")
    writer.write_bytes(b"\xc3")
    writer.close()
    assert stream.getvalue() == "ä\ufffdx?…\ufffd"
    assert writer.has_written
