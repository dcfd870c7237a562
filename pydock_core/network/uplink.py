"""The uplink: connects an ordinary user's network namespace to the outside, from the host's network namespace.

It runs pasta or slirp4netns and the namespace's name server, and restarts either one that dies; both die with
it.  It keeps the host's own addresses, and the containers on the host's bridges, closed to containers as they change, and ends
with the holder of the namespace.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from pydock_core import messages, syscalls
from pydock_core.errors import FailedError, PyDockError, UnsupportedError
from pydock_core.network import firewall, uplink_program, uplink_rules
from pydock_core.network.container_subnets import read_container_subnets
from pydock_core.network.resolvers import host_servers
from pydock_core.runtime import reaping
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.runtime.record_file import read_json, write_json
from pydock_core.supervision import user_network
from pydock_core.supervision.event_loop import READ, EventLoop, Signals
from pydock_core.supervision.names.process import fork_server
from pydock_core.supervision.names.server import build_settings
from pydock_core.supervision.network_namespace import add_loopback_address
from pydock_core.supervision.rest_of_process import run_and_exit

_START_SECONDS = 10.0
_RESTART_SECONDS = 1.0
"""The minimum time between two starts of a child."""
_DEATH_SECONDS = 5.0
_SETTLING_SECONDS = 0.1
"""The delay between a change of the host's addresses or bridges and the new rules: changes come in groups."""
_HOST_EVENTS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR of rtnetlink(7)
_ROUTE_EVENTS = 0x40  # RTMGRP_IPV4_ROUTE
_RECEIVE_BYTES = 65536
_DNS_PORT = 53
_BACKLOG = 64
_STDERR = 2
_LOG_TAIL_BYTES = 2000


def fork_uplink(run: Path, holder: ProcessIdentity) -> ProcessIdentity:
    """Fork the uplink of a namespace; return it when the namespace is connected.

    The caller is in the host's network namespace and in the user namespace that owns the other one.  It holds the lock of the
    record.

    Args:
        run: the directory of the state root.
        holder: the holder of the namespace, which must exist.

    Raises:
        PyDockError: the namespace cannot be connected; no uplink is left.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _run(run, holder, theirs)
    theirs.close()
    with ours:
        ours.settimeout(_START_SECONDS * 2)
        try:
            received = messages.receive(ours)
        except (TimeoutError, ConnectionResetError):
            received = None
    if received is None:
        os.kill(pid, signal.SIGKILL)
        raise FailedError("the network's way out did not come up", f"read {log_file(run)}", exit_code=125)
    messages.checked(received[0])
    return ProcessIdentity.of(pid)


def log_file(run: Path) -> Path:
    """Return the log file of the uplink's program."""
    return run / "uplink.log"


def settings_file(run: Path) -> Path:
    """Return the settings file of the namespace's name server."""
    return run / "uplink-names.json"


def write_settings(run: Path) -> None:
    """Make the namespace's name server forward to the host's current servers."""
    wanted = build_settings((), host_servers(), (), ())
    if read_json(settings_file(run)) != wanted:
        write_json(settings_file(run), wanted)


def _run(run: Path, holder: ProcessIdentity, ready: socket.socket) -> NoReturn:
    try:
        os.setsid()
        syscalls.close_except(_STDERR, ready.fileno())
        try:
            uplink = _Uplink(run, holder, ready)
            uplink.start()
        except PyDockError as error:
            messages.send_error(ready, error)
        except OSError as error:
            traceback.print_exc()
            messages.send_error(ready, FailedError(f"the network has no way out: {error}", exit_code=125))
        else:
            uplink.run()
    except BaseException:  # noqa: BLE001 - the process ends here; its log gets the traceback
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


class _Uplink:
    def __init__(self, run: Path, holder: ProcessIdentity, ready: socket.socket) -> None:
        self._directory = run
        self._ready: socket.socket | None = ready
        self._loop = EventLoop()
        self._signals = Signals(self._loop)
        self._signals.on(signal.SIGTERM, self._loop.stop)
        holder_fd = holder.open()
        if holder_fd is None:
            raise FailedError("the network namespace is gone", exit_code=125)
        self._holder_fd = holder_fd
        self._namespace_fd = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._namespace_file = run / "user-network.ns"
        self._program = uplink_program.choose_program(uplink_program.read_help)
        if not self._program:
            raise UnsupportedError(uplink_program.MISSING, uplink_program.INSTALL_HINT, exit_code=125)
        self._program_pid = self._server_pid = 0
        self._started_at: dict[str, float] = {}
        self._has_pending_rules = False
        self._rules = ""

    def start(self) -> None:
        """Connect the namespace; :meth:`run` keeps it connected."""
        self._loop.watch(self._holder_fd, READ, lambda _: self._loop.stop())
        # The program drops the capability to open another process's namespace before it opens the namespace.
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
        self._namespace_file.touch(mode=0o600)
        syscalls.mount(f"/proc/self/fd/{self._namespace_fd}", str(self._namespace_file), "", syscalls.MS_BIND)
        self._events = self._open_events()
        self._listeners = self._prepare_namespace()
        write_settings(self._directory)
        self._start_server()
        self._start_program()
        waiter = self._fork_inside(_wait_for_route)
        self._signals.on_exit(waiter, self._on_route)
        self._loop.call_later(
            _START_SECONDS, partial(self._fail, "it did not configure the namespace in time")
        )

    def run(self) -> None:
        """Serve until the holder has ended."""
        self._loop.run()
        for pid in (self._program_pid, self._server_pid):
            if pid:
                self._signals.on_exit(pid, lambda _: None)
                reaping.kill_and_reap(pid, _DEATH_SECONDS)
        with suppress(OSError):
            syscalls.umount(str(self._namespace_file), syscalls.MNT_DETACH)
            self._namespace_file.unlink()

    # -- the namespace -----------------------------------------------------------------------------------

    def _fork_inside(self, function: Callable[[], None]) -> int:
        """Run a function in a child, in the namespace; its exit code is 0 if the function returns."""
        pid = os.fork()
        if pid:
            return pid

        def enter() -> None:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            syscalls.setns(self._namespace_fd, syscalls.CLONE_NEWNET)
            function()

        run_and_exit(enter)

    def _prepare_namespace(self) -> tuple[socket.socket, socket.socket]:
        """Close the host's addresses to the namespace; return the name server's sockets, which are in it."""
        link, child_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = self._rules = _build_rules()

        def prepare() -> None:
            try:
                firewall.apply(script)
                listeners = _open_listeners()
            except PyDockError as error:
                messages.send_error(child_link, error)
            else:
                messages.send(child_link, {"ok": True}, [item.fileno() for item in listeners])

        pid = self._fork_inside(prepare)
        child_link.close()
        with link:
            received = messages.receive(link)
        os.waitpid(pid, 0)
        if received is None:
            raise FailedError("the network namespace could not be prepared", exit_code=125)
        messages.checked(received[0])
        udp, tcp = (socket.socket(fileno=fd) for fd in received[1])
        return udp, tcp

    def _open_events(self) -> socket.socket:
        """Watch the host's addresses and devices."""
        events = _open_netlink(_HOST_EVENTS)
        events.setblocking(False)
        self._loop.watch(events.fileno(), READ, self._on_change)
        return events

    def _on_change(self, _: int) -> None:
        with suppress(OSError):
            self._events.recv(_RECEIVE_BYTES)
        if not self._has_pending_rules:
            self._has_pending_rules = True
            self._loop.call_later(_SETTLING_SECONDS, self._renew_rules)

    def _renew_rules(self) -> None:
        self._has_pending_rules = False
        script = _build_rules()
        if script != self._rules:
            self._rules = script
            pid = self._fork_inside(partial(firewall.apply, script))
            self._signals.on_exit(pid, self._on_rules)

    def _on_rules(self, code: int) -> None:
        if code != 0:
            self._rules = ""  # the next change tries again

    # -- the children ------------------------------------------------------------------------------------

    def _start_server(self) -> None:
        self._started_at["server"] = time.monotonic()
        self._server_pid = fork_server(*self._listeners, settings_file(self._directory), lambda: None)
        self._signals.on_exit(self._server_pid, self._on_server_exit)

    def _on_server_exit(self, code: int) -> None:
        print(f"the name server of the user's network ended with {code}", file=sys.stderr)
        self._server_pid = 0
        self._loop.call_later(self._pause_seconds("server"), self._start_server)

    def _start_program(self) -> None:
        self._started_at["program"] = time.monotonic()
        words = uplink_program.build_command(
            self._program,
            str(self._namespace_file),
            has_ipv6=uplink_rules.has_ipv6(),
            read_help=partial(uplink_program.read_help, self._program),
        )
        log_fd = os.open(
            log_file(self._directory), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        self._program_pid = _execute(words, log_fd)
        os.close(log_fd)
        self._signals.on_exit(self._program_pid, self._on_program_exit)

    def _on_program_exit(self, code: int) -> None:
        name = Path(self._program).name
        print(f"{name} ended with {code}", file=sys.stderr)
        self._program_pid = 0
        if self._ready is not None:
            with suppress(OSError):
                lines = log_file(self._directory).read_text(errors="replace")[-_LOG_TAIL_BYTES:].splitlines()
                self._fail(lines[-1] if lines else f"exit code {code}")
            return
        self._loop.call_later(self._pause_seconds("program"), self._start_program)

    def _pause_seconds(self, child: str) -> float:
        return max(0.0, self._started_at[child] + _RESTART_SECONDS - time.monotonic())

    def _on_route(self, code: int) -> None:
        if code == 0 and self._ready is not None:
            with suppress(OSError):
                messages.send(self._ready, {"ok": True})
            self._ready.close()
            self._ready = None

    def _fail(self, reason: str) -> None:
        """Report an error to the starter, and end."""
        if self._ready is None:
            return
        name = Path(self._program).name
        error = FailedError(
            f"{name} gives the network no way out: {reason}",
            f"use --network none or host; {log_file(self._directory)} has what {name} said",
            exit_code=125,
        )
        messages.send_error(self._ready, error)
        self._ready.close()
        self._ready = None
        self._loop.stop()


def _build_rules() -> str:
    host = uplink_rules.host_addresses()
    return uplink_rules.build_tables([*host, *read_container_subnets()], uplink_rules.gate_address(host))


def _execute(words: list[str], log_fd: int) -> int:
    """Run a program that dies with this process; return its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for number in (
            signal.SIGTERM,
            signal.SIGCHLD,
            signal.SIGPIPE,
        ):  # pasta refuses to inherit an ignored SIGPIPE
            signal.signal(number, signal.SIG_DFL)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.dup2(log_fd, 1)
        os.dup2(log_fd, 2)
        os.execv(words[0], words)
    finally:
        os._exit(127)


def _open_listeners() -> tuple[socket.socket, socket.socket]:
    """Return the UDP and the TCP socket of the namespace's name server."""
    add_loopback_address(user_network.FORWARDER)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for item in (udp, tcp):
        item.bind((user_network.FORWARDER, _DNS_PORT))
    tcp.listen(_BACKLOG)
    return udp, tcp


def _open_netlink(groups: int) -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    netlink.bind((0, groups))
    return netlink


def _wait_for_route() -> None:
    """Wait until the namespace of the caller has a default route."""
    with _open_netlink(_ROUTE_EVENTS) as events:
        while not _has_route(Path("/proc/self/net/route").read_text()):
            with suppress(OSError):  # ENOBUFS: events were lost
                events.recv(_RECEIVE_BYTES)


def _has_route(text: str) -> bool:
    return any(line.split()[:2] == [uplink_program.DEVICE, "00000000"] for line in text.splitlines())
