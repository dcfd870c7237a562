"""The notebook about repository, image, layer and container, executed for real, with what it must have shown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

from pydock_core.paths import StateRoot
from tests.integration.conftest import end_servers
from tests.integration.user import REPOSITORY, SEEN_AT, OrdinaryUser, ordinary_user

NAME = "images.ipynb"
LAST_WORDS = "images.ipynb ran from beginning to end"
REGISTRY = Path("/usr/bin/docker-registry")
NEEDS_REGISTRY = pytest.mark.skipif(not REGISTRY.exists(), reason="needs Debian's docker-registry")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Executed:
    """An executed notebook, asked for what a cell showed."""

    notebook: nbformat.NotebookNode

    @classmethod
    def read(cls, directory: Path) -> Executed:
        return cls(nbformat.read(directory / "images.executed.ipynb", as_version=4))

    def outputs(self, source: str) -> list[nbformat.NotebookNode]:
        """The outputs of the one code cell with this text in it."""
        cells = [cell for cell in self.notebook.cells if cell.cell_type == "code" and source in cell.source]
        assert len(cells) == 1, source
        return list(cells[0].outputs)

    def text(self, source: str) -> str:
        """What that cell wrote and displayed, as text."""
        return "\n".join(
            output.text if output.output_type == "stream" else output.data["text/plain"]
            for output in self.outputs(source)
        )

    def picture(self, source: str) -> ElementTree.Element:
        """The picture that is that cell's value."""
        (html,) = [
            output.data["text/html"]
            for output in self.outputs(source)
            if "text/html" in output.get("data", {})
        ]
        root = ElementTree.fromstring(html)
        picture = root.find(".//{http://www.w3.org/2000/svg}svg[@class='pydock-layers']")
        assert picture is not None
        return picture


def words_of(picture: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in picture.iter("{http://www.w3.org/2000/svg}text")]


def assert_it_told_of_images_and_layers(shown: Executed) -> None:
    """What is true with a registry and without."""
    python = shown.text('layers("tutorial/python:3")')
    assert "3 layers\n" in python
    words = words_of(shown.picture('layers("tutorial/python:3")'))
    assert {"tutorial/python:3", "tutorial/python:latest"} < set(words)

    changes = shown.text('changes("tutorial-study")')
    for line in ("C   passwd", "A   estimates.csv", "D       antigravity.py"):
        assert re.search(f"^{line}", changes, re.MULTILINE), changes
    diff = shown.text("%dock diff").splitlines()
    assert {"A /study", "A /study/estimates.csv", "C /etc/passwd"} < set(diff)
    assert "writable layer" in words_of(shown.picture('layers("tutorial-study")'))
    still = shown.text('print("/study:')
    assert "False" in still.splitlines()[0]
    assert "True" in still.splitlines()[1]

    three = words_of(shown.picture('layers("tutorial/python:3", "tutorial/study:1"'))
    assert three.count("in 3 images") == 3
    assert three.count("in 2 images") == 1
    assert {"tutorial/python:3", "tutorial/study:1", "tutorial/study:2", "tutorial-summary"} < set(three)

    saved = DIGEST.findall(shown.text("%dock save"))
    assert len(saved) == 1
    loaded = shown.text("%dock load")
    assert loaded.splitlines()[-1] == saved[0]
    assert f"Deleted: {saved[0]}" in loaded

    dangling = shown.text("%dock images --filter label")
    assert re.search(r"^<none> +<none>", dangling, re.MULTILINE)
    assert f"deleted: {saved[0]}" in shown.text("%dock image prune -f")
    assert shown.text("%dock rmi tutorial/python:3").splitlines()[-1].startswith("REPOSITORY")


def assert_it_told_of_the_registry(shown: Executed) -> None:
    pushed = shown.text("%dock push")
    assert pushed.count(": Layer already exists") == 4
    assert pushed.count(": Pushed") == 1
    tags = shown.text("%dock search")
    assert re.search(r"^127\.0\.0\.1:\d+/tutorial/study +0", tags, re.MULTILINE)
    assert set(re.findall(r"/tutorial/study +([1-9]\S*)", tags)) == {"1", "2"}
    first = shown.text("%dock pull {registry}/tutorial/study:1")
    second = shown.text("%dock pull --progress plain")
    assert "Downloaded newer image" in first
    assert second.count(": Already exists") == 4
    assert second.count(": Pull complete") == 1
    for digest, output in zip(re.findall(r"\d: digest: (sha256:\w+)", pushed), (first, second), strict=True):
        assert f"Digest: {digest}" in output
        assert digest in shown.text("%dock images --digests")
    assert "20000 trials" in shown.text("%dock tag {registry}/tutorial/study:1 tutorial/study:1")


def assert_nothing_is_left(data: Path, temporary: Path) -> None:
    for directory in (data / "containers", data / "tmp", data / "images" / "blobs" / "sha256", temporary):
        assert list(directory.iterdir()) == [], directory
    layers = [path for path in (data / "layers").glob("*/*") if re.search("[0-9a-f]{64}", path.name)]
    assert layers == []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(temporary) not in process.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue


def execute(base: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], Executed]:
    """Execute the notebook as the user of the tests, on a state root of its own."""
    temporary = base / "temporary"
    temporary.mkdir()
    shutil.copy(REPOSITORY / "notebooks" / NAME, base)
    kept = {name: value for name, value in os.environ.items() if name != "PYDOCK_NOTEBOOK_REGISTRY"}
    result = subprocess.run(
        [sys.executable, REPOSITORY / "notebooks" / "execute.py", base / NAME],
        capture_output=True,
        text=True,
        timeout=120,
        env={**kept, "PYDOCK_ROOT": str(base / "state"), "TMPDIR": str(temporary), **environment},
        check=False,
    )
    end_servers(StateRoot(base / "state" / "data", base / "state" / "run"))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert LAST_WORDS in result.stdout
    assert_nothing_is_left(base / "state" / "data", temporary)
    return result, Executed.read(base)


@NEEDS_REGISTRY
def test_it_runs_shows_what_it_says_and_leaves_nothing(tmp_path: Path) -> None:
    _, shown = execute(tmp_path)
    assert_it_told_of_images_and_layers(shown)
    assert_it_told_of_the_registry(shown)


def test_without_a_registry_it_says_how_to_get_one_and_goes_on(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    result, shown = execute(tmp_path, PATH=str(empty))
    assert "No registry: apt-get install docker-registry" in result.stdout
    assert_it_told_of_images_and_layers(shown)


@pytest.fixture
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user("pydock-images") as made:
        yield made


@NEEDS_REGISTRY
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a user")
def test_an_ordinary_user_can_run_it(user: OrdinaryUser) -> None:
    work = user.home / "work"
    temporary = user.home / "temporary"
    for directory in (work, temporary):
        directory.mkdir()
    shutil.copy(REPOSITORY / "notebooks" / NAME, work)
    subprocess.run(["chown", "-R", f"{user.name}:", user.home], check=True)
    words = [user.python, SEEN_AT / "notebooks" / "execute.py", work / NAME]
    result = user.run(words, cwd=work, seconds=120, TMPDIR=str(temporary))
    assert result.returncode == 0, result.stdout[-5000:]
    assert LAST_WORDS in result.stdout
    shown = Executed.read(work)
    assert_it_told_of_images_and_layers(shown)
    assert_it_told_of_the_registry(shown)
    assert_nothing_is_left(user.home / ".local" / "share" / "pydock", temporary)
