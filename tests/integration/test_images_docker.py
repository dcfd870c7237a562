"""Docker's own client and daemon as the measure: which flags its commands have, and how its tables look."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydock_core.commands.table import find
from tests.bench.isolation import unmount_below
from tests.integration.conftest import Dock

COMMANDS = (
    "pull push login logout search save load import export commit tag rmi images history diff "
    "image:inspect image:prune container:prune system:df system:prune ps inspect container:inspect"
).split()
_FLAG = re.compile(r"^ {2,6}(?:(-\w), )?(--[\w-]+)", re.MULTILINE)

pytestmark = pytest.mark.skipif(
    not shutil.which("docker"), reason="needs the docker client (Debian: docker-cli)"
)


def docker(*words: object, **environment: str) -> str:
    """Run docker, which must succeed; return its standard output."""
    return subprocess.run(
        ["docker", *(str(word) for word in words)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    ).stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_of_dockers_is_known(name: str) -> None:
    words = tuple(name.split(":"))
    found = find(words)
    assert found is not None
    command, length = found
    assert length == len(words)
    text = docker(*words, "--help").partition("Options:")[2]
    flags = {flag for match in _FLAG.finditer(text) for flag in match.groups() if flag}
    assert flags or name in ("logout", "tag", "diff")
    known = {flag for option in command.options for flag in option.flags}
    assert flags - known - set(command.refused) == set()


@pytest.mark.parametrize("name", "pull push save load import rm ls history inspect prune tag".split())
def test_image_commands_have_their_long_name(name: str) -> None:
    found = find(("image", name))
    assert found is not None
    assert found[1] == 2


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[Callable[..., str]]:
    """docker on a daemon of the module's own, which has the image busybox."""
    if os.geteuid() != 0:
        pytest.skip("needs root (a docker daemon of its own)")
    if not shutil.which("dockerd") or not shutil.which("containerd"):
        pytest.skip("needs dockerd and containerd (Debian: docker.io)")
    base = tmp_path_factory.mktemp("dockerd")
    host = f"unix://{base}/s"
    words = ["dockerd", "--data-root", base / "data", "--exec-root", base / "exec", "--pidfile", base / "pid"]
    words += [
        "--host",
        host,
        "--bridge",
        "none",
        "--iptables=false",
        "--exec-opt",
        "native.cgroupdriver=cgroupfs",
    ]
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 30
        while subprocess.run(["docker", "-H", host, "info"], capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"no docker daemon: {(base / 'log').read_text().splitlines()[-1][-100:]}")
            time.sleep(0.05)
        docker("load", "-i", archive, DOCKER_HOST=host)
        yield lambda *words: docker(*words, DOCKER_HOST=host)
    finally:
        process.terminate()
        process.wait(timeout=30)
        unmount_below(base)


@pytest.mark.parametrize(
    "words",
    [
        ("images",),
        ("images", "--digests"),
        ("images", "--no-trunc", "-q"),
        ("images", "-f", "reference=busy*"),
        ("images", "-f", "reference=*/*"),
        ("images", "--format", "table {{.Repository}}\t{{.Digest}}\t{{if .Tag}}{{.Tag}}{{end}}"),
        ("images", "--format", "{{.ID}} {{.CreatedAt}} {{.CreatedSince}}"),
        ("history", "busybox"),
        ("history", "-q", "busybox"),
        ("history", "--format", "{{.ID}} {{.CreatedAt}} {{.CreatedBy}} {{.Comment}}", "busybox"),
        ("system", "df", "--format", "{{.Type}}"),
        ("rmi", "gone:1"),
    ],
    ids=" ".join,
)
def test_the_same_words_give_the_same_output(
    daemon: Callable[..., str], dock: Dock, words: tuple[str, ...]
) -> None:
    if words[0] == "rmi":  # what is removed is a name of each side's own
        daemon("tag", "busybox", "gone:1")
        dock("tag", "busybox", "gone:1")
    theirs = [line.rstrip() for line in daemon(*words).splitlines()]
    ours = [line.rstrip() for line in dock(*words).stdout.splitlines()]
    assert ours == theirs


def test_the_tables_of_df_have_the_same_columns(daemon: Callable[..., str], dock: Dock) -> None:
    def headers(text: str) -> list[str]:
        return [
            re.sub(r" {3,}", "   ", line) for line in text.splitlines() if line.isupper() and "   " in line
        ]

    assert headers(dock("system", "df").stdout) == headers(daemon("system", "df"))
    assert headers(dock("system", "df", "-v").stdout) == headers(daemon("system", "df", "-v"))
