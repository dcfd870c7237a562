"""Tabs and frames over the life of a container: it ends, runs again, is removed, and comes again under its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.ui.test_panel import press

STAMP = """
import http.server, os, time
stamp = str(time.time_ns())
print("first line", flush=True)
print("run", stamp, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = f"<h1>run {stamp}</h1>".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)
http.server.HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""
OPTIONS = ("--network", "none", "--stop-timeout", "1", "--expose", "8000")


@pytest.fixture
def stamp(dock: Callable[..., str], image: str) -> Iterator[str]:
    """A container whose page and log tell one run from another."""
    dock("run", "-d", "--name", "stamp", *OPTIONS, image, "python", "-c", STAMP)
    yield "stamp"
    dock("rm", "-f", "stamp", check=False)


def shown_run(heading: Locator, before: str = "") -> str:
    """Wait for the page of another run, and return its heading."""
    if before:
        expect(heading).not_to_have_text(before)
    expect(heading).to_have_text(re.compile(r"run \d+"))
    return heading.inner_text()


def test_a_tab_tells_of_the_end_and_comes_back(
    panel: Page, stamp: str, image: str, dock: Callable[..., str], take_picture: Callable[..., Path]
) -> None:
    panel.get_by_role("button", name=f"Open port 8000 of {stamp}").click()
    heading = panel.frame_locator(".pydock-Application iframe").get_by_role("heading")
    banner = panel.locator(".pydock-Application .pydock-Banner")
    first = shown_run(heading)
    expect(banner).to_be_hidden()

    dock("restart", stamp)
    second = shown_run(heading, first)
    expect(banner).to_be_hidden()

    dock("kill", stamp)
    expect(banner).to_contain_text("The container stamp has exited (exit code 137).")
    take_picture(panel, "application-ended")
    banner.get_by_role("button", name="Start").click()
    third = shown_run(heading, second)
    expect(banner).to_be_hidden()

    dock("rm", "-f", stamp)
    expect(banner).to_contain_text("Container stamp no longer exists.")
    expect(banner.get_by_role("button", name="Start")).to_be_hidden()
    dock("run", "-d", "--name", stamp, *OPTIONS, image, "python", "-c", STAMP)
    shown_run(heading, third)
    expect(banner).to_be_hidden()


def test_a_log_goes_on_after_a_restart(
    panel: Page, stamp: str, dock: Callable[..., str], take_picture: Callable[..., Path]
) -> None:
    """Each line stands once, also after the tab was behind another one and after the server was away."""
    press(panel, stamp, "Log")
    log = panel.get_by_role("log", name=f"Log of {stamp}")
    note = panel.locator(".pydock-Log p")
    expect(log).to_have_text(re.compile(r"^first line\nrun \d+\n$"))
    dock("restart", stamp)
    expect(log).to_have_text(re.compile(r"^(first line\nrun \d+\n){2}$"))

    panel.get_by_role("tab", name="Launcher").click()
    dock("restart", stamp)
    panel.get_by_role("tab", name=f"{stamp} log").click()
    expect(log).to_have_text(re.compile(r"^(first line\nrun \d+\n){3}$"))

    panel.route("**/pydock/api/**", lambda route: route.abort())
    dock("stop", stamp)
    expect(note).to_contain_text("The Jupyter server does not answer.")
    panel.unroute_all()
    expect(note).to_contain_text(re.compile(r"The container stamp has exited \(exit code \d+\)\."))
    assert dock("logs", stamp) == log.inner_text().strip()
    dock("start", stamp)
    expect(log).to_have_text(re.compile(r"^(first line\nrun \d+\n){4}$"))
    expect(note).to_be_empty()

    # It stays at its end at another size too, where its lines wrap otherwise, unless the reader has scrolled up.
    line = "word " * 40 + "\n"
    dock("exec", stamp, "python", "-c", f"open('/proc/1/fd/1', 'w').write({line!r} * 40 + 'the end\\n')")
    expect(log).to_contain_text("the end")
    view = panel.locator(".pydock-Log")
    ends = "view => view.scrollHeight - view.scrollTop - view.clientHeight < 24"
    size = panel.viewport_size
    assert size is not None
    for width in (700, 1100, 800):
        panel.set_viewport_size({"width": width, "height": size["height"] - width // 10})
        panel.wait_for_function(f"width => ({ends})(document.querySelector('.pydock-Log'))", arg=width)
    view.hover()
    panel.mouse.wheel(0, -300)
    panel.wait_for_function(f"() => !({ends})(document.querySelector('.pydock-Log'))")
    panel.set_viewport_size({"width": 700, "height": size["height"]})
    dock("exec", stamp, "python", "-c", "open('/proc/1/fd/1', 'w').write('more\\n')")
    expect(log).to_contain_text("more")
    assert not view.evaluate(ends)
    panel.set_viewport_size(size)

    dock("rm", "-f", stamp)
    expect(note).to_contain_text("Container stamp no longer exists.")
    take_picture(panel, "log-gone")
    assert log.inner_text().count("first line") == 4


def test_a_frame_in_a_notebook_tells_and_comes_back(
    page: Page, run_notebook: Callable[..., Locator], stamp: str, dock: Callable[..., str]
) -> None:
    cells = run_notebook(
        f"import pydock_jupyter\npydock_jupyter.open_port({stamp!r}, 8000)",
        "pydock_jupyter.open_port('nosuch', 80)",
        name="frame.ipynb",
    )
    heading = page.frame_locator("iframe.pydock-frame").get_by_role("heading")
    first = shown_run(heading)
    expect(cells.nth(1).locator(".jp-OutputArea-output")).to_have_text(
        "NotFoundError: no such container: nosuch\nhint: dock ps -a lists them", use_inner_text=True
    )
    banner = cells.nth(0).locator(".pydock-Banner")
    expect(banner).to_be_hidden()
    dock("stop", stamp)
    expect(banner).to_contain_text("The container stamp has exited")
    banner.get_by_role("button", name="Start").click()
    shown_run(heading, first)
    expect(banner).to_be_hidden()

    watching = re.compile(f"/pydock/api/containers/{stamp}/json")
    with page.expect_request(watching):
        pass
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    expect(page.locator("iframe.pydock-frame")).to_have_count(0)
    expect(banner).to_have_count(0)
