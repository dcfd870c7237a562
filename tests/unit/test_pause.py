"""Who holds a container stopped, and which control group that may be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pydock_core.errors import FailedError, PyDockError
from pydock_core.runtime.cgroups.freezer import GroupFreezer, find_freezer
from pydock_core.runtime.cgroups.layout import CgroupLayout
from pydock_core.supervision import pause as pause_module
from pydock_core.supervision.event_loop import EventLoop
from pydock_core.supervision.pause import Pause


class FakeFreezer:
    """Is frozen after some looks."""

    def __init__(self, looks: int = 0, refuses: bool = False) -> None:
        self.looks = looks
        self.refuses = refuses
        self.calls: list[str] = []

    def freeze(self) -> None:
        self.calls.append("freeze")
        if self.refuses:
            raise FailedError("no")

    def is_frozen(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def thaw(self) -> None:
        self.calls.append("thaw")


class Holder:
    """Somebody who holds, and what was said to them."""

    def __init__(self) -> None:
        self.said: list[PyDockError | None] = []

    def __call__(self, error: PyDockError | None) -> None:
        self.said.append(error)


def run_until(loop: EventLoop, condition: Callable[[], bool]) -> None:
    while not condition():
        loop.run_once()


def test_it_goes_on_when_the_last_holder_has_gone() -> None:
    loop, freezer = EventLoop(), FakeFreezer(looks=3)
    pause = Pause(loop, lambda: freezer)
    first, second, third = Holder(), Holder(), Holder()
    pause.hold(first, first)
    pause.hold(second, second)
    assert first.said == second.said == []
    run_until(loop, lambda: bool(first.said))
    assert first.said == second.said == [None]
    pause.hold(third, third)
    assert third.said == [None]
    done: list[str] = []
    pause.postpone(lambda: done.append("x"))
    pause.release(first)
    pause.release(second)
    pause.release(second)
    assert (freezer.calls, pause.is_held, done) == (["freeze"], True, [])
    pause.release(third)
    assert (freezer.calls, pause.is_held, done) == (["freeze", "thaw"], False, ["x"])
    loop.close()


def test_who_leaves_while_it_is_being_stopped_lets_it_go_on() -> None:
    loop, freezer = EventLoop(), FakeFreezer(looks=1000)
    pause = Pause(loop, lambda: freezer)
    holder = Holder()
    pause.hold(holder, holder)
    pause.release(holder)
    assert (freezer.calls, holder.said, pause.is_held) == (["freeze", "thaw"], [], False)
    loop.run_once()  # the look that was due does nothing
    assert freezer.calls == ["freeze", "thaw"]
    loop.close()


@pytest.mark.parametrize("refuses", [True, False])
def test_what_does_not_stop_goes_on(monkeypatch: pytest.MonkeyPatch, refuses: bool) -> None:
    monkeypatch.setattr(pause_module, "_PATIENCE_SECONDS", 0.01)
    loop, freezer = EventLoop(), FakeFreezer(looks=1000, refuses=refuses)
    pause = Pause(loop, lambda: freezer)
    holder = Holder()
    pause.hold(holder, holder)
    run_until(loop, lambda: bool(holder.said))
    assert isinstance(holder.said[0], FailedError)
    assert (freezer.calls, pause.is_held) == (["freeze", "thaw"], False)
    loop.close()


# -- which group -------------------------------------------------------------------------------------------

ID = "a" * 64


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (f"5:freezer:/pydock/{ID}", f"pydock/{ID}"),
        (f"5:freezer,x:/outer/pydock/{ID}/inner/deeper", f"outer/pydock/{ID}"),
        ("5:freezer:/", ""),
        ("5:freezer:/another/service", ""),
        (f"5:memory:/pydock/{ID}\n6:freezer:/", ""),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_only_a_group_of_the_container_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, found: str, version: int
) -> None:
    file = "freezer.state" if version == 1 else "cgroup.freeze"
    for place in (tmp_path, tmp_path / "another/service", tmp_path / (found or "x")):
        place.mkdir(parents=True, exist_ok=True)
        (place / file).touch()
    layout = CgroupLayout({"freezer": tmp_path}, None, {}) if version == 1 else CgroupLayout({}, tmp_path, {})
    text = lines if version == 1 else lines.replace("freezer,x", "").replace("freezer", "")
    real = Path.read_text

    def read_text(self: Path, *words: str) -> str:
        return text if str(self) == "/proc/1/cgroup" else real(self, *words)

    monkeypatch.setattr(Path, "read_text", read_text)
    freezer = find_freezer(1, ID, layout)
    assert freezer == (GroupFreezer(str(tmp_path / found), version) if found else None)


def test_a_group_that_has_gone_is_thawed_and_frozen(tmp_path: Path) -> None:
    for version in (1, 2):
        freezer = GroupFreezer(str(tmp_path / "gone"), version)
        assert freezer.is_frozen()
        freezer.thaw()
        with pytest.raises(FailedError):
            freezer.freeze()


# -- without a group ---------------------------------------------------------------------------------------

TREE = """
import os, sys
if os.fork() == 0:
    os.execvp("sleep", ["sleep", "1000"])
print("ready", flush=True)
os.execvp("cat", ["cat"])
"""
SCRIPT = """
import os, signal, subprocess, sys, time
from pydock_core import syscalls
from pydock_core.supervision.pause import ProcessFreezer
def state(pid):
    return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
copy = os.fork()  # as the port forwarder is
if copy == 0:
    signal.pause()
    os._exit(0)
tree = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
tree.stdout.readline()
while open(f"/proc/{tree.pid}/comm").read() != "cat\\n":
    pass
(child,) = open(f"/proc/{tree.pid}/task/{tree.pid}/children").read().split()
while open(f"/proc/{child}/comm").read() != "sleep\\n":
    pass
stopped_before = subprocess.Popen(["sleep", "1000"])
os.kill(stopped_before.pid, signal.SIGSTOP)
os.waitpid(stopped_before.pid, os.WUNTRACED)
freezer = ProcessFreezer()
freezer.freeze()
end = time.monotonic() + 10
while not freezer.is_frozen():
    assert time.monotonic() < end
states = [state(pid) for pid in (tree.pid, child, stopped_before.pid, copy)]
freezer.thaw()
after = [state(pid) for pid in (tree.pid, child, stopped_before.pid)]
for pid in (tree.pid, int(child), stopped_before.pid, copy):
    os.kill(pid, signal.SIGKILL)
print(*states, "-", *("T" if word == "T" else "goes" for word in after))
"""


def test_every_process_below_is_stopped_and_those_alone_go_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, TREE], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.split() == ["T", "T", "T", "S", "-", "goes", "goes", "T"], done.stderr


def test_a_process_without_children_is_frozen_at_once() -> None:
    code = "from pydock_core.supervision.pause import ProcessFreezer; print(ProcessFreezer().is_frozen())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
