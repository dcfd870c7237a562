"""What a directory, an environment or a container gives the program ``dock`` to read, run and show."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pydock_core.paths import StateRoot
from pydock_core.supervision.client import Zygote
from tests.integration.conftest import Dock, archive, dock

__all__ = ["archive", "dock"]

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
CONTROL = "\x9b31m\x7f\u202e"
REPOSITORY = Path(__file__).resolve().parents[2]

DOCK = Path(sys.executable).with_name("dock")
LATE = {"json", "argparse", "sqlite3", "hashlib", "subprocess", "importlib_metadata", "dataclasses"}
EVERY = LATE | {
    *("re", "enum", "functools", "contextlib", "types", "operator", "keyword", "collections", "warnings"),
    *("importlib", "runpy", "os", "stat", "posixpath", "codecs", "abc", "site", "pydock_core"),
}


@pytest.mark.parametrize(
    ("words", "by", "names"),
    [
        ([DOCK], "directory", EVERY),
        ([DOCK], "PYTHONPATH", EVERY),
        ([sys.executable, "-I", "-m", "pydock_core"], "directory", EVERY),
        ([sys.executable, "-I", "-m", "pydock_core"], "PYTHONPATH", EVERY),
        # Without -I, runpy has imported others before the first line of the program.
        ([sys.executable, "-m", "pydock_core"], "directory", LATE),
        ([sys.executable, "-m", "pydock_core"], "PYTHONPATH", LATE),
    ],
)
def test_a_module_of_the_callers_does_not_replace_a_library(
    tmp_path: Path, words: list[object], by: str, names: set[str]
) -> None:
    """A user's json.py, and by the script that pip writes the user's re.py, was imported by root."""
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    mark = tmp_path / "mark"
    for name in names:
        (hostile / f"{name}.py").write_text(
            f"open({str(mark)!r}, 'a').write({name!r})\nraise SystemExit(9)\n"
        )
    environment = {**os.environ, "PYDOCK_ROOT": str(tmp_path / "state")}
    if by == "PYTHONPATH":
        environment["PYTHONPATH"] = str(hostile)
    result = subprocess.run(
        [*words, "ps", "--format", "json"],
        cwd=hostile if by == "directory" else tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not mark.exists(), mark.read_text()
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_servers_heed_no_environment_of_pythons(dock: Dock) -> None:
    with_path = {**dock.environment(), "PYTHONPATH": str(REPOSITORY), "PYTHONSTARTUP": "/x"}
    words = dock.words("run", "--rm", "--network=none", "busybox", "true")
    subprocess.run(words, env=with_path, check=True, timeout=60)
    pid = Zygote(StateRoot(dock.base / "data", dock.base / "run")).ping()["pid"]
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert {b"-I", b"-S"} <= set(command[1:4])
    assert b"PYTHON" not in Path(f"/proc/{pid}/environ").read_bytes()


def on_a_terminal(dock: Dock, *words: str) -> bytes:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        dock.words(*words), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=dock.environment()
    ) as process:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # EIO: the other side is closed
            pass
        finally:
            os.close(ours)
        assert process.wait(60) == 0, b"".join(parts)
    return b"".join(parts)


def test_a_terminal_obeys_nothing_that_a_container_wrote(dock: Dock) -> None:
    script = 'touch "/tmp/a$E"; mkdir -p "/tmp/$C" "/tmp/line\nA /tmp/made-up"; echo "$E"'
    dock(
        *(
            "run",
            "--name",
            "hostile",
            "-l",
            f"note={ESCAPE}{CONTROL}",
            "-e",
            f"E={ESCAPE}",
            "-e",
            f"C={CONTROL}",
        ),
        *("busybox", "sh", "-c", script),
    )
    dock("commit", "--message", ESCAPE, "hostile", "hostile:1")
    label = '{{index .Config.Labels "note"}}'
    commands: tuple[tuple[str, ...], ...] = (
        ("diff", "hostile"),
        ("ps", "-a", "--no-trunc"),
        ("ps", "-a", "--no-trunc", "--format", "{{.Labels}} {{.Command}}"),
        ("ps", "-a", "--no-trunc", "--format", "table {{.Labels}}\t{{.Command}}"),
        ("ps", "-a", "--format", "json"),
        ("ps", "-a", "--format", "{{json .}}"),
        ("inspect", "hostile"),
        ("inspect", "-f", label, "hostile"),
        ("inspect", "-f", "{{json .Config}}", "hostile"),
        ("inspect", "-f", "{{range .Config.Env}}{{upper .}}{{end}}", "hostile"),
        ("history", "--no-trunc", "hostile:1"),
        ("history", "--no-trunc", "--format", "{{.Comment}} {{.CreatedBy}}", "hostile:1"),
        ("images", "--filter", "label=note"),
    )
    for words in commands:
        shown = on_a_terminal(dock, *words).decode()
        bad = [letter for letter in shown if letter not in "\r\n\t" and not letter.isprintable()]
        assert not bad, (words, shown)
    assert "made-up" in on_a_terminal(dock, "diff", "hostile").decode()
    assert b"\nA /tmp/made-up" not in on_a_terminal(dock, "diff", "hostile")
    # The template is the caller's own: its colours stay.
    coloured = on_a_terminal(dock, "ps", "-a", "--format", "\x1b[1m{{.Names}}\x1b[0m")
    assert coloured.startswith(b"\x1b[1mhostile\x1b[0m")
    # A pipe gets what is there, and JSON means it.
    assert dock.out("inspect", "-f", label, "hostile") == (ESCAPE + CONTROL).strip()
    assert f"A /tmp/a{ESCAPE}\n" in dock("diff", "hostile").stdout
    seen = json.loads(dock.out("inspect", "hostile"))[0]
    assert seen["Config"]["Labels"] == {"note": ESCAPE + CONTROL}
    # The log is the container's own output, and is passed on as it is, as by docker logs.
    assert ESCAPE.encode() in on_a_terminal(dock, "logs", "hostile")


def test_no_line_is_smuggled_into_a_file_of_the_container(dock: Dock) -> None:
    for words in (
        ("--add-host", "good\n6.6.6.6 bank:1.2.3.4"),
        ("--add-host", "two names:1.2.3.4"),
        ("--add-host", "name\t:1.2.3.4"),
        ("--add-host", "name#:1.2.3.4"),
        ("--add-host", ":1.2.3.4"),
        ("--add-host", "good:fe80::1%eth0\n6.6.6.6 bank"),
        ("--add-host", "good:1.2.3.4\n"),
        ("--hostname", "good\n6.6.6.6 bank"),
        ("--name", "good\n"),
    ):
        result = dock("run", "--rm", "--network=none", *words, "busybox", "true", code=125)
        subject = "invalid container name" if words[0] == "--name" else f"invalid {words[0]}"
        assert result.stderr.startswith(f"error: {subject}"), words
    kept = ("--add-host=my_db.local:10.0.0.1", "--add-host=six=[FE80::1%eth0]")
    hosts = dock.out("run", "--rm", "--network=none", *kept, "busybox", "cat", "/etc/hosts")
    assert "10.0.0.1\tmy_db.local" in hosts.splitlines()
    assert "fe80::1%eth0\tsix" in hosts.splitlines()
