"""Supervisors through the real zygote and the embedded executor: the whole life of a container, without the
engine."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydock_core.errors import ConflictError, NotFoundError, PyDockError, UnavailableError
from pydock_core.paths import StateRoot
from pydock_core.runtime.executor import Stdio
from pydock_core.supervision.client import Streams, Zygote, follow_log
from pydock_core.supervision.plan import NetworkAttachment, PublishedPort
from tests.support.supervised import (
    BUSYBOX,
    Box,
    build_process,
    end_boxes,
    end_server,
    leftovers,
    make_lower,
    read_all,
    read_frames,
    wait_until,
)

pytestmark = pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (Debian: busybox-static)")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateRoot]:
    base = tmp_path_factory.mktemp("supervisor")
    state_root = StateRoot(base / "data", base / "run")
    state_root.ensure()
    make_lower(base / "lower")
    pid = Zygote(state_root).ping()["pid"]
    yield state_root
    end_server(pid)
    left = leftovers(state_root)
    end_boxes(state_root)
    assert not any(left.values())


@pytest.fixture
def lower(root: StateRoot) -> Path:
    return root.data.parent / "lower"


def test_output_and_exit_code_reach_the_client_and_the_log(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "echo out; echo err >&2; exit 7"])
    with box.launch(Streams()) as launch:
        assert launch.attachment is not None
        with launch.attachment:
            assert read_frames(launch.attachment) == {1: b"out\n", 2: b"err\n"}
        end = launch.wait(10)
    assert end is not None
    assert end.exit_code == 7
    status = box.status()
    assert (status.status, status.exit_code, status.error) == ("exited", 7, "")
    assert status.started_at_ns <= status.finished_at_ns
    assert sorted(box.log().splitlines()) == [b"err", b"out"]


def test_a_partial_last_line_is_logged(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["printf", "no newline"])
    with box.launch() as launch:
        launch.wait(10)
    assert box.log() == b"no newline"


def test_streams_go_on_when_the_supervisor_takes_the_container_over(root: StateRoot, lower: Path) -> None:
    """A first request hands it over: with half a line in the log, and input in both processes."""
    command = "printf one; read x; echo $x; read y; echo $y"
    box = Box(root, lower, ["sh", "-c", command], open_stdin=True)
    with box.launch(Streams()) as launch:
        assert launch.attachment is not None
        with launch.attachment:
            source = launch.attachment.makefile("rb")
            assert source.read(8 + 3)[8:] == b"one"
            launch.attachment.sendall(b"two\n")
            assert source.read(8 + 4)[8:] == b"two\n"
            assert box.client.state()["status"] == "running"
            launch.attachment.sendall(b"three\n")
            assert source.read(8 + 6)[8:] == b"three\n"
            assert source.read() == b""
        end = launch.wait(10)
    assert end is not None
    assert end.exit_code == 0
    assert box.log() == b"onetwo\nthree\n"
    assert len(box.paths.log_file.read_bytes().splitlines()) == 2


def test_a_signal_gives_128_and_its_number(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sleep", "1000"])
    with box.launch() as launch:
        assert box.status().is_running
        assert launch.wait(0) is None
        box.client.signal(signal.SIGKILL)
        end = launch.wait(10)
    assert end is not None
    assert end.exit_code == 137


def test_much_output_arrives_whole_though_the_client_is_slow(root: StateRoot, lower: Path) -> None:
    size = 4_000_000
    box = Box(root, lower, ["sh", "-c", f"yes 0123456 | head -c {size}"])
    with box.launch(Streams()) as launch:
        assert launch.attachment is not None
        # Nobody reads: the container must come to a halt instead of filling the supervisor's memory.
        wait_until(lambda: len(box.log()) > 300_000, "the container has written")
        supervisor = box.status().supervisor_pid
        halted = [-1, 0]

        def has_halted() -> bool:
            halted[0], halted[1] = halted[1], box.paths.log_file.stat().st_size
            return halted[0] == halted[1] and len(box.log()) < size

        wait_until(has_halted, "the container waits for its slow client")
        resident = int(Path(f"/proc/{supervisor}/statm").read_text().split()[1]) * 4096
        assert resident < 40_000_000
        assert launch.wait(0) is None
        with launch.attachment:
            received = read_frames(launch.attachment)[1]
        end = launch.wait(10)
    assert end is not None
    assert end.exit_code == 0
    assert len(received) == size
    assert box.log() == received


def test_output_waits_for_a_client_that_reads_after_the_end(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "yes 0123456 | head -c 400000"])
    with box.launch(Streams()) as launch:
        end = launch.wait(10)
        assert end is not None
        assert box.status().status == "exited"
        assert launch.attachment is not None
        with launch.attachment:
            assert len(read_frames(launch.attachment)[1]) == 400_000


def test_a_client_that_dies_changes_nothing(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "cat; echo done; exit 3"], open_stdin=True)
    launch = box.launch(Streams())
    assert launch.attachment is not None
    launch.attachment.close()
    launch.close()
    assert box.status().is_running  # standard input stays open: it is not closed with the first client
    with box.client.attach() as second:
        second.sendall(b"hello\n")
        wait_until(lambda: box.log() == b"hello\n", "the second client's input arrives")
    box.client.stop(signal.SIGKILL)
    assert box.status().exit_code == 137


def test_standard_input_once(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["cat"], open_stdin=True, stdin_once=True)
    payload = os.urandom(1_000_000)
    with box.launch(Streams()) as launch:
        stream = launch.attachment
        assert stream is not None

        def feed() -> None:
            stream.sendall(payload)
            stream.shutdown(socket.SHUT_WR)

        feeder = threading.Thread(target=feed)
        feeder.start()
        with stream:
            assert read_frames(stream) == {1: payload}
        feeder.join()
        end = launch.wait(10)
    assert end is not None
    assert end.exit_code == 0
    assert box.log() == payload  # bytes that are no text survive the log


def test_without_open_stdin_the_process_reads_nothing(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["cat"])
    with box.launch() as launch:
        end = launch.wait(10)
    assert end is not None
    assert end.exit_code == 0


def test_a_terminal(root: StateRoot, lower: Path) -> None:
    box = Box(
        root, lower, ["sh", "-c", "stty size; read line; stty size; echo got $line; test -t 2"],
        terminal=True, open_stdin=True, tty_rows=33, tty_columns=77,
    )  # fmt: skip
    with box.launch(Streams()) as launch:
        assert launch.attachment is not None
        with launch.attachment as stream:
            wait_until(lambda: b"33 77" in box.log(), "the size is shown")
            box.client.resize(20, 50)
            stream.sendall(b"word\n")
            output = read_all(stream)
        end = launch.wait(10)
    assert end is not None
    assert end.exit_code == 0
    assert output == b"33 77\r\nword\r\n20 50\r\ngot word\r\n"


def test_resize_without_a_terminal_is_refused(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sleep", "1000"])
    with box.launch():
        with pytest.raises(ConflictError, match="no terminal"):
            box.client.resize(20, 50)
        box.client.stop(signal.SIGKILL)


@pytest.mark.parametrize(("command", "code"), [("/nosuch", 127), ("nosuch", 127), ("/etc/passwd", 126)])
def test_a_command_that_can_not_be_executed(root: StateRoot, lower: Path, command: str, code: int) -> None:
    box = Box(root, lower, [command])
    with pytest.raises(PyDockError) as caught:
        box.launch()
    assert caught.value.exit_code == code
    status = box.status()
    assert (status.status, status.exit_code) == ("created", code)
    assert command in status.error
    assert not any(leftovers(root).values())


def test_a_failed_start_keeps_what_is_known_of_the_last_run(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "exit 4"])
    with box.launch() as launch:
        launch.wait(10)
    first = box.status()
    config = box.paths.config_file.read_text()
    box.paths.config_file.write_text(config.replace('"sh"', '"nosuch"'))
    with pytest.raises(NotFoundError):
        box.launch()
    status = box.status()
    assert (status.status, status.exit_code) == ("exited", 127)
    assert (status.started_at_ns, status.finished_at_ns) == (first.started_at_ns, first.finished_at_ns)
    box.paths.config_file.write_text(config)
    with box.launch() as launch:
        launch.wait(10)
    assert (box.status().exit_code, box.status().error) == (4, "")


def test_a_running_container_is_not_started_twice(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sleep", "1000"])
    with box.launch():
        with pytest.raises(ConflictError, match="already running"):
            box.launch()
        assert box.status().is_running
        assert (
            box.client.stop(signal.SIGTERM, 0.1) == 137
        )  # sleep as init ignores SIGTERM: killed after the timeout
    with pytest.raises(ConflictError, match="not running"):
        box.client.state()


def test_restart_at_once(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "echo x >> /count; sleep 1000"])
    for _ in range(5):
        with box.launch():
            box.client.stop(signal.SIGKILL)
    assert (box.paths.upper / "count").read_text() in ("x\n" * 5, "x\n" * 4, "x\n" * 3)  # killed early, maybe


def test_stop_signal_and_waiters(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.01; done"],
              stop_signal=int(signal.SIGUSR1))  # fmt: skip
    with box.launch():
        wait_until(lambda: box.log() == b"up\n", "the trap is set")
        codes: list[int] = []
        waiters = [threading.Thread(target=lambda: codes.append(box.client.wait())) for _ in range(3)]
        for waiter in waiters:
            waiter.start()
        assert box.client.stop() == 9
        for waiter in waiters:
            waiter.join()
    assert codes == [9, 9, 9]


def test_sigterm_to_the_supervisor_stops_the_container(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done"])
    with box.launch() as launch:
        wait_until(lambda: box.log() == b"up\n", "the trap is set")
        os.kill(box.status().supervisor_pid, signal.SIGTERM)
        end = launch.wait(10)
    assert end is not None
    assert end.exit_code == 9


def test_logs_are_followed(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "echo old; read x; for i in 1 2 3; do echo $i; done; printf end"],
              open_stdin=True)  # fmt: skip
    with box.launch(Streams()) as launch:
        stream = launch.attachment
        assert stream is not None
        wait_until(lambda: box.log() == b"old\n", "the first line is there")
        found: list[bytes] = []
        for entry in follow_log(box.paths):
            if not found:
                stream.sendall(b"\n")
            found.append(entry.data)
        stream.close()
    assert found == [b"old\n", b"1\n", b"2\n", b"3\n", b"end"]


def test_grandchildren_that_hold_the_pipe_do_not_hold_the_container(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "sleep 1000 & echo started"])
    with box.launch() as launch:
        end = launch.wait(10)
    assert end is not None
    assert end.exit_code == 0
    assert box.log() == b"started\n"


def test_executed_processes(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sleep", "1000"])
    with box.launch():
        read_fd, write_fd = os.pipe()
        null_fd = os.open(os.devnull, os.O_RDWR)
        with box.client.exec_(
            build_process(["sh", "-c", "echo inside $(readlink /proc/self/exe | head -c 4); exit 5"]),
            Stdio(null_fd, write_fd, write_fd),
        ) as session:
            os.close(write_fd)
            assert session.wait(10) == 5
        with open(read_fd, "rb") as output:
            assert output.read() == b"inside /bin\n"
        sessions = [
            box.client.exec_(build_process(["sleep", "1000"]), Stdio(null_fd, null_fd, null_fd))
            for _ in range(8)
        ]
        assert all(session.wait(0) is None for session in sessions)
        sessions[0].signal(signal.SIGTERM)
        assert sessions[0].wait(10) == 143
        with pytest.raises(NotFoundError) as caught:
            box.client.exec_(build_process(["/nosuch"]), Stdio(null_fd, null_fd, null_fd))
        assert caught.value.exit_code == 127
        os.close(null_fd)
        box.client.stop(signal.SIGKILL)
        assert [session.wait(10) for session in sessions[1:]] == [137] * 7
        for session in sessions:
            session.close()


def test_an_executed_process_with_a_terminal(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sleep", "1000"])
    # The size travels through the supervisor and the word straight through the terminal: in any order.
    script = 'read x; until [ "$(stty size)" = "11 22" ]; do :; done; echo sized for $x'
    with box.launch():
        with box.client.exec_(build_process(["sh", "-c", script], terminal=True), None) as session:
            assert session.console_fd is not None
            session.resize(11, 22)
            os.write(session.console_fd, b"me\n")
            output = b""
            while b"sized for me" not in output:
                assert select.select([session.console_fd], [], [], 10)[0]
                output += os.read(session.console_fd, 1000)
            os.close(session.console_fd)
            assert session.wait(10) == 0
        box.client.stop(signal.SIGKILL)


def test_dial_reaches_what_listens_on_any_loopback_only_inside(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["httpd", "-f", "-p", "127.0.0.1:6006", "-h", "/etc"])
    with box.launch():
        connected = None

        def connects() -> bool:
            nonlocal connected
            try:
                connected = box.client.dial(6006)
            except UnavailableError:
                return False
            return True

        wait_until(connects, "httpd listens")
        with pytest.raises(UnavailableError, match="nothing listens on port 6007 of container"):
            box.client.dial(6007)
        assert connected is not None
        with connected:
            assert not connected.getblocking()
            connected.setblocking(True)
            connected.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
            assert read_all(connected).endswith(b"root:x:0:0:root:/:/bin/sh\n")
        box.client.stop(signal.SIGKILL)
    with socket.socket() as outside:
        assert outside.connect_ex(("127.0.0.1", 6006)) == errno.ECONNREFUSED


def exchange(client: socket.socket, payload: bytes) -> bytes:
    """Send, end, and read to the end at the same time."""
    received = bytearray()

    def read() -> None:
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(100_000):
                received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    with contextlib.suppress(OSError):  # what arrived tells
        client.sendall(payload)
        client.shutdown(socket.SHUT_WR)
    reader.join()
    return bytes(received)


def test_published_ports_on_the_loopback_address_only(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "while nc -l -p 80 -e cat; do :; done"],
              ports=(PublishedPort("127.0.0.1", 0, 80),))  # fmt: skip
    with box.launch() as launch:
        (port,) = launch.ports
        assert box.status().ports == (port,)
        payload = os.urandom(3_000_000)

        def echoes() -> bool:
            try:
                with socket.create_connection((port.host_ip, port.host_port), timeout=10) as client:
                    return exchange(client, payload) == payload
            except ConnectionResetError:  # nc does not listen yet: a refusal inside is passed on as a reset
                return False

        wait_until(echoes, "nc echoes everything, with a half-closed connection")
        listening = Path("/proc/net/tcp").read_text()
        assert f"0100007F:{port.host_port:04X}" in listening
        assert f"00000000:{port.host_port:04X}" not in listening
        box.client.stop(signal.SIGKILL)
        with socket.socket() as outside:
            assert outside.connect_ex((port.host_ip, port.host_port)) == errno.ECONNREFUSED


def test_a_published_port_in_use(root: StateRoot, lower: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        box = Box(root, lower, ["sleep", "1000"], ports=(PublishedPort("127.0.0.1", number, 80),))
        with pytest.raises(ConflictError, match=f"port 127.0.0.1:{number} is already in use") as caught:
            box.launch()
    assert caught.value.exit_code == 125
    assert box.status().status == "created"
    with box.launch():
        box.client.stop(signal.SIGKILL)


def test_the_hosts_network(root: StateRoot, lower: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        box = Box(
            root, lower, ["sh", "-c", f"nc 127.0.0.1 {number} < /dev/null"], network=NetworkAttachment("host")
        )
        with box.launch() as launch:
            accepted, _ = server.accept()
            with accepted:
                with box.client.dial(number) as dialled:
                    assert dialled.getpeername()[1] == number
                accepted.sendall(b"x")
            assert launch.wait(10) is not None


def test_sharing_another_containers_network(root: StateRoot, lower: Path) -> None:
    first = Box(root, lower, ["httpd", "-f", "-p", "127.0.0.1:7000", "-h", "/etc"])
    with first.launch():
        second = Box(
            root, lower, ["sh", "-c", "until wget -q -O - http://127.0.0.1:7000/passwd; do :; done"],
            network=NetworkAttachment("container", container_run=str(first.paths.run)),
        )  # fmt: skip
        with second.launch() as launch:
            assert launch.wait(10) is not None
        assert second.log().endswith(b"root:x:0:0:root:/:/bin/sh\n")
        first.client.stop(signal.SIGKILL)


def test_nothing_of_the_host_is_inherited(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sh", "-c", "ls /proc/self/fd; env; readlink /proc/self/cwd"])
    with box.launch() as launch:
        launch.wait(10)
    lines = box.log().decode().splitlines()
    assert lines[:4] == ["0", "1", "2", "3"]  # the fourth is the directory that ls reads
    assert set(lines[4:-1]) <= {"PATH=/bin", "TERM=xterm", "SHLVL=1", "PWD=/", "HOSTNAME=box"}
    assert lines[-1] == "/"


def test_a_supervisors_memory(root: StateRoot, lower: Path) -> None:
    box = Box(root, lower, ["sleep", "1000"])
    with box.launch():
        supervisor = box.status().supervisor_pid
        wait_until(
            lambda: has_only(supervisor, box.status().pid), "the starter has handed the container over"
        )
        rollup = Path(f"/proc/{supervisor}/smaps_rollup").read_text()
        private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
        box.client.stop(signal.SIGKILL)
    # 1,480 KiB as measured; the rest is for other layouts of the same code.
    assert private < 1700, f"{private} KiB of private memory"


def has_only(parent: int, child: int) -> bool:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return children.split() == [str(child)]


def is_executed(program: Path) -> bool:
    try:
        os.close(os.open(program, os.O_WRONLY))
    except OSError as error:
        return error.errno == errno.ETXTBSY
    return False


def test_the_interpreter_of_a_supervisor_can_not_be_written(tmp_path: Path) -> None:
    # A copy of the interpreter, so that nobody else executes the file and ETXTBSY does not hide what the
    # mount does.
    interpreter = tmp_path / "python"
    shutil.copy(os.path.realpath(sys.executable), interpreter)
    state_root = StateRoot(tmp_path / "data", tmp_path / "run")
    state_root.ensure()
    program = (
        "import sys; from pathlib import Path; sys.path += sys.argv[3:]\n"
        "from pydock_core.paths import StateRoot; from pydock_core.supervision.client import Zygote\n"
        "print(Zygote(StateRoot(Path(sys.argv[1]), Path(sys.argv[2]))).ping()['pid'])"
    )
    paths = [str(path) for path in (interpreter, state_root.data, state_root.run)]
    arguments = [paths[0], "-I", "-c", program, *paths[1:], *sys.path]
    started = subprocess.run(arguments, capture_output=True, text=True, check=True)
    pid = int(started.stdout)
    path = f"/proc/{pid}/exe"
    try:
        assert os.readlink(path) == str(interpreter)
        link_fd = os.open(path, os.O_PATH)
        with pytest.raises(OSError, match=r"Read-only|busy"):
            os.open(path, os.O_WRONLY)
        # Nor can its libraries.  Only a capability over the whole host opens these links: proc_pid_map_files(5).
        mapped = list(Path(f"/proc/{pid}/map_files").iterdir()) if os.geteuid() == 0 else []
        for file in mapped:
            with pytest.raises(OSError, match=r"Read-only|busy"):
                os.open(file, os.O_RDWR)
        assert bool(mapped) == (os.geteuid() == 0)
    finally:
        end_server(pid)
    wait_until(lambda: not is_executed(interpreter), "the zygote's children have ended")
    with pytest.raises(OSError, match="Read-only") as caught:
        os.open(f"/proc/self/fd/{link_fd}", os.O_WRONLY)
    assert caught.value.errno == errno.EROFS
    os.close(link_fd)
    with open(interpreter, "r+b"):
        pass  # by its own path it can be written: what protected it was the mount


def test_auto_removal_without_a_client(root: StateRoot, lower: Path) -> None:
    from pydock_core.store.database import Database

    Database(root.database).close()
    box = Box(root, lower, ["sh", "-c", "read x"], open_stdin=True, stdin_once=True, auto_remove=True)
    launch = box.launch(Streams())
    launch.close()
    assert launch.attachment is not None
    launch.attachment.close()
    wait_until(lambda: not box.paths.data.exists() and not box.paths.run.exists(), "the container is removed")
