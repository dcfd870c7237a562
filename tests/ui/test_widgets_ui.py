"""The magics and the panel widget in a notebook of the browser, with a real kernel."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

SERVE = (
    "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=8000, bind='127.0.0.1')"
)


@pytest.fixture
def web(dock: Callable[..., str], image: str) -> Iterator[str]:
    name = "web"
    options = ("--network", "none", "-w", "/etc", "--stop-timeout", "1", "--expose", "8000")
    dock("run", "-d", "--name", name, *options, image, "python", "-c", SERVE)
    yield name
    dock("rm", "-f", name, check=False)


def run_notebook(page: Page, lab: Any, *cells: str) -> Locator:
    """Open a notebook with these cells, run them all, and return the cells' places in the page."""
    path = lab.notebooks / "test.ipynb"
    path.write_text(
        json.dumps(
            {
                "nbformat": 4,
                "nbformat_minor": 5,
                "metadata": {
                    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
                },
                "cells": [
                    {
                        "id": f"cell-{number}",
                        "cell_type": "code",
                        "source": source,
                        "metadata": {},
                        "outputs": [],
                        "execution_count": None,
                    }
                    for number, source in enumerate(cells)
                ],
            }
        )
    )
    page.locator('.jp-SideBar [data-id="filebrowser"]').click()
    page.locator(".jp-DirListing-item", has_text="test.ipynb").dblclick()
    expect(page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(len(cells))
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").first).to_be_attached()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    return page.locator(".jp-Notebook .jp-CodeCell")


def test_magics_render_tables_and_text(
    page: Page, lab: Any, web: str, image: str, take_picture: Callable[..., Path]
) -> None:
    cells = run_notebook(
        page,
        lab,
        "%load_ext pydock_jupyter",
        "%dock ps",
        f"%%dock run --rm --network none {image} python -\nprint('six times seven is', 6 * 7)",
        "%dock stop nonsense",
    )
    table = cells.nth(1).locator("table")
    expect(table.locator("th", has_text="NAMES")).to_be_visible()
    expect(table.locator("td", has_text=re.compile("^web$"))).to_be_visible()
    expect(cells.nth(2).locator(".jp-OutputArea-output")).to_contain_text("six times seven is 42")
    expect(cells.nth(3).locator(".jp-OutputArea-output")).to_contain_text("hint: ")
    expect(cells.nth(3).locator(".jp-OutputArea-output")).not_to_contain_text("Traceback")
    take_picture(page, "magics")


def test_panel_widget(
    page: Page, lab: Any, web: str, dock: Callable[..., str], take_picture: Callable[..., Path]
) -> None:
    cells = run_notebook(
        page, lab, "import pydock_jupyter\nshown = pydock_jupyter.panel()\nshown", "shown.close()"
    )
    panel = page.locator(".pydock-panel")
    expect(panel).to_have_count(0)  # the second cell has closed it
    cells.nth(0).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    row = panel.locator(".widget-hbox", has_text=web).first
    expect(row).to_contain_text("running")
    take_picture(page, "widget")

    row.get_by_role("button", name="Log").click()
    expect(panel).to_contain_text(f"Log of {web}")
    row.get_by_role("button", name="Stop").click()
    expect(row).to_contain_text("Exited (")
    assert dock("inspect", "--format", "{{.State.Status}}", web) == "exited"
    row.get_by_role("button", name="Start").click()
    expect(row).to_contain_text("running")

    row.get_by_role("link", name="8000").click()
    expect(page.get_by_role("tab", name=f"{web}:8000")).to_be_visible()
    application = page.frame_locator(".pydock-Application iframe")
    expect(application.get_by_role("link", name="passwd", exact=True)).to_be_visible()
    page.get_by_role("tab", name="test.ipynb").click()

    row.get_by_role("button", name="Remove", exact=True).click()
    row.get_by_role("button", name="Remove it").click()
    expect(panel).not_to_contain_text(web)
    assert web not in dock("ps", "-a", "--format", "{{.Names}}").split()


def test_a_link_without_the_lab_extension(page: Page, lab: Any, web: str) -> None:
    """The link itself is right under a base URL, for front ends without the extension."""
    run_notebook(page, lab, "import pydock_jupyter\npydock_jupyter.panel()")
    link = page.locator(".pydock-panel a.pydock-port", has_text="8000").first
    expect(link).to_be_visible()
    assert link.get_attribute("href") == f"/user/me/pydock/c/{web}/8000/"
    with page.context.expect_page() as opened:
        link.click(modifiers=["Control"])
    expect(opened.value.get_by_role("link", name="passwd", exact=True)).to_be_visible()
