"""``--userns keep-id``: the caller's ids in the container; run by root it is refused, and test_rootless.py runs the rest."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.integration.conftest import Dock, wait_until

IS_ROOT = os.geteuid() == 0
UID, GID = os.getuid(), os.getgid()
as_user = pytest.mark.skipif(IS_ROOT, reason="an ordinary user's option")
KEEP = ("--network", "none", "--userns", "keep-id")


@pytest.mark.skipif(not IS_ROOT, reason="needs root")
def test_root_has_no_use_for_it(dock: Dock) -> None:
    refused = dock("run", "--rm", "--userns", "keep-id", "busybox", "true", code=125)
    assert refused.stderr.splitlines() == [
        "error: --userns keep-id is refused: root's containers have no user namespace, so every id is already the host's",
        "hint: -u UID:GID runs as a user; an ordinary user can use keep-id",
    ]


@as_user
@pytest.mark.parametrize(
    "runtime",
    [
        "",
        *(
            pytest.param(name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"needs {name}"))
            for name in ("crun", "runc")
        ),
    ],
)
def test_files_come_out_as_the_callers(dock: Dock, tmp_path: Path, runtime: str) -> None:
    """The program runs as the caller, root's files of the image stay root's, and what it writes is the caller's."""
    script = (
        "id -u; id -g; touch /shared/mine; stat -c %u:%g /bin/busybox /; touch /bin/x 2>/dev/null || echo no"
    )
    words = ("run", "--rm", *KEEP, *(("--runtime", runtime) if runtime else ()), "-v", f"{tmp_path}:/shared")
    assert dock.out(*words, "busybox", "sh", "-c", script).split() == [
        str(UID),
        str(GID),
        "0:0",
        "0:0",
        "no",
    ]
    status = (tmp_path / "mine").stat()
    assert (status.st_uid, status.st_gid) == (UID, GID)
    # The container's root is one of the subordinate ids, and may do with the files of the container what root may.
    words = (*words[:2], *KEEP, "-u", "0", "-v", f"{tmp_path}:/shared")
    script = "touch /shared/roots /bin/x; stat -c %u /shared/roots /bin/x"
    assert dock.out(*words, "busybox", "sh", "-c", script).split() == ["0", "0"]
    assert (tmp_path / "roots").stat().st_uid not in (0, UID)


@as_user
def test_the_caller_has_an_entry(dock: Dock) -> None:
    script = f"grep :{UID}: /etc/passwd; echo $HOME; id -un; stat -c %u:%a /etc/passwd"
    entry, home, name, mode = dock.out(
        "run", "--rm", *KEEP, "-w", "/work", "busybox", "sh", "-c", script
    ).splitlines()
    assert entry == f"{name}:*:{UID}:{GID}:{name}:/work:/bin/sh"
    assert home == "/work"
    assert mode == "0:644"


@as_user
def test_chosen_ids(dock: Dock) -> None:
    """Also one beyond the subordinate ids, and root, which is the plain map."""
    for ids in ((500, 600), (1000000, 1000000), (0, 0)):
        words = ("run", "--rm", "--network", "none", "--userns", f"keep-id:uid={ids[0]},gid={ids[1]}")
        script = "echo $(id -u):$(id -g); stat -c %u:%g /bin"
        assert dock.out(*words, "busybox", "sh", "-c", script).split() == [f"{ids[0]}:{ids[1]}", "0:0"]
    refused = dock("run", "--rm", "--userns", "keep-id:size=3", "busybox", code=125).stderr
    assert refused.startswith(
        "error: invalid --userns keep-id:size=3: 'size=3' is not a setting\nhint: write keep-id"
    )


@as_user
def test_what_reads_and_writes_the_container_sees_its_ids(dock: Dock, tmp_path: Path) -> None:
    """exec, cp, diff, export and commit; a volume shows the caller's files as the caller's, others unchanged."""
    script = "touch /v/mine; sleep 1000"
    dock("run", "-d", "--name", "kept", *KEEP, "-v", "kept-volume:/v", "busybox", "sh", "-c", script)
    assert dock.out("exec", "kept", "id", "-u") == str(UID)
    made = "touch /v/n /roots; mkdir /own; chown 33:34 /v/n /own; until [ -e /v/mine ]; do sleep 0.01; done"
    dock("exec", "-u", "0", "kept", "sh", "-c", made)
    (tmp_path / "in").write_text("in")
    dock("cp", tmp_path / "in", "kept:/tmp/in")
    assert dock.out("exec", "kept", "stat", "-c", "%u", "/tmp/in", "/roots").split() == [str(UID), "0"]
    dock("cp", "kept:/roots", tmp_path / "out")
    assert (tmp_path / "out").stat().st_uid == UID
    for _ in range(2):  # running, then stopped
        assert {"A /roots", "A /own", "A /tmp/in"} <= set(dock.out("diff", "kept").splitlines())
        export = subprocess.run(
            dock.words("export", "kept"), env=dock.environment(), capture_output=True, check=True
        )
        with tarfile.open(fileobj=io.BytesIO(export.stdout)) as archive:
            owners = {member.name.rstrip("/"): (member.uid, member.gid) for member in archive}
        assert (owners["roots"], owners["own"], owners["bin"]) == ((0, 0), (33, 34), (0, 0))
        assert owners["tmp/in"] == (UID, GID)
        dock("stop", "-t", "0", "kept")
    dock("commit", "kept", "kept-image")
    look = ("stat", "-c", "%u:%g", "/roots", "/own", "/v/n", "/v/mine")
    mounted = ("-v", "kept-volume:/v", "kept-image", *look)
    plain = dock.out("run", "--rm", "--network", "none", "-u", "0", *mounted).split()
    assert plain == ["0:0", "33:34", "33:34", "0:0"]
    assert dock.out("run", "--rm", *KEEP, *mounted).split() == ["0:0", "33:34", "33:34", f"{UID}:{GID}"]
    dock("start", "kept")
    assert dock.out("exec", "kept", "stat", "-c", "%u", "/roots") == "0"
    dock("rm", "-f", "kept")
    dock("volume", "rm", "kept-volume")
    assert any(path.name.startswith("owned-") for path in layers(dock).iterdir())
    dock("rmi", "kept-image")
    assert len([path for path in layers(dock).iterdir() if path.name.startswith("owned-")]) < 6


def layers(dock: Dock) -> Path:
    return dock.base / "data" / "layers" / "directory"


@as_user
def test_the_network_belongs_to_it(dock: Dock) -> None:
    """Its root has the rights that root has there; another container joins it, and it another's."""
    words = ("-u", "0", "--network", "none", "--userns", "keep-id", "--sysctl", "net.ipv4.ip_forward=1")
    script = (
        "cat /proc/sys/net/ipv4/ip_forward; ls /sys/class/net; ip addr add 10.0.0.1/8 dev lo && echo changed"
    )
    assert dock.out(
        "run", "--rm", *words, "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", script
    ).split() == [
        "1",
        "lo",
        "changed",
    ]
    dock("run", "-d", "--name", "first", *KEEP, "busybox", "sleep", "1000")
    pid = dock.out("inspect", "-f", "{{.State.Pid}}", "first")
    supervisor = Path(f"/proc/{pid}/status").read_text().partition("PPid:")[2].split()[0]
    assert len({os.readlink(f"/proc/{number}/ns/user") for number in (pid, supervisor, "self")}) == 3
    theirs = dock.out("exec", "first", "readlink", "/proc/self/ns/net")
    for user_namespace in ((), ("--userns", "keep-id")):
        joined = ("run", "--rm", "--network", "container:first", *user_namespace, "busybox")
        assert dock.out(*joined, "readlink", "/proc/self/ns/net") == theirs


@as_user
def test_a_further_run_has_it_too(dock: Dock) -> None:
    """A restart policy's supervisor makes the namespace anew."""
    script = "id -u; [ -e /v/second ] || { touch /v/second; exit 1; }"
    words = (*KEEP, "--restart", "on-failure:1", "-v", "/v", "busybox", "sh", "-c", script)
    dock("run", "-d", "--name", "again", *words)
    wait_until(lambda: dock.out("ps", "-aqf", "name=again", "-f", "status=exited") != "", "it has ended")
    assert dock.out("wait", "again") == "0"
    assert dock.out("logs", "again").split() == [str(UID), str(UID)]


@as_user
def test_the_image_s_user_does_not_count(dock: Dock) -> None:
    dock("create", "--name", "other", *KEEP, "busybox", "true")
    shape = dock.out("inspect", "-f", "{{.HostConfig.UsernsMode}} {{.Config.User}}", "other")
    assert shape == f"keep-id {UID}:{GID}"
