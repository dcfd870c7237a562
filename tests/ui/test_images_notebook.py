"""The notebook of images in the page: its pictures in the light and in the dark theme, measured by the browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Locator, Page, expect

from tests.ui.conftest import REPOSITORY, Lab, expect_executed

LAST_HEADING = "Disk usage"
PICTURES = 3

MEASURE = """svg => {
    const box = element => { const b = element.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] };
    return {
        picture: box(svg),
        place: box(svg.parentElement),
        groups: [...svg.querySelectorAll('g')].map(group => ({
            frame: box(group.querySelector('rect')),
            texts: [...group.querySelectorAll('text')].map(text => ({words: text.textContent, box: box(text)})),
        })),
    }
}"""
"""Where the browser has put a picture, each box of it and each text in that: [left, top, right, bottom]."""

CONTRAST = """element => {
    const channels = colour => colour.match(/[\\d.]+/g).map(Number);
    let behind = element;
    while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
    const back = channels(getComputedStyle(behind).backgroundColor).slice(0, 3);
    const style = getComputedStyle(element);
    const [red, green, blue, alpha = 1] = channels(element instanceof SVGElement ? style.fill : style.color);
    const opacity = alpha * (element instanceof SVGElement ? Number(style.fillOpacity) : 1);
    const front = [red, green, blue].map((value, index) => opacity * value + (1 - opacity) * back[index]);
    const luminance = colour => colour
        .map(value => value / 255)
        .map(value => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
        .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const [darker, lighter] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    return (lighter + 0.05) / (darker + 0.05);
}"""
"""The contrast ratio of a text to the page behind it (Web Content Accessibility Guidelines 2.2, 1.4.3)."""
ENOUGH_CONTRAST = 4.5


def is_inside(inner: list[float], outer: list[float]) -> bool:
    return (
        inner[0] >= outer[0] - 0.5
        and inner[1] >= outer[1] - 0.5
        and inner[2] <= outer[2] + 0.5
        and inner[3] <= outer[3] + 0.5
    )


def is_over(one: list[float], other: list[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def assert_drawn_well(picture: Locator) -> None:
    """All of it can be seen; no text leaves its box or lies on another one, no box on another one."""
    measured: dict[str, Any] = picture.evaluate(MEASURE)
    assert is_inside(measured["picture"], measured["place"])
    groups = measured["groups"]
    assert groups
    for number, group in enumerate(groups):
        assert is_inside(group["frame"], measured["picture"])
        assert not any(is_over(group["frame"], other["frame"]) for other in groups[number + 1 :])
        for place, text in enumerate(group["texts"]):
            assert is_inside(text["box"], group["frame"]), text["words"]
            for other in group["texts"][place + 1 :]:
                assert not is_over(text["box"], other["box"]), (text["words"], other["words"])


def assert_legible(texts: Locator) -> None:
    for ratio in [text.evaluate(CONTRAST) for text in texts.all()]:
        assert ratio >= ENOUGH_CONTRAST


def change_theme(page: Page, run_command: Callable[..., None], theme: str, *, is_light: bool) -> None:
    run_command(page, "apputils:change-theme", {"theme": theme})
    expect(page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", str(is_light).lower())


def test_the_pictures_are_whole_and_legible_in_both_themes(
    page: Page,
    lab: Lab,
    open_notebook: Callable[..., Locator],
    run_command: Callable[..., None],
    dock: Callable[..., str],
    take_picture: Callable[..., Path],
) -> None:
    notebook = nbformat.read(REPOSITORY / "notebooks" / "images.ipynb", as_version=4)
    (heading,) = [number for number, cell in enumerate(notebook.cells) if LAST_HEADING in cell.source]
    shutil.copy(REPOSITORY / "notebooks" / "images.ipynb", lab.notebooks)
    cells = open_notebook("images.ipynb")
    page.get_by_role("heading", name=LAST_HEADING).click()
    run_command(page, "notebook:run-all-above")
    pictures = cells.locator("svg.pydock-layers")
    expect_executed(cells.nth(heading - 1))
    expect(pictures).to_have_count(PICTURES)
    errors = cells.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]')
    expect(errors).to_have_count(0)

    changes = cells.locator("table.pydock-changes")
    for theme, is_light in (("JupyterLab Light", True), ("JupyterLab Dark", False)):
        change_theme(page, run_command, theme, is_light=is_light)
        word = "light" if is_light else "dark"
        for number in range(PICTURES):
            picture = pictures.nth(number)
            picture.scroll_into_view_if_needed()
            assert_drawn_well(picture)
            assert_legible(picture.locator("text"))
            take_picture(page, f"images-{number}-{word}")
        changes.scroll_into_view_if_needed()
        assert_legible(changes.locator("td", has_text="estimates.csv"))
        take_picture(page, f"images-changes-{word}")

    change_theme(page, run_command, "JupyterLab Light", is_light=True)
    expect(pictures.last).to_contain_text("tutorial/study:2")
    run_command(page, "application:toggle-left-area")
    expect(page.locator("#jp-left-stack")).to_be_hidden()
    page.get_by_role("paragraph").filter(has_text="Three images").evaluate(
        "text => text.scrollIntoView({block: 'start'})"
    )
    expect(pictures.last).to_be_in_viewport(ratio=1)
    take_picture(page, "layers", for_readme=True)
    page.get_by_role("heading", name=LAST_HEADING).click()
    run_command(page, "notebook:run-all-below")
    expect_executed(cells.last)
    expect(errors).to_have_count(0)
    assert dock("images", "-q", "--filter", "reference=tutorial/*") != ""  # for a person to try things on
    cells.last.locator(".cm-content").click()
    for keys in ("Control+a", "Control+/", "Control+Enter"):
        page.keyboard.press(keys)
    expect(cells.last.locator(".jp-OutputArea-output").last).to_contain_text("REPOSITORY")
    expect(errors).to_have_count(0)
    assert dock("ps", "-aq") == ""
    assert dock("images", "-q", "--filter", "reference=tutorial/*") == ""
