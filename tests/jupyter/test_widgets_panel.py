"""The panel over an engine that the test plays: what it shows, what its buttons do, what it leaves."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import ipywidgets
import pytest
from ipywidgets.widgets import widget as registry

from pydock_core.engine import Watcher
from pydock_core.errors import ConflictError, UnavailableError
from pydock_jupyter.display.link import port_link, server_base_url
from pydock_jupyter.panel_view import build_container_rows
from pydock_jupyter.widgets.panel import Panel
from pydock_jupyter.widgets.rows import container_html, name_html
from tests.support.fake_engine import FakeEvents

WAIT_SECONDS = 10


def summary(name: str, state: str = "running", ports: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        "Id": f"id-of-{name}",
        "Names": [f"/{name}"],
        "Image": "demo:latest",
        "State": state,
        "Status": "Up 2 minutes" if state == "running" else "Exited (0) 1 minute ago",
        "Ports": [{"PrivatePort": port, "Type": "tcp"} for port in ports],
    }


class FakeContainers:
    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine

    def list(
        self,
        all: bool = False,
        filters: Mapping[str, Sequence[str]] | None = None,
        limit: int | None = None,
        size: bool = False,
    ) -> list[dict[str, Any]]:
        assert all
        self._engine.looks += 1
        if isinstance(self._engine.failure, UnavailableError):
            raise self._engine.failure
        return [dict(item) for item in self._engine.items]

    def _do(self, action: str, reference: str) -> None:
        self._engine.calls.append((action, reference))
        if self._engine.failure is not None:
            raise self._engine.failure

    def start(self, reference: str, *, attach: object = None, size: tuple[int, int] = (0, 0)) -> Any:
        self._do("start", reference)
        return SimpleNamespace(close=lambda: None)

    def stop(self, reference: str, timeout_seconds: float | None = None, signal: str | None = None) -> None:
        self._do("stop", reference)

    def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        assert force
        self._do("remove", reference)
        self._engine.items = [item for item in self._engine.items if item["Id"] != reference]

    def logs(
        self,
        reference: str,
        follow: bool = False,
        tail: int | None = None,
        timestamps: bool = False,
        since_ns: int | None = None,
        until_ns: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
        details: bool = False,
    ) -> Iterator[Any]:
        return iter([SimpleNamespace(stream="stdout", data=self._engine.log)])


class FakeImages:
    def list(
        self, filters: Mapping[str, Sequence[str]] | None = None, all: bool = False
    ) -> list[dict[str, Any]]:
        return [{"Id": "sha256:" + "a" * 64, "RepoTags": ["demo:latest"], "Size": 1_200_000}]


class FakeEngine:
    """Containers in a list; ``calls`` records the changes, ``looks`` counts the listings, each call raises ``failure``."""

    def __init__(self) -> None:
        self.looks = 0
        self.is_closed = False
        self.items = [summary("web", ports=(8888, 6006)), summary("was", "exited")]
        self.calls: list[tuple[str, str]] = []
        self.failure: Exception | None = None
        self.log = b"hello <world>\n"
        self.containers = FakeContainers(self)
        self.images = FakeImages()
        self.events = FakeEvents()

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def panel(engine: FakeEngine) -> Iterator[Panel]:
    before = set(registry._instances)
    watcher = Watcher(lambda: engine, interval_seconds=0.02)
    made = Panel(watcher, base_url="/user/me/")
    yield made
    made.close()
    assert watcher.join(WAIT_SECONDS), "the watching thread is left"
    assert set(registry._instances) == before, "widgets are left"


def until(condition: Callable[[], object]) -> None:
    """Wait until the other thread has done what is expected of it."""
    pause = threading.Event()
    for _ in range(WAIT_SECONDS * 100):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen in time")


def text(widget: ipywidgets.Widget) -> str:
    """All HTML of a widget and its children."""
    children = "".join(text(child) for child in getattr(widget, "children", ()))
    return (widget.value if isinstance(widget, ipywidgets.HTML) else "") + children


def button(panel: Panel, container: str, label: str) -> ipywidgets.Button:
    """The button with that label in the row of that container."""
    row = next(row for row in panel.children[2].children if named(container) in text(row))
    return next(
        button
        for button in row.children[2].children
        if label in (button.description, str(button.tooltip).partition(" ")[0])
    )


def named(container: str) -> str:
    """The mark of a container's row."""
    return f'data-name="{container}"'


def show(panel: Panel) -> None:
    panel._repr_mimebundle_()
    until(lambda: "demo:latest" in panel.children[6].value)


def test_nothing_runs_before_it_is_displayed(panel: Panel) -> None:
    assert not [thread for thread in threading.enumerate() if thread.name == "pydock-watch"]


def test_shows_containers_and_images(panel: Panel) -> None:
    show(panel)
    shown = text(panel)
    assert shown.index(named("web")) < shown.index(named("was"))
    assert "running, Up 2 minutes" in shown
    assert "Exited (0) 1 minute ago" in shown
    assert 'href="/user/me/pydock/c/web/6006/"' in shown
    assert shown.index(">6006<") < shown.index(">8888<")
    assert "1.2MB" in shown
    assert button(panel, "web", "Start").disabled
    assert not button(panel, "web", "Stop").disabled
    assert button(panel, "was", "Stop").disabled


def test_without_widgets_it_is_text(panel: Panel) -> None:
    lines = panel._repr_mimebundle_()["text/plain"].splitlines()
    assert [line.split() for line in lines] == [
        ["Container", "Image", "Status"],
        ["web", "demo:latest", "Up", "2", "minutes"],
        ["was", "demo:latest", "Exited", "(0)", "1", "minute", "ago"],
        [],
        ["Image", "Id", "Size"],
        ["demo:latest", "a" * 12, "1.2MB"],
    ]


def test_follows_what_happens(panel: Panel, engine: FakeEngine) -> None:
    show(panel)
    engine.items = [summary("new"), *engine.items[1:]]
    until(lambda: named("new") in text(panel))
    assert named("web") not in text(panel)
    engine.items = []
    until(lambda: "No containers yet" in text(panel))


def test_sends_nothing_while_nothing_changes(
    panel: Panel, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(panel)
    looks = engine.looks
    sent: list[object] = []
    monkeypatch.setattr(ipywidgets.Widget, "_send", lambda self, *args, **kwargs: sent.append(args))
    until(lambda: engine.looks > looks + 5)
    assert sent == []


@pytest.mark.parametrize(
    ("container", "label", "action"), [("was", "Start", "start"), ("web", "Stop", "stop")]
)
def test_buttons(panel: Panel, engine: FakeEngine, container: str, label: str, action: str) -> None:
    show(panel)
    button(panel, container, label).click()
    until(lambda: engine.calls == [(action, f"id-of-{container}")])


def test_removing_is_confirmed(panel: Panel, engine: FakeEngine) -> None:
    show(panel)
    button(panel, "was", "Remove").click()
    button(panel, "was", "Keep it").click()
    button(panel, "was", "Remove").click()
    assert engine.calls == []
    button(panel, "was", "Remove it").click()
    until(lambda: named("was") not in text(panel))
    assert engine.calls == [("remove", "id-of-was")]


def test_a_failed_action_is_told(panel: Panel, engine: FakeEngine) -> None:
    show(panel)
    engine.failure = ConflictError("port 80 is <taken>", "choose another")
    button(panel, "was", "Start").click()
    until(lambda: "Could not start was: port 80 is &lt;taken&gt; choose another" in text(panel))
    assert not button(panel, "was", "Start").disabled


def test_a_failing_engine_is_told_and_recovered_from(panel: Panel, engine: FakeEngine) -> None:
    engine.failure = UnavailableError("the database is locked")
    panel._repr_mimebundle_()
    until(lambda: "the database is locked" in text(panel))
    engine.failure = None
    until(lambda: named("web") in text(panel))
    assert "the database is locked" not in text(panel)


def test_log_is_followed_and_escaped(panel: Panel, engine: FakeEngine) -> None:
    show(panel)
    button(panel, "web", "Log").click()
    until(lambda: "hello &lt;world&gt;" in text(panel))
    engine.log += b"more \xff\n"
    until(lambda: "more \N{REPLACEMENT CHARACTER}" in text(panel))
    panel.children[4].click()
    until(lambda: "hello" not in text(panel))


def test_rests_while_no_page_shows_it(panel: Panel, engine: FakeEngine) -> None:
    show(panel)
    panel._view_count = 1
    panel._view_count = 0
    assert panel._watcher.join(WAIT_SECONDS)
    assert engine.is_closed
    engine.items = [summary("later")]
    panel._view_count = 1
    until(lambda: named("later") in text(panel))


def test_rows_keep_the_ends_of_names_and_tell_states_by_shape() -> None:
    names = [f"experiment-with-a-long-name-{number:03d}-worker-a" for number in range(30)]
    rows = build_container_rows([summary(name) for name in names])
    assert {len(row["label"][1]) for row in rows} == {len("00-worker-a")}
    shown = name_html(rows[7]["label"])
    assert "07-worker-a</span>" in shown
    assert re.sub("<[^>]*>", "", shown) == names[7]
    assert build_container_rows([summary("x")])[0]["label"] == ("x", "")
    states = [
        ("running", "Up"),
        ("exited", "Exited (0) 1s ago"),
        ("exited", "Exited (1) 1s ago"),
        ("paused", "Up"),
    ]
    shapes = {
        re.sub("<[^>]*>", "", html_of(summary("x") | {"State": state, "Status": status}))[0]
        for state, status in [*states, ("created", "Created"), ("restarting", "Restarting")]
    }
    assert len(shapes) == 6


def html_of(container: dict[str, Any]) -> str:
    return container_html(build_container_rows([container])[0])


def test_a_port_published_twice_is_one_port() -> None:
    ports = [{"PrivatePort": 80, "Type": "tcp"}, {"PrivatePort": 53, "Type": "udp"}]
    ports += [{"PrivatePort": 80, "Type": "tcp", "IP": ip, "PublicPort": 8080} for ip in ("0.0.0.0", "::")]
    rows = build_container_rows([summary("x") | {"Ports": ports}, summary("y", "exited", (80,))])
    assert [row["ports"] for row in rows] == [[{"number": 80, "published": "0.0.0.0:8080"}], []]


def test_names_are_escaped() -> None:
    link = port_link("/", 'a"b/c', 80, "<title>")
    assert '"/pydock/c/a%22b%2Fc/80/"' in link
    assert "<title>" not in link
    row = html_of(summary("x") | {"Names": ["/<i>"], "Image": '"><b>'})
    assert "<i>" not in row
    assert "<b>" not in row


def test_base_url(tmp_path: Any) -> None:
    (tmp_path / "jpserver-17.json").write_text('{"base_url": "/lab7/"}')
    (tmp_path / "jpserver-18.json").write_text("torn")
    assert server_base_url({"JUPYTERHUB_SERVICE_PREFIX": "/user/me"}, tmp_path) == "/user/me/"
    assert server_base_url({"JPY_PARENT_PID": "17"}, tmp_path) == "/lab7/"
    assert server_base_url({"JPY_PARENT_PID": "18"}, tmp_path) == "/"
    assert server_base_url({}, tmp_path) == "/"
