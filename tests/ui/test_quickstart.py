"""The notebook of the first five minutes, in the page: "Run All", twice, what it shows, and the tidying up."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.ui.conftest import REPOSITORY, RUN_MILLISECONDS, Lab, expect_executed


def test_quickstart(
    page: Page,
    lab: Lab,
    open_notebook: Callable[..., Locator],
    run_command: Callable[..., None],
    dock: Callable[..., str],
    take_picture: Callable[..., Path],
) -> None:
    shutil.copy(REPOSITORY / "notebooks" / "quickstart.ipynb", lab.notebooks)
    cells = open_notebook("quickstart.ipynb")
    run_command(page, "notebook:run-all-cells")
    expect_executed(cells.last)

    widget = page.locator(".pydock-panel")
    expect(widget).to_contain_text("tensorboard", timeout=RUN_MILLISECONDS)
    for name in ("tensorboard", "inner"):
        expect(widget.locator(".widget-hbox", has_text=name).first).to_contain_text("Up ")
    take_picture(page, "quickstart-panel")
    expect(cells.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]')).to_have_count(
        0
    )

    board = page.locator('iframe[title="tensorboard:6006"]')
    board.scroll_into_view_if_needed()
    chart = board.content_frame.locator("scalar-card line-chart svg").first
    expect(chart).to_be_visible(timeout=60_000)
    expect(board.content_frame.locator("scalar-card").first).to_contain_text(re.compile("rate-0.1.*rate-0.3"))
    take_picture(page, "quickstart-tensorboard")

    inner = page.locator('iframe[title="inner:8888"]')
    inner.scroll_into_view_if_needed()
    expect(inner.content_frame.locator(".jp-LauncherCard").first).to_be_visible(timeout=60_000)
    take_picture(page, "quickstart-jupyterlab")

    first = dock("ps", "-q", "--no-trunc")
    run_command(page, "notebook:clear-all-cell-outputs")
    run_command(page, "notebook:run-all-cells")
    expect_executed(cells.last)
    expect(widget).to_contain_text("tensorboard", timeout=RUN_MILLISECONDS)
    expect(
        cells.locator(".jp-RenderedText[data-mime-type$=stderr], .jp-RenderedText[data-mime-type$=error]")
    ).to_have_count(0)
    second = dock("ps", "-q", "--no-trunc")
    assert len(second.split()) == 2
    assert set(first.split()).isdisjoint(second.split())
    inner.scroll_into_view_if_needed()
    expect(inner.content_frame.locator(".jp-LauncherCard").first).to_be_visible(timeout=60_000)

    cells.last.locator(".cm-content").click()
    for keys in ("Control+a", "Control+/", "Shift+Enter"):
        page.keyboard.press(keys)
    expect(widget).to_contain_text("No containers yet", timeout=60_000)
    take_picture(page, "quickstart-tidy")
    assert dock("ps", "-aq") == ""
