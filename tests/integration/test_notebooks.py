"""The notebooks about containers and networks, executed for real, with what they must have shown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest

from pydock_core.paths import StateRoot
from tests.integration.conftest import end_servers
from tests.integration.user import REPOSITORY, SEEN_AT, OrdinaryUser, ordinary_user
from tests.support.network_namespace import NetworkNamespace, network_namespace

SVG = "{http://www.w3.org/2000/svg}"
SECONDS = 120


class Shown:
    """An executed notebook, asked for what a cell showed."""

    def __init__(self, path: Path) -> None:
        self._cells = nbformat.read(path, as_version=4).cells

    def outputs(self, source: str) -> list[nbformat.NotebookNode]:
        """The outputs of the one code cell with this text in it."""
        (cell,) = [cell for cell in self._cells if cell.cell_type == "code" and source in cell.source]
        return list(cell.outputs)

    def text(self, source: str) -> str:
        """What that cell wrote and displayed, as text."""
        return "\n".join(
            output.text if output.output_type == "stream" else output.data["text/plain"]
            for output in self.outputs(source)
        )

    def complaints(self) -> str:
        """What all cells wrote to standard error."""
        return "".join(
            output.text
            for cell in self._cells
            for output in cell.get("outputs", ())
            if output.get("name") == "stderr"
        )

    def words(self, source: str, picture: str) -> list[str]:
        """The texts of the picture that is that cell's value."""
        (html,) = [
            found for output in self.outputs(source) if (found := output.get("data", {}).get("text/html"))
        ]
        drawn = ElementTree.fromstring(html).find(f".//{SVG}svg[@class='pydock-{picture}']")
        assert drawn is not None
        return [element.text or "" for element in drawn.iter(f"{SVG}text")]


def assert_it_told_of_containers(shown: Shown, *, is_rootless: bool) -> None:
    assert (shown.complaints() == "") != is_rootless
    assert "hello from a container" in shown.text("%dock run --name tutorial-hello")
    assert re.search(r"step \d", shown.text("%dock stats"))
    view = shown.text('print("host name:"')
    assert re.search(r"processes: \[1, ", view)
    assert "root user: 0" in view
    namespaces = shown.text("for kind, theirs in zip")
    assert len(re.findall("its own", namespaces)) == (7 if is_rootless else 6)
    assert re.search(r", .1.\]", shown.text("numbers per namespace"))
    group = shown.text("def read_group")
    assert re.search(r"(memory\.max|memory\.limit_in_bytes) +67108864", group) or is_rootless
    assert "A /work/answer" in shown.text("%dock diff")
    assert re.search(r"work/answer '42\\n'", shown.text("upper = "))
    assert "writable layer" in shown.words('layers("tutorial-worker")', "layers")
    assert "\n42\n" in shown.text("%dock restart")
    paused = shown.text("%dock --no-raise pause")
    assert "(Paused)" in paused or (is_rootless and paused.count("error:") == 1)
    assert "16" in shown.text("%dock cp").splitlines()
    assert "exited 137" in shown.text("%dock kill")
    assert shown.text("%dock commit").splitlines()[-1] == "42"
    assert {"create", "start", "die", "destroy"} <= set(shown.text("%dock events").splitlines())


def assert_it_told_of_networks(shown: Shown) -> None:
    assert shown.complaints() == ""
    first = shown.text('network_graph("tutorial-front")')
    address = re.search(
        r"tutorial-web \(running\)  (\S+)  answers to tutorial-web, web$", first, re.MULTILINE
    )
    assert address is not None
    words = shown.words('network_graph("tutorial-front")', "networks")
    assert {"tutorial-front", "tutorial-web", "tutorial-client", address[1], "tutorial-web, web"} < set(words)
    assert any(word.endswith("→ 8000/tcp") for word in words)
    resolved = shown.text('for name in ("tutorial-web"')
    assert f"web               {address[1]}" in resolved
    assert "hello from tutorial-web" in resolved
    assert "nameserver 127.0.0.11" in resolved
    assert "hello from tutorial-web" in shown.text("dock port tutorial-web")
    assert "tutorial-store:" in shown.text("except OSError as error")
    both = shown.words('network_graph("tutorial-front", "tutorial-back")', "networks")
    assert {"tutorial-back", "internal", "tutorial-store"} < set(both)
    assert "tutorial-store answers at" in shown.text("socket.create_connection")
    last = shown.text("%dock network disconnect")
    assert re.search(
        r"^tutorial-front: subnet \S+, gateway \S+; containers:( tutorial-(client|web)){2}$",
        last,
        re.MULTILINE,
    )
    assert re.search(
        r"^tutorial-back: subnet \S+, gateway \S*; containers: tutorial-store$", last, re.MULTILINE
    )
    assert last.count("tutorial-client (running)") == 1


def assert_nothing_is_left(data: Path, temporary: Path) -> None:
    for directory in (
        data / "containers",
        data / "tmp",
        data / "trash",
        data / "images" / "blobs" / "sha256",
        temporary,
    ):
        assert list(directory.iterdir()) == [], directory


def execute(name: str, base: Path, namespace: NetworkNamespace | None = None) -> Shown:
    """Execute a notebook twice on one state root, the second time with its last cell; return what the second showed."""
    temporary = base / "temporary"
    temporary.mkdir()
    root = StateRoot(base / "state" / "data", base / "state" / "run")
    notebook = nbformat.read(REPOSITORY / "notebooks" / name, as_version=4)
    last = notebook.cells.pop()
    assert "tidy-up" in last.metadata["tags"]
    try:
        for _ in range(2):
            assert list(temporary.iterdir()) == []
            nbformat.write(notebook, base / name)
            words = [sys.executable, REPOSITORY / "notebooks" / "execute.py", base / name]
            result = subprocess.run(
                namespace.words(*words) if namespace else [str(word) for word in words],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                env={**os.environ, "PYDOCK_ROOT": str(base / "state"), "TMPDIR": str(temporary)},
                check=False,
            )
            assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
            notebook.cells.append(last)
    finally:
        if namespace:
            namespace(end_servers, root)
        else:
            end_servers(root)
    assert_nothing_is_left(root.data, temporary)
    return Shown(base / name.replace(".ipynb", ".executed.ipynb"))


def test_the_notebook_of_containers(tmp_path: Path) -> None:
    shown = execute("containers.ipynb", tmp_path)
    assert_it_told_of_containers(shown, is_rootless=os.geteuid() != 0)


@pytest.fixture
def user() -> Iterator[OrdinaryUser]:
    with ordinary_user("pydock-notebook") as made:
        yield made


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a user")
def test_an_ordinary_user_can_run_it(user: OrdinaryUser) -> None:
    work, temporary = user.home / "work", user.home / "temporary"
    for directory in (work, temporary):
        directory.mkdir()
    shutil.copy(REPOSITORY / "notebooks" / "containers.ipynb", work)
    subprocess.run(["chown", "-R", f"{user.name}:", user.home], check=True)
    words = [user.python, SEEN_AT / "notebooks" / "execute.py", work / "containers.ipynb"]
    path = f"{user.python.parent}:/usr/local/bin:/usr/bin:/bin"  # the notebook's "!dock"
    result = user.run(
        words, cwd=work, seconds=SECONDS, TMPDIR=str(temporary), PATH=path, PYTHONPATH=str(SEEN_AT)
    )
    assert result.returncode == 0, result.stdout[-5000:]
    assert_it_told_of_containers(Shown(work / "containers.executed.ipynb"), is_rootless=True)
    assert_nothing_is_left(user.home / ".local" / "share" / "pydock", temporary)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root makes bridges")
@pytest.mark.skipif(not shutil.which("nft"), reason="needs nft (Debian: nftables)")
def test_the_notebook_of_networks(tmp_path: Path) -> None:
    with network_namespace() as namespace:
        shown = execute("networks.ipynb", tmp_path, namespace)
    assert_it_told_of_networks(shown)
