"""The program ``dock`` in JupyterLab's own terminal, and after an exclamation mark in a cell."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.ui.conftest import Lab


def test_dock_is_found(
    page: Page,
    lab: Lab,
    run_command: Callable[..., None],
    run_notebook: Callable[..., Locator],
    take_picture: Callable[..., Path],
    environment: dict[str, str],
) -> None:
    """The server is started by its path, without an activated environment (see the fixture)."""
    assert shutil.which("dock", path=environment["PATH"]) is None
    run_command(page, "terminal:create-new")
    terminal = page.locator(".jp-Terminal .xterm-helper-textarea")
    terminal.focus()
    expect(page.get_by_role("tab", name="Terminal 1")).to_be_visible()
    page.keyboard.type("dock version --format '{{.Version}}' >told 2>&1; mv told said\n")
    said = lab.notebooks / "said"
    deadline = time.monotonic() + 20
    while not said.exists():
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)  # a shell tells the page nothing
    take_picture(page, "terminal")
    assert said.read_text().strip()[0].isdigit(), said.read_text()
    cells = run_notebook(
        "%load_ext pydock_jupyter", "!dock version --format '{{{{.Version}}}}'", name="bang.ipynb"
    )
    expect(cells.nth(1).locator(".jp-OutputArea-output")).to_have_text(said.read_text().strip())
