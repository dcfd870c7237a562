"""Attacks on the isolation of containers: by images, by bundles, and by the processes inside.

Each asserts that the host is as it was, not merely that something failed.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import Any

import pytest

from pydock_core.errors import PyDockError
from pydock_core.runtime.embedded import EmbeddedExecutor
from tests.support.executor_box import Box
from tests.support.executor_fixtures import only

EMBEDDED = ("embedded", "embedded-userns", "embedded-rootless")


def snapshot(directory: Path) -> list[tuple[str, int, int, bytes]]:
    """Everything in a directory: names, modes, owners, contents."""
    found = []
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found.append((str(path), status.st_mode, status.st_uid, content))
    return found


@pytest.fixture
def precious(box: Box) -> Path:
    """A directory of the host that no container is given; its root may write to it."""
    directory = box.base / "precious"
    directory.mkdir()
    (directory / "file").write_text("host\n")
    box.give(directory)
    return directory


# -- images with links where mounts go -------------------------------------------------------------------


@pytest.mark.parametrize("escape", ["absolute", "relative", "chain"])
def test_a_link_in_the_image_leads_no_mount_out(box: Box, precious: Path, escape: str) -> None:
    before = snapshot(precious)
    root = box.make_rootfs()
    up = "../" * 30
    target = {"absolute": str(precious), "relative": f"{up}{precious}", "chain": "hop"}[escape]
    (root / "data").symlink_to(target)
    (root / "hop").symlink_to(f"/{up}{precious}")
    source = box.base / "source"
    source.mkdir()
    (source / "inside").write_text("given\n")
    box.give(box.base)
    host = {"Binds": [f"{source}:/data/deep"], "Tmpfs": {"/data/scratch": ""}}
    try:
        result = box.sh("cat /data/deep/inside; echo x >/data/deep/new; echo y >/data/scratch/z", host=host)
    except PyDockError:
        assert not box.is_embedded, "the embedded executor resolves such links inside the root"
    else:
        # The link was followed inside the container's root, where its target was made.
        assert result.out == "given\n"
        assert (root / str(precious).lstrip("/") / "deep").is_dir()
    assert snapshot(precious) == before
    assert str(precious) not in Path(f"/proc/{box.driver.process.pid}/mountinfo").read_text()


def test_dots_in_a_target_lead_no_mount_out(box: Box, precious: Path) -> None:
    before = snapshot(precious)
    source = box.base / "source"
    source.mkdir()
    box.give(source)
    up = "../" * 30

    def patch(spec: dict[str, Any]) -> None:
        spec["mounts"].append(
            {
                "destination": f"/tmp/{up}{precious}/made",
                "type": "bind",
                "source": str(source),
                "options": ["bind"],
            }
        )

    try:
        box.sh(f"echo x >{precious}/made/new", patch=patch)
    except PyDockError:
        assert not box.is_embedded
    assert snapshot(precious) == before


def test_a_device_goes_through_no_link(box: Box, precious: Path) -> None:
    before = snapshot(precious)
    root = box.make_rootfs()
    (root / "out").symlink_to(precious)
    box.give(root)

    def patch(spec: dict[str, Any]) -> None:
        spec["linux"]["devices"] = [{"path": "/out/node", "type": "p"}]

    try:
        box.run("true", patch=patch)
    except PyDockError as error:
        assert error.exit_code is None
    assert snapshot(precious) == before


@pytest.mark.parametrize("place", ["proc", "sys"])
@only(*EMBEDDED)
def test_the_image_cannot_put_a_link_in_the_place_of_a_kernel_filesystem(
    box: Box, precious: Path, place: str
) -> None:
    before = snapshot(precious)
    root = box.make_rootfs()
    (root / place).rmdir()
    (root / place).symlink_to(precious)
    error = box.fail("true")
    assert "symbolic link" in error.message
    assert snapshot(precious) == before


@pytest.mark.parametrize(
    "target", ["/proc", "/proc/self/attr", "/tmp/../proc/1", "/sys", "/sys/kernel", "/link/x"]
)
@only(*EMBEDDED)
def test_binds_on_kernel_filesystems_are_refused(box: Box, precious: Path, target: str) -> None:
    (box.make_rootfs() / "link").symlink_to("/proc/self")

    def patch(spec: dict[str, Any]) -> None:  # a definition has normalized targets; another bundle may not
        spec["mounts"][-1]["destination"] = target

    error = box.fail("true", host={"Binds": [f"{precious}:/data"]}, patch=patch)
    assert target in error.message
    assert (precious / "file").read_text() == "host\n"


@only(*EMBEDDED)
def test_a_magic_link_is_no_way_out(box: Box, precious: Path) -> None:
    # /proc of the container is mounted by then: its links to open files and roots are refused.
    before = snapshot(precious)
    (box.make_rootfs() / "way").symlink_to("/proc/1/root")
    error = box.fail("true", host={"Binds": [f"{precious}:/way{precious}/made"]})
    assert error.exit_code is None
    assert snapshot(precious) == before


def test_the_root_cannot_be_mounted_over(box: Box, precious: Path) -> None:
    def patch(spec: dict[str, Any]) -> None:
        spec["mounts"].append(
            {"destination": "/tmp/..", "type": "bind", "source": str(precious), "options": ["bind"]}
        )

    if box.is_embedded:
        assert "root itself" in box.fail("true", patch=patch).message


# -- what a process finds inside -------------------------------------------------------------------------


def test_no_descriptor_of_the_host_is_open(box: Box) -> None:
    script = "for f in /proc/1/fd/*; do echo ${f##*/}; done"
    own = {"0", "1", "2"}
    first = box.sh(f"exec 9</dev/null; exec 9<&-; {script}")
    assert set(first.lines) - {"10"} <= {*own, "3"}  # the shell's own: the listing, its script
    container = box.start_shell()
    assert set(os.listdir(container.host_proc / "fd")) == own
    if not box.is_embedded:
        return  # crun and runc return while the process is still on its way to execve
    pid = container.exec_start("sleep", "100")
    assert set(os.listdir(f"/proc/{pid}/fd")) == own
    os.kill(pid, signal.SIGKILL)
    box.finish(pid)


def test_nothing_of_the_host_s_environment_is_there(box: Box) -> None:
    container = box.start_shell()
    environment = (container.host_proc / "environ").read_bytes().split(b"\0")
    assert b"PATH=/bin" in environment
    assert not [variable for variable in environment if b"HOST_SECRET" in variable]
    assert "HOST_SECRET" not in container.exec("env").out


def test_mounts_of_the_host_are_invisible(box: Box) -> None:
    result = box.run("cat", "/proc/self/mountinfo")
    points = {line.split()[4] for line in result.lines}
    assert not {point for point in points if point.startswith(("/mnt", "/tmp", "/root", "/work", "/home"))}
    assert "/" in points


def test_the_root_of_init_is_the_container_s(box: Box) -> None:
    container = box.start("sleep", "100")
    for place in ("/proc/1/root", "/proc/self/root", "/proc/1/cwd"):
        assert container.exec("ls", f"{place}/../../etc").out == "passwd\n"


def test_the_directory_of_the_caller_is_no_working_directory(box: Box) -> None:
    # CVE-2024-21626: a descriptor of the host as working directory.
    for number in range(3, 12):
        try:
            result = box.sh("ls ../../../../..; pwd", WorkingDir=f"/proc/self/fd/{number}")
        except PyDockError:
            continue
        raise AssertionError(f"entered descriptor {number}: {result.out}")


def test_exec_in_a_working_directory_of_the_host_is_refused(box: Box) -> None:
    container = box.start("sleep", "100")
    for number in range(3, 12):
        with pytest.raises(PyDockError):
            container.exec("pwd", cwd=f"/proc/self/fd/{number}")


def test_a_shell_cannot_reach_the_interpreter_of_an_exec(box: Box) -> None:
    # CVE-2019-5736: watch for processes that enter, and open their /proc/PID/exe for writing.
    if not box.is_embedded:
        pytest.skip("what crun and runc do about it is theirs")
    script = r"""
    while :; do
      for p in /proc/[0-9]*; do
        case $(cat $p/comm 2>/dev/null) in
          *python*)
            echo met
            echo exe $(readlink $p/exe)
            (: >>$p/exe) 2>/dev/null && echo opened
            for f in $p/fd/* $p/cwd $p/root; do echo link $(readlink $f); done
        esac
      done
    done
    """
    python = Path(os.readlink(f"/proc/{box.driver.process.pid}/exe"))
    before = (python.stat().st_mtime_ns, python.stat().st_size)
    container = box.start("sh", "-c", f"echo watching; {script}")
    container.wait_for_output()
    for _ in range(15):
        assert container.exec("true").code == 0
    container.kill(signal.SIGKILL)
    result = container.wait()
    assert "met" in result.lines, "no process was met while it entered: the test proves nothing"
    assert "opened" not in result.lines
    # Between two looks of the watcher the process may have become the container's own program.
    links = {line.partition(" ")[2] for line in result.lines if line.startswith(("exe", "link"))}
    assert {link for link in links if not link.startswith("pipe:")} <= {"", "/", "/bin/true", "/dev/null"}
    assert (python.stat().st_mtime_ns, python.stat().st_size) == before


def test_an_image_s_passwd_is_data(box: Box) -> None:
    (box.make_rootfs() / "etc" / "passwd").write_text("root:x:0:0::/:\n" * 10_000)
    assert box.run("true").code == 0


# -- resources -------------------------------------------------------------------------------------------


def test_a_fork_bomb_stays_small(box: Box) -> None:
    if not box.has_groups:
        pytest.skip("this executor cannot make control groups here")
    container = box.start(
        "sh", "-c", "b() { b | b & }; b; sleep 100", host={"PidsLimit": 30, "Memory": 256 << 20}
    )
    assert (box.driver.ask("oom", id=container.id)["pids"] or 0) <= 30
    container.delete()
    box.containers.remove(container)


def test_the_control_group_cannot_be_changed_from_inside(box: Box) -> None:
    if not box.has_groups:
        pytest.skip("this executor cannot make control groups here")
    files = "$(find /sys/fs/cgroup -name '*.max' -o -name '*limit_in_bytes')"
    script = f"for f in {files}; do (: >$f) 2>/dev/null && echo $f; done; true"
    assert box.sh(script, host={"PidsLimit": 30}).out == ""


@only("embedded")
def test_a_container_dies_with_the_process_that_made_it(box: Box) -> None:
    container = box.start("sleep", "100")
    pidfd = os.pidfd_open(container.pid)
    try:
        os.kill(box.driver.process.pid, signal.SIGKILL)
        box.driver.process.wait()
        box.driver.close()
        assert select.select([pidfd], [], [], 10)[0]
    finally:
        os.close(pidfd)
    # Another process, with another executor on the same state, removes what is left.
    assert any(container.id in path for path in box.list_groups())
    state = box.driver.state
    EmbeddedExecutor(state).delete(container.id)
    assert not any(container.id in path for path in box.list_groups())
    assert not (state / container.id).exists()
    box.containers.clear()
