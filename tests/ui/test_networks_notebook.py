"""The notebook of networks in the page: its diagrams in the light and in the dark theme, measured by the browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.ui.conftest import REPOSITORY, Lab, expect_executed
from tests.ui.test_images_notebook import assert_drawn_well, assert_legible, change_theme

NAME = "networks.ipynb"
LAST_HEADING = "Clean up"
PICTURES = 3

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root makes bridges"),
    pytest.mark.skipif(not shutil.which("nft"), reason="needs nft (Debian: nftables)"),
]


def test_the_diagrams_are_whole_and_legible_in_both_themes(
    page: Page,
    lab: Lab,
    open_notebook: Callable[..., Locator],
    run_command: Callable[..., None],
    dock: Callable[..., str],
    take_picture: Callable[..., Path],
) -> None:
    notebook = nbformat.read(REPOSITORY / "notebooks" / NAME, as_version=4)
    (heading,) = [number for number, cell in enumerate(notebook.cells) if LAST_HEADING in cell.source]
    shutil.copy(REPOSITORY / "notebooks" / NAME, lab.notebooks)
    cells = open_notebook(NAME)
    page.get_by_role("heading", name=LAST_HEADING).click()
    run_command(page, "notebook:run-all-above")
    pictures = cells.locator("svg.pydock-networks")
    expect_executed(cells.nth(heading - 1))
    expect(pictures).to_have_count(PICTURES)
    errors = cells.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]')
    expect(errors).to_have_count(0)
    for theme, is_light in (("JupyterLab Dark", False), ("JupyterLab Light", True)):
        change_theme(page, run_command, theme, is_light=is_light)
        for number in range(PICTURES):
            picture = pictures.nth(number)
            picture.scroll_into_view_if_needed()
            assert_drawn_well(picture)
            assert_legible(picture.locator("text"))
            take_picture(page, f"networks-{number}-{'light' if is_light else 'dark'}")
    assert dock("ps", "-q", "--filter", "name=tutorial") != ""  # for a person to try things on
    cells.last.locator(".cm-content").click()
    for keys in ("Control+a", "Control+/", "Control+Enter"):
        page.keyboard.press(keys)
    expect(cells.last.locator(".jp-OutputArea-output").last).to_contain_text("Untagged: tutorial/networks:1")
    expect(errors).to_have_count(0)
    assert dock("ps", "-aq", "--filter", "name=tutorial") == ""
    assert dock("network", "ls", "-q", "--filter", "name=tutorial") == ""
