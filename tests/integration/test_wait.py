"""wait by the Engine API's conditions, start of what runs, and links that are removed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

from pydock_core.engine import Engine
from pydock_core.errors import InvalidError, NotFoundError
from tests.integration.conftest import Dock, wait_until

SECONDS = 30
Waiter = Callable[[str, str], "Future[int]"]


@pytest.fixture
def wait(engine: Engine) -> Iterator[Waiter]:
    """Wait in a thread; returns when the wait cannot miss anything any more."""
    pool = ThreadPoolExecutor(2)

    def begin(name: str, condition: str) -> Future[int]:
        before = watches()

        def wait_there() -> int:
            own = Engine(engine.root)
            try:
                return own.containers.wait(name, condition)
            finally:
                own.close()

        future = pool.submit(wait_there)
        wait_until(lambda: watches() > before or future.done(), "it waits")
        return future

    yield begin
    pool.shutdown()


def watches() -> int:
    """How many queues of inotify this process has."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            count += "inotify" in os.readlink(f"/proc/self/fd/{name}")
    return count


def test_the_next_exit_of_a_container_that_does_not_run(dock: Dock, wait: Waiter) -> None:
    dock("create", "--name", "next", "busybox", "sh", "-c", "exit 4")
    dock("start", "-a", "next", code=4)
    waiter = wait("next", "next-exit")
    assert not waiter.done()
    dock("start", "next")
    assert waiter.result(SECONDS) == 4


def test_the_removal(dock: Dock, wait: Waiter) -> None:
    dock("create", "--name", "gone", "busybox", "sh", "-c", "exit 5")
    waiter = wait("gone", "removed")
    dock("start", "-a", "gone", code=5)
    assert not waiter.done()
    dock("rm", "gone")
    assert waiter.result(SECONDS) == 5


def test_the_removal_of_a_container_that_removes_itself(dock: Dock, wait: Waiter) -> None:
    dock(
        "run",
        "-d",
        "--rm",
        "--name",
        "itself",
        "busybox",
        "sh",
        "-c",
        "until test -e /go; do sleep 0.05; done; exit 6",
    )
    waiter = wait("itself", "removed")
    dock("exec", "itself", "touch", "/go")
    assert waiter.result(SECONDS) == 6


def test_a_container_that_is_removed_has_no_next_exit(dock: Dock, wait: Waiter) -> None:
    dock("create", "--name", "never", "busybox", "true")
    waiter = wait("never", "next-exit")
    dock("rm", "never")
    with pytest.raises(NotFoundError):
        waiter.result(SECONDS)


def test_an_unknown_condition_is_refused(dock: Dock, engine: Engine) -> None:
    dock("create", "--name", "strict", "busybox", "true")
    with pytest.raises(InvalidError, match="invalid condition"):
        engine.containers.wait("strict", "sometimes")


def test_the_command_takes_a_condition(dock: Dock) -> None:
    dock("run", "--name", "brief", "busybox", "sh", "-c", "exit 5", code=5)
    assert dock.out("wait", "--condition", "not-running", "brief") == "5"
    assert "there are not-running" in dock("wait", "--condition", "sometimes", "brief", code=1).stderr


def test_to_start_what_runs_is_no_error(dock: Dock) -> None:
    dock("run", "-d", "--name", "runs", "busybox", "sleep", "1000")
    pid = dock.out("inspect", "-f", "{{.State.Pid}}", "runs")
    assert dock.out("start", "runs") == "runs"
    assert dock.out("inspect", "-f", "{{.State.Pid}}", "runs") == pid


@pytest.mark.skipif(os.geteuid() != 0, reason="the default bridge needs root")
def test_a_link_is_removed_while_the_container_runs(dock: Dock) -> None:
    sleep = ("busybox", "sleep", "1000")
    dock("run", "-d", "--name", "store", "--network", "bridge", *sleep)
    dock("run", "-d", "--name", "shop", "--network", "bridge", "--link", "store:db", *sleep)
    assert "\tdb " in dock.out("exec", "shop", "cat", "/etc/hosts")
    assert dock.out("rm", "--link", "/shop/db") == "/shop/db"
    hosts = dock.out("exec", "shop", "cat", "/etc/hosts")
    assert "\tdb " not in hosts
    assert "localhost" in hosts
    assert dock.out("inspect", "-f", "{{json .HostConfig.Links}}", "shop") == "null"
    assert dock.out("inspect", "-f", "{{.State.Running}}", "store") == "true"
    assert "container shop has no link db" in dock("rm", "-l", "shop/db", code=1).stderr
    assert "write CONTAINER/ALIAS" in dock("rm", "-l", "shop", code=1).stderr
