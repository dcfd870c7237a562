"""A real JupyterLab with the built extension, a browser to look at it, and the ``dock`` program beside it."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from pydock_core.paths import StateRoot
from tests.integration.conftest import end_servers

REPOSITORY = Path(__file__).resolve().parents[2]
SCREENSHOTS = Path(__file__).parent / "screenshots"
README_IMAGES = "PYDOCK_SCREENSHOTS"
"""Names a directory to which the pictures of the README are copied: notebooks/images."""

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TOKEN = "token-of-the-outer-server"
BASE_URL = "/user/me/"
START_SECONDS = 60
IMAGE = "here:latest"

Dock = Callable[..., str]

expect.set_options(timeout=20_000)

SERVE = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = b"<h1>First page</h1><a href='second'>on</a>" if self.path == "/" else b"<h1>Second page</h1>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)
http.server.HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab, ``notebooks`` being its root directory."""

    url: str
    notebooks: Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests, which start whole servers in containers, the time that takes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(200))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ui")


@pytest.fixture(scope="session")
def environment(home: Path) -> dict[str, str]:
    return build_environment(home)


def build_environment(home: Path) -> dict[str, str]:
    """Build an environment in which PyDock and Jupyter read and write nothing outside of ``home``.

    Its PATH is that of a person who has not activated this Python's environment.  SHELL is not set, as under a
    service manager: terminals run sh.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JUPYTER", "JPY", "PYDOCK")) and name not in ("SHELL", "ENV")
    }
    programs = str(Path(sys.executable).parent)
    return kept | {
        "PATH": os.pathsep.join(path for path in kept["PATH"].split(os.pathsep) if path != programs),
        "HOME": str(home / "home"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYDOCK_ROOT": str(home / "pydock"),
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture(scope="session")
def dock(environment: dict[str, str]) -> Iterator[Dock]:
    with make_dock(environment, sys.executable) as run:
        yield run


@contextmanager
def make_dock(environment: dict[str, str], python: str) -> Iterator[Dock]:
    """Run the ``dock`` program and return what it printed; at the end all of its state and servers go.

    With ``both`` standard error is part of what is returned.
    """
    state = Path(environment["PYDOCK_ROOT"])

    def run(*words: str, check: bool = True, both: bool = False) -> str:
        command = [python, "-m", "pydock_core", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert not check or done.returncode == 0, f"dock {' '.join(words)}: {done.stderr}"
        return (done.stdout + (done.stderr if both else "")).strip()

    yield run
    for container in run("ps", "-aq", check=False).split():
        run("rm", "-f", container, check=False)
    end_servers(StateRoot(state / "data", state / "run"))
    shutil.rmtree(state)


@pytest.fixture(scope="session")
def image(dock: Dock) -> str:
    """An image of the environment in which the tests run: with TensorBoard and JupyterLab."""
    dock("image", "capture", "-q", "-t", IMAGE)
    return IMAGE


@pytest.fixture
def web(dock: Dock, image: str) -> Iterator[str]:
    """A container with two pages at port 8000, on its loopback only and without a network."""
    name = "web"
    options = ("--network", "none", "--stop-timeout", "1", "--expose", "8000")
    dock("run", "-d", "--name", name, *options, image, "python", "-c", SERVE)
    yield name
    dock("rm", "-f", name, check=False)


def write_quiet_settings(directory: Path) -> None:
    """Write user settings of JupyterLab with which it does not ask whether it may fetch news."""
    settings = directory / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))


@pytest.fixture(scope="session")
def quiet_settings(home: Path) -> Path:
    """Settings for a JupyterLab in a container, a directory to be mounted there."""
    directory = home / "inner-settings"
    write_quiet_settings(directory)
    return directory


@pytest.fixture(scope="session")
def lab(home: Path, environment: dict[str, str], dock: Dock) -> Iterator[Lab]:
    """A JupyterLab under a base URL as JupyterHub gives it, with PyDock's server and lab extensions.

    It is ended before the state that it watches is removed, hence ``dock``.
    """
    with run_lab(sys.executable, home, environment, BASE_URL) as running:
        yield running


@contextmanager
def run_lab(python: str, home: Path, environment: dict[str, str], base_url: str) -> Iterator[Lab]:
    """Run the JupyterLab of an interpreter's environment, with its files in ``home``."""
    notebooks = home / "notebooks"
    extensions = home / "labextensions"
    for directory in (home / "home", notebooks, extensions):
        directory.mkdir(parents=True)
    (extensions / "pydock-jupyter").symlink_to(REPOSITORY / "pydock_jupyter" / "labextension")
    write_quiet_settings(home / "settings")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(
            python,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            "--ip=127.0.0.1",
            f"--port={port}",
        ),
        f"--ServerApp.base_url={base_url}",
        f"--ServerApp.root_dir={notebooks}",
        f"--IdentityProvider.token={TOKEN}",
        "--ServerApp.port_retries=0",
        "--ServerApp.jpserver_extensions={'pydock_jupyter': True}",
        f"--LabApp.extra_labextensions_path={extensions}",
        "--LabApp.expose_app_in_browser=True",
    ]
    log = home / "lab.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=notebooks, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{port}{base_url}"
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"{url}api"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)  # nothing tells when a foreign server listens
        yield Lab(url, notebooks)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM} (Debian: chromium)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(CHROMIUM_ARGUMENTS))
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, lab: Lab, request: pytest.FixtureRequest) -> Iterator[Page]:
    """JupyterLab in a fresh profile and workspace; the last view of each test is kept as a picture."""
    name = re.sub(r"\W+", "-", request.node.name)
    with open_lab(browser, lab, name) as opened:
        yield opened


@contextmanager
def open_lab(browser: Browser, lab: Lab, name: str) -> Iterator[Page]:
    """Open JupyterLab in a fresh profile and a workspace of that name; its last view is kept as a picture."""
    context = browser.new_context(viewport={"width": 1360, "height": 860})
    context.set_default_timeout(30_000)
    opened = context.new_page()
    # A test that runs again must not find the tabs of its first run.
    opened.goto(f"{lab.url}lab/workspaces/{name}-{secrets.token_hex(3)}?token={TOKEN}")
    expect(opened.locator("#jp-main-dock-panel")).to_be_visible(timeout=60_000)
    expect(opened.locator("#jupyterlab-splash")).to_have_count(0, timeout=30_000)
    expect(opened.get_by_role("tab", name="Launcher")).to_be_visible(timeout=30_000)  # the last of the start
    yield opened
    picture(opened, f"last-{name}")
    context.close()


@pytest.fixture
def panel(page: Page) -> Page:
    """The same page with the left-hand panel open."""
    page.locator('.jp-SideBar [data-id="pydock-containers"]').click()
    expect(page.locator("#pydock-containers")).to_be_visible()
    return page


EXECUTE = "([command, args]) => void window.jupyterapp.commands.execute(command, args)"


def execute(page: Page, command: str, arguments: dict[str, object] | None = None) -> None:
    """Begin a command of JupyterLab; what it shows tells when it is done (one that asks never is)."""
    page.evaluate(EXECUTE, [command, arguments or {}])


@pytest.fixture
def run_command() -> Callable[..., None]:
    return execute


RUN_MILLISECONDS = 150_000


def expect_executed(cell: Locator) -> None:
    """Wait until a notebook's cell has been executed; a cell of comments has a number then too."""
    expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]"), timeout=RUN_MILLISECONDS)


def _start_kernel(lab: Lab, path: str) -> None:
    """Start a notebook's kernel before it is opened, so that JupyterLab need not ask which, and when it runs."""
    session = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
    headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{lab.url}api/sessions", json.dumps(session).encode(), headers)
    with urllib.request.urlopen(request, timeout=START_SECONDS) as response:
        assert response.status == 201


@pytest.fixture
def open_notebook(page: Page, lab: Lab) -> Callable[..., Locator]:
    """Open a notebook that lies in the root directory, wait for its kernel, and return its cells' places."""

    def open_it(name: str) -> Locator:
        _start_kernel(lab, name)
        execute(page, "docmanager:open", {"path": name})
        expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)
        return page.locator(".jp-Notebook .jp-Cell")

    return open_it


@pytest.fixture
def run_notebook(page: Page, lab: Lab, open_notebook: Callable[..., Locator]) -> Callable[..., Locator]:
    """Open a notebook with the cells that are given, run them all, and return the cells' places in the page."""

    def run(*cells: str, name: str) -> Locator:
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata={"kernelspec": kernel}
        )
        nbformat.write(notebook, lab.notebooks / name)
        shown = open_notebook(name)
        expect(shown).to_have_count(len(cells))
        execute(page, "notebook:run-all-cells")
        return shown

    return run


def picture(page: Page, name: str, *, for_readme: bool = False) -> Path:
    """Take a picture into tests/ui/screenshots/; one of the README goes where README_IMAGES says, too."""
    SCREENSHOTS.mkdir(exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path)
    directory = os.environ.get(README_IMAGES)
    if for_readme and directory:
        Path(directory).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, directory)
    return path


@pytest.fixture
def take_picture() -> Callable[..., Path]:
    return picture
