"""``--init``: reaping, signals, exit codes, terminals, and what the container sees of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pydock_core.engine import Engine
from tests.integration.conftest import Dock, wait_until

RUNTIMES = [
    (),
    *(
        pytest.param(
            ("--runtime", name), marks=pytest.mark.skipif(not shutil.which(name), reason=f"needs {name}")
        )
        for name in ("crun", "runc")
    ),
]


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda words: words[-1] if words else "embedded")
def test_it_reaps_forwards_and_ends_with_the_program(
    dock: Dock, engine: Engine, runtime: tuple[str, ...]
) -> None:
    if runtime and os.geteuid() != 0:
        pytest.skip("the runtimes' own limits for an ordinary user are tested elsewhere")
    script = (
        "trap 'exit 5' TERM; (sh -c 'sleep 0.05 & exit 0'); echo $$; cat /proc/1/comm; echo up;"
        "while :; do sleep 0.05; done"
    )
    dock("run", "-d", "--name", "reaped", "--init", *runtime, "busybox", "sh", "-c", script)
    wait_until(lambda: dock.out("logs", "reaped").endswith("up"), "it runs")
    pid, name, _ = dock.out("logs", "reaped").splitlines()
    assert (int(pid) > 1, name) == (True, "init")
    host_pid = engine.containers.inspect("reaped")["State"]["Pid"]
    assert Path(f"/proc/{host_pid}/comm").read_text() == "init\n"
    wait_until(lambda: "Z" not in dock.out("exec", "reaped", "ps", "-o", "stat"), "no zombie is left")
    dock("stop", "reaped")
    assert engine.containers.inspect("reaped")["State"]["ExitCode"] == 5
    assert engine.containers.inspect("reaped")["HostConfig"]["Init"] is True
    dock("rm", "reaped")
    assert dock("run", "--rm", "--init", *runtime, "busybox", "sh", "-c", "exit 7", code=7)
    assert dock("run", "--rm", "--init", *runtime, "busybox", "nonesuch", code=127)
    dock("run", "--rm", "--init", *runtime, "busybox", "sh", "-c", "kill -KILL $$", code=137)


def test_an_error_of_the_program_is_told_as_without_it(dock: Dock) -> None:
    assert 'exec: "nonesuch"' in dock("run", "--rm", "--init", "busybox", "nonesuch", code=127).stderr
    assert "is a directory" in dock("run", "--rm", "--init", "busybox", "/etc", code=126).stderr


def test_nothing_of_the_host_is_in_it(dock: Dock) -> None:
    """With CAP_SYS_PTRACE the container reads all of its first process, which holds nothing but the program."""
    script = (
        "wc -c < /proc/1/exe; readlink /proc/1/exe; ls /proc/1/fd; cat /proc/1/environ | wc -c; "
        "cat /proc/1/maps; grep VmRSS /proc/1/status; (echo x > /proc/1/exe) 2>&1"
    )
    out = dock.out(
        "run", "--rm", "--init", "--cap-add", "SYS_PTRACE", "busybox", "sh", "-c", script, code=None
    )
    lines = out.splitlines()
    assert int(lines[0]) < 1024
    assert lines[1].startswith("/memfd:init")
    assert lines[2:5] == ["0", "1", "2"]
    assert lines[5] == "0"
    maps = [line for line in lines[6:] if "-" in line.partition(" ")[0]]
    assert {line.split()[-1] for line in maps if "[" not in line} <= {"(deleted)", "0"}
    assert not any("python" in line or "/usr" in line for line in lines)
    (resident,) = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    assert resident < 256
    assert "sh: can't create /proc/1/exe" in lines[-1]


def test_a_terminal_belongs_to_the_program(dock: Dock) -> None:
    """ctrl-c comes once: the program's group is the terminal's foreground group."""
    script = "set -- $(cat /proc/self/stat); echo pgrp $5 tpgid $8"
    dock("create", "--name", "term", "-t", "--init", "busybox", "sh", "-c", f"exec sh -c '{script}'")
    dock("start", "-a", "term")
    words = dock.out("logs", "term").split()
    assert words[1] == words[3] != "1"
    dock("rm", "term")


def test_an_ordinary_user_of_the_container(dock: Dock) -> None:
    assert dock.out("run", "--rm", "--init", "-u", "1000", "busybox", "id", "-u") == "1000"
    options = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "2")
    assert dock.out("run", "--rm", "--init", *options, "busybox", "echo", "up") == "up"
    refused = dock("run", "--rm", "--init", "--pids-limit", "1", "busybox", "true", code=None)
    assert refused.returncode == 0 or "--init" in refused.stderr
