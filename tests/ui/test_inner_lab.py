"""A JupyterLab in a container: what a person does in it, through the proxy, with the newest and the oldest."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.ui.conftest import REPOSITORY, Dock, Lab, build_environment, make_dock, open_lab, run_lab

OLDEST = ("jupyterlab==4.2.0", "jupyter_server==2.14.0", "tornado==6.4")
"""The lower bounds of pyproject.toml."""

OLDEST_VENV = REPOSITORY / ".make" / "oldest-lab"
START_SECONDS = 60

STEADY_LISTING = """
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError


class SteadyListing(AsyncLargeFileManager):
    async def get(self, path, *arguments, **options):
        while True:
            try:
                return await super().get(path, *arguments, **options)
            except HTTPError as error:
                if error.status_code != 404 or not await self.dir_exists(path):
                    raise


c.ServerApp.contents_manager_class = SteadyListing
"""
"""Lists a directory again if a file was renamed meanwhile.

jupyter_server looks at the entries one by one and answers 404 for the whole directory if one has gone; JupyterLab
then says "Directory not found", and a person closes that dialog.
"""


@dataclass(frozen=True)
class Site:
    """A Lab, the program of its environment, and a container in which the same Lab runs as in the quickstart."""

    lab: Lab
    dock: Dock
    container: str


def start_inner(dock: Dock, image: str, settings: Path, name: str) -> None:
    command = ("jupyter", "lab", "--ip=0.0.0.0", "--allow-root", "--no-browser", "--IdentityProvider.token=")
    configuration = settings.parent / "jupyter_server_config.py"
    configuration.write_text(STEADY_LISTING)
    mounts = (
        *("-v", f"{settings}:/root/.jupyter/lab/user-settings:ro"),
        *("-v", f"{configuration}:/root/.jupyter/jupyter_server_config.py:ro"),
    )
    dock("run", "-d", "--name", name, "--expose", "8888", "-w", "/root", *mounts, image, *command)


@pytest.fixture(scope="module")
def newest(lab: Lab, dock: Dock, image: str, quiet_settings: Path) -> Iterator[Site]:
    start_inner(dock, image, quiet_settings, "inner")
    yield Site(lab, dock, "inner")
    print(dock("logs", "inner", both=True))
    dock("rm", "-f", "inner")


@pytest.fixture(scope="module")
def oldest(quiet_settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The oldest versions on both sides, in an environment of their own; the outer one at "/"."""
    python = OLDEST_VENV / "bin" / "python"
    requirements = repr(OLDEST) + (REPOSITORY / "pyproject.toml").read_text()
    installed = OLDEST_VENV / "requirements"
    if not installed.exists() or installed.read_text() != requirements:
        subprocess.run([sys.executable, "-m", "venv", "--clear", OLDEST_VENV], check=True)
        install = ("-m", "pip", "install", "-q", "--disable-pip-version-check")
        subprocess.run([python, *install, *OLDEST, "--editable", REPOSITORY], check=True)
        installed.write_text(requirements)
    home = tmp_path_factory.mktemp("oldest")
    environment = build_environment(home)
    with make_dock(environment, str(python)) as dock:
        dock("image", "capture", "-q", "-t", "oldest")
        start_inner(dock, "oldest", quiet_settings, "inner")
        with run_lab(str(python), home, environment, "/") as lab:
            yield Site(lab, dock, "inner")
            print(dock("logs", "inner", both=True))


@pytest.mark.parametrize("age", ["newest", "oldest"])
def test_a_person_works_in_a_jupyterlab_in_a_container(
    age: str,
    browser: Browser,
    request: pytest.FixtureRequest,
    take_picture: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """In a tab of the outer Lab, then at top level; under a base URL (newest), and at "/" (oldest)."""
    site: Site = request.getfixturevalue(age)
    address = f"{site.lab.url}pydock/c/{site.container}/8888/"
    with open_lab(browser, site.lab, f"inner-{age}") as page:
        page.locator('.jp-SideBar [data-id="pydock-containers"]').click()
        page.get_by_role("button", name=f"Open port 8888 of {site.container}").click()
        frame = page.locator(f"#pydock-application-{site.container}-8888 iframe")
        frame.wait_for()
        Person(page, f"#pydock-application-{site.container}-8888 iframe", site).work(f"tab-{age}", tmp_path)
        take_picture(page, f"inner-tab-{age}")
        top = page.context.new_page()
        top.goto(f"{address}lab/workspaces/top")
        Person(top, None, site).work(f"top-{age}", tmp_path)
        take_picture(top, f"inner-top-{age}")


class Person:
    """Uses a Lab's menus, mouse and keyboard; what happened is read in the container."""

    def __init__(self, page: Page, frame: str | None, site: Site) -> None:
        self.page = page
        self.site = site
        self.view = page.frame_locator(frame) if frame else page

    def work(self, name: str, directory: Path) -> None:
        view, keyboard = self.view, self.page.keyboard
        view.locator('.jp-LauncherCard[data-category="Notebook"]').first.click(timeout=90_000)
        self.await_idle()
        view.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
        keyboard.type("import os; print(6 * 7, os.getpid())")
        keyboard.press("Shift+Enter")
        output = view.locator(".jp-OutputArea-output").first
        expect(output).to_contain_text("42", timeout=60_000)
        before = output.inner_text()

        # Save, with which the Lab asks for a name; then rename.
        keyboard.press("Control+s")
        self.answer(f"{name}.ipynb")
        self.await_file(f"{name}.ipynb", "print(6 * 7")
        self.menu("File", "Rename Notebook…")
        self.answer(f"{name}-2.ipynb")
        self.await_file(f"{name}-2.ipynb", "print(6 * 7")

        view.get_by_role("button", name="Restart the kernel").first.click()
        view.locator(".jp-Dialog .jp-mod-accept").click()
        self.await_idle()
        view.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
        keyboard.press("Shift+Enter")
        expect(output).not_to_have_text(before, timeout=60_000)
        expect(output).to_contain_text("42")

        upload = directory / f"{name}.csv"
        upload.write_text("a,b\n1,2\n")
        with self.page.expect_file_chooser() as chooser:
            view.locator('[data-command="filebrowser:upload"], [title^="Upload Files"]').first.click()
        chooser.value.set_files(upload)
        self.await_file(upload.name, "1,2")

        self.menu("File", "New Launcher")
        view.locator('.jp-LauncherCard[title*="erminal"]').last.click()
        view.locator(".jp-Terminal .xterm-screen").last.click()
        keyboard.type(f"echo $((6 * 7)) > {name}.txt\n")
        self.await_file(f"{name}.txt", "42")

    def await_idle(self) -> None:
        expect(self.view.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)

    def menu(self, name: str, item: str) -> None:
        self.view.locator(".lm-MenuBar-itemLabel", has_text=name).first.click()
        self.view.locator(".lm-Menu-itemLabel", has_text=item).first.click()

    def answer(self, text: str) -> None:
        dialog = self.view.locator(".jp-Dialog")
        dialog.locator("input").first.fill(text)
        dialog.locator(".jp-mod-accept").click()
        expect(dialog).to_have_count(0)

    def await_file(self, name: str, content: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while content not in self.site.dock("exec", self.site.container, "cat", f"/root/{name}", check=False):
            assert time.monotonic() < deadline, name
            time.sleep(0.1)  # nothing tells when a file has been written in the container
