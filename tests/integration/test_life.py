"""The life of a container through the program: run, create, start, stop, kill, restart, rm, rename, ps, logs, wait, inspect."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time

import pytest

from tests.integration.conftest import Dock, wait_until


def test_run_gives_output_error_and_exit_code(dock: Dock) -> None:
    result = dock("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert dock.out("ps", "-aq") == ""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["busybox", "nonesuch"], 127, "nonesuch"),
        (["busybox", "/etc/passwd"], 126, "passwd"),
        (["nonesuch", "true"], 125, "no such image"),
        (["--name", "bad name", "busybox", "true"], 125, "invalid container name 'bad name'"),
        (["-w", "/etc/passwd", "busybox", "true"], 125, "passwd"),
        (["-u", "nobody-here", "busybox", "true"], 125, "nobody-here"),
        (["--runtime", "nonesuch", "busybox", "true"], 125, "nonesuch"),
        (["-p", "99999:1", "busybox", "true"], 125, "99999"),
        (["--mount", "type=bind,source=/nonesuch,target=/x", "busybox", "true"], 125, "/nonesuch"),
        (["--log-driver", "syslog", "busybox", "true"], 125, "--log-driver syslog: unknown log driver"),
        (["--log-opt", "max-file=0", "busybox", "true"], 125, "max-file=0"),
        (["--cap-add", "FROBNICATE", "busybox", "true"], 125, "FROBNICATE"),
    ],
)
def test_what_cannot_run_is_one_line_and_a_documented_code(
    dock: Dock, words: list[str], code: int, message: str
) -> None:
    result = dock("run", "--rm", *words, code=code)
    lines = result.stderr.strip().splitlines()
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))
    assert "Traceback" not in result.stderr
    assert dock.out("ps", "-aq") == ""


def test_signals_become_128_plus_n(dock: Dock) -> None:
    dock("run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -KILL $$'; exit $?", code=137)
    dock("run", "-d", "--name", "signalled", "busybox", "sleep", "1000")
    dock("kill", "-s", "KILL", "signalled")
    assert dock.out("wait", "signalled") == "137"


def test_the_whole_life(dock: Dock) -> None:
    container_id = dock.out(
        "create", "--name", "life", "busybox", "sh", "-c", "echo started; exec sleep 1000"
    )
    assert re.fullmatch(r"[0-9a-f]{64}", container_id)
    assert dock.out("ps", "-a", "--format", "{{.Names}} {{.State}} {{.Status}}") == "life created Created"
    assert dock.out("start", "life") == "life"
    assert dock.out("ps", "--format", "{{.Names}} {{.State}}") == "life running"
    assert dock.out("ps", "--format", "{{.Status}}").startswith("Up ")
    document = json.loads(dock.out("inspect", container_id[:8]))[0]
    assert document["Id"] == container_id
    assert document["State"]["Running"] is True
    assert document["State"]["Pid"] > 1
    assert dock.out("exec", "life", "cat", "/proc/1/comm") == "sleep"
    dock("rename", "life", "second")
    assert dock.out("stop", "-t", "0", "second") == "second"
    assert dock.out("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "second") == "exited 137"
    assert dock.out("restart", "second") == "second"
    assert dock.out("kill", "second") == "second"
    assert dock.out("wait", "second") == "137"
    assert dock.out("logs", "second") == "started\nstarted"
    assert dock("rm", "second").stdout == "second\n"
    assert "no such object: second" in dock("inspect", "second", code=1).stderr


def test_a_running_container_is_not_removed_without_force(dock: Dock) -> None:
    dock("run", "-d", "--name", "busy", "busybox", "sleep", "1000")
    result = dock("rm", "busy", code=1)
    assert "is running" in result.stderr
    assert "dock stop busy" in result.stderr
    assert dock("rm", "-f", "busy").stdout == "busy\n"


def test_a_taken_name_is_refused(dock: Dock) -> None:
    dock("create", "--name", "taken", "busybox", "true")
    result = dock("create", "--name", "taken", "busybox", "true", code=125)
    assert "'taken' is taken" in result.stderr
    dock("create", "--name", "other", "busybox", "true")
    assert "is taken" in dock("rename", "other", "taken", code=125).stderr
    assert dock.out("ps", "-a", "--format", "{{.Names}}").split() == ["other", "taken"]


def test_the_columns_are_dockers(dock: Dock) -> None:
    container_id = dock.out(
        "run", "-d", "--name", "columns", "-p", "127.0.0.1:0:80", "busybox", "sleep", "1000"
    )
    header, line = dock.out("ps").splitlines()
    assert re.split(r"\s{2,}", header) == [
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ]
    fields = re.split(r"\s{3,}", line)
    assert fields[0] == container_id[:12]
    assert fields[1] == "busybox"
    assert fields[2] == '"sleep 1000"'
    assert re.fullmatch(r"127\.0\.0\.1:\d+->80/tcp", fields[5])
    assert fields[6] == "columns"
    assert dock.out("ps", "-q", "--no-trunc") == container_id
    assert json.loads(dock.out("ps", "--format", "json"))["Names"] == "columns"
    assert dock.out("ps", "--format", "table {{.Names}}\\t{{.State}}").splitlines()[0].split() == [
        "NAMES",
        "STATE",
    ]


def test_filters_choose(dock: Dock) -> None:
    dock("create", "--name", "one", "-l", "a=1", "busybox", "true")
    dock("create", "--name", "two", "-l", "a=2", "busybox", "true")
    dock("start", "-a", "one")

    def names(*filters: str) -> list[str]:
        words = [word for text in filters for word in ("--filter", text)]
        return sorted(dock.out("ps", "-a", *words, "--format", "{{.Names}}").split())

    assert names("name=one") == ["one"]
    assert names("label=a") == ["one", "two"]
    assert names("label=a=2") == ["two"]
    assert names("status=created") == ["two"]
    assert names("exited=0") == ["one"]
    assert names("ancestor=busybox", "name=t") == ["two"]
    assert names("before=two") == ["one"]
    assert names("since=one") == ["two"]
    assert "unknown key" in dock("ps", "--filter", "color=red", code=1).stderr


def test_a_log_is_rotated_and_followed_across_it(dock: Dock) -> None:
    """What is kept is bounded, by default too; nobody who keeps up misses a line."""
    lines = [str(number) for number in range(20_000)]
    count = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done"
    container_id = dock.out(
        "create",
        "--name=many",
        "--log-opt=max-size=100k",
        "--log-opt=max-file=30",
        "busybox",
        "sh",
        "-c",
        count,
    )
    directory = dock.base / "data" / "containers" / container_id
    log = json.loads(dock.out("inspect", "many"))[0]
    assert log["HostConfig"]["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-size": "100k", "max-file": "30"},
    }
    assert log["LogPath"] == str(directory / "log.json")
    dock("start", "many")
    assert dock.out("logs", "-f", "many").splitlines() == lines
    files = list(directory.glob("log.json*"))
    assert 10 < len(files) < 30
    assert max(file.stat().st_size for file in files) <= 100_000
    assert dock.out("logs", "--tail", "7000", "many").splitlines() == lines[-7000:]
    dock("rm", "many")
    assert not directory.exists()


def test_no_log_is_kept_where_none_is_wanted(dock: Dock) -> None:
    container_id = dock.out("create", "--log-driver=none", "--name=silent", "busybox", "echo", "said")
    assert dock("start", "-a", "silent").stdout == "said\n"
    assert not list((dock.base / "data" / "containers" / container_id).glob("log*"))
    result = dock("logs", "silent", code=1)
    assert result.stderr.startswith("error: container silent has no log")
    assert dock.out("inspect", "-f", "{{.HostConfig.LogConfig.Type}}:{{.LogPath}}", "silent") == "none:"


def test_logs_tail_time_and_follow(dock: Dock) -> None:
    dock(
        "run", "--name", "talk", "busybox", "sh", "-c", "for i in 1 2 3; do echo line $i; done; echo bad >&2"
    )
    result = dock("logs", "talk")
    assert result.stdout == "line 1\nline 2\nline 3\n"
    assert result.stderr == "bad\n"
    assert dock("logs", "--tail", "2", "talk").stdout == "line 3\n"
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z line 1\n", dock("logs", "-t", "talk").stdout)
    dock("run", "-d", "--name", "slow", "busybox", "sh", "-c", "echo first; read line; echo second")
    with dock.start("logs", "-f", "slow", stdout=subprocess.PIPE) as follow:
        assert follow.stdout is not None
        assert follow.stdout.readline() == b"first\n"
        follow.communicate(timeout=20)
    assert follow.returncode == 0


def test_standard_input_reaches_the_container(dock: Dock) -> None:
    data = bytes(range(256)) * 4000
    result = dock("run", "--rm", "-i", "busybox", "wc", "-c", stdin=data)
    assert result.stdout.split()[0] == str(len(data))
    assert dock("run", "--rm", "busybox", "wc", "-c", stdin=b"not read").stdout.split()[0] == "0"


def test_start_attached_and_with_input(dock: Dock) -> None:
    dock("create", "-i", "--name", "cat", "busybox", "cat")
    assert dock("start", "-i", "cat", stdin=b"hello\n").stdout == "hello\n"
    assert dock("start", "-a", "-i", "cat", stdin=b"again\n").stdout == "again\n"
    assert dock.out("logs", "cat") == "hello\nagain"


def test_attach_follows_and_gives_the_exit_code(dock: Dock) -> None:
    dock("run", "-d", "-i", "--name", "waits", "busybox", "sh", "-c", "read line; echo got $line; exit 4")
    result = dock("attach", "waits", stdin=b"word\n", code=4)
    assert result.stdout == "got word\n"
    assert "is not running" in dock("attach", "waits", code=1).stderr


def test_exec_streams_codes_user_and_directory(dock: Dock) -> None:
    dock("run", "-d", "--name", "host", "-e", "A=1", "busybox", "sleep", "1000")
    result = dock("exec", "host", "sh", "-c", "echo out; echo err >&2; exit 3", code=3)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert dock("exec", "-i", "host", "cat", stdin=b"in").stdout == "in"
    assert dock.out("exec", "-e", "B=2", "host", "sh", "-c", "echo $A$B") == "12"
    assert dock.out("exec", "-w", "/tmp", "host", "sh", "-c", "pwd") == "/tmp"
    assert dock.out("exec", "-u", "guest", "host", "id", "-u") == "1000"
    assert "nonesuch" in dock("exec", "host", "nonesuch", code=127).stderr
    dock("exec", "host", "/etc/passwd", code=126)
    dock("exec", "-d", "host", "sh", "-c", "echo > /tmp/done")
    wait_until(
        lambda: dock("exec", "host", "ls", "/tmp/done", code=None).returncode == 0, "the detached exec ran"
    )
    dock("stop", "-t", "0", "host")
    assert "is not running" in dock("exec", "host", "true", code=1).stderr


def test_an_interrupt_reaches_the_container(dock: Dock) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    with dock.start("run", "--rm", "busybox", "sh", "-c", script, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(signal.SIGINT)
        out, _ = client.communicate(timeout=20)
    assert (out, client.returncode) == (b"caught\n", 9)


def test_stop_uses_the_containers_signal_and_time(dock: Dock) -> None:
    script = "trap 'exit 5' USR1; trap '' TERM; echo ready; while :; do sleep 0.1; done"
    dock("run", "-d", "--name", "polite", "--stop-signal", "USR1", "busybox", "sh", "-c", script)
    wait_until(lambda: dock.out("logs", "polite") == "ready", "the trap is set")
    dock("stop", "polite")
    assert dock.out("wait", "polite") == "5"
    dock("run", "-d", "--name", "stubborn", "--stop-timeout", "1", "busybox", "sh", "-c", script)
    wait_until(lambda: dock.out("logs", "stubborn") == "ready", "the trap is set")
    begin = time.monotonic()
    dock("stop", "stubborn")
    assert 0.9 < time.monotonic() - begin < 8
    assert dock.out("wait", "stubborn") == "137"


def test_detached_containers_with_rm_go_when_they_end(dock: Dock) -> None:
    dock("run", "-d", "--rm", "--name", "gone", "busybox", "true")
    wait_until(lambda: dock.out("ps", "-aq") == "", "it is not listed")
    wait_until(lambda: not list((dock.base / "data" / "containers").iterdir()), "its files are gone")


def test_writable_layers_are_apart_and_the_image_stays(dock: Dock) -> None:
    dock("run", "--name", "first", "busybox", "sh", "-c", "echo a > /tmp/x; rm /etc/group; cat /tmp/x")
    assert dock.out("run", "--rm", "busybox", "sh", "-c", "ls /tmp; ls /etc/group") == "/etc/group"
    dock("create", "--name", "second", "busybox", "cat", "/tmp/x")
    assert dock("start", "-a", "second", code=1).stdout == ""


def test_a_container_that_goes_when_it_stops_cannot_be_restarted(dock: Dock) -> None:
    dock("run", "-d", "--rm", "--name", "brief", "busybox", "sh", "-c", "sleep 1000\nsleep 1000")
    assert "--rm" in dock("restart", "brief", code=1).stderr
    assert len(dock.out("ps").splitlines()) == 2
    assert dock.out("exec", "brief", "echo", "alive") == "alive"


def test_attach_gives_the_exit_code_of_a_container_that_goes_when_it_ends(dock: Dock) -> None:
    dock("run", "-d", "-i", "--rm", "--name", "brief", "busybox", "sh", "-c", "read line; echo $line; exit 3")
    assert dock("attach", "brief", stdin=b"word\n", code=3).stdout == "word\n"


def test_a_script_whose_interpreter_is_missing_is_told_from_one_that_is_not_there(dock: Dock) -> None:
    dock("run", "-d", "--name", "host", "busybox", "sleep", "1000")
    dock("exec", "host", "sh", "-c", "printf '#!/nonesuch\\n' > /bin/script; chmod +x /bin/script")
    for command in ("script", "/bin/script"):
        result = dock("exec", "host", command, code=127)
        assert "the interpreter or loader that it names is not" in result.stderr
    assert "not found in $PATH" in dock("exec", "host", "nonesuch", code=127).stderr
