"""The hand-over of a started container, from the starter to the supervisor.

One packet with descriptors, and further ones if many ports are published.  It contains the few facts that the supervisor needs
until the container's end, in the format of :mod:`marshal`, and both sides know their order: the processes are forks of one
interpreter, and reading JSON, or a dictionary, would copy more pages.
"""

from __future__ import annotations

import array
import marshal
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydock_core.messages import PACKET_BYTES
from pydock_core.runtime.reaping import read_status

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import PortDocument, StreamChoice

_BATCH_FDS = 16
_ASK = b"status "
_ANSWER_BYTES = 32
_ANCILLARY_BYTES = socket.CMSG_SPACE(4 * 2 * _BATCH_FDS)


@dataclass(slots=True)
class Facts:
    """What the supervisor knows of a started container; every value is of a type that marshal knows.

    Attributes:
        container_id, data_dir, run_dir, executor, terminal, open_stdin, stdin_once, stop_signal, stop_timeout_seconds,
            log_path, log_file_bytes, log_files, log_attributes, journal_fields, journal_bytes, auto_remove, health: of the
            plan (:class:`pydock_core.supervision.plan.LaunchPlan`).
        control_path: path of the control socket.
        hosts: addresses of the container: :func:`pydock_core.supervision.dial.addresses`.
        ports: the published ports with the chosen host ports.
        pid: of init.
        started_at_ns: Unix time in nanoseconds.
        oom_file: see :class:`pydock_core.supervision.maker.Made`.
        mounted: paths to unmount at the end, in this order.
        attach: the streams that the attachment carries.
        has_attachment: the client of the start has a stream.
        unwritten: the state of the log (:meth:`pydock_core.supervision.logs.LogWriter.save`) if it has been written to.
        relayed: the state of the relay (:meth:`pydock_core.supervision.stdio_relay.StdioRelay.save`) if it has begun.
        restarts, keeper: the policy's progress, and the identity of the keeper; None without a policy.
    """

    container_id: str
    data_dir: str
    run_dir: str
    executor: str
    terminal: bool
    open_stdin: bool
    stdin_once: bool
    stop_signal: int
    stop_timeout_seconds: float
    log_path: str
    log_file_bytes: int
    log_files: int
    log_attributes: Mapping[str, str] | None
    journal_fields: Mapping[str, str] | None
    journal_bytes: int
    auto_remove: bool
    health: Mapping[str, Any] | None
    control_path: str
    hosts: tuple[str, ...]
    ports: list[PortDocument]
    pid: int
    started_at_ns: int
    oom_file: str
    mounted: tuple[str, ...]
    attach: StreamChoice
    has_attachment: bool
    unwritten: tuple[Mapping[str, bytes], bool] | None
    relayed: tuple[bytes, bool, bytes] | None
    restarts: Mapping[str, Any] | None
    keeper: Mapping[str, Any] | None


@dataclass(slots=True)
class Descriptors:
    """The descriptors of a started container; -1 stands for none, and the receiver owns the others.

    Attributes:
        status: of the client.
        lock: holds the container's lock.
        control: the listening control socket.
        network: the container's network namespace, except with the host's network.
        host_network: the way back, on a bridge.
        stdin, stdout, stderr, console: of its standard streams.
        log: the log file, or a socket to the journal.
        attachment: the first client's stream.
        keeper: the connection to the keeper.
        names_udp, names_tcp: sockets of the name server.
    """

    status: int = -1
    lock: int = -1
    control: int = -1
    network: int = -1
    host_network: int = -1
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    console: int = -1
    log: int = -1
    attachment: int = -1
    keeper: int = -1
    names_udp: int = -1
    names_tcp: int = -1

    def list_open(self, *left_out: str) -> list[int]:
        """Return the descriptors, except absent ones and some by name."""
        found = [getattr(self, name) for name in self.__slots__ if name not in left_out]
        return [fd for fd in found if fd >= 0]


class Handover:
    """A started container.

    Attributes:
        listener_fds: sockets of the published ports, in the order of ``facts.ports``.
    """

    __slots__ = ("facts", "fds", "listener_fds")

    def __init__(self, facts: Facts, fds: Descriptors, listener_fds: Sequence[int]) -> None:
        self.facts = facts
        self.fds = fds
        self.listener_fds = listener_fds

    def send(self, link: socket.socket) -> None:
        """Send everything; the caller keeps its descriptors.

        Raises:
            OSError: the supervisor was killed.
        """
        fds = self.fds.list_open()
        places = tuple(
            fds.index(fd) if fd >= 0 else -1 for fd in map(self.fds.__getattribute__, self.fds.__slots__)
        )
        values: Any = tuple(getattr(self.facts, name) for name in self.facts.__slots__)
        payload = marshal.dumps((values, places, len(self.listener_fds)))
        if len(payload) > PACKET_BYTES:
            memory_fd = os.memfd_create("pydock-handover", os.MFD_CLOEXEC)
            view = memoryview(marshal.dumps(values))
            while view:
                view = view[os.write(memory_fd, view) :]
            payload = marshal.dumps((None, places, len(self.listener_fds)))
            fds.append(memory_fd)
        _send(link, payload, fds)
        for start in range(0, len(self.listener_fds), _BATCH_FDS):
            _send(link, b"+", self.listener_fds[start : start + _BATCH_FDS])


def _send(link: socket.socket, payload: bytes, fds: Sequence[int]) -> None:
    link.sendmsg(
        [payload], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))], socket.MSG_NOSIGNAL
    )


def receive(link: socket.socket) -> Handover | None:
    """Wait for a hand-over; None if the starter ends without one."""
    payload, fds = _receive(link)
    while payload.startswith(_ASK):
        link.send(b"%d" % os.waitpid(int(payload[len(_ASK) :]), 0)[1])
        payload, fds = _receive(link)
    if not payload:
        return None
    values, places, listeners = marshal.loads(payload)
    if values is None:
        values = marshal.loads(os.pread(fds[-1], os.fstat(fds[-1]).st_size, 0))
        os.close(fds[-1])
    listener_fds: list[int] = []
    while len(listener_fds) < listeners:
        payload, batch = _receive(link)
        if not payload:
            return None
        listener_fds += batch
    descriptors = Descriptors(*[fds[place] if place >= 0 else -1 for place in places])
    return Handover(Facts(*values), descriptors, listener_fds)


def read_sibling_status(link: socket.socket, pid: int) -> int:
    """In the starter, return the wait status of a process that has ended, a child of the supervisor.

    The kernel tells it in /proc unless the starter may not trace the process; then the supervisor reaps it and answers.
    """
    status = read_status(pid)
    if status is None:
        link.send(_ASK + b"%d" % pid)
        status = int(link.recv(_ANSWER_BYTES))
    return status


def _receive(link: socket.socket) -> tuple[bytes, list[int]]:
    payload, ancillary, _, _ = link.recvmsg(PACKET_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    return payload, [fd for _, _, data in ancillary for fd in memoryview(data).cast("i")]
