"""What the flags of run do inside the container."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pydock_core.runtime.cgroups import probe_cgroups
from tests.integration.conftest import Dock

ROOTLESS = os.geteuid() != 0


def sh(dock: Dock, flags: str, script: str, code: int = 0) -> str:
    return dock("run", "--rm", *flags.split(), "busybox", "sh", "-c", script, code=code).stdout.strip()


def test_its_own_processes_host_name_and_network(dock: Dock) -> None:
    assert sh(dock, "-h box", "hostname; cat /etc/hostname; echo $$") == "box\nbox\n1"
    assert sh(dock, "--network none", "ip -o link | wc -l; ip -o addr show lo | grep -c 127.0.0.1") == "1\n1"
    host = os.readlink("/proc/self/ns/net")
    assert sh(dock, "--network host", "readlink /proc/self/ns/net") == host
    assert sh(dock, "--network none", "readlink /proc/self/ns/net") != host


def test_environment_directory_and_user(dock: Dock, tmp_path: Path) -> None:
    os.environ["PYDOCK_TEST_LEAK"] = "secret"
    assert "secret" not in sh(dock, "", "env")
    assert sh(dock, "-e PYDOCK_TEST_LEAK -e B=2", "echo $PYDOCK_TEST_LEAK $B") == "secret 2"
    del os.environ["PYDOCK_TEST_LEAK"]
    file = tmp_path / "env"
    file.write_text("C=3\n")
    assert sh(dock, f"--env-file {file} -w /tmp", "echo $C; pwd") == "3\n/tmp"
    assert sh(dock, "-w /new/dir", "pwd") == "/new/dir"
    assert sh(dock, "-u guest", "id -u; id -g; echo $HOME") == "1000\n1000\n/tmp"
    # The kernel's own list: id(1) adds the primary group to what it shows.
    groups = "id -u; id -g; grep Groups: /proc/self/status"
    assert sh(dock, "-u 7:8 --group-add 9 --group-add 8", groups).split() == ["7", "8", "Groups:", "8", "9"]
    name = dock.out("run", "-d", "-u", "5:6", "busybox", "sleep", "100")
    for words, expected in (((), "5 6 Groups: 6"), (("-u", "guest"), "1000 1000 Groups: 1000")):
        assert dock.out("exec", *words, name, "sh", "-c", groups).split() == expected.split()
    assert dock.out("exec", name, "grep", "Groups:", "/proc/1/status").split() == ["Groups:", "6"]
    dock("rm", "-f", name)
    assert sh(dock, "", "echo $HOME; id -u") == "/root\n0"


def test_entrypoint_and_command(dock: Dock) -> None:
    assert dock.out("run", "--rm", "--entrypoint", "echo", "busybox", "a", "b") == "a b"


def test_binds_volumes_and_tmpfs(dock: Dock, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("host\n")
    tmp_path.chmod(0o755)
    assert sh(dock, f"-v {tmp_path}:/data", "cat /data/in; echo made > /data/out") == "host"
    assert (tmp_path / "out").read_text() == "made\n"
    sh(dock, f"-v {tmp_path}:/data:ro", "echo x > /data/refused", code=1)
    assert not (tmp_path / "refused").exists()
    sh(dock, f"-v {tmp_path}/new:/data", "touch /data/file")
    assert (tmp_path / "new" / "file").exists()
    sh(dock, f"--mount type=bind,source={tmp_path},target=/data,readonly", "touch /data/x", code=1)
    assert sh(dock, f"-v {tmp_path}/in:/etc/inside", "cat /etc/inside") == "host"
    sh(dock, "-v keep:/v", "echo kept > /v/f")
    assert sh(dock, "-v keep:/v:ro", "cat /v/f") == "kept"
    assert (
        sh(
            dock,
            "--tmpfs /t:size=1m",
            "grep ' /t ' /proc/mounts | grep -o size=[0-9]*k; echo x > /t/f && echo ok",
        )
        == "size=1024k\nok"
    )
    assert sh(dock, "--shm-size 2m", "grep ' /dev/shm ' /proc/mounts | grep -o size=[0-9]*k") == "size=2048k"


def test_a_new_volume_has_what_the_image_has_there(dock: Dock) -> None:
    assert "passwd" in sh(dock, "-v etc:/etc", "ls /etc")
    sh(dock, "-v etc:/etc", "echo more >> /etc/passwd")
    assert "more" in sh(dock, "-v etc:/mnt", "cat /mnt/passwd")
    assert "more" not in sh(dock, "", "cat /etc/passwd")
    assert (
        sh(
            dock,
            "--mount type=volume,source=empty,target=/etc,volume-nocopy",
            "ls /etc | grep -v host | grep -v resolv; true",
        )
        == ""
    )


def test_anonymous_volumes_go_with_rm(dock: Dock) -> None:
    volumes = dock.base / "data" / "volumes"
    before = set(os.listdir(volumes))
    dock("run", "--rm", "-v", "/anonymous", "busybox", "touch", "/anonymous/x")
    assert set(os.listdir(volumes)) == before
    dock("run", "--name", "keeps", "-v", "/anonymous", "busybox", "touch", "/anonymous/x")
    dock("rm", "keeps")
    assert len(set(os.listdir(volumes)) - before) == 1


def test_a_read_only_root(dock: Dock) -> None:
    assert (
        sh(dock, "--read-only --tmpfs /run", "touch /x 2>&1; touch /run/x && echo ok")
        == "touch: /x: Read-only file system\nok"
    )


def test_capabilities_are_dockers_and_change(dock: Dock) -> None:
    script = "grep CapEff /proc/self/status | cut -f2"
    assert int(sh(dock, "", script), 16) == 0xA80425FB
    assert int(sh(dock, "--cap-drop ALL", script), 16) == 0
    assert int(sh(dock, "--cap-drop ALL --cap-add NET_BIND_SERVICE", script), 16) == 1 << 10
    assert int(sh(dock, "--cap-add CAP_SYS_PTRACE", script), 16) == 0xA80425FB | 1 << 19
    assert int(sh(dock, "-u 1000", script), 16) == 0


def test_seccomp_privileges_and_masks(dock: Dock) -> None:
    assert (
        sh(
            dock,
            "",
            "grep Seccomp: /proc/self/status | cut -f2; mount -t tmpfs x /tmp 2>&1 | grep -c -i 'denied\\|permitted'",
        )
        == "2\n1"
    )
    assert sh(dock, "--security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status | cut -f2") == "0"
    assert (
        sh(
            dock,
            "--privileged",
            "grep Seccomp: /proc/self/status | cut -f2; mount -t tmpfs x /tmp && echo mounted",
        )
        == "0\nmounted"
    )
    assert sh(dock, "--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status | cut -f2") == "1"
    assert sh(dock, "", "cat /proc/kcore /proc/timer_list 2>/dev/null | wc -c") == "0"
    sh(dock, "", "echo 1 > /proc/sys/vm/swappiness", code=1)
    sh(dock, "", "echo 1 > /proc/sys/kernel/domainname", code=1)


def test_a_user_may_bind_every_port(dock: Dock) -> None:
    words = ("run", "--rm", "--network", "none")
    setting = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    assert dock.out(*words, "-u", "1000", "busybox", "cat", setting) == "0"
    listen = "httpd -p 127.0.0.1:80 -h / && wget -q -O - http://127.0.0.1/etc/group | head -n 1"
    assert dock.out(*words, "-u", "1000", "busybox", "sh", "-c", listen).startswith("root:")
    chosen = ("--sysctl", "net.ipv4.ip_unprivileged_port_start=99")
    assert dock.out(*words, *chosen, "busybox", "cat", setting) == "99"
    assert (
        dock.out("run", "--rm", "--network", "host", "busybox", "cat", setting)
        == Path(setting).read_text().strip()
    )


def test_user_limits_and_sysctls(dock: Dock) -> None:
    assert sh(dock, "--ulimit nofile=100:200", "ulimit -n; ulimit -Hn") == "100\n200"
    assert (
        sh(dock, "--network none --sysctl net.ipv4.ip_forward=1", "cat /proc/sys/net/ipv4/ip_forward") == "1"
    )


@pytest.mark.skipif(not probe_cgroups().memory, reason="no memory controller for this user")
def test_memory_and_process_limits_hold(dock: Dock) -> None:
    dock(
        "run",
        "--name",
        "fat",
        "-m",
        "16m",
        "busybox",
        "sh",
        "-c",
        "head -c 64m /dev/zero | tail -c 64m | wc -c",
        code=None,
    )
    dock("run", "--name", "fatter", "-m", "16m", "busybox", "tail", "/dev/zero", code=137)
    assert dock.out("inspect", "--format", "{{.State.OOMKilled}}", "fatter") == "true"
    text = sh(dock, "--pids-limit 5", "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done 2>&1; echo done", code=2)
    assert "done" not in text
    assert (
        sh(
            dock,
            "--cpus 0.5",
            "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null; true",
        ).split()[0]
        == "50000"
    )


@pytest.mark.skipif(not ROOTLESS or probe_cgroups().memory, reason="a user who has no controllers")
def test_a_limit_that_cannot_be_kept_is_said_once(dock: Dock) -> None:
    result = dock("run", "--rm", "-m", "64m", "--cpus", "1", "busybox", "true")
    assert result.stderr.count("warning:") == 1
    assert "-m" in result.stderr
    assert "--cpus" in result.stderr


def test_devices(dock: Dock) -> None:
    assert sh(dock, "", "ls /dev | sort | tr '\\n' ' '").split() == sorted(
        [
            "fd",
            "full",
            "mqueue",
            "null",
            "ptmx",
            "pts",
            "random",
            "shm",
            "stderr",
            "stdin",
            "stdout",
            "tty",
            "urandom",
            "zero",
        ]
    )
    assert sh(dock, "--device /dev/null:/dev/nil", "echo x > /dev/nil && echo ok") == "ok"
    if not ROOTLESS:
        assert sh(dock, "", "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg 2>&1 | grep -c 'not permitted'") == "1"


def test_what_inspect_shows(dock: Dock) -> None:
    dock(
        "create",
        "--name",
        "shown",
        "-p",
        "127.0.0.1:8888:8888",
        "-v",
        "/tmp:/x:ro",
        "-l",
        "a=b",
        "-m",
        "64m",
        "busybox",
        "sh",
    )
    document = json.loads(dock.out("inspect", "shown"))[0]
    assert document["HostConfig"]["PortBindings"] == {
        "8888/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8888"}]
    }
    assert document["Mounts"][0] == {
        "Type": "bind",
        "Source": "/tmp",
        "Destination": "/x",
        "Mode": "ro",
        "RW": False,
        "Propagation": "rprivate",
    }
    assert document["Config"]["Labels"] == {"a": "b"}
    assert document["State"]["Status"] == "created"


@pytest.mark.parametrize("name", ["crun", "runc"])
def test_other_runtimes_run_the_same(dock: Dock, name: str) -> None:
    if not shutil.which(name):
        pytest.skip(f"needs {name}")
    assert sh(dock, f"--runtime {name} -h box -e A=1", "hostname; echo $A; echo $$") == "box\n1\n1"
    dock("run", "--rm", "--runtime", name, "busybox", "nonesuch", code=127)
    dock("run", "--rm", "--runtime", name, "busybox", "sh", "-c", "exit 9", code=9)
    dock("run", "-d", "--runtime", name, "--name", name, "busybox", "sleep", "1000")
    assert dock("exec", "-i", name, "cat", stdin=b"through").stdout == "through"
    dock("stop", "-t", "0", name)
    assert dock.out("wait", name) == "137"


@pytest.mark.skipif(
    os.path.exists("/proc/driver/nvidia/version"), reason="needs a host without an NVIDIA GPU"
)
def test_a_gpu_that_is_not_there(dock: Dock) -> None:
    for words in (("--runtime", "nvidia"), ("--gpus", "all,driver=nvidia")):
        result = dock("run", "--rm", *words, "busybox", "true", code=125)
        assert "this host has no NVIDIA GPU" in result.stderr
        assert "dock doctor" in result.stderr
