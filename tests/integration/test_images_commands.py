"""The commands on images with the real program: archives, commit, diff, prune, and a registry."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.paths import StateRoot
from tests.integration.conftest import Dock, end_servers
from tests.support.network_namespace import NetworkNamespace, network_namespace
from tests.support.registry import PASSWORD, USERNAME, Registry, basic_auth, registry


@pytest.fixture
def own(tmp_path: Path, archive: Path) -> Iterator[Dock]:
    """``dock`` on a state root of the test's own: what it prunes is nobody else's."""
    program = Dock(tmp_path / "state")
    program("load", "-q", "-i", archive)
    yield program
    names = program.out("ps", "-aq").split()
    if names:
        program("rm", "-f", *names)
    end_servers(StateRoot(program.base / "data", program.base / "run"))


def tags(dock: Dock) -> list[str]:
    return sorted(dock.out("images", "--format", "{{.Repository}}:{{.Tag}}").split())


# -- a container's changes ---------------------------------------------------------------------------------


def test_commit_diff_and_export(dock: Dock, tmp_path: Path) -> None:
    dock("run", "--name", "changed", "busybox", "sh", "-c", "echo new > /new; rm /etc/group; mkdir /made")
    changes = set(dock.out("diff", "changed").splitlines())
    assert {"A /new", "A /made", "D /etc/group", "C /etc"} <= changes
    assert dock.out("container", "diff", "changed").splitlines() == dock.out("diff", "changed").splitlines()
    image_id = dock.out(
        "commit", "-a", "Ann", "-m", "new file", "-c", 'CMD ["cat", "/new"]', "changed", "made:1"
    )
    assert dock.out("run", "--rm", "made:1") == "new"
    inspected = json.loads(dock.out("image", "inspect", "made:1"))[0]
    assert (inspected["Id"], inspected["Author"], inspected["Comment"]) == (image_id, "Ann", "new file")
    newest = json.loads(dock.out("history", "--format", "json", "made:1").splitlines()[0])
    assert newest["Comment"] == "new file"
    assert image_id.removeprefix("sha256:").startswith(newest["ID"])
    target = tmp_path / "root.tar"
    dock("export", "-o", target, "changed")
    with tarfile.open(target) as tar:
        names = tar.getnames()
    assert "new" in names
    assert "etc/group" not in names
    streamed = subprocess.run(
        dock.words("export", "changed"), env=dock.environment(), capture_output=True, check=True
    )
    assert len(streamed.stdout) == target.stat().st_size
    dock("rmi", "made:1")


def test_sizes_of_containers(dock: Dock) -> None:
    dock("run", "--name", "sized", "busybox", "sh", "-c", "head -c 5000 /dev/zero > /zeros")
    assert dock.out("inspect", "-s", "--format", "{{.SizeRw}}", "sized") == "5000"
    size = dock.out("ps", "-as", "--filter", "name=sized", "--format", "{{.Size}}")
    assert size.startswith("5kB (virtual ")
    assert "SizeRw" not in json.loads(dock.out("inspect", "sized"))[0]


# -- archives ----------------------------------------------------------------------------------------------


def test_save_is_loaded_again(dock: Dock, own: Dock, tmp_path: Path) -> None:
    dock("tag", "busybox", "other/name:1")
    target = tmp_path / "saved.tar"
    dock("save", "-o", target, "busybox", "other/name:1")
    assert sorted(own.out("load", "-i", target).splitlines()) == [
        "Loaded image: busybox:latest",
        "Loaded image: other/name:1",
    ]
    assert tags(own) == ["busybox:latest", "other/name:1"]
    messages = own.out("load", "--progress", "json", "-i", target).splitlines()
    assert {"stream": "Loaded image: busybox:latest\n"} in [json.loads(line) for line in messages]
    dock("rmi", "other/name:1")


@pytest.mark.parametrize("words", [("save", "nothing"), ("save", "--platform", "linux/s390x", "busybox")])
def test_a_failing_save_leaves_no_file(dock: Dock, tmp_path: Path, words: tuple[str, ...]) -> None:
    dock(*words, "-o", tmp_path / "saved.tar", code=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
def test_a_full_disk_leaves_no_file(dock: Dock, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        refused = dock("save", "-o", tmp_path / "saved.tar", "busybox", code=1)
        assert "no space left" in refused.stderr
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_the_platform_is_looked_at(dock: Dock) -> None:
    for words in (("history",), ("image", "inspect"), ("rmi",)):
        refused = dock(*words, "--platform", "linux/s390x", "busybox", code=1)
        assert "is for linux/amd64, not for linux/s390x" in refused.stderr
    assert (
        dock.out("image", "inspect", "--platform", "linux/amd64", "--format", "{{.Os}}", "busybox") == "linux"
    )


# -- prune -------------------------------------------------------------------------------------------------


def test_prune_asks_first_and_takes_what_is_unused(own: Dock) -> None:
    own("tag", "busybox", "spare:1")
    own("run", "-d", "--name", "runs", "busybox", "sleep", "600")
    own("run", "--name", "stopped", "-v", "/anonymous", "busybox", "true")
    for words in (("image", "prune"), ("container", "prune"), ("system", "prune")):
        for answer in (
            None,
            b"",
            b"n\n",
            b"yes\ny\n",
        ):  # as docker: the first line of standard input, no line is a no
            asked = own(*words, stdin=answer)
            assert asked.stdout.startswith("WARNING! This will remove")
            assert asked.stdout.endswith("[y/N] \n")
    assert len(own.out("ps", "-aq").split()) == 2
    own("commit", "stopped", "unused:1")
    report = own.out("system", "prune", "-af", "--volumes").splitlines()
    assert report[0] == "Deleted Containers:"
    assert "untagged: unused:1" in report
    assert report[-1].startswith("Total reclaimed space: ")
    assert tags(own) == ["busybox:latest", "spare:1"]  # a container uses the image: it stays, names and all
    assert own.out("exec", "runs", "echo", "alive") == "alive"
    assert own.out("ps", "-aq", "--filter", "name=stopped") == ""
    volumes = json.loads(own.out("system", "df", "-v", "--format", "json"))["Volumes"]
    assert volumes == []
    refused = own("system", "prune", "-f", "--volumes", "--filter", "until=1h", code=1)
    assert '"until"' in refused.stderr
    own("create", "--name", "last", "busybox", "true")
    assert "Deleted Containers:\n" in own("container", "prune", stdin=b" Y \n").stdout
    assert own.out("ps", "-aq", "--filter", "name=last") == ""


def test_what_runs_keeps_its_image(own: Dock) -> None:
    """As dockerd: by id not even -f takes it, or its names; by name, the name goes."""
    image = own.out("images", "-q", "--no-trunc")
    own("run", "-d", "--name", "runs", "busybox", "sleep", "600")
    own("tag", "busybox", "other:1")
    for words in ((image,), (image[7:19],), ("-f", image), ("-f", image[7:19])):
        refused = own("rmi", *words, code=1)
        assert f"error: cannot remove image {image[7:19]}: container" in refused.stderr
        assert "hint: stop the container first: dock stop" in refused.stderr
    assert tags(own) == ["busybox:latest", "other:1"]
    assert own.out("rmi", "other:1") == "Untagged: other:1"
    own("rmi", "busybox", code=1)
    assert own.out("rmi", "-f", "busybox") == "Untagged: busybox:latest"
    own("rmi", "-f", image, code=1)
    own("tag", image, "busybox")
    own("kill", "runs")
    assert own.out("rmi", "-f", image) == "Untagged: busybox:latest"
    assert own.out("images", "-aq", "--no-trunc") == image  # the container that is there needs it
    own("start", "runs")


def test_creating_and_pruning_at_once_leaves_no_container_without_an_image(own: Dock, archive: Path) -> None:
    prunes = [own.start("image", "prune", "-af", stdout=subprocess.DEVNULL) for _ in range(2)]
    creates = [
        own.start("create", "busybox", "true", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in prunes:
        assert process.wait(timeout=60) == 0
    made = 0
    for process in creates:
        _, errors = process.communicate(timeout=60)
        made += process.returncode == 0
        assert process.returncode == 0 or b"error: " in errors
    listed = json.loads(own.out("system", "df", "-v", "--format", "json"))["Containers"]
    assert len(listed) == made
    assert (tags(own) == ["busybox:latest"]) == (made > 0)
    for container in own.out("ps", "-aq").split():
        own("start", "-a", container)


# -- a registry --------------------------------------------------------------------------------------------


@pytest.fixture
def inside() -> Iterator[NetworkNamespace]:
    with network_namespace() as made:
        yield made


@pytest.fixture
def server(inside: NetworkNamespace, tmp_path: Path) -> Iterator[Registry]:
    auth = basic_auth(tmp_path / "auth")
    with registry(inside, tmp_path / "registry", 5000, auth=auth) as made:
        yield made


def test_login_push_pull_search_and_digests(
    own: Dock, inside: NetworkNamespace, server: Registry, tmp_path: Path
) -> None:
    environment = {**own.environment(), "DOCKER_CONFIG": str(tmp_path / "docker")}

    def dock(*words: str, stdin: bytes | None = None, code: int = 0) -> str:
        done = inside.run(*own.words(*words), environment=environment, stdin=stdin, code=code)
        return done.stdout if code == 0 else done.stderr

    name = f"{server.host}/team/box"
    dock("tag", "busybox", f"{name}:1")
    dock("tag", "busybox", f"{name}:2")
    assert "error: " in dock("push", f"{name}:1", code=1)
    login = ("login", "-u", USERNAME, "--password-stdin", server.host)
    assert "error: " in dock(*login, stdin=b"wrong", code=1)
    assert dock(*login, stdin=f"{PASSWORD}\n".encode()) == "Login Succeeded\n"

    pushed = dock("push", f"{name}:1").splitlines()
    assert pushed[0] == f"The push refers to repository [{name}]"
    digest = pushed[-1].split()[2]
    assert pushed[-1].startswith(f"1: digest: {digest} size: ")
    again = dock("pull", f"{name}:1")
    assert "Already exists" in again
    assert "Download complete" not in again
    assert f"Status: Image is up to date for {name}:1" in again
    dock("push", "-a", "-q", name)
    assert sorted(dock("search", "--list-tags", "--format", "{{.Tag}}", name).split()) == ["1", "2"]
    assert dock("search", "--format", "{{.Name}}", f"{server.host}/box").strip().endswith("team/box")

    rows = dock("images", "--digests", "--format", "{{.Tag}} {{.Digest}}", name).splitlines()
    assert sorted(rows) == [f"1 {digest}", f"2 {digest}"]
    removed = dock("rmi", f"{name}:1", f"{name}:2", "busybox").splitlines()
    assert removed[:3] == [f"Untagged: {name}:1", f"Untagged: {name}:2", f"Untagged: {name}@{digest}"]
    assert dock("images", "-q") == ""

    lines = dock("pull", f"{name}@{digest}").splitlines()
    assert lines[-3:] == [
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {name}@{digest}",
        f"{name}@{digest}",
    ]
    assert dock("images", "--format", "{{.Repository}} {{.Tag}}").split() == [name, "<none>"]
    assert dock("pull", "-q", f"{name}:1") == f"{name}:1\n"
    messages = [json.loads(line) for line in dock("pull", "--progress", "json", f"{name}:1").splitlines()]
    assert messages[-1]["status"] == f"Status: Image is up to date for {name}:1"
    assert dock("rmi", f"{name}@{digest}") == f"Untagged: {name}@{digest}\n"
    assert dock("logout", server.host) == f"Removing login credentials for {server.host}\n"
    last = dock("pull", "--progress", "json", f"{name}:2", code=1)
    assert "error: " in last


def test_run_pulls_an_image_that_is_missing(own: Dock, inside: NetworkNamespace, tmp_path: Path) -> None:
    with registry(inside, tmp_path / "registry", 5000) as server:
        environment = {**own.environment(), "DOCKER_CONFIG": str(tmp_path / "docker")}
        name = f"{server.host}/team/box"

        def dock(*words: str, code: int = 0, **variables: str) -> tuple[str, str]:
            done = inside.run(*own.words(*words), environment={**environment, **variables}, code=code)
            return done.stdout, done.stderr

        dock("tag", "busybox", f"{name}:1")
        dock("push", "-q", f"{name}:1")
        dock("rmi", f"{name}:1", "busybox")
        run = ("run", "--rm", "--network", "none")

        _, told = dock(*run, "--pull", "never", f"{name}:1", "true", code=125)
        assert "no such image" in told
        _, told = dock(*run, "--pull", "often", f"{name}:1", "true", code=125)
        assert "--pull often: no such policy" in told
        out, told = dock(*run, "--pull", "missing", f"{name}:1", "echo", "hello")
        assert out == "hello\n"
        assert told.splitlines()[:2] == [
            f"Unable to find image '{name}:1' locally",
            "1: Pulling from team/box",
        ]
        assert dock(*run, f"{name}:1", "echo", "here", PYDOCK_PULL="missing") == ("here\n", "")
        out, told = dock(*run, "--pull", "always", f"{name}:1", "echo", "newest")
        assert out == "newest\n"
        assert "Already exists" in told
        image_id = dock("images", "-q")[0].strip()
        assert dock(*run, "--pull", "always", image_id, "echo", "by id") == ("by id\n", "")

        dock("rmi", f"{name}:1")
        out, told = dock("create", "--pull", "missing", "-q", "--name", "made", f"{name}:1", "true")
        assert (len(out), told) == (65, "")
        _, told = dock("create", "--pull", "missing", "--platform", "linux/s390x", f"{name}:1", code=125)
        assert "is an image for linux/amd64, not for linux/s390x" in told
        known = f"image {name}:1 is for linux/amd64, not for linux/s390x: pulling it for linux/s390x"
        assert told.splitlines()[0] == known
        _, told = dock(*run, "--pull", "missing", f"{server.host}/none:1", code=125)
        assert told.splitlines()[0] == f"Unable to find image '{server.host}/none:1' locally"
        assert "error: " in told
