"""The left-hand panel with many containers and images of long, similar names, from a played API: density, names,
heights, contrast and the keyboard.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from pydock_core.engine import Snapshot
from pydock_jupyter.panel_view import build_view
from tests.ui.look import SHAPE_CONTRAST, TEXT_CONTRAST, contrast, visible_tail

CONTAINERS = 30
LAST_IMAGE = 100
WINDOW = {"width": 1280, "height": 720}
ROW_PIXELS = (24, 28)
MIN_ROWS = 15
STATES = (
    ("running", "Up 2 hours"),
    ("exited", "Exited (0) 3 minutes ago"),
    ("exited", "Exited (137) 2 days ago"),
    ("paused", "Up 5 minutes (Paused)"),
    ("created", "Created"),
)

WHOLLY_VISIBLE = """
(rows, section) => {
  const view = document.querySelector(section).getBoundingClientRect();
  return rows.filter(row => {
    const box = row.getBoundingClientRect();
    return box.top >= view.top - 0.5 && box.bottom <= view.bottom + 0.5;
  }).length;
}
"""

BOXES = "all => all.map(e => e.getBoundingClientRect()).map(box => [box.x, box.y, box.width])"
IS_SHOWN = """
element => {
  const [box, view] = [element, element.parentElement].map(e => e.getBoundingClientRect());
  return box.left >= view.left - 0.5 && box.bottom <= view.bottom + 0.5;
}
"""


def container(number: int) -> dict[str, Any]:
    state, status = STATES[number % len(STATES)]
    ports = [6006, 8888, 9000][: number // 5 % 4]
    return {
        "Id": f"{number:064x}",
        "Names": [f"/experiment-resnet50-imagenet-augmented-learning-rate-0.001-fold-{number:02d}"],
        "Image": f"registry.example.org/research/vision/training-environment:2025-06-{number:02d}",
        "State": state,
        "Status": status,
        "Ports": [{"PrivatePort": port, "Type": "tcp"} for port in ports],
    }


def image(number: int) -> dict[str, Any]:
    names = [f"registry.example.org/research/vision/training-environment:2025-06-{number:03d}"]
    return {
        "Id": f"sha256:{number:064x}",
        "RepoTags": names + ["latest-training-environment:now"] * (number % 3),
        "Size": 10**6 * (number + 1),
    }


def play(page: Page, containers: list[dict[str, Any]], images: list[dict[str, Any]]) -> None:
    """Stream containers and images to the panel in place of the server, and wait until it shows them."""

    def answer(route: Route) -> None:
        route.fulfill(body=json.dumps(build_view(Snapshot(tuple(containers), tuple(images)))) + "\n")

    page.route("**/pydock/panel?*", answer)
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator(".pydock-Container")).to_have_count(len(containers))
    expect(page.locator(".pydock-Image")).to_have_count(len(images))


def visible_rows(page: Page, kind: str) -> int:
    """How many rows ("Container", "Image") are wholly visible."""
    section = ".pydock-Section:has(.pydock-" + kind + ")"
    return int(page.locator(f".pydock-{kind}").evaluate_all(WHOLLY_VISIBLE, section))


def tails(page: Page, kind: str) -> list[str]:
    """The wholly visible ends of names."""
    return [visible_tail(tail) for tail in page.locator(f".pydock-{kind}-name .pydock-Name-tail").all()]


@pytest.fixture
def many(panel: Page) -> Page:
    """The panel in a small window with thirty containers and a hundred images."""
    panel.set_viewport_size(WINDOW)
    play(panel, [container(n) for n in range(CONTAINERS)], [image(n) for n in range(LAST_IMAGE)])
    return panel


def test_many(many: Page, take_picture: Callable[..., Path]) -> None:
    """Rows are one line each, containers have most of the height, and names differ at every width."""
    bar = many.locator("#jp-left-stack")
    for width in ("narrow", "wide"):
        if width == "wide":
            drag(many, 330)
        take_picture(many, f"many-{width}")
        for row in (many.locator(".pydock-Container").first, many.locator(".pydock-Image").first):
            box = row.bounding_box()
            assert box is not None
            assert ROW_PIXELS[0] <= box["height"] <= ROW_PIXELS[1]
        assert visible_rows(many, "Container") >= MIN_ROWS
        assert visible_rows(many, "Image") >= 3
        assert bar.evaluate("node => node.scrollWidth <= node.clientWidth")
        ends = tails(many, "Container")
        assert len(set(ends)) == CONTAINERS, ends
        assert "" not in ends
        ends = tails(many, "Image")
        assert len(set(ends)) == LAST_IMAGE, ends
        assert "" not in ends
    shapes = many.locator(".pydock-State")
    drawn = {shapes.nth(number).inner_html() for number in range(len(STATES))}
    assert len(drawn) == len(STATES)
    expect(shapes.nth(2)).to_have_attribute("aria-label", "exited")
    row = many.locator(".pydock-Container").first
    expect(row.locator(".pydock-Row-detail")).to_be_in_viewport()
    name = container(0)["Names"][0][1:]
    assert name in str(row.get_attribute("title"))
    assert container(0)["Image"] in str(row.get_attribute("title"))

    # Few images leave the height to many containers, and the other way round.
    many.unroute_all()
    play(many, [container(n) for n in range(CONTAINERS)], [image(0)])
    wait_for_rows(many, "Image", 1)
    assert visible_rows(many, "Container") >= MIN_ROWS + 8
    many.unroute_all()
    play(many, [container(n) for n in range(2)], [image(n) for n in range(LAST_IMAGE)])
    wait_for_rows(many, "Container", 2)
    assert visible_rows(many, "Image") >= MIN_ROWS + 6


FIXED = ("Start", "Stop", "Remove")


def test_rows_hold_still(many: Page, take_picture: Callable[..., Path]) -> None:
    """Pointed at or not, nothing of a row moves, and a button stands in one place whatever else the row has."""
    rows = many.locator(".pydock-Container")
    places: dict[str, set[float]] = {"Start": set(), "Remove": set()}
    for width in ("narrow", "wide"):
        if width == "wide":
            drag(many, 450)
            for found in places.values():
                found.clear()
        for number in (0, 1, 2, 5, 10, 15):  # none to three ports, running and ended
            row = rows.nth(number)
            parts = row.locator(
                ".pydock-Name-tail, .pydock-Chip:not(.pydock-mod-pointed):visible, .pydock-State"
            )
            many.mouse.move(900, 400)
            before = parts.evaluate_all(BOXES)
            row.hover(position={"x": 60, "y": 12})
            assert parts.evaluate_all(BOXES) == before
            if number == 15:
                take_picture(many, f"many-pointed-{width}")
            head = row.locator(".pydock-Name-head").bounding_box()
            assert head is not None
            assert head["width"] >= 15  # a character and an ellipsis
            assert head["y"] == before[1][1], "the head is not shown"
            assert visible_tail(row.locator(".pydock-Name-tail"))
            for button in FIXED:
                for place in row.get_by_role("button", name=f"{button} experiment").all():
                    box = place.bounding_box()
                    assert box is not None
                    places["Remove" if button == "Remove" else "Start"].add(box["x"])
        assert [len(found) for found in places.values()] == [1, 1], places
        many.mouse.move(900, 400)
        for number, text in (
            (1, "Exited (0)"),
            (2, "Exited (137)"),
        ):  # even where there is no room for the rest
            state = rows.nth(number).locator(".pydock-Row-detail > span").first
            expect(state).to_have_text(text)
            assert state.evaluate(IS_SHOWN)
            rest = rows.nth(number).locator(".pydock-Row-detail > span").nth(1)
            assert rest.evaluate(IS_SHOWN) == (width == "wide")


def drag(page: Page, pixels: int) -> None:
    """Widen the left-hand area."""
    box = page.locator("#jp-left-stack").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] + 1, box["y"] + 300
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + pixels, y, steps=4)
    page.mouse.up()
    page.mouse.move(900, 400)


def assert_readable(row: Locator) -> None:
    """Hold the contrast of all that a row shows now."""
    for place in row.locator(
        ".pydock-Name-head, .pydock-Row-detail, .pydock-Chip, .pydock-Row-size, .pydock-Row-more"
    ).all():
        if place.is_visible():
            assert contrast(place) >= TEXT_CONTRAST, place.inner_text()
    for place in row.locator(".pydock-State").all():
        assert contrast(place) >= SHAPE_CONTRAST, place.get_attribute("data-look")
    shown = row.locator(".pydock-Row-actions").evaluate_all(
        "all => all.some(e => getComputedStyle(e).opacity === '1')"
    )
    assert shown == row.evaluate("e => e.matches('.pydock-Container:is(:hover, :focus-within)')")
    for place in row.locator(".pydock-IconButton svg :is(path, rect)[class*=jp-icon]").all() if shown else ():
        assert contrast(place, "fill") >= SHAPE_CONTRAST, place.evaluate("e => e.closest('button').title")


def test_contrast(many: Page, run_command: Callable[..., None], take_picture: Callable[..., Path]) -> None:
    """Everything is readable at rest, pointed at, focused, pressed and disabled, in both themes."""
    for theme in ("Dark", "Light"):
        run_command(many, "apputils:change-theme", {"theme": f"JupyterLab {theme}"})
        light = str(theme == "Light").lower()
        expect(many.locator(f"body[data-jp-theme-light={light}]")).to_be_attached()
        expect(many.locator("#jupyterlab-splash")).to_have_count(0)
        assert_all_readable(many, lambda theme=theme: take_picture(many, f"many-{theme.lower()}"))


def assert_all_readable(many: Page, take: Callable[[], object]) -> None:
    """Hold the contrast of each state of a container and of a control."""
    rows = many.locator(".pydock-Container")
    for number in range(len(STATES)):
        many.mouse.move(900, 400)
        assert_readable(rows.nth(number))
        rows.nth(number).hover()
        assert_readable(rows.nth(number))
    first_image = many.locator(".pydock-Image").nth(1)
    assert_readable(first_image)
    first_image.hover()
    assert_readable(first_image)

    row = rows.nth(5)  # runs, with a port
    for place in (row.locator(".pydock-Chip").first, row.get_by_role("button", name="Stop")):
        place.hover()
        assert_readable(row)
        many.mouse.down()
        assert_readable(row)
        take()
        many.mouse.move(900, 400)
        many.mouse.up()
        place.focus()
        assert_readable(row)

    waiting: list[Route] = []
    many.route("**/pydock/api/containers/*/stop?*", lambda route: waiting.append(route))
    row.hover()
    with many.expect_request("**/stop?*"):
        row.get_by_role("button", name="Stop").click()
    expect(row).to_have_attribute("aria-busy", "true")
    expect(row.get_by_role("button", name="Stop")).to_be_disabled()
    assert_readable(row)
    waiting[0].fulfill(status=204)
    expect(row).to_have_attribute("aria-busy", "false")
    many.unroute("**/pydock/api/containers/*/stop?*")


def test_keyboard(many: Page) -> None:
    """The list is one stop of the tab key; arrows go from row to row, tab to the buttons of the row."""
    rows = many.locator(".pydock-Container")
    rows.first.focus()
    many.keyboard.press("End")
    expect(rows.last).to_be_focused()
    expect(rows.last).to_be_in_viewport(ratio=1)
    many.keyboard.press("Home")
    for _ in range(5):
        many.keyboard.press("ArrowDown")
    expect(rows.nth(5)).to_be_focused()
    for button in ("Open port 6006", "Open another port", "Stop", "Log", "Remove"):
        many.keyboard.press("Tab")
        focused = rows.nth(5).get_by_role("button", name=button)
        expect(focused).to_be_focused()
        expect(focused).to_be_in_viewport(ratio=1)
    many.keyboard.press("Tab")
    expect(many.locator(".pydock-List :focus")).to_have_count(0)
    rows.nth(5).focus()
    many.keyboard.press("Delete")
    expect(many.get_by_role("dialog")).to_contain_text("Remove experiment-")
    many.keyboard.press("Escape")


def wait_for_rows(page: Page, kind: str, count: int) -> None:
    page.wait_for_function(
        f"([kind, count]) => ({WHOLLY_VISIBLE})([...document.querySelectorAll(`.pydock-${{kind}}`)],"
        " `.pydock-Section:has(.pydock-${kind})`) === count",
        arg=[kind, count],
    )
