"""The executor protocol, as the embedded executor, crun and runc have to keep it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pydock_core.errors import ConflictError, NotFoundError, PyDockError
from pydock_core.runtime.capabilities import build_mask
from pydock_core.spec.builder import DeviceNode
from pydock_core.spec.defaults import CAPABILITIES
from pydock_core.spec.users import ResolvedUser
from tests.support.executor_box import FIRST_ID, UNCONFINED, Box, with_profile
from tests.support.executor_fixtures import only

OTHER = ResolvedUser(12, 34)
NAMESPACES = ("pid", "mnt", "ipc", "uts", "net", "cgroup")


def read_status(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


# -- running and exit codes ------------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "code"), [("true", 0), ("false", 1), ("exit 7", 7), ("exit 255", 255)])
def test_the_exit_code_is_the_process_s(box: Box, script: str, code: int) -> None:
    assert box.sh(script).code == code


def test_streams_are_passed_through(box: Box) -> None:
    result = box.sh("cat; echo out; echo err >&2", stdin="in\n")
    assert (result.out, result.err) == ("in\nout\n", "err\n")


def test_init_waits_for_start(box: Box) -> None:
    container = box.create("sh", "-c", "echo ran")
    assert box.driver.ask("ended", pid=container.pid, seconds=0.05)["ended"] is False
    assert container.start().wait().out == "ran\n"


@only("embedded", "embedded-userns", "embedded-rootless")
def test_nothing_is_executed_beside_an_init_that_waits(box: Box) -> None:
    """Until its start, init has all rights and the host's files."""
    container = box.create("sh", "-c", "echo ran; cat /made || echo none")
    with pytest.raises(ConflictError, match="is not running"):
        container.exec_start("touch", "/made")
    assert container.start().wait().out == "ran\nnone\n"


def test_a_created_container_can_be_deleted(box: Box) -> None:
    container = box.create("sleep", "100")
    container.delete()
    assert not Path(f"/proc/{container.pid}").exists()
    box.containers.remove(container)


def test_the_pid_is_a_child_of_the_caller(box: Box) -> None:
    container = box.start("sleep", "100")
    status = read_status((container.host_proc / "status").read_text())
    assert status["PPid"] == str(box.driver.process.pid)
    assert status["NSpid"].split()[-1] == "1"


def test_a_name_is_taken_once(box: Box) -> None:
    container = box.start("sleep", "100")
    with pytest.raises(ConflictError):
        box.driver.ask("create", bundle=str(container.bundle), id=container.id, stdin="", terminal=False)
    assert container.exec("true").code == 0


def test_unknown_containers(box: Box) -> None:
    with pytest.raises(NotFoundError):
        box.driver.ask("start", id="nobody")
    with pytest.raises(NotFoundError):
        box.driver.ask("kill", id="nobody", signal=9, everything=False)
    box.driver.ask("delete", id="nobody")


def test_a_missing_bundle(box: Box) -> None:
    with pytest.raises(NotFoundError):
        box.driver.ask("create", bundle=str(box.base / "none"), id="x", stdin="", terminal=False)


# -- commands that cannot be executed --------------------------------------------------------------------


@pytest.mark.parametrize("command", ["no-such-command", "/bin/no-such-command", "./none/x"])
def test_a_missing_command_is_127(box: Box, command: str) -> None:
    error = box.fail(command)
    assert (error.exit_code, type(error)) == (127, NotFoundError)
    assert command in error.message
    assert "ls /bin" in error.hint


def test_an_option_in_the_place_of_the_command_is_named(box: Box) -> None:
    error = box.fail("-it")
    assert (error.exit_code, "options come before" in error.hint) == (127, True)


def test_what_is_no_program_is_126(box: Box) -> None:
    plain = box.make_rootfs() / "bin" / "plain"
    plain.write_text("text")
    box.give(box.rootfs)
    assert box.fail("plain").exit_code == 126
    assert box.fail("/tmp").exit_code == 126


@only("embedded", "embedded-userns", "embedded-rootless")
def test_an_executable_that_is_no_program_is_126(box: Box) -> None:
    bad = box.make_rootfs() / "bin" / "bad"
    bad.write_text("text")
    bad.chmod(0o755)
    box.give(box.rootfs)
    error = box.fail("bad")
    assert error.exit_code == 126
    assert "format" in error.message


@only("embedded", "embedded-userns", "embedded-rootless")
def test_a_missing_interpreter_is_told(box: Box) -> None:
    script = box.make_rootfs() / "bin" / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    box.give(box.rootfs)
    error = box.fail("/bin/script")
    assert (error.exit_code, "interpreter" in error.hint) == (127, True)


def test_a_missing_working_directory_is_made(box: Box) -> None:
    assert box.run("pwd", WorkingDir="/made/on/demand").out == "/made/on/demand\n"
    assert (box.rootfs / "made" / "on" / "demand").is_dir()


# -- the process -----------------------------------------------------------------------------------------


def test_environment_is_exactly_what_was_asked_for(box: Box) -> None:
    result = box.run("env", Env=["PATH=/bin", "A=b=c", "EMPTY="])
    lines = set(result.lines) - {"HOME=/root", "HOME=/", "HOSTNAME=box"}  # every container's
    assert lines == {"PATH=/bin", "A=b=c", "EMPTY="}


def test_working_directory(box: Box) -> None:
    assert box.run("pwd", WorkingDir="/tmp").out == "/tmp\n"


def test_user_groups_and_umask(box: Box) -> None:
    def patch(spec: dict[str, Any]) -> None:
        spec["process"]["user"]["umask"] = 0o077

    user = ResolvedUser(12, 34, (56, 78))
    result = box.sh("id -u; id -g; id -G; umask", patch=patch, facts={"user": user})
    assert result.lines == ["12", "34", "34 56 78", "0077"]


def test_an_ordinary_user_can_open_its_streams_again(box: Box) -> None:
    # A pipe belongs to whoever made it: without care /dev/stdout could not be opened.
    container = box.start("sh", "-c", "echo again | tee /dev/stderr >/dev/null", facts={"user": OTHER})
    result = container.wait()
    assert (result.code, result.err) == (0, "again\n")


def test_default_capabilities(box: Box) -> None:
    status = read_status(box.run("cat", "/proc/self/status").out)
    mask = build_mask(CAPABILITIES)
    held = {name: int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")}
    assert held == {"CapPrm": mask, "CapEff": mask, "CapBnd": mask, "CapInh": 0, "CapAmb": 0}


def test_dropped_and_added_capabilities(box: Box) -> None:
    host = {"CapDrop": ["all"], "CapAdd": ["net_admin", "CAP_CHOWN"]}
    status = read_status(box.run("cat", "/proc/self/status", host=host).out)
    assert int(status["CapEff"], 16) == build_mask(("CAP_NET_ADMIN", "CAP_CHOWN"))


def test_another_user_holds_no_capabilities(box: Box) -> None:
    status = read_status(box.run("cat", "/proc/self/status", facts={"user": OTHER}).out)
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, build_mask(CAPABILITIES))


def test_ambient_capabilities(box: Box) -> None:
    def patch(spec: dict[str, Any]) -> None:
        sets = ("bounding", "effective", "permitted", "inheritable", "ambient")
        spec["process"]["capabilities"] = {name: ["CAP_NET_BIND_SERVICE"] for name in sets}

    status = read_status(box.run("cat", "/proc/self/status", facts={"user": OTHER}, patch=patch).out)
    assert {int(status[f"Cap{name}"], 16) for name in ("Amb", "Eff", "Prm", "Inh", "Bnd")} == {1 << 10}


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges(box: Box, wanted: bool) -> None:
    host = {"SecurityOpt": [f"no-new-privileges={str(wanted).lower()}"]}
    status = read_status(box.run("cat", "/proc/self/status", host=host).out)
    assert status["NoNewPrivs"] == str(int(wanted))


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_seccomp_denies_a_call(box: Box, no_new_privileges: bool) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}],
    }
    host = with_profile(profile)
    host["SecurityOpt"].append(f"no-new-privileges={str(no_new_privileges).lower()}")
    result = box.sh("mkdir /tmp/x; grep Seccomp: /proc/self/status", host=host)
    # An errno that mkdir has from nowhere else.
    assert "Cannot assign requested address" in result.err or "Address not available" in result.err
    assert result.out.split() == ["Seccomp:", "2"]


def test_seccomp_compares_arguments(box: Box) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": ["kill"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 99,
                "args": [{"index": 1, "value": 12, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    result = box.sh(
        "sleep 9 & kill -12 $! && echo sent; kill -10 $! && echo sent",
        host={**with_profile(profile), "CapAdd": ["kill"]},
    )
    assert result.out == "sent\n"


def test_the_default_seccomp_profile(box: Box) -> None:
    result = box.sh("unshare -m true || echo refused; grep Seccomp: /proc/self/status")
    assert result.out.split() == ["refused", "Seccomp:", "2"]
    assert box.sh("grep Seccomp: /proc/self/status", host=UNCONFINED).out.split() == ["Seccomp:", "0"]


def test_resource_limits(box: Box) -> None:
    limits = [{"Name": "nofile", "Soft": 100, "Hard": 200}, {"Name": "core", "Soft": 0, "Hard": 0}]
    result = box.sh("ulimit -Sn; ulimit -Hn; ulimit -c", host={"Ulimits": limits})
    assert result.lines == ["100", "200", "0"]


def test_a_resource_limit_that_cannot_be_raised_is_an_error(box: Box) -> None:
    status = read_status(Path("/proc/self/status").read_text())
    if int(status["CapEff"], 16) & build_mask(["CAP_SYS_RESOURCE"]) and not box.in_user_namespace:
        pytest.skip("this host lets root raise its limits")
    error = box.fail("true", host={"Ulimits": [{"Name": "nofile", "Soft": 2**30, "Hard": 2**30}]})
    assert error.exit_code is None
    if box.is_embedded:
        assert "RLIMIT_NOFILE" in error.message


def test_oom_score(box: Box) -> None:
    assert box.run("cat", "/proc/self/oom_score_adj", host={"OomScoreAdj": 321}).out == "321\n"


def test_a_terminal(box: Box) -> None:
    script = (
        "test -t 0 && test -t 1 && test -t 2 && tty && stty size && echo ok >/dev/console && ls -1 /dev/pts"
    )
    result = box.run("sh", "-c", script, Tty=True, facts={"console_size": (33, 111)})
    assert result.code == 0
    assert result.out.replace("\r\n", "\n") == "/dev/pts/0\n33 111\nok\n0\nptmx\n"


def test_a_terminal_is_the_controlling_one(box: Box) -> None:
    container = box.start("sh", "-c", "trap 'echo caught; exit 3' INT; echo ready; read x", Tty=True)
    container.wait_for_output()
    box.driver.ask("type", pid=container.pid, text="\x03")
    result = container.wait()
    assert (result.code, "caught" in result.out) == (3, True)


def test_signals_have_their_default_meaning(box: Box) -> None:
    # Python ignores SIGPIPE and SIGXFSZ, and what is ignored is inherited.
    status = read_status(box.run("cat", "/proc/self/status").out)
    ordinary = (1 << 31) - 1  # signals 32 and 33 belong to the C library; crun leaves them ignored
    assert (int(status["SigIgn"], 16) & ordinary, int(status["SigBlk"], 16)) == (0, 0)


# -- namespaces ------------------------------------------------------------------------------------------


def test_namespaces_are_the_container_s_own(box: Box) -> None:
    result = box.sh(f"for n in {' '.join(NAMESPACES)}; do readlink /proc/self/ns/$n; done")
    assert len(result.lines) == len(NAMESPACES)
    for name, link in zip(NAMESPACES, result.lines, strict=True):
        assert os.readlink(f"/proc/self/ns/{name}") != link


def test_the_user_namespace_is_there_where_asked_for(box: Box) -> None:
    result = box.sh("cat /proc/self/uid_map; readlink /proc/self/ns/user")
    mapping, link = result.lines[0].split(), result.lines[1]
    if box.in_user_namespace:
        outside = "0" if box.kind == "embedded-rootless" else str(FIRST_ID)
        assert mapping[0] == "0"
        assert mapping[1] in (outside, str(FIRST_ID))
        assert link != os.readlink("/proc/self/ns/user")
    else:
        assert link == os.readlink("/proc/self/ns/user")


def test_processes_of_the_host_are_invisible(box: Box) -> None:
    result = box.sh("echo $$; ls -d /proc/[0-9]*")
    assert result.lines[0] == "1"
    assert len(result.lines) <= 3


def test_host_and_domain_name(box: Box) -> None:
    before = os.uname().nodename

    def patch(spec: dict[str, Any]) -> None:
        spec["domainname"] = "example.test"

    script = "hostname; cat /proc/sys/kernel/domainname"
    result = box.sh(script, patch=patch, facts={"hostname": "inside"})
    assert result.lines[0] == "inside"
    if box.is_embedded:
        assert result.lines[1] == "example.test"
    assert os.uname().nodename == before


def test_the_loopback_device_is_all_there_is(box: Box) -> None:
    assert [line.split(":")[0].strip() for line in box.run("cat", "/proc/net/dev").lines[2:]] == ["lo"]


@only("embedded", "crun", "runc")
def test_a_network_namespace_is_joined_by_path(box: Box) -> None:
    with subprocess.Popen(
        ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdin.write(b"x")
            other.stdin.flush()
            assert other.stdout.read(1) == b"x"  # so the namespace is there
            path = f"/proc/{other.pid}/ns/net"
            expected = os.readlink(path)
            assert (
                box.run("readlink", "/proc/self/ns/net", facts={"network_namespace": path}).out.strip()
                == expected
            )
        finally:
            other.kill()
    error = box.fail("true", facts={"network_namespace": "/no/such/namespace"})
    assert error.exit_code is None


def test_the_host_s_network(box: Box) -> None:
    if box.kind == "embedded-userns":
        pytest.skip("sysfs of a network namespace that the user namespace does not own cannot be mounted")
    result = box.run("readlink", "/proc/self/ns/net", facts={"network_namespace": "host"})
    assert result.out.strip() == os.readlink("/proc/self/ns/net")


def test_sysctls_of_a_namespace(box: Box) -> None:
    result = box.run(
        "cat",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        host={"Sysctls": {"net.ipv4.ip_unprivileged_port_start": "77"}},
    )
    assert result.out == "77\n"


def test_a_sysctl_of_the_host_is_refused(box: Box) -> None:
    before = Path("/proc/sys/vm/swappiness").read_text()
    box.fail("true", host={"Sysctls": {"vm.swappiness": "1"}})
    assert Path("/proc/sys/vm/swappiness").read_text() == before


# -- filesystems -----------------------------------------------------------------------------------------


def test_the_root_is_the_bundle_s(box: Box) -> None:
    (box.make_rootfs() / "marker").write_text("here")
    assert box.sh("cat /marker; echo written >/new").out == "here"
    assert (box.rootfs / "new").read_text() == "written\n"


def test_a_read_only_root(box: Box) -> None:
    result = box.sh("touch /x || echo refused; touch /dev/shm/y && echo fine", host={"ReadonlyRootfs": True})
    assert result.lines == ["refused", "fine"]
    assert not (box.rootfs / "x").exists()


def test_masked_paths_are_empty(box: Box) -> None:
    files = [path for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list") if os.path.exists(path)]
    assert files
    result = box.sh(f"cat {' '.join(files)} | wc -c; ls -A /sys/firmware; ls -A /proc/scsi 2>/dev/null")
    assert result.lines == ["0"]


def test_read_only_paths(box: Box) -> None:
    files = ("/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity")
    for file in (name for name in files if os.path.exists(name)):
        assert "Read-only file system" in box.sh(f"echo 1 >{file}").err


def test_devices_and_links(box: Box) -> None:
    script = """
    for d in null zero full random urandom tty; do test -c /dev/$d || echo missing $d; done
    for l in fd stdin stdout stderr; do readlink /dev/$l; done
    echo x >/dev/null; head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c
    stat -c %a /dev/shm; stat -f -c %T /dev/shm
    """
    result = box.sh(script)
    links = ["/proc/self/fd", *(f"/proc/self/fd/{number}" for number in range(3))]
    assert result.lines[:8] == [*links, "3", "5", "1777", "tmpfs"]
    assert result.err == ""


@only("embedded", "crun", "runc")
def test_a_further_device(box: Box) -> None:
    device = DeviceNode("/dev/null", "/dev/mine", "c", 1, 3, mode=0o640, uid=5, gid=6)
    result = box.sh("stat -c '%a %u %g %t %T' /dev/mine; echo x >/dev/mine", facts={"devices": [device]})
    assert (result.out, result.code) == ("640 5 6 1 3\n", 0)


@only("embedded-rootless")
def test_a_further_device_in_a_user_namespace(box: Box) -> None:
    device = DeviceNode("/dev/zero", "/dev/mine", "c", 1, 5)
    assert box.sh("head -c 4 /dev/mine | wc -c", facts={"devices": [device]}).out == "4\n"


def make_source(box: Box) -> Path:
    source = box.base / "source"
    (source / "below").mkdir(parents=True)
    (source / "file").write_text("text\n")
    box.give(source)
    return source


def test_a_bind_mount(box: Box) -> None:
    source = make_source(box)
    host = {"Binds": [f"{source}:/made/on/the/way"]}
    result = box.sh("cat /made/on/the/way/file; echo back >/made/on/the/way/new", host=host)
    assert (result.out, result.code) == ("text\n", 0)
    assert (source / "new").read_text() == "back\n"


def test_a_read_only_bind_mount(box: Box) -> None:
    source = make_source(box)
    host = {"Binds": [f"{source}:/data:ro"]}
    result = box.sh("cat /data/file; touch /data/new || echo refused", host=host)
    assert result.lines == ["text", "refused"]
    assert not (source / "new").exists()


def test_what_is_mounted_below_a_read_only_bind(box: Box) -> None:
    below = make_source(box) / "below"
    box.driver.ask("mount_tmpfs", path=str(below))
    try:
        script = "touch /data/below/new && echo written || echo refused"
        host = {"Binds": [f"{below.parent}:/data:ro"]}
        assert box.sh(script, host=host).out == "refused\n"

        def patch(spec: dict[str, Any]) -> None:
            (mount,) = (entry for entry in spec["mounts"] if entry["destination"] == "/data")
            mount["options"] = ["ro" if option == "rro" else option for option in mount["options"]]

        assert box.sh(script, host=host, patch=patch).out == "written\n"
    finally:
        box.driver.ask("unmount", path=str(below))


def test_a_bind_mount_of_a_file(box: Box) -> None:
    source = make_source(box) / "file"
    host = {"Binds": [f"{source}:/etc/made", f"{source}:/etc/passwd:ro"]}
    facts = {"file_binds": {"/etc/made", "/etc/passwd"}}
    result = box.sh("cat /etc/made /etc/passwd; echo x >/etc/passwd || echo refused", host=host, facts=facts)
    assert result.lines == ["text", "text", "refused"]


def test_a_missing_source_is_an_error(box: Box) -> None:
    error = box.fail("true", host={"Binds": [f"{box.base}/absent:/data"]})
    assert "absent" in error.message


def test_mounts_lie_on_one_another(box: Box) -> None:
    source = make_source(box)
    host = {"Tmpfs": {"/data/below": "size=64k,mode=0750"}, "Binds": [f"{source}:/data"]}
    result = box.sh("cat /data/file; stat -c %a /data/below; touch /data/below/x", host=host)
    # runc gives a tmpfs the mode of the directory that it is mounted on.
    assert (result.lines, result.code) == (["text", "755" if box.kind == "runc" else "750"], 0)
    assert list((source / "below").iterdir()) == []


def test_options_of_a_tmpfs(box: Box) -> None:
    script = "grep ' /scratch ' /proc/mounts; stat -c %a /scratch; dd if=/dev/zero of=/scratch/x bs=1k count=99 2>&1"
    result = box.sh(script, host={"Tmpfs": {"/scratch": "size=65536,mode=1770"}})
    assert {"nosuid", "nodev", "noexec", "size=64k"} <= set(result.lines[0].split()[3].split(","))
    assert result.lines[1] == "1770"
    assert "No space left" in result.out


def test_a_bad_mount_option_is_refused(box: Box) -> None:
    error = box.fail("true", host={"Tmpfs": {"/scratch": "nonsense=1"}})
    assert error.exit_code is None
    if box.is_embedded:
        assert "/scratch" in error.message
        assert "nonsense" in error.message


def test_mounts_of_the_container_stay_in_it(box: Box) -> None:
    source = make_source(box)
    container = box.start("sleep", "100", host={"Binds": [f"{source}:/data"]})
    seen = (container.host_proc / "mountinfo").read_text()
    assert " /data " in seen
    assert "shared:" not in seen
    assert str(box.base) not in Path("/proc/self/mountinfo").read_text()


# -- further processes -----------------------------------------------------------------------------------


def test_exec_runs_in_the_container(box: Box) -> None:
    container = box.start_shell()
    result = container.exec(
        "sh", "-c", "hostname; cat /proc/1/cmdline | tr '\\0' ' '; echo; echo $EXEC; exit 9"
    )
    assert (result.code, result.lines) == (9, ["box", "sh -c echo on; sleep 100; : ", "1"])
    links = container.exec("sh", "-c", f"for n in {' '.join(NAMESPACES)}; do readlink /proc/self/ns/$n; done")
    assert links.lines == [os.readlink(container.host_proc / "ns" / name) for name in NAMESPACES]


def test_an_exec_s_pid_is_a_child_of_the_caller(box: Box) -> None:
    container = box.start("sleep", "100")
    pid = container.exec_start("sleep", "100")
    assert read_status(Path(f"/proc/{pid}/status").read_text())["PPid"] == str(box.driver.process.pid)
    os.kill(pid, signal.SIGKILL)
    assert box.finish(pid).code == 137


def test_exec_has_the_same_confinement(box: Box) -> None:
    container = box.start("sleep", "100", host={"SecurityOpt": ["no-new-privileges"]})
    status = read_status(container.exec("cat", "/proc/self/status").out)
    assert int(status["CapEff"], 16) == build_mask(CAPABILITIES)
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    groups = container.exec("cat", "/proc/self/cgroup")
    assert groups.out == container.exec("cat", "/proc/1/cgroup").out


def test_exec_as_another_user(box: Box) -> None:
    container = box.start("sleep", "100")
    result = container.exec("id", "-u", user={"uid": 21, "gid": 22})
    assert result.out == "21\n"


def test_exec_with_a_terminal(box: Box) -> None:
    container = box.start("sleep", "100")
    result = container.exec("sh", "-c", "tty; test -t 1 && echo yes", terminal=True)
    assert result.out.replace("\r\n", "\n") == "/dev/pts/0\nyes\n"


def test_exec_of_what_is_not_there(box: Box) -> None:
    container = box.start("sleep", "100")
    # Several times: a failed one that is not reaped would keep the container from ending.
    for command, code in (("no-such-command", 127), ("/etc/passwd", 126)) * (5 if box.is_embedded else 1):
        with pytest.raises(PyDockError) as caught:
            container.exec(command)
        assert caught.value.exit_code == code
    assert container.exec("true").code == 0


def test_exec_in_a_container_that_has_ended(box: Box) -> None:
    container = box.start("true")
    container.wait()
    with pytest.raises(ConflictError):
        container.exec("true")


# -- the end ---------------------------------------------------------------------------------------------


def test_kill(box: Box) -> None:
    container = box.start(
        "sh", "-c", "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.01; done"
    )
    container.wait_for_output()
    container.kill(signal.SIGTERM)
    assert container.wait().code == 5
    container.kill(signal.SIGTERM)


def test_kill_nine(box: Box) -> None:
    container = box.start("sleep", "100")
    container.kill(signal.SIGKILL)
    assert container.wait().code == 137


def test_deleting_kills_what_runs(box: Box) -> None:
    container = box.start("sh", "-c", "sleep 100 & sleep 100")
    container.delete()
    assert not container.host_proc.exists()
    container.delete()
    box.containers.remove(container)


@only("embedded", "embedded-userns", "embedded-rootless")
def test_deleting_does_not_wait_for_its_caller_to_reap(box: Box) -> None:
    # A PID namespace's init ends only when the further processes have been reaped, which the caller does.
    container = box.start("sleep", "100")
    pid = container.exec_start("sleep", "100")
    answer = box.driver.ask("delete", id=container.id)
    assert answer["seconds"] < 5
    assert (box.finish(pid).code, container.wait().code) == (137, 137)


# -- control groups --------------------------------------------------------------------------------------


def require_groups(box: Box) -> None:
    if not box.has_groups:
        pytest.skip("this executor cannot make control groups here")


def test_a_memory_limit(box: Box) -> None:
    require_groups(box)
    container = box.start("sh", "-c", "tail /dev/zero", host={"Memory": 24 << 20})
    assert container.wait().code == 137
    assert box.driver.ask("oom", id=container.id)["oom"] is True


def test_without_a_lack_of_memory_none_is_told(box: Box) -> None:
    require_groups(box)
    container = box.start("false", host={"Memory": 64 << 20})
    assert container.wait().code == 1
    assert box.driver.ask("oom", id=container.id)["oom"] is False


def test_a_limit_on_processes(box: Box) -> None:
    require_groups(box)
    # Thirty leave room for the threads that runc itself has in the group while it starts the process.
    script = "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; wait"
    result = box.sh(script, host={"PidsLimit": 30})
    assert "can't fork" in result.err


def test_limits_are_written(box: Box) -> None:
    require_groups(box)
    limits = {
        "Memory": 64 << 20,
        "NanoCpus": 5 * 10**8,
        "CpuShares": 512,
        "PidsLimit": 77,
        "CpusetCpus": "0",
    }
    script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares pids/pids.max"
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        script = "cd /sys/fs/cgroup; cat memory.max cpu.max cpu.weight pids.max"
        expected = [str(64 << 20), "50000 100000", "20", "77"]
    else:
        expected = [str(64 << 20), "50000", "512", "77"]
    assert box.sh(script, host=limits).lines == expected


def test_a_device_that_is_not_allowed(box: Box) -> None:
    require_groups(box)
    if box.in_user_namespace:
        pytest.skip("no device can be made in a user namespace")
    result = box.sh("mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg")
    assert "Operation not permitted" in result.err


# -- hooks -----------------------------------------------------------------------------------------------


@only("embedded", "crun", "runc")
def test_hooks_run_at_their_steps(box: Box) -> None:
    log = box.base / "log"
    names = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")

    def patch(spec: dict[str, Any]) -> None:
        spec["hooks"] = {
            name: [{"path": "/bin/sh", "args": ["sh", "-c", f"cat >{log}.{name}; echo {name} >>{log}"]}]
            for name in names
        }

    assert box.run("true", patch=patch).code == 0
    assert log.read_text().split() == list(names)
    for name in names:
        assert '"id"' in Path(f"{log}.{name}").read_text()


@only("embedded", "crun", "runc")
def test_a_hook_that_fails_stops_the_creation(box: Box) -> None:
    def patch(spec: dict[str, Any]) -> None:
        spec["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}

    assert box.fail("true", patch=patch).exit_code is None
