"""Health checks: the states, what inspect, ps and events show of them, and probes that misbehave."""

from __future__ import annotations

from typing import Any

import pytest

from pydock_core.engine import Engine
from pydock_core.paths import StateRoot
from pydock_core.store.database import Database, events
from tests.integration.conftest import Dock, wait_until

FAST = ("--health-interval", "50ms", "--health-timeout", "5s")


def health(engine: Engine, name: str) -> dict[str, Any]:
    document: dict[str, Any] = engine.containers.inspect(name)["State"]["Health"]
    return document


def wait_for(engine: Engine, name: str, status: str) -> dict[str, Any]:
    wait_until(lambda: health(engine, name)["Status"] == status, f"{name} is {status}")
    return health(engine, name)


def run(dock: Dock, name: str, *options: str, command: str = "sleep 1000") -> None:
    dock("run", "-d", "--name", name, *options, "busybox", "sh", "-c", command)


def test_a_container_becomes_unhealthy_and_healthy(dock: Dock, engine: Engine) -> None:
    check = "echo $NAME $(id -u); pwd; test -e /tmp/up || exit 9"
    run(
        dock,
        "sick",
        *FAST,
        "--health-retries",
        "2",
        "--health-cmd",
        check,
        "-e",
        "NAME=me",
        "-w",
        "/etc",
        "-u",
        "1000",
    )
    seen = wait_for(engine, "sick", "unhealthy")
    assert seen["FailingStreak"] >= 2
    assert (seen["Log"][-1]["ExitCode"], seen["Log"][-1]["Output"]) == (9, "me 1000\n/etc\n")
    assert dock.out("ps", "--format", "{{.Status}}", "--filter", "health=unhealthy").endswith("(unhealthy)")
    dock("exec", "-u", "0", "sick", "touch", "/tmp/up")
    seen = wait_for(engine, "sick", "healthy")
    assert seen["FailingStreak"] == 0
    wait_until(lambda: len(health(engine, "sick")["Log"]) == 5, "five results are kept")
    last = health(engine, "sick")["Log"][-1]["End"]
    wait_until(lambda: health(engine, "sick")["Log"][-1]["End"] != last, "a further probe")
    assert len(health(engine, "sick")["Log"]) == 5
    (summary,) = engine.containers.list(filters={"health": ["healthy"]})
    assert summary["Status"].endswith("(healthy)")
    assert engine.containers.list(filters={"health": ["none", "starting"]}) == []
    database = Database(StateRoot(dock.base / "data", dock.base / "run").database)
    container_id = summary["Id"]

    def changes() -> list[str]:
        actions = [e.action for e in events.select(database, since_ns=0) if e.actor == container_id]
        return [action for action in actions if action.startswith("health")]

    wait_until(lambda: len(changes()) == 2, "both changes are recorded")
    assert changes() == ["health_status: unhealthy", "health_status: healthy"]
    database.close()
    dock("stop", "-t", "0", "sick")
    assert health(engine, "sick")["Status"] == "unhealthy"  # as Docker has it once the check has ended


def test_the_start_period(dock: Dock, engine: Engine) -> None:
    """Within it failures do not count, and probes come at the interval of the start."""
    run(
        *(
            dock,
            "slow",
            "--health-start-period",
            "1h",
            "--health-start-interval",
            "20ms",
            "--health-interval",
            "1h",
        ),
        *("--health-retries", "1", "--health-cmd", "test -e /tmp/up"),
    )
    assert dock.out("ps", "--format", "{{.Status}}", "--filter", "name=slow").endswith("(health: starting)")
    wait_until(lambda: len(health(engine, "slow")["Log"]) == 5, "five failures")
    assert (health(engine, "slow")["Status"], health(engine, "slow")["FailingStreak"]) == ("starting", 0)
    dock("exec", "slow", "touch", "/tmp/up")
    wait_for(engine, "slow", "healthy")


def test_a_probe_that_never_ends_is_killed(dock: Dock, engine: Engine) -> None:
    run(
        *(dock, "hangs", "--health-interval", "20ms", "--health-timeout", "300ms", "--health-retries", "1"),
        *("--health-cmd", "echo begun; trap '' TERM; sleep 1000 & wait; sleep 1000"),
    )
    seen = wait_for(engine, "hangs", "unhealthy")
    result = seen["Log"][-1]
    assert (result["ExitCode"], result["Output"]) == (-1, "Health check exceeded timeout (0.3s): begun\n")


def test_a_probe_that_writes_for_ever_and_one_that_is_not_there(dock: Dock, engine: Engine) -> None:
    run(
        dock,
        "loud",
        *FAST,
        "--health-retries",
        "1",
        "--health-cmd",
        "head -c 2000000 /dev/zero | tr '\\0' x; exit 1",
    )
    output = wait_for(engine, "loud", "unhealthy")["Log"][-1]["Output"]
    assert output == "x" * 4096 + "..."
    request = {
        "Image": "busybox",
        "Cmd": ["sleep", "1000"],
        "Healthcheck": {"Test": ["CMD", "nonesuch"], "Interval": 20_000_000, "Retries": 1},
        "HostConfig": {"NetworkMode": "none"},
    }
    container_id, _ = engine.containers.create(request)
    engine.containers.start(container_id).close()
    result = wait_for(engine, container_id, "unhealthy")["Log"][-1]
    assert result["ExitCode"] == -1
    assert "nonesuch" in result["Output"]


def test_the_images_check_and_its_absence(dock: Dock, engine: Engine) -> None:
    dock("run", "--name", "base", "busybox", "true")
    dock(
        *(
            "commit",
            "-c",
            "HEALTHCHECK --interval=20ms --retries=1 CMD test -e /tmp/up",
            "base",
            "checked",
        ),
    )
    dock("run", "-d", "--name", "of-image", "checked", "sleep", "1000")
    wait_for(engine, "of-image", "unhealthy")
    dock("run", "-d", "--name", "other", "--health-cmd", "true", "checked", "sleep", "1000")
    assert wait_for(engine, "other", "healthy")
    check = engine.containers.inspect("other")["Config"]["Healthcheck"]
    assert check == {"Test": ["CMD-SHELL", "true"], "Interval": 20_000_000, "Retries": 1}
    dock("run", "-d", "--name", "without", "--no-healthcheck", "checked", "sleep", "1000")
    assert "Health" not in engine.containers.inspect("without")["State"]
    assert dock.out("ps", "-q", "--filter", "health=none", "--filter", "name=without") != ""
    dock("rm", "-f", "of-image", "other", "without", "base")
    dock("rmi", "checked")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--no-healthcheck", "--health-cmd", "true"], "--no-healthcheck contradicts"),
        (["--health-interval", "10"], "--health-interval 10: not a time"),
        (["--health-interval", "10us"], "--health-interval: less than 1 ms"),
        (["--health-retries", "-1"], "Healthcheck.Retries -1"),
    ],
)
def test_what_is_refused(dock: Dock, words: list[str], message: str) -> None:
    assert message in dock("create", *words, "busybox", "true", code=125).stderr


def test_a_check_over_the_runs_of_a_restart_policy(dock: Dock, engine: Engine) -> None:
    run(
        *(dock, "again", *FAST, "--health-retries", "1", "--health-cmd", "true", "--restart", "always"),
        command="while [ ! -e /tmp/end ]; do sleep 0.05; done; rm /tmp/end",
    )
    wait_for(engine, "again", "healthy")
    dock("exec", "again", "touch", "/tmp/end")
    wait_until(lambda: engine.containers.inspect("again")["RestartCount"] == 1, "the second run")
    wait_for(engine, "again", "healthy")
