"""What commands write when the text has characters that a stream cannot take, or a terminal should not."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.commands.context import StreamWriter
from pydock_core.printable import json_text, printable, printable_lines


@pytest.mark.parametrize(
    ("encoding", "text", "written"),
    [
        ("utf-8", "ä\ud800…", "ä?…".encode()),  # JSON has half a surrogate pair as "\ud800"
        ("ascii", "COMMAND …", b"COMMAND ?"),
        ("utf-8", "ä\udcff", b"\xc3\xa4\xff"),  # how Python has the name of a file that is no UTF-8
        ("latin-1", "ä", b"\xe4"),
    ],
)
def test_what_the_encoding_does_not_have(encoding: str, text: str, written: bytes) -> None:
    data = io.BytesIO()
    writer = StreamWriter(io.TextIOWrapper(data, encoding=encoding))
    for piece in ("before ", text, " after"):
        writer.write(piece)
    writer.flush()
    assert data.getvalue() == b"before " + written + b" after"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 名", "plain ä 名"),
        ("a\x1b[2Jb\x9bc", "a [2Jb c"),
        ("a\u061cb\u202ec\u2028d", "a b c d"),
        ("a\ud800b\udc9bc", "a?b?c"),
    ],
)
def test_text_for_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_for_a_terminal() -> None:
    assert printable_lines("a\tb\x1b\nc\x9b\r\n") == "a\tb \nc  \n"
    assert printable_lines("plain\n\tä") == "plain\n\tä"


@given(
    value=st.text() | st.lists(st.text()) | st.dictionaries(st.text(), st.text()),
    indent=st.sampled_from([None, 4]),
)
def test_json_for_a_terminal_means_the_same(value: object, indent: int | None) -> None:
    text = json_text(value, indent=indent)
    assert json.loads(text) == value
    assert printable_lines(text) == text
