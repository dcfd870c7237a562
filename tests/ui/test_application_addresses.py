"""Applications that live at "/" and whose scripts say so work under the proxy's prefix, unconfigured."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import FrameLocator, Page, expect

from tests.ui.conftest import REPOSITORY, Dock, Lab
from tests.ui.test_applications import await_listening, open_port

STAND_IN = Path(__file__).with_name("absolute_application.py")
PORT = 7860
DASH_PACKAGES = REPOSITORY / ".make" / "dash"
DASH_REQUIREMENT = "dash>=3"
DASH = """
from dash import Dash, Input, Output, callback, dcc, html
app = Dash(__name__)
app.layout = html.Div([html.H1("Dash here"), dcc.Input(id="number", value="3"), html.Div(id="square")])
@callback(Output("square", "children"), Input("number", "value"))
def square(value):
    return f"squared {int(value) ** 2}"
app.run()
"""

EXPECTED = {
    "fetch": "/a",
    "fetch of a URL": "/a",
    "fetch of a Request": "/a",
    "forwarded host": "/a",
    "own address": "/a",
    "XMLHttpRequest": "/a",
    "WebSocket": "/socket",
    "EventSource": "/events",
    "Worker": "/worker.js",
    "script": "/late.js",
    "stylesheet": "/late.css",
    "setAttribute": "/dot.svg",
    "sendBeacon": "/beacons",
    "relative": "/a",
    "with the prefix": "/a",
    "history": "/page",
}


@pytest.fixture
def stand_in(dock: Dock, image: str) -> Iterator[str]:
    name = "absolute"
    mount = f"{STAND_IN}:/application.py:ro"
    dock("run", "-d", "--name", name, "--expose", str(PORT), "-v", mount, image, "python", "/application.py")
    yield name
    print(dock("logs", name, both=True))
    dock("rm", "-f", name)


def test_what_scripts_ask_for_reaches_the_application(
    stand_in: str, panel: Page, lab: Lab, dock: Dock, take_picture: Callable[..., Path]
) -> None:
    await_listening(dock, stand_in, PORT)
    prefix = f"{lab.url}pydock/c/{stand_in}/{PORT}/"
    asked: list[str] = []
    panel.on("request", lambda request: asked.append(request.url) if prefix in request.frame.url else None)
    view = open_port(panel, stand_in, PORT)
    expect(view.locator("h1")).to_have_text("done")
    assert view.locator("li").all_inner_texts() == [f"{name}: {path}" for name, path in EXPECTED.items()]
    shim = f"{lab.url}pydock/shim.js"
    assert all(url.startswith((prefix, shim)) for url in asked), asked
    assert any(url.startswith(shim) for url in asked)
    take_picture(panel, "absolute")

    # A proxy in the container, with an application behind it: two prefixes, of which each side knows its own.
    top = panel.context.new_page()
    top.goto(f"{prefix}inner/c/web/80/")
    expect(top.locator("h1")).to_have_text("/inner/c/web/80/a")


@pytest.fixture
def dash(dock: Dock, image: str) -> Iterator[str]:
    """Dash as its tutorial starts it, with packages that are installed once for all runs of the tests."""
    requirements = f"{DASH_REQUIREMENT} for Python {sys.version_info.major}.{sys.version_info.minor}"
    installed = DASH_PACKAGES / "requirements"
    if not installed.exists() or installed.read_text() != requirements:
        shutil.rmtree(DASH_PACKAGES, ignore_errors=True)
        install = ("-m", "pip", "install", "-q", "--disable-pip-version-check")
        subprocess.run([sys.executable, *install, "--target", DASH_PACKAGES, DASH_REQUIREMENT], check=True)
        installed.write_text(requirements)
    name = "dash"
    options = ("--expose", "8050", "-v", f"{DASH_PACKAGES}:/packages:ro", "-e", "PYTHONPATH=/packages")
    dock("run", "-d", "--name", name, *options, image, "python", "-c", DASH)
    yield name
    print(dock("logs", name, both=True))
    dock("rm", "-f", name)


def test_dash_calls_back(dash: str, panel: Page, dock: Dock, take_picture: Callable[..., Path]) -> None:
    await_listening(dock, dash, 8050)
    view: FrameLocator = open_port(panel, dash, 8050)
    expect(view.locator("#square")).to_have_text("squared 9", timeout=60_000)
    view.locator("#number").fill("12")
    expect(view.locator("#square")).to_have_text("squared 144")
    take_picture(panel, "dash")
