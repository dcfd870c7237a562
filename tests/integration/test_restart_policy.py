"""Restart policies: back-off, counts, what ends them, and processes that are killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pydock_core.engine import Engine, ExecRequest
from pydock_core.errors import ConflictError
from pydock_core.paths import StateRoot
from pydock_core.store.database import Database, events
from pydock_core.supervision.client import SupervisorClient, Zygote
from pydock_core.supervision.container_status import StateRecord
from tests.integration.conftest import CGROUPS, Dock, children_of, wait_until


def inspect(engine: Engine, name: str) -> dict[str, Any]:
    return engine.containers.inspect(name)


def state_of(engine: Engine, name: str) -> str:
    return str(inspect(engine, name)["State"]["Status"])


def keeper_of(dock: Dock, container_id: str) -> int:
    """Return the pid of the process that holds the lock between two runs."""
    paths = StateRoot(dock.base / "data", dock.base / "run").container(container_id)
    state = StateRecord.read(paths.state_file)
    assert state is not None
    return state.supervisor.pid


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_a_failing_container_is_started_again_so_often(dock: Dock, engine: Engine) -> None:
    dock(
        "run", "-d", "--name", "fails", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo run; exit 3"
    )
    wait_until(lambda: state_of(engine, "fails") == "exited", "the last run is over")
    document = inspect(engine, "fails")
    assert (document["RestartCount"], document["State"]["ExitCode"]) == (2, 3)
    assert document["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert dock.out("logs", "fails") == "run\n" * 2 + "run"
    database = Database(StateRoot(dock.base / "data", dock.base / "run").database)
    wait_until(lambda: len(actions(database, document["Id"])) == 7, "all events are recorded")
    assert actions(database, document["Id"]) == ["create", *["start", "die"] * 3]
    database.close()


def actions(database: Database, container_id: str) -> list[str]:
    return [event.action for event in events.select(database, since_ns=0) if event.actor == container_id]


def test_on_failure_leaves_a_success_alone(dock: Dock, engine: Engine) -> None:
    dock("run", "--name", "succeeds", "--restart", "on-failure", "busybox", "true")
    assert inspect(engine, "succeeds")["RestartCount"] == 0
    assert state_of(engine, "succeeds") == "exited"


def test_a_container_between_two_runs(dock: Dock, engine: Engine) -> None:
    """It is shown as restarting, refuses what needs a run, and is ended by stop."""
    container_id = dock.out(
        "run", "-d", "--name", "between", "--restart", "always", "busybox", "sh", "-c", "exit 4"
    )
    wait_until(lambda: inspect(engine, "between")["RestartCount"] == 4, "it waits for 0.8 seconds")
    wait_until(lambda: state_of(engine, "between") == "restarting", "it waits")
    state = inspect(engine, "between")["State"]
    assert (state["Restarting"], state["Running"], state["ExitCode"]) == (True, True, 4)
    (summary,) = engine.containers.list(filters={"status": ["restarting"]})
    assert (summary["State"], summary["Status"][:15]) == ("restarting", "Restarting (4) ")
    with pytest.raises(ConflictError, match="is restarting"):
        engine.containers.exec("between", ExecRequest(("true",)))
    with pytest.raises(ConflictError, match="is restarting"):
        engine.containers.remove("between")
    with pytest.raises(ConflictError, match="is restarting"):
        engine.containers.start("between")
    engine.containers.stop("between")
    assert state_of(engine, "between") == "exited"
    count = inspect(engine, "between")["RestartCount"]
    assert dock.out("wait", "between") == "4"
    assert inspect(engine, "between")["RestartCount"] == count >= 3
    assert not StateRoot(dock.base / "data", dock.base / "run").container(container_id).state_file.exists()


@pytest.mark.parametrize(
    "verb", [("stop", "-t", "5"), ("kill",), ("kill", "-s", "TERM"), ("rm", "-f")], ids=" ".join
)
def test_what_ends_a_policy(dock: Dock, engine: Engine, verb: tuple[str, ...]) -> None:
    dock(
        *("run", "-d", "--name", "ended", "--restart", "always", "busybox"),
        *("sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"),
    )
    wait_until(lambda: dock.out("logs", "ended") == "up", "the trap is set")
    dock(*verb, "ended")
    if verb[0] == "rm":
        assert dock.out("ps", "-aq", "--filter", "name=ended") == ""
        return
    wait_until(lambda: state_of(engine, "ended") == "exited", "it has ended")
    assert inspect(engine, "ended")["RestartCount"] == 0
    dock("start", "ended")
    assert state_of(engine, "ended") == "running"
    dock("rm", "-f", "ended")


def test_another_signal_leaves_the_policy(dock: Dock, engine: Engine) -> None:
    dock(
        *("run", "-d", "--name", "hup", "--restart", "always", "busybox"),
        *("sh", "-c", "trap 'exit 7' HUP; echo up; while :; do sleep 0.1; done"),
    )
    wait_until(lambda: dock.out("logs", "hup") == "up", "the trap is set")
    dock("kill", "-s", "HUP", "hup")
    wait_until(lambda: dock.out("logs", "hup") == "up\nup", "the second run")
    dock("rm", "-f", "hup")


def test_rm_f_between_two_runs(dock: Dock, engine: Engine) -> None:
    container_id = dock.out("run", "-d", "--restart", "always", "busybox", "false")
    wait_until(lambda: inspect(engine, container_id)["RestartCount"] >= 2, "two restarts")
    dock("rm", "-f", container_id)
    assert dock.out("ps", "-aq", "--no-trunc", "--filter", f"id={container_id}") == ""
    assert not (dock.base / "data/containers" / container_id).exists()


def test_wait_returns_at_the_end_of_a_run(dock: Dock, engine: Engine) -> None:
    dock(
        "run",
        "-d",
        "--name",
        "waited",
        "--restart",
        "always",
        "busybox",
        "sh",
        "-c",
        "read line < /tmp/f || sleep 1000",
    )
    waiting = dock.start("wait", "waited", stdout=subprocess.PIPE)
    wait_until(lambda: has_socket(waiting.pid), "it waits for the end of the first run")
    pid = int(dock.out("inspect", "-f", "{{.State.Pid}}", "waited"))
    os.kill(pid, signal.SIGKILL)
    assert waiting.communicate(timeout=20)[0] == b"137\n"
    wait_until(lambda: inspect(engine, "waited")["State"]["Pid"] not in (0, pid), "the next run")
    dock("rm", "-f", "waited")


def has_socket(pid: int) -> bool:
    """Whether a process is connected to another."""
    with suppress(FileNotFoundError):  # a file that it has closed meanwhile
        return any("socket:" in os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_ports_and_network_come_back(dock: Dock, engine: Engine) -> None:
    dock(
        *("run", "-d", "--name", "served", "--restart", "always", "-p", "127.0.0.1::80", "busybox"),
        *("sh", "-c", "httpd -f -p 80 -h /etc & read line < /proc/1/fd/none; sleep 1000"),
    )
    first = inspect(engine, "served")
    os.kill(first["State"]["Pid"], signal.SIGKILL)
    wait_until(
        lambda: inspect(engine, "served")["State"]["Pid"] not in (0, first["State"]["Pid"]), "the next run"
    )
    second = inspect(engine, "served")
    assert second["NetworkSettings"]["IPAddress"] == first["NetworkSettings"]["IPAddress"]
    assert second["NetworkSettings"]["Ports"]["80/tcp"]
    dock("rm", "-f", "served")


def test_a_killed_supervisor_and_a_killed_keeper(dock: Dock, engine: Engine) -> None:
    container_id = dock.out(
        "run", "-d", "--name", "robust", "--restart", "always", "busybox", "sleep", "1000"
    )
    supervisor = keeper_of(dock, container_id)
    os.kill(supervisor, signal.SIGKILL)
    # The count is that of the record with the pid: until the keeper has reaped the first run, its record is there.
    wait_until(
        lambda: (state := inspect(engine, "robust"))["RestartCount"] == 1 and state["State"]["Pid"] > 1,
        "the keeper has started it again",
    )
    assert inspect(engine, "robust")["RestartCount"] == 1
    second = keeper_of(dock, container_id)
    keeper = parent_of(second)
    assert second in children_of(keeper)
    os.kill(keeper, signal.SIGKILL)
    first_pid = inspect(engine, "robust")["State"]["Pid"]
    assert first_pid > 1  # kill(2) of 0 would end this test's own process group
    os.kill(first_pid, signal.SIGKILL)
    wait_until(
        lambda: inspect(engine, "robust")["RestartCount"] == 2 and state_of(engine, "robust") == "running",
        "another keeper has started it again",
    )
    dock("stop", "-t", "0", "robust")
    assert state_of(engine, "robust") == "exited"


def test_a_keeper_that_is_killed_between_two_runs(dock: Dock, engine: Engine) -> None:
    container_id = dock.out(
        "run", "-d", "--name", "gone", "--restart", "always", "busybox", "sh", "-c", "exit 5"
    )
    wait_until(lambda: inspect(engine, "gone")["RestartCount"] >= 3, "three restarts")
    wait_until(lambda: state_of(engine, "gone") == "restarting", "it waits")
    zygote = Zygote(StateRoot(dock.base / "data", dock.base / "run")).ping()["pid"]
    wait_until(lambda: parent_of(keeper_of(dock, container_id)) == zygote, "the keeper waits")
    os.kill(keeper_of(dock, container_id), signal.SIGKILL)
    wait_until(lambda: state_of(engine, "gone") == "exited", "ps tells the truth")
    assert inspect(engine, "gone")["State"]["ExitCode"] == 5
    dock("start", "gone")
    dock("rm", "-f", "gone")


def test_a_policy_that_is_given_to_a_running_container(dock: Dock, engine: Engine) -> None:
    container_id = dock.out("run", "-d", "--name", "updated", "busybox", "sleep", "1000")
    client = SupervisorClient(StateRoot(dock.base / "data", dock.base / "run").container(container_id))
    client.set_restart_policy("always", 0)
    os.kill(inspect(engine, "updated")["State"]["Pid"], signal.SIGKILL)
    wait_until(lambda: inspect(engine, "updated")["RestartCount"] == 1, "it is started again")
    wait_until(lambda: state_of(engine, "updated") == "running", "it runs")
    client.set_restart_policy("no", 0)
    os.kill(inspect(engine, "updated")["State"]["Pid"], signal.SIGKILL)
    wait_until(lambda: state_of(engine, "updated") == "exited", "it has ended")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rm", "--restart", "always"], "--rm cannot be combined with --restart always"),
        (["--restart", "sometimes"], "invalid --restart sometimes: unknown policy"),
        (["--restart", "always:3"], "only on-failure has a number of restarts"),
        (["--restart", "on-failure:-1"], "not a number of restarts"),
        (["--restart", "on-failure:x"], "--restart on-failure:x"),
    ],
)
def test_inconsistencys_are_refused(dock: Dock, engine: Engine, words: list[str], message: str) -> None:
    result = dock("create", *words, "busybox", "true", code=125)
    assert message in result.stderr
    assert result.stderr.splitlines()[1].startswith("hint: ")
    assert dock.out("ps", "-aq", "--filter", "status=created") == ""


def test_a_start_that_fails_is_not_tried_again(dock: Dock, engine: Engine) -> None:
    dock("run", "-d", "--name", "bad", "--restart", "always", "busybox", "nonesuch", code=127)
    assert state_of(engine, "bad") == "created"


def test_a_boot_starts_containers_by_their_policies(dock: Dock, engine: Engine) -> None:
    """A reboot is imitated: every process is killed, and the directory that need not survive it is emptied."""
    root = StateRoot(dock.base / "data", dock.base / "run")
    for name, policy in (
        ("no", "no"),
        ("failure", "on-failure"),
        ("always", "always"),
        ("unless", "unless-stopped"),
    ):
        dock("run", "-d", "--name", f"{name}-lost", "--restart", policy, "busybox", "sleep", "1000")
        dock("run", "-d", "--name", f"{name}-stopped", "--restart", policy, "busybox", "sleep", "1000")
        dock("stop", "-t", "0", f"{name}-stopped")
    dock("create", "--name", "never-started", "--restart", "always", "busybox", "sleep", "1000")
    zygote = Zygote(root).ping()["pid"]
    for keeper in [pid for pid in children_of(zygote) if has_no_lock(root, pid)]:
        os.kill(keeper, signal.SIGKILL)
    for directory in (root.run / "c").iterdir():
        state = StateRecord.read(directory / "state.json")
        if state is not None:
            os.kill(state.supervisor.pid, signal.SIGKILL)
            for process in filter(None, (state.supervisor, state.init)):
                wait_until(lambda process=process: not process.is_running(), "it is gone")
        shutil.rmtree(directory)
        for group in (*CGROUPS.glob(f"*/pydock/{directory.name}"), *CGROUPS.glob(f"pydock/{directory.name}")):
            group.rmdir()
    assert set(dock.out("system", "start-restart").split()) == {
        "always-lost",
        "always-stopped",
        "unless-lost",
    }
    running = set(dock.out("ps", "--format", "{{.Names}}").split())
    assert running == {"always-lost", "always-stopped", "unless-lost"}
    assert dock.out("system", "start-restart") == ""


def has_no_lock(root: StateRoot, pid: int) -> bool:
    """Whether a child of the zygote is not a supervisor, as far as the records tell."""
    states = [StateRecord.read(path / "state.json") for path in (root.run / "c").iterdir()]
    return pid not in {state.supervisor.pid for state in states if state is not None}


@pytest.mark.skipif(
    os.geteuid() != 0 and not (shutil.which("pasta") or shutil.which("slirp4netns")),
    reason="networks of an ordinary user need pasta or slirp4netns",
)
def test_a_name_on_a_network_comes_back(dock: Dock, engine: Engine) -> None:
    dock("network", "create", "restarts")
    try:
        dock(
            "run",
            "-d",
            "--name",
            "named",
            "--network",
            "restarts",
            "--restart",
            "always",
            "busybox",
            "sleep",
            "1000",
        )
        dock("run", "-d", "--name", "asks", "--network", "restarts", "busybox", "sleep", "1000")
        first = inspect(engine, "named")["State"]["Pid"]
        assert dock("exec", "asks", "ping", "-c", "1", "-W", "5", "named")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: inspect(engine, "named")["State"]["Pid"] not in (0, first), "the next run")
        assert dock("exec", "asks", "ping", "-c", "1", "-W", "5", "named")
    finally:
        dock("rm", "-f", "named", "asks")
        dock("network", "rm", "restarts")


def test_stop_while_a_keeper_notices_that_its_supervisor_was_killed(dock: Dock, engine: Engine) -> None:
    for _ in range(3):
        container_id = dock.out("run", "-d", "--restart", "always", "busybox", "sleep", "1000")
        os.kill(keeper_of(dock, container_id), signal.SIGKILL)
        engine.containers.stop(container_id, 0)
        assert state_of(engine, container_id) == "exited"
        engine.containers.remove(container_id)
