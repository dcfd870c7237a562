"""The magics and the panel widget in a notebook of the browser, with a real kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.ui.look import SHAPE_CONTRAST, TEXT_CONTRAST, contrast, visible_tail


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
    expect(row).to_contain_text("Up ")
    take_picture(page, "widget")

    row.get_by_role("button", name="Log").click()
    expect(panel).to_contain_text(f"Log of {web}")
    row.get_by_role("button", name="Stop").click()
    expect(row).to_contain_text("Exited (")
    assert dock("inspect", "--format", "{{.State.Status}}", web) == "exited"
    row.get_by_role("button", name="Start").click()
    expect(row).to_contain_text("Up ")

    row.get_by_role("link", name="8000").click()
    expect(page.get_by_role("tab", name=f"{web}:8000")).to_be_visible()
    application = page.frame_locator(".pydock-Application iframe")
    expect(application.get_by_role("heading", name="First page")).to_be_visible()
    page.get_by_role("tab", name="panel.ipynb").click()

    row.get_by_role("button", name=f"Remove {web}").click()
    row.get_by_role("button", name="Remove it").click()
    expect(panel).to_contain_text("No containers yet")
    expect(panel).not_to_contain_text(web)
    assert web not in dock("ps", "-a", "--format", "{{.Names}}").split()


MANY = """
from types import SimpleNamespace
from pydock_core.engine import Watcher
from pydock_jupyter.widgets.panel import Panel
states = [("running", "Up 2 hours"), ("exited", "Exited (0) 1 day ago"), ("exited", "Exited (1) 1 day ago")]
def container(n):
    state, status = states[n % 3]
    name = f"/experiment-resnet50-imagenet-augmented-learning-rate-0.001-with-warm-restarts-fold-{n:02d}"
    ports = [{"PrivatePort": port, "Type": "tcp"} for port in (6006, 8888)]
    return {"Id": str(n) * 64, "Names": [name], "Image": "train:1", "State": state, "Status": status, "Ports": ports}
images = [{"Id": f"sha256:{n:064x}", "RepoTags": [f"train:{n}"], "Size": 10**8 * n} for n in range(30)]
engine = SimpleNamespace(
    containers=SimpleNamespace(list=lambda all: [container(n) for n in range(30)]),
    images=SimpleNamespace(list=lambda: images),
    events=SimpleNamespace(changes=lambda: None),
    close=lambda: None,
)
Panel(Watcher(lambda: engine))
"""


def test_many_rows(
    page: Page,
    run_notebook: Callable[..., Locator],
    run_command: Callable[..., None],
    take_picture: Callable[..., Path],
) -> None:
    """Thirty containers of long, similar names: a line each, the ends of names in sight, readable in both themes."""
    run_notebook(MANY, name="many.ipynb")
    rows = page.locator(".pydock-panel .pydock-row[data-name]")
    expect(rows).to_have_count(30)
    list_box = page.locator(".pydock-panel > .widget-vbox").bounding_box()
    assert list_box is not None
    assert list_box["height"] / 30 * 2 <= 28, "a row is higher than one line"
    ends = [visible_tail(tail) for tail in rows.locator(".pydock-tail").all()]
    assert len(set(ends)) == 30, ends
    assert "" not in ends
    for theme in ("Dark", "Light"):
        run_command(page, "apputils:change-theme", {"theme": f"JupyterLab {theme}"})
        expect(page.locator(f"body[data-jp-theme-light={str(theme == 'Light').lower()}]")).to_be_attached()
        expect(page.locator("#jupyterlab-splash")).to_have_count(0)
        take_picture(page, f"widget-many-{theme.lower()}")
        for number in range(3):
            rows.nth(number).hover()
            for text in rows.nth(number).locator("span:not(:has(*), [role=img])").all():
                assert contrast(text) >= TEXT_CONTRAST, text.inner_text()
            assert contrast(rows.nth(number).locator("[role=img]")) >= SHAPE_CONTRAST
        chip = page.locator(".pydock-panel a.pydock-port").first
        chip.hover()
        assert contrast(chip) >= TEXT_CONTRAST


def test_a_link_without_the_lab_extension(page: Page, run_notebook: Callable[..., Locator], web: str) -> None:
    """The link itself is right under a base URL, for front ends without the extension."""
    run_notebook("import pydock_jupyter\npydock_jupyter.panel()", name="link.ipynb")
    link = page.locator(".pydock-panel a.pydock-port", has_text="8000").first
    expect(link).to_be_visible()
    assert link.get_attribute("href") == f"/user/me/pydock/c/{web}/8000/"
    with page.context.expect_page() as opened:
        link.click(modifiers=["Control"])
    expect(opened.value.get_by_role("heading", name="First page")).to_be_visible()
