"""The commands on images: columns, rows, filters, templates, and what a listing costs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import run_command
from pydock_core.engine import Engine
from pydock_core.engine.image_filters import compile_pattern
from pydock_core.engine.image_shapes import build_history
from pydock_core.errors import InvalidError
from pydock_core.oci.documents import ImageConfig
from pydock_core.paths import StateRoot
from pydock_core.spelling import human_size
from pydock_core.store.database import distribution
from pydock_core.store.database import images as sql
from pydock_core.store.database.images import ImageRow, TagRow
from tests.support.commands import Output

DAY_NS = 24 * 3600 * 10**9


def image_id(number: int) -> str:
    return f"sha256:{number:064x}"


DIGEST = "sha256:" + "d" * 64


class Rows:
    """An engine whose database has images without blobs: all that a listing may look at."""

    def __init__(self, base: Path) -> None:
        self.engine = Engine(StateRoot(base / "data", base / "run"))
        self.output = Output()
        self.context = Context(engine=self.engine, stdout=self.output, stderr=self.output)

    def add(self, number: int, *names: str, labels: str = "{}", age_days: float = 1) -> str:
        created = time.time_ns() - int(age_days * DAY_NS)
        row = ImageRow(image_id(number), image_id(number + 1000), "type", created, 1_234_567, labels)
        tags = [(name.rpartition(":")[0], name.rpartition(":")[2]) for name in names]
        sql.insert(self.engine.state.database, row, (), tags)
        return row.id

    def lines(self, line: str) -> list[str]:
        """Run a command that must succeed, and return its lines."""
        self.output.clear()
        code = run_command(line.split("|") if "|" in line else line.split(), self.context)
        assert code == 0, self.output.text
        return self.output.text.splitlines()


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    made = Rows(tmp_path)
    yield made
    made.engine.close()


def test_a_line_for_each_name_and_one_for_an_image_without(rows: Rows) -> None:
    rows.add(1, "busybox:latest", "localhost:5000/box:1", age_days=3)
    rows.add(2, age_days=40)
    assert rows.lines("images") == [
        "REPOSITORY           TAG       IMAGE ID       CREATED       SIZE",
        "busybox              latest    000000000000   3 days ago    1.23MB",
        "localhost:5000/box   1         000000000000   3 days ago    1.23MB",
        "<none>               <none>    000000000000   5 weeks ago   1.23MB",
    ]
    assert rows.lines("image ls -q --no-trunc") == [image_id(1), image_id(1), image_id(2)]


def test_a_name_cannot_talk_to_the_terminal(rows: Rows) -> None:
    image = rows.add(1, "a:1")
    steps = [{"created_by": "\x1b[31mred\x07\u202e", "created": "2024-01-01T00:00:00Z"}]
    config = ImageConfig("amd64", "linux", (), history=tuple(steps))
    rows.engine.images.history = lambda reference: build_history(image, (), config, [])  # type: ignore[method-assign]  # no blob here
    text = "\n".join(rows.lines("history a:1"))
    assert "[31mred" in text
    assert not re.search("[\x07\x1b\u202e]", text)
    assert run_command(["rmi", "no\x1b[2Jname"], rows.context) == 1
    assert "\x1b" not in rows.output.text


def test_digests_have_a_row_each(rows: Rows) -> None:
    first = rows.add(1, "a:1", "a:2", "b:1")
    second = rows.add(2, age_days=2)
    other = "sha256:" + "e" * 64
    distribution.add_repository_digest(rows.engine.state.database, "a", DIGEST, first)
    distribution.add_repository_digest(rows.engine.state.database, "c", other, second)
    shown = [line.split()[:3] for line in rows.lines("images --digests")[1:]]
    assert shown == [
        ["a", "1", DIGEST],
        ["a", "2", DIGEST],
        ["b", "1", "<none>"],
        ["c", "<none>", other],
    ]
    plain = [line.split()[:2] for line in rows.lines("images")[1:]]
    assert plain == [["a", "1"], ["a", "2"], ["b", "1"], ["c", "<none>"]]
    assert rows.lines("images --format {{.Tag}}@{{.Digest}} a") == [f"1@{DIGEST}", f"2@{DIGEST}"]
    assert rows.lines("images --digests a:2")[1].split()[:3] == ["a", "2", DIGEST]
    assert len(rows.lines("images --digests a:2")) == 2
    assert rows.engine.images.resolve(f"a@{DIGEST}").id == first
    assert rows.engine.images.list(filters={"dangling": ["true"]})[0]["Id"] == second
    assert len(rows.engine.images.list(filters={"dangling": ["false"]})) == 2


def test_an_image_that_a_container_keeps_is_told_of(rows: Rows) -> None:
    image = rows.add(1, "a:1")
    with rows.engine.state.database.transaction() as connection:
        connection.execute("INSERT INTO container VALUES ('c', 'web', ?, 1, '{}')", (image,))
    assert rows.lines("rmi -f a:1") == [
        "Untagged: a:1",
        "note: image 000000000000 now has no name. It is kept while 1 container uses it; "
        "then dock image prune removes it",
    ]


def test_filters(rows: Rows) -> None:
    rows.add(1, "team/a:1", labels='{"stage": "test"}', age_days=3)
    rows.add(2, "b:latest", labels='{"stage": "live"}', age_days=2)
    rows.add(3, age_days=1)

    def found(words: str) -> list[str]:
        return rows.lines(f"images --format {{{{.Repository}}}}:{{{{.Tag}}}} {words}")

    assert found("-f label=stage") == ["b:latest", "team/a:1"]
    assert found("-f label=stage=test") == found("-f label=stage -f label=stage=test") == ["team/a:1"]
    assert found("-f dangling=true") == ["<none>:<none>"]
    assert found("-f dangling=false") == ["b:latest", "team/a:1"]
    assert found("-f before=b") == found("-f reference=team/*") == found("team/a") == ["team/a:1"]
    assert found("-f since=b") == ["<none>:<none>"]
    assert found("-f until=36h") == ["b:latest", "team/a:1"]
    assert found("-f reference=*") == ["b:latest"]
    assert found("-f reference=[a-c]:lat*") == ["b:latest"]


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("busy*", "busybox", "a/busybox"),
        ("*/b?x", "a/box", "a/b/x"),
        (r"a\*", "a*", "ab"),
        ("[^a-c]x", "dx", "ax"),
        ("a.b", "a.b", "axb"),
    ],
)
def test_patterns_are_gos(pattern: str, fits: str, fits_not: str) -> None:
    assert compile_pattern(pattern).fullmatch(fits)
    assert not compile_pattern(pattern).fullmatch(fits_not)


@pytest.mark.parametrize("pattern", ["[a", "[z-a]"])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidError, match="malformed pattern"):
        compile_pattern(pattern)


def test_templates_and_json(rows: Rows) -> None:
    rows.add(1, "a:1")
    assert rows.lines(
        "images|--format|table {{.Repository}}\\t{{if .Tag}}{{.Tag}}{{end}}\\t{{.CreatedSince}}"
    ) == [
        "REPOSITORY   TAG       CREATED",
        "a            1         24 hours ago",
    ]
    (document,) = map(json.loads, rows.lines("images --format json"))
    assert list(document) == sorted(document)
    assert document["Repository"] == "a"
    assert document["SharedSize"] == document["UniqueSize"] == "N/A"
    assert document["VirtualSize"] == "1.235MB"


def test_an_unknown_field_is_named(rows: Rows) -> None:
    rows.add(1, "a:1")
    assert run_command(["images", "--format", "{{.Nope}}"], rows.context) == 1
    assert "no field .Nope" in rows.output.text


def test_a_thousand_images_take_no_fifty_milliseconds(rows: Rows) -> None:
    with rows.engine.state.database.transaction() as connection:
        for number in range(1000):
            connection.execute(
                "INSERT INTO image VALUES (?, ?, 'type', ?, 1000, '{\"a\": \"b\"}', 0)",
                (image_id(number), image_id(number), number * 10**9),
            )
            connection.execute("INSERT INTO tag VALUES (?, 'latest', ?)", (f"r{number}", image_id(number)))
    assert len(rows.lines("images")) == 1001
    times = []
    for _ in range(5):
        start = time.perf_counter()
        run_command(["images"], rows.context)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


def test_history_tells_layers_from_empty_steps() -> None:
    config = ImageConfig(
        "amd64",
        "linux",
        (),
        history=(
            {"created": "2024-01-01T00:00:00Z", "created_by": "ADD\tfile", "comment": "first"},
            {"created_by": "CMD sh", "empty_layer": True},
            {"created_by": "RUN x"},
        ),
    )
    steps = build_history(image_id(1), [TagRow("a", "1", image_id(1))], config, [10, 20, 30])
    assert [step["Size"] for step in steps] == [30, 20, 0, 10]  # the last layer has no step of its own
    assert [step["CreatedBy"] for step in steps] == ["", "RUN x", "CMD sh", "ADD\tfile"]
    assert [step["Id"] for step in steps] == [image_id(1), "<missing>", "<missing>", "<missing>"]
    assert steps[0]["Tags"] == ["a:1"]
    assert steps[-1]["Created"] == 1704067200


@pytest.mark.parametrize(
    ("size", "digits", "text"),
    [(0, 3, "0B"), (999, 3, "999B"), (1000, 3, "1kB"), (1_982_622, 3, "1.98MB"), (1_982_622, 4, "1.983MB")],
)
def test_sizes_are_dockers(size: int, digits: int, text: str) -> None:
    assert human_size(size, digits) == text
