"""The hand-over of a started container: everything arrives, whatever its size."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pydock_core.messages import close_all
from pydock_core.supervision import handover
from pydock_core.supervision.handover import Descriptors, Facts, Handover

FACTS = Facts(
    container_id="c" * 64,
    data_dir="/data",
    run_dir="/run",
    executor="embedded",
    terminal=False,
    open_stdin=True,
    stdin_once=False,
    stop_signal=15,
    stop_timeout_seconds=10.0,
    log_path="/data/log.json",
    log_file_bytes=0,
    log_files=1,
    log_attributes={"a": "b"},
    journal_fields=None,
    journal_bytes=0,
    auto_remove=False,
    health=None,
    control_path="/run/control.sock",
    hosts=("127.0.0.1", "::1"),
    ports=[],
    pid=7,
    started_at_ns=1,
    oom_file="",
    mounted=("/data/bundle/rootfs",),
    attach={"stdout": True},
    has_attachment=True,
    unwritten=({"stdout": b"half a l"}, True),
    relayed=(b"input", False, b"output"),
    restarts=None,
    keeper=None,
)


@pytest.fixture
def link() -> Iterator[tuple[socket.socket, socket.socket]]:
    starter, supervisor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with starter, supervisor:
        yield starter, supervisor


@pytest.mark.parametrize("pending_bytes", [10, 500_000], ids=["packet", "memory"])
@pytest.mark.parametrize("listeners", [0, 40])
def test_facts_and_descriptors_arrive(
    link: tuple[socket.socket, socket.socket], tmp_path: Path, pending_bytes: int, listeners: int
) -> None:
    names = ("status", "lock", "stdout", "log")
    opened = {name: os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in names}
    ports = [os.open(tmp_path / f"port{number}", os.O_RDWR | os.O_CREAT) for number in range(listeners)]
    facts = replace(FACTS, relayed=(b"", True, b"x" * pending_bytes))
    Handover(facts, Descriptors(**opened), ports).send(link[0])
    received = handover.receive(link[1])
    assert received is not None
    assert received.facts == facts
    assert {name: os.readlink(f"/proc/self/fd/{getattr(received.fds, name)}") for name in names} == {
        name: str(tmp_path / name) for name in names
    }
    assert len(received.fds.list_open()) == len(names)
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in received.listener_fds] == [
        str(tmp_path / f"port{number}") for number in range(listeners)
    ]
    close_all([*opened.values(), *ports, *received.fds.list_open(), *received.listener_fds])


def test_a_starter_that_ends_hands_nothing_over(link: tuple[socket.socket, socket.socket]) -> None:
    link[0].close()
    assert handover.receive(link[1]) is None


def test_the_supervisor_reaps_for_a_starter_that_may_not_read_the_status(
    link: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "read_status", lambda _: None)
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    answers: list[int] = []

    def ask() -> None:
        answers.append(handover.read_sibling_status(link[0], pid))
        link[0].close()

    asking = threading.Thread(target=ask)
    asking.start()
    assert handover.receive(link[1]) is None
    asking.join()
    assert os.waitstatus_to_exitcode(answers[0]) == 3
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)
