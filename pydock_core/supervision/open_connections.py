"""Opens the network connections of a running container in its supervisor, which has neither their plan nor their sockets."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pydock_core.errors import ConflictError
from pydock_core.paths import ContainerPaths
from pydock_core.supervision.connections import Connections
from pydock_core.supervision.event_loop import EventLoop, Signals
from pydock_core.supervision.handover import Handover
from pydock_core.supervision.plan import read_plan
from pydock_core.supervision.ports import Listener
from pydock_core.supervision.surroundings import go_outside


def open_connections(
    paths: ContainerPaths,
    watch: tuple[EventLoop, Signals],
    started: Handover,
    listeners: Sequence[Listener],
) -> Connections:
    """Return the connections; start the name server on the sockets that the starter has opened.

    Args:
        started: the hand-over.
        listeners: sockets of the published ports.

    Raises:
        ConflictError: the container is not on a bridge.
    """
    plan = read_plan(paths.plan_file)
    if plan.network.mode != "bridge":
        raise ConflictError(f"container {plan.container_id[:12]} cannot be connected to a network")
    host_network_fd = started.fds.host_network if started.fds.host_network >= 0 else None
    outside = partial(go_outside, host_network_fd, Path(plan.network_socket).parent)
    made = Connections(plan, paths, watch, outside, listeners)
    if started.fds.names_udp >= 0:
        udp, tcp = (socket.socket(fileno=fd) for fd in (started.fds.names_udp, started.fds.names_tcp))
        made.take_over(udp, tcp)
    else:
        made.begin()
    return made
