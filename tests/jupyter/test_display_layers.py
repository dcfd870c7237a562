"""layers and changes: the layout as data, well-formed pictures of hostile names, and what they say of a real store."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pydock_jupyter
from pydock_core.engine import Engine
from pydock_core.errors import NotFoundError
from pydock_core.store.upper_size import file_sizes
from pydock_jupyter.display import change_tree, layer_picture
from pydock_jupyter.display.change_tree import ADDED, DELETED, MODIFIED, Change, build_rows
from pydock_jupyter.display.layer_graph import (
    Container,
    Image,
    Layer,
    LayerGraph,
    arrange_columns,
    place_layers,
    read_steps,
    tidy_step,
)
from pydock_jupyter.display.plain_text import one_line, shorten, width
from tests.support.create_request import create_request
from tests.support.image_store import NEEDS_ROOT, ROOT, build_config, build_docker_archive, tar_of
from tests.support.image_store import digest as digest_of

SVG = "{http://www.w3.org/2000/svg}"


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def layer(letter: str, size_bytes: int | None = 1000, made_by: str = "") -> Layer:
    return Layer(digest(letter), size_bytes, made_by or f"step {letter}")


def image(letters: str, *names: str) -> Image:
    """An image whose layers are called by letters, bottom first, and whose id by the last one."""
    return Image(digest(letters[-1:] or "0") + letters, names, tuple(layer(letter) for letter in letters))


def places(graph: LayerGraph) -> set[tuple[str, int, int, int]]:
    """(letter, level, first column, last column) of each slab."""
    slabs = place_layers(graph, arrange_columns(graph))
    return {(slab.layer.diff_id[7], slab.level, slab.first, slab.last) for slab in slabs}


# -- the layout --------------------------------------------------------------------------------------------


def test_layers_that_images_share_are_one_slab_below_all_of_them() -> None:
    graph = LayerGraph(
        (image("abd", "two:1"), image("ab", "one:1"), image("abc", "three:1"), image("f", "other:1"))
    )
    assert places(graph) == {("a", 0, 0, 2), ("b", 1, 0, 2), ("d", 2, 1, 1), ("c", 2, 2, 2), ("f", 0, 3, 3)}
    assert [column.image.names for column in arrange_columns(graph)] == [
        ("one:1",),
        ("two:1",),
        ("three:1",),
        ("other:1",),
    ]


def test_the_columns_of_containers_stand_beside_their_images() -> None:
    base, top = image("a", "base"), image("ab", "top")
    graph = LayerGraph(
        (base, top), (Container("box", base.id, "exited", 5), Container("bar", top.id, "running", 0))
    )
    columns = arrange_columns(graph)
    assert [(column.image.names[0], column.container and column.container.name) for column in columns] == [
        ("base", None),
        ("base", "box"),
        ("top", None),
        ("top", "bar"),
    ]
    assert places(graph) == {("a", 0, 0, 3), ("b", 1, 2, 3)}


def test_a_layer_on_other_layers_is_drawn_again_and_says_so() -> None:
    graph = LayerGraph((image("ax"), image("bx")))
    slabs = place_layers(graph, arrange_columns(graph))
    assert {(slab.layer.diff_id[7], slab.is_repeated, slab.owners) for slab in slabs} == {
        ("a", False, 1),
        ("b", False, 1),
        ("x", True, 2),
    }
    assert "drawn more than once" in layer_picture.draw_svg(graph)


def test_a_layer_twice_in_one_image_is_of_one_image() -> None:
    graph = LayerGraph((image("aba"),))
    assert graph.owners(digest("a")) == 1
    assert places(graph) == {("a", 0, 0, 0), ("b", 1, 0, 0), ("a", 2, 0, 0)}


@given(st.lists(st.text("abc", max_size=5), max_size=7))
def test_slabs_never_overlap_and_every_image_stands_on_its_own_layers(stacks: list[str]) -> None:
    graph = LayerGraph(tuple(image(letters, f"{number}:1") for number, letters in enumerate(stacks)))
    columns = arrange_columns(graph)
    there: dict[tuple[int, int], str] = {}
    for slab in place_layers(graph, columns):
        for column in range(slab.first, slab.last + 1):
            assert (column, slab.level) not in there
            there[column, slab.level] = slab.layer.diff_id
    for number, column in enumerate(columns):
        assert [there.pop((number, level)) for level in range(len(column.image.layers))] == list(
            column.image.diff_ids
        )
    assert not there
    assert len(columns) == len(stacks)


@pytest.mark.parametrize(
    ("created_by", "shown"),
    [
        ('/bin/sh -c #(nop)  CMD ["bash"]', 'CMD ["bash"]'),
        ("/bin/sh -c apt-get   update", "RUN apt-get update"),
        ("RUN /bin/sh -c pip install numpy # buildkit", "RUN pip install numpy"),
        ("RUN |1 VERSION=2 /bin/sh -c make # buildkit", "RUN make"),
        ("COPY . /app # buildkit", "COPY . /app"),
        ("dock image capture: system", "capture: system"),
        ("python -c 'print(1)'", "python -c 'print(1)'"),
        ("", ""),
    ],
)
def test_steps_are_shown_without_what_builders_put_around_them(created_by: str, shown: str) -> None:
    assert tidy_step(created_by) == shown


def test_steps_that_made_no_layer_are_left_out() -> None:
    history = [
        {"created_by": "ADD x"},
        {"created_by": "ENV a=b", "empty_layer": True},
        {"comment": "by hand"},
        {},
    ]
    assert read_steps(history) == ["ADD x", "by hand", ""]


# -- the picture -------------------------------------------------------------------------------------------


def rectangles(svg: str) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of each rectangle."""
    found = []
    for element in ElementTree.fromstring(svg).iter(f"{SVG}rect"):
        x, y, wide, high = (int(element.attrib[key]) for key in ("x", "y", "width", "height"))
        found.append((x, y, x + wide, y + high))
    return found


def assert_drawn_well(svg: str) -> None:
    """Every box in the picture, no two of them over each other, every text within the picture's width."""
    root = ElementTree.fromstring(svg)
    width_pixels, height_pixels = int(root.attrib["width"]), int(root.attrib["height"])
    boxes = rectangles(svg)
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert 0 <= left < right <= width_pixels
        assert 0 <= top < bottom <= height_pixels
        for other_left, other_top, other_right, other_bottom in boxes[number + 1 :]:
            assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top


NAMES = st.text(max_size=120)


@given(NAMES, NAMES, NAMES)
def test_whatever_the_names_the_picture_is_well_formed_and_nothing_overlaps(
    name: str, container: str, made_by: str
) -> None:
    base = Image(digest("1"), (name,), (Layer(digest("a"), 10, made_by),))
    graph = LayerGraph((base, image("ab", *["x:1"] * 9)), (Container(container, base.id, "exited", None),))
    svg = layer_picture.draw_svg(graph)
    assert_drawn_well(svg)
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert all(letter == "\n" or letter.isprintable() for letter in text)
    ElementTree.fromstring(f"<page>{layer_picture.draw_html(graph)}</page>")


def test_hostile_names_do_not_become_elements() -> None:
    attack = '"><script>alert(1)</script><img src=x onerror=alert(1)>\x00\u202e'
    base = Image(digest("1"), (attack,), (Layer(digest("a"), 10, attack),))
    html = layer_picture.draw_html(LayerGraph((base,), (Container(attack, base.id, attack, 1),)))
    html += change_tree.draw_html(attack, [Change(f"/{attack}", ADDED, 1)])
    assert "<script" not in html
    assert "<img" not in html
    assert "\x00" not in html
    assert "\u202e" not in html


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_what_does_not_fit_is_cut_and_whole_in_the_tooltip() -> None:
    name = "registry.example.org:5000/a/rather/long/path/to/the/study:2026-11-24"
    step = "RUN apt-get install -y build-essential gfortran libopenblas-dev"
    base = Image(digest("1"), (name,), (Layer(digest("a"), 10, step),))
    svg = layer_picture.draw_svg(LayerGraph((base,)))
    shown = texts(svg)
    assert name not in shown
    assert any(text.startswith("…") and text.endswith("study:2026-11-24") for text in shown)
    assert any(text.startswith("RUN apt-get") and text.endswith("…") for text in shown)
    tooltips = [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}title")]
    assert any(name in tooltip for tooltip in tooltips)
    assert any(step in tooltip and digest("a") in tooltip for tooltip in tooltips)
    room = layer_picture.COLUMN_PIXELS - 2 * layer_picture.PADDING_PIXELS
    assert all(width(text) * layer_picture.SMALL_PIXELS * 0.6 <= room for text in shown)


def test_the_picture_has_a_title_a_description_and_no_fixed_text_colour() -> None:
    svg = layer_picture.draw_svg(LayerGraph((image("ab", "study:1"),)))
    root = ElementTree.fromstring(svg)
    labels = root.attrib["aria-labelledby"].split()
    described = {element.attrib["id"]: element.text or "" for element in root if "id" in element.attrib}
    assert [described[label].split("\n")[0] for label in labels] == [
        "Layers of study:1",
        f"image study:1  {'b' * 12}  2 layers",
    ]
    for element in root.iter(f"{SVG}text"):
        assert "fill:currentColor" in element.attrib["style"]


def test_sizes_and_what_is_shared_are_told_in_the_text_too() -> None:
    graph = LayerGraph(
        (image("a", "base:1"), image("ab")), (Container("box", image("a").id, "exited", None),)
    )
    assert layer_picture.describe(graph).split("\n") == [
        f"image base:1  {'a' * 12}  1 layer",
        "  writable layer of container box (exited)  ?",
        f"  {'a' * 12}      1kB  step a  in 2 images",
        f"image <none>  {'b' * 12}  2 layers",
        f"  {'b' * 12}      1kB  step b",
        f"  {'a' * 12}      1kB  step a  in 2 images",
        "2 layers stored: 2kB",
    ]


def test_the_legend_tells_of_what_is_drawn_only() -> None:
    alone = layer_picture.draw_html(LayerGraph((image("a"),)))
    assert "read-only layer" in alone
    assert "stored once" not in alone
    assert "writable" not in alone
    assert "No images" in layer_picture.draw_html(LayerGraph(()))


@given(st.text(), st.integers(1, 40), st.booleans())
def test_a_shortened_text_fits_and_keeps_one_end(text: str, columns: int, keep_end: bool) -> None:
    line = one_line(text)
    short = shorten(line, columns, keep_end=keep_end)
    assert width(short) <= columns
    if short != line:
        kept = short.removeprefix("…") if keep_end else short.removesuffix("…")
        assert line.endswith(kept) if keep_end else line.startswith(kept)


# -- changes -----------------------------------------------------------------------------------------------


def test_changes_are_a_tree_with_directories_on_the_way() -> None:
    changes = [
        Change("/b/x", ADDED, 1500),
        Change("/a", DELETED),
        Change("/b/x-y", MODIFIED, 5),
        Change("/b/x/z", ADDED),
    ]
    assert [(row.depth, row.name, row.change and row.change.kind) for row in build_rows(changes)] == [
        (0, "a", DELETED),
        (0, "b", None),
        (1, "x", ADDED),
        (2, "z", ADDED),
        (1, "x-y", MODIFIED),
    ]
    assert change_tree.draw_text("box", changes).split("\n") == [
        "writable layer of box: 2 added, 1 changed, 1 deleted; 1.5kB in files",
        "D /a",
        "  /b",
        "A   x  1.5kB",
        "A     z",
        "C   x-y  5B",
    ]
    assert (
        ElementTree.fromstring(f"<page>{change_tree.draw_html('box', changes)}</page>").find(".//table")
        is not None
    )


def test_a_writable_layer_without_anything_is_empty() -> None:
    assert change_tree.draw_text("box", []) == "writable layer of box: empty"
    assert "<table" not in change_tree.draw_html("box", [])


def test_a_deep_tree_is_walked_and_a_long_one_cut() -> None:
    deep = build_rows([Change("/d" * 5000, ADDED)])
    assert deep[-1].depth == 4999
    many = [Change(f"/{number:04}", ADDED, 1) for number in range(1000)]
    for drawn in (change_tree.draw_text("box", many), change_tree.draw_html("box", many)):
        assert f"and {1000 - change_tree.ROWS_SHOWN} more" in drawn
        assert "0999" not in drawn
    assert "1000 added" in change_tree.draw_text("box", many)


@given(st.lists(st.text(st.characters(exclude_characters="/"), min_size=1), min_size=1, max_size=4))
def test_whatever_the_paths_the_table_is_well_formed(parts: Sequence[str]) -> None:
    html = change_tree.draw_html("box", [Change("/" + "/".join(parts), ADDED, 1)])
    ElementTree.fromstring(f"<page>{html}</page>")


def test_sizes_follow_no_link_out_of_the_writable_layer(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"x" * 77)
    upper = tmp_path / "upper"
    (upper / "srv").mkdir(parents=True)
    (upper / "srv" / "data").write_bytes(b"x" * 5)
    (upper / "top").write_bytes(b"x" * 3)
    (upper / "away").symlink_to(outside)
    (upper / "srv" / "link").symlink_to(outside / "secret")
    os.mkfifo(upper / "srv" / "pipe")
    paths = [
        "/srv",
        "/srv/data",
        "/srv/link",
        "/srv/pipe",
        "/srv/gone",
        "/top",
        "/away/secret",
        "/../outside/secret",
    ]
    assert file_sizes(upper, paths) == {"/srv/data": 5, "/top": 3}


# -- a real store ------------------------------------------------------------------------------------------


BASE = tar_of({"etc/os-release": b"x" * 100})
TOP = tar_of({"srv/app": b"x" * 20})


def archive(tag: str, *layers: bytes) -> io.BytesIO:
    """A docker-archive of an image with a history of a step for each layer and one without."""
    config = json.loads(build_config(*map(digest_of, layers)))
    steps: list[dict[str, object]] = [{"created_by": f"step {number}"} for number in range(len(layers))]
    config["history"] = [steps[0], {"created_by": "ENV a=b", "empty_layer": True}, *steps[1:]]
    return io.BytesIO(build_docker_archive(*layers, tags=[tag], config=json.dumps(config).encode()))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine with two images of which one begins with the other's layer, and a container of each."""
    if not ROOT:
        pytest.skip(NEEDS_ROOT)
    monkeypatch.setenv("PYDOCK_ROOT", str(tmp_path))
    engine = Engine()
    engine.images.load(archive("base:1", BASE))
    engine.images.load(archive("study:1", BASE, TOP))
    for name, image in (("box", "base:1"), ("bar", "study:1")):
        container_id, _ = engine.containers.create(create_request(image, "true"), name)
        upper = engine.root.container(container_id).upper
        upper.mkdir(parents=True)
        (upper / "new").write_bytes(b"x" * len(name + image))
    yield engine
    engine.close()


def test_an_image_is_shown_with_its_layers_names_and_containers(store: Engine) -> None:
    graph = pydock_jupyter.layers("study:1").graph
    assert [image.names for image in graph.images] == [("study:1",)]
    assert graph.images[0].layers == (
        Layer(digest_of(BASE), 100, "step 0"),
        Layer(digest_of(TOP), 20, "step 1"),
    )
    assert graph.containers == (Container("bar", graph.images[0].id, "created", 10),)


def test_a_container_is_shown_on_its_image_and_alone(store: Engine) -> None:
    store.containers.create(create_request("base:1", "true"), "another")
    graph = pydock_jupyter.layers("box").graph
    assert [image.names for image in graph.images] == [("base:1",)]
    assert [container.name for container in graph.containers] == ["box"]
    both = pydock_jupyter.layers("box", "study:1", "study:1").graph
    assert [image.names for image in both.images] == [("base:1",), ("study:1",)]
    assert {container.name for container in both.containers} == {"box", "bar"}


def test_without_a_name_all_images_are_shown(store: Engine) -> None:
    view = pydock_jupyter.layers()
    assert len(view.graph.images) == 2
    assert view.graph.owners(digest_of(BASE)) == 2
    assert_drawn_well(view.svg())
    assert "in 2 images" in texts(view.svg())
    assert repr(view).endswith("2 layers stored: 120B")


@pytest.mark.parametrize("show", [pydock_jupyter.layers, pydock_jupyter.changes])
def test_what_is_not_there_is_named(store: Engine, show: Callable[[str], object]) -> None:
    with pytest.raises(NotFoundError, match="nothing-here"):
        show("nothing-here")
