"""open_port: a link and a frame, under the server's own base URL; and what a person reads for a wrong argument of this
and the other functions of a notebook.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

import pydock_jupyter
from pydock_core.engine.containers import Containers
from pydock_core.errors import InvalidError
from pydock_jupyter.display.port import PortView


def test_the_frame_is_under_the_servers_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/me/")
    view = PortView("tb", 6006, "#scalars")
    assert view.url == "/user/me/pydock/c/tb/6006/#scalars"
    html = view._repr_html_()
    assert '<iframe src="/user/me/pydock/c/tb/6006/#scalars"' in html
    assert 'class="pydock-frame" data-pydock-name="tb"' in html
    assert "<iframe" not in PortView("tb", 6006, height=0)._repr_html_()


def test_nothing_given_gets_out_of_its_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/")
    html = PortView('x"><script>', 80, '"><script>')._repr_html_()
    assert "<script>" not in html


@pytest.mark.parametrize("port", [0, 65536, -1, "80", 80.5, None])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(InvalidError, match="invalid port"):
        PortView("tb", port)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """An IPython shell over an empty engine; as far as open_port can see, "web" runs and "idle" does not."""
    monkeypatch.setenv("PYDOCK_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    look = Containers.is_running
    played = {"web": True, "idle": False}
    monkeypatch.setattr(
        Containers, "is_running", lambda self, name: played[name] if name in played else look(self, name)
    )
    made = InteractiveShell()
    made.history_manager.enabled = False
    made.colors = "nocolor"
    made.push({"pydock_jupyter": pydock_jupyter})
    yield made
    made.history_manager.end_session()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ('open_port("nosuch", 80)', "NotFoundError: no such container: nosuch\nhint: dock ps -a lists them"),
        ('open_port("", 80)', "NotFoundError: no such container: \nhint: dock ps -a lists them"),
        (
            'open_port("idle", 80)',
            "ConflictError: cannot open port 80 of idle: the container is not running\nhint: start it: %dock start idle",
        ),
        (
            'open_port("web", 65536)',
            "InvalidError: invalid port: 65536\nhint: a port is an integer from 1 to 65535",
        ),
        (
            'open_port("web", "80")',
            "InvalidError: invalid port: '80'\nhint: a port is an integer from 1 to 65535",
        ),
        (
            "open_port(5, 80)",
            "InvalidError: invalid container name: 5\nhint: a container name is a string in quotes",
        ),
        (
            'open_port("web", 80, None)',
            "InvalidError: invalid path: None\nhint: a path is a string in quotes",
        ),
        (
            'open_port("web", 80, height="tall")',
            "InvalidError: invalid height: 'tall'\nhint: a height is an integer from 0 to 32767",
        ),
        ('layers(["web"])', "InvalidError: invalid name: ['web']\nhint: a name is a string in quotes"),
        ('changes("nosuch")', "NotFoundError: no such container: nosuch\nhint: dock ps -a lists them"),
        (
            "changes(None)",
            "InvalidError: invalid container name: None\nhint: a container name is a string in quotes",
        ),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], call: str, message: str
) -> None:
    """The cell fails, and shows the error and its hint in place of a traceback."""
    assert not shell.run_cell(f"pydock_jupyter.{call}").success
    shown = capsys.readouterr()
    assert (shown.out + shown.err).strip() == message


def test_a_port_of_a_running_container_is_shown(shell: InteractiveShell) -> None:
    result = shell.run_cell('pydock_jupyter.open_port("web", 80)')
    assert isinstance(result.result, PortView)
