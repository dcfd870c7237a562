"""Bars in a terminal, and the patterns of filters: what holds for any input."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pydock_core.commands.progress_board import Board
from pydock_core.commands.progress_rich import RichDisplay
from pydock_core.engine.image_filters import compile_pattern
from pydock_core.errors import InvalidError


def last_lines(succeeded: bool) -> list[str]:
    """What stands on the terminal at the end: the total and three layers."""
    out = io.StringIO()
    display = RichDisplay(Console(file=out, force_terminal=True, width=120, color_system=None))
    display.show({"status": "Downloading", "id": "aaaaaaaaaaaa", "current": 500, "total": 1000})
    display.show({"status": "Waiting", "id": "bbbbbbbbbbbb"})
    display.show({"status": "Already exists", "id": "cccccccccccc"})
    display.close(succeeded=succeeded)
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]|\r", "\n", out.getvalue())
    return [line.rstrip() for line in plain.splitlines() if line.strip()][-4:]


def test_bars_for_layers_and_one_for_all_stay_at_the_end() -> None:
    last = last_lines(True)
    assert last[0].startswith("total 3/3")
    assert "1.0/1.0 kB" in last[0]
    assert last[1].startswith("aaaaaaaaaaaa Downloading")
    assert [line.split()[0] for line in last[2:]] == ["bbbbbbbbbbbb", "cccccccccccc"]


def test_a_failure_leaves_the_bars_where_they_were() -> None:
    last = last_lines(False)
    assert last[0].startswith("total 1/3")
    assert "0.5/1.0 kB" in last[1]


def test_without_an_event_the_terminal_is_left_alone() -> None:
    out = io.StringIO()
    RichDisplay(Console(file=out, force_terminal=True)).close(succeeded=False)
    assert out.getvalue() == ""


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Downloading", "Extracting", "Waiting", "Pull complete", "Download complete"]),
            st.sampled_from(["a", "b", ""]),
            st.none() | st.integers(0, 1000),
            st.integers(0, 1000),
        )
    )
)
def test_a_board_never_has_more_done_than_there_is(events: list[tuple[str, str, int | None, int]]) -> None:
    board = Board()
    for status, name, current, total in events:
        row = board.update({"status": status, "id": name, "current": current, "total": total})
        assert 0 <= row.fraction <= 1
        done_bytes, all_bytes, done, count = board.overall()
        assert 0 <= done_bytes <= all_bytes
        assert 0 <= done <= count
    board.finish()
    done_bytes, all_bytes, done, count = board.overall()
    assert (done_bytes, done) == (all_bytes, count)


@given(st.text())
def test_any_pattern_is_compiled_or_refused(pattern: str) -> None:
    try:
        compiled = compile_pattern(pattern)
    except InvalidError as error:
        assert "malformed pattern" in error.message
    else:
        compiled.fullmatch("busybox:latest")


@given(st.text(alphabet="abz019./:_-@+(){}|^$&~"))
def test_plain_text_matches_itself_alone(text: str) -> None:
    compiled = compile_pattern(text)
    assert compiled.fullmatch(text)
    assert not compiled.fullmatch(text + "x")


@pytest.mark.parametrize("pattern", ["a*", "*a", "a?", "[!-~]a"])
def test_no_wildcard_is_a_slash(pattern: str) -> None:
    assert not compile_pattern(pattern).fullmatch("a/")
    assert not compile_pattern(pattern).fullmatch("/a")
