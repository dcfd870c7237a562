"""The magics and the panel widget in a notebook of the browser, with a real kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect


def test_magics_render_tables_and_text(
    page: Page, run_notebook: Callable[..., Locator], web: str, image: str, take_picture: Callable[..., Path]
) -> None:
    cells = run_notebook(
        "%load_ext pydock_jupyter",
        "%dock ps",
        f"%%dock run --rm --network none {image} python -\nprint('six times seven is', 6 * 7)",
        "%dock stop nonsense",
        name="magics.ipynb",
    )
    table = cells.nth(1).locator("table")
    expect(table.locator("th", has_text="NAMES")).to_be_visible()
    expect(table.locator("td", has_text=re.compile("^web$"))).to_be_visible()
    expect(cells.nth(2).locator(".jp-OutputArea-output")).to_contain_text("six times seven is 42")
    error, line = (
        cells.nth(3).locator(".jp-OutputArea-output").nth(0),
        cells.nth(3).locator(".jp-OutputArea-output").nth(1),
    )
    expect(error).to_contain_text("hint: ")
    expect(line).to_have_text("CommandError: dock stop: exit code 1")
    take_picture(page, "magics")


def test_panel_widget(
    page: Page,
    run_notebook: Callable[..., Locator],
    web: str,
    dock: Callable[..., str],
    take_picture: Callable[..., Path],
) -> None:
    cells = run_notebook(
        "import pydock_jupyter\nshown = pydock_jupyter.panel()\nshown", "shown.close()", name="panel.ipynb"
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
    expect(application.get_by_role("heading", name="First page")).to_be_visible()
    page.get_by_role("tab", name="panel.ipynb").click()

    row.get_by_role("button", name=re.compile(r"Remove$")).click()
    row.get_by_role("button", name="Remove it").click()
    expect(panel).to_contain_text("No containers yet")
    expect(panel).not_to_contain_text(web)
    assert web not in dock("ps", "-a", "--format", "{{.Names}}").split()


def test_a_link_without_the_lab_extension(page: Page, run_notebook: Callable[..., Locator], web: str) -> None:
    """The link itself is right under a base URL, for front ends without the extension."""
    run_notebook("import pydock_jupyter\npydock_jupyter.panel()", name="link.ipynb")
    link = page.locator(".pydock-panel a.pydock-port", has_text="8000").first
    expect(link).to_be_visible()
    assert link.get_attribute("href") == f"/user/me/pydock/c/{web}/8000/"
    with page.context.expect_page() as opened:
        link.click(modifiers=["Control"])
    expect(opened.value.get_by_role("heading", name="First page")).to_be_visible()
