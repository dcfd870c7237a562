"""Bars in a terminal, and the patterns of filters: what holds for any input."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pydock_core.commands.context import Context
from pydock_core.commands.progress import LineSplitter
from pydock_core.commands.progress_board import Board, Row
from pydock_core.commands.progress_rich import RichDisplay
from pydock_core.engine.image_filters import compile_pattern
from pydock_core.errors import InvalidError
from tests.support.commands import Output


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
    assert last[0].endswith("1kB/1kB")
    assert "B" not in last[1].removeprefix("aaaaaaaaaaaa Downloading")  # a full bar, and no bytes
    assert last[1].startswith("aaaaaaaaaaaa Downloading")
    assert [line.split()[0] for line in last[2:]] == ["bbbbbbbbbbbb", "cccccccccccc"]


def test_a_failure_leaves_the_bars_where_they_were() -> None:
    last = last_lines(False)
    assert last[0].startswith("total 1/3")
    assert "500B/1kB" in last[1]


def names_drawn(out: io.StringIO) -> list[str]:
    """The layers of the frame that was drawn last, from the top."""
    return re.findall(r"layer\d\d", out.getvalue())


def test_more_layers_than_lines_leave_those_that_move_on_the_terminal() -> None:
    out = io.StringIO()
    display = RichDisplay(Console(file=out, force_terminal=True, width=120, height=6, color_system=None))
    display.bars.live.auto_refresh = False  # frames are drawn when this test says so
    for number in range(12):
        display.show({"status": "Pulling fs layer", "id": f"layer{number:02}"})
    for number in range(7):
        display.show({"status": "Pull complete", "id": f"layer{number:02}"})
    display.show({"status": "Download complete", "id": "layer08"})
    display.show({"status": "Downloading", "id": "layer07", "current": 1, "total": 2})
    out.truncate(0)
    display.bars.refresh()
    assert names_drawn(out) == ["layer07", "layer09", "layer10", "layer11"]
    assert "total 7/12" in out.getvalue()
    for number in range(7, 11):
        display.show({"status": "Pull complete", "id": f"layer{number:02}"})
    out.truncate(0)
    display.bars.refresh()
    assert names_drawn(out) == ["layer08", "layer09", "layer10", "layer11"]
    out.truncate(0)
    display.close(succeeded=True)
    assert names_drawn(out) == [f"layer{number:02}" for number in range(12)]


def test_without_an_event_the_terminal_is_left_alone() -> None:
    out = io.StringIO()
    RichDisplay(Console(file=out, force_terminal=True)).close(succeeded=False)
    assert out.getvalue() == ""


# -- the board: sequences of events as pulls, pushes and loads send them -----------------------------------

MB = 1_000_000


class Shown:
    """A board at a time that the test keeps, and what its rows show."""

    def __init__(self) -> None:
        self.now = 0.0
        self.board = Board(lambda: self.now)
        self.overall: list[tuple[int, int, int, int]] = []

    def tell(
        self, name: str, status: str, current: int | None = None, total: int = 0
    ) -> tuple[str, int, int]:
        """Take in an event, a second after the last; return (status, current, total) of its row, in MB."""
        self.now += 1
        numbers = {} if current is None else {"current": current * MB}
        numbers |= {"total": total * MB} if total or numbers else {}
        row = self.board.update({"status": status, "id": name, **numbers})
        self.overall.append(self.board.overall())
        return (row.status, row.current // MB, row.total // MB) if row.is_moving else (row.status, -1, -1)


@pytest.fixture
def shown() -> Shown:
    return Shown()


def test_a_layer_is_downloaded_and_then_extracted(shown: Shown) -> None:
    phases = [
        shown.tell("a", "Pulling fs layer", total=10),
        shown.tell("a", "Extracting", 1),  # before the first megabyte is told of
        shown.tell("a", "Downloading", 1, 10),
        shown.tell("a", "Extracting", 4, 10),
        shown.tell("a", "Downloading", 9, 10),
        shown.tell("a", "Waiting"),  # the extraction, for another process
        shown.tell("a", "Extracting", 30),
        shown.tell("a", "Verifying Checksum"),
        shown.tell("a", "Extracting", 31, 10),
        shown.tell("a", "Download complete"),
        shown.tell("a", "Extracting", 32, 10),
        shown.tell("a", "Pull complete"),
    ]
    assert phases == [
        ("Pulling fs layer", -1, -1),
        ("Pulling fs layer", -1, -1),
        ("Downloading", 1, 10),
        ("Downloading", 1, 10),
        ("Downloading", 9, 10),
        ("Downloading", 9, 10),
        ("Downloading", 9, 10),
        ("Verifying Checksum", -1, -1),
        ("Extracting", 31, 0),
        ("Download complete", -1, -1),
        ("Extracting", 32, 0),
        ("Pull complete", -1, -1),
    ]
    assert shown.board.rows["a"].fraction == 1


def test_all_together_counts_what_is_downloaded(shown: Shown) -> None:
    shown.tell("a", "Already exists")
    shown.tell("b", "Pulling fs layer")
    shown.tell("c", "Pulling fs layer")
    shown.tell("b", "Downloading", 5, 10)
    shown.tell("b", "Extracting", 50)
    shown.tell("c", "Downloading", 2, 4)
    shown.tell("b", "Downloading", 0, 10)  # from the start again
    shown.tell("b", "Download complete")
    shown.tell("b", "Extracting", 90)
    shown.tell("b", "Pull complete")
    shown.tell("c", "Verifying Checksum")
    shown.tell("c", "Pull complete")
    assert [(done // MB, size // MB) for done, size, _, _ in shown.overall] == [
        *[(0, 0)] * 3,
        *[(5, 10)] * 2,
        *[(7, 14)] * 2,
        *[(12, 14)] * 3,
        *[(14, 14)] * 2,
    ]
    assert shown.overall[-1][2:] == (3, 3)


def test_all_together_counts_what_has_not_begun(shown: Shown) -> None:
    shown.tell("here", "Already exists")
    for name in "abcd":
        shown.tell(name, "Pulling fs layer", total=10)
    shown.tell("d", "Waiting")
    assert shown.board.overall() == (0, 40 * MB, 1, 5)
    shown.tell("a", "Downloading", 5, 10)
    shown.tell("b", "Verifying Checksum")  # too small for a step of its own
    assert shown.board.overall() == (15 * MB, 40 * MB, 1, 5)
    shown.tell("c", "Pull complete")  # another process has fetched it meanwhile
    assert shown.board.overall() == (15 * MB, 30 * MB, 2, 5)
    shown.board.finish()


def test_what_a_registry_has_already_is_not_to_be_sent(shown: Shown) -> None:
    for name in "abcde":
        shown.tell(name, "Preparing", total=10)
    assert shown.board.overall() == (0, 50 * MB, 0, 5)
    shown.tell("a", "Layer already exists")
    shown.tell("b", "Mounted from library/box")
    shown.tell("c", "Skipped foreign layer")
    shown.tell("d", "Pushing", 0, 10)
    assert shown.board.overall() == (0, 20 * MB, 3, 5)
    shown.tell("d", "Pushed")  # too small for a step of its own
    assert shown.board.overall() == (10 * MB, 20 * MB, 4, 5)


def test_what_an_interrupted_pull_left_has_no_speed(shown: Shown) -> None:
    shown.tell("a", "Downloading", 900, 1000)
    row = shown.board.rows["a"]
    assert shown.board.speed(row) is None
    assert shown.board.speed() is None
    shown.tell("b", "Downloading", 500, 1000)
    shown.tell("a", "Downloading", 903, 1000)
    shown.tell("a", "Downloading", 906, 1000)
    assert shown.board.speed(row) == 2 * MB  # six megabytes in three seconds
    assert shown.board.speed() == 2 * MB
    shown.tell("a", "Download complete")
    assert shown.board.speed(row) is None
    shown.now += 60
    assert shown.board.speed() is None  # nothing has come for a minute


def test_a_layer_whose_blob_is_here_is_extracted_at_once(shown: Shown) -> None:
    shown.tell("a", "Pulling fs layer")
    shown.tell("a", "Waiting")
    assert shown.tell("a", "Extracting", 1, 10) == ("Extracting", 1, 10)
    assert shown.tell("a", "Extracting", 5, 10) == ("Extracting", 5, 10)
    shown.tell("a", "Pull complete")
    assert shown.board.overall() == (0, 0, 1, 1)


def test_a_layer_may_come_while_the_bars_are_drawn(shown: Shown) -> None:
    shown.tell("a", "Downloading", 1, 2)

    class Coming(Row):
        """Looked at by the thread that draws; another thread goes on at that moment."""

        @property
        def moved(self) -> int:
            shown.board.rows["c"] = Row("c")
            return 0

        @moved.setter
        def moved(self, value: int) -> None: ...

    shown.tell("a", "Downloading", 2, 4)
    shown.board.rows = {"b": Coming("b"), **shown.board.rows}
    assert shown.board.speed() == MB
    assert list(shown.board.rows) == ["b", "a", "c"]


def test_an_image_that_is_up_to_date_has_no_bytes(shown: Shown) -> None:
    assert [shown.tell(name, "Already exists") for name in "ab"] == [("Already exists", -1, -1)] * 2
    assert shown.board.overall() == (0, 0, 2, 2)


def test_a_push(shown: Shown) -> None:
    shown.tell("a", "Preparing")
    shown.tell("b", "Preparing")
    assert shown.tell("b", "Waiting") == ("Waiting", -1, -1)
    assert shown.tell("a", "Pushing", 0, 8) == ("Pushing", 0, 8)
    assert shown.tell("b", "Layer already exists") == ("Layer already exists", -1, -1)
    assert shown.tell("a", "Pushing", 3, 8) == (
        "Pushing",
        3,
        8,
    )  # compressed on the way: it ends before its total
    shown.tell("a", "Pushed")
    assert shown.board.overall() == (8 * MB, 8 * MB, 2, 2)


def test_a_load(shown: Shown) -> None:
    shown.tell("a", "Loading layer", 4, 8)
    shown.tell("a", "Loading layer", 8, 8)
    assert shown.tell("a", "Extracting", 5, 8) == ("Extracting", 5, 0)  # compressed or not, nobody says
    assert shown.tell("b", "Extracting", 0, 8) == ("Extracting", 0, 8)
    assert shown.tell("b", "Extracting", 5, 8) == ("Extracting", 5, 8)
    assert shown.tell("b", "Extracting", 9, 8) == ("Extracting", 9, 0)  # the total was another one's
    assert shown.tell("b", "Extracting", 7, 8) == ("Extracting", 7, 0)
    shown.board.update({"status": "Importing", "current": 7})
    assert shown.board.rows["Importing"].fraction == 0  # nobody knows of how much
    shown.board.finish()
    assert shown.board.overall() == (8 * MB, 8 * MB, 3, 3)


def test_lines_and_bars_are_in_order_on_one_terminal() -> None:
    written = Output()
    context = Context(engine=cast(Any, None), stdout=written, stderr=written)

    class Bars:
        def __init__(self) -> None:
            self.names: list[str] = []

        def show(self, event: Mapping[str, Any]) -> None:
            self.names.append(event["id"])

        def close(self, *, succeeded: bool) -> None:
            if self.names:
                written.write(f"[{' '.join(self.names)}]\n")

    display = LineSplitter(context, Bars(), again=Bars)
    for tag in "12":
        display.show({"status": "Pulling from box", "id": tag})
        display.show({"status": "Pull complete", "id": "a"})
        display.show({"status": f"Digest: {tag}"})
    display.close(succeeded=True)
    assert written.text.splitlines() == [
        *("1: Pulling from box", "[a]", "Digest: 1"),
        *("2: Pulling from box", "[a]", "Digest: 2"),
    ]


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
    before = 0
    for status, name, current, total in events:
        row = board.update({"status": status, "id": name, "current": current, "total": total})
        assert 0 <= row.fraction <= 1
        done_bytes, all_bytes, done, count = board.overall()
        assert before <= done_bytes
        assert 0 <= done_bytes <= all_bytes
        assert 0 <= done <= count
        before = done_bytes
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
