"""The network connections of a running container, and its name server.

Used only for a container on a user-defined network, not on the default bridge.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydock_core.errors import PyDockError
from pydock_core.paths import ContainerPaths
from pydock_core.runtime import reaping
from pydock_core.runtime.record_file import write_json
from pydock_core.supervision import network_namespace
from pydock_core.supervision.event_loop import EventLoop, Signals
from pydock_core.supervision.names import names_file
from pydock_core.supervision.names.process import fork_server
from pydock_core.supervision.names.server import build_settings, open_sockets
from pydock_core.supervision.plan import Interface, LaunchPlan, NameService
from pydock_core.supervision.ports import Listener
from pydock_core.supervision.publication import publish

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import PlugRequest, UnplugRequest

_DEATH_SECONDS = 10.0
_RESTART_SECONDS = 1.0
"""The minimum time between two starts of a name server."""


class Connections:
    """The interfaces of one container.

    The starter begins them, without a name server; the supervisor, which reads the same plan, takes them over
    (:meth:`take_over`).  So the name server shares its pages with the supervisor.

    Args:
        plan: the container's plan, whose interfaces are attached.
        paths: the container's paths; the plan there is kept up to date for the next run by a restart policy, and for
            the supervisor.
        watch: the supervisor's loop and signals; None in the starter.
        go_outside: see :func:`pydock_core.supervision.names.process.fork_server`.
        listeners: sockets of the published ports.
    """

    def __init__(
        self,
        plan: LaunchPlan,
        paths: ContainerPaths,
        watch: tuple[EventLoop, Signals] | None,
        go_outside: Callable[[], None],
        listeners: Sequence[Listener],
    ) -> None:
        self._plan = plan
        self._paths = paths
        self._watch = watch
        self._go_outside = go_outside
        self._listeners = listeners
        self._interfaces = {item.network_id: item for item in plan.network.interfaces}
        self._service = plan.network.name_service or NameService()
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._server_pid = 0
        self._started_at = 0.0

    @property
    def _has_names(self) -> bool:
        return any(interface.directory for interface in self._interfaces.values())

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket] | None:
        """The sockets of the name server, UDP and TCP; None if there is none."""
        return self._sockets

    def take_over(self, udp: socket.socket, tcp: socket.socket) -> None:
        """Start the name server, on sockets from the starter."""
        self._sockets = (udp, tcp)
        self._start_server()

    def begin(self) -> None:
        """Open port 53 of 127.0.0.11 if one of the networks has names; queries wait until :meth:`enter`."""
        if self._has_names:
            self._sockets = open_sockets()

    def enter(self) -> None:
        """Add the container to its networks' names, and start its name server if one of them has names.

        Raises:
            NotFoundError: a network has been removed.
        """
        if self._has_names:
            self._write_settings()
            for interface in self._interfaces.values():
                self._publish(interface)
            self._start_server()

    def end(self) -> None:
        """Undo everything; safe after a failed :meth:`begin`."""
        for interface in self._interfaces.values():
            if interface.directory:
                names_file.withdraw(Path(interface.directory), self._plan.container_id)
        pid, self._server_pid = self._server_pid, 0
        sockets, self._sockets = self._sockets, None
        if pid:
            reaping.kill_and_reap(pid, _DEATH_SECONDS)
        for item in sockets or ():
            item.close()
        self._paths.names_file.unlink(missing_ok=True)

    # -- while the container runs ------------------------------------------------------------------------

    def connect(self, interface: Interface, service: NameService) -> None:
        """Attach one more interface, under the lowest free number of its device's name.

        Args:
            interface: the interface; its device is a name prefix.
            service: the name server's new settings.

        An earlier interface on that network, left by a killed command, is removed first.

        Raises:
            PyDockError: the network service could not attach it.
        """
        others = {
            key: (item.gateway, item.gateway6)
            for key, item in self._interfaces.items()
            if key != interface.network_id
        }
        self.disconnect(interface.network_id, others, self._service)
        before = {key: (item.gateway, item.gateway6) for key, item in self._interfaces.items()}
        taken = {item.device for item in self._interfaces.values()}
        number = next(n for n in range(len(taken) + 1) if f"{interface.device}{n}" not in taken)
        made = replace(interface, device=f"{interface.device}{number}")
        request: PlugRequest = {
            "op": "attach",
            "container_id": self._plan.container_id,
            "interfaces": [made.to_json()],
        }
        network_namespace.ask_service(self._plan.network_socket, request)
        if made.gateway:  # the default route has moved here
            self._interfaces = {key: replace(item, gateway="") for key, item in self._interfaces.items()}
        if made.gateway6:
            self._interfaces = {key: replace(item, gateway6="") for key, item in self._interfaces.items()}
        self._interfaces[made.network_id] = made
        try:
            self._apply(service)
            self._publish(made)
            if made.directory:
                self._ensure_server()
        except PyDockError:
            self.disconnect(made.network_id, before, self._service)
            raise

    def disconnect(self, network_id: str, gateways: dict[str, tuple[str, str]], service: NameService) -> None:
        """Remove the interface on a network; no effect if there is none.

        Args:
            gateways: the new default routes: gateway and IPv6 gateway by network id.
            service: the name server's new settings.
        """
        interface = self._interfaces.get(network_id)
        if interface is None:
            return
        routes = [
            replace(item, gateway=gateways[key][0], gateway6=gateways[key][1]).to_json()
            for key, item in self._interfaces.items()
            if key in gateways and key != network_id
        ]
        request: UnplugRequest = {
            "op": "detach",
            "container_id": self._plan.container_id,
            "address": interface.address,
            "routes": routes,
        }
        if interface.directory:
            names_file.withdraw(Path(interface.directory), self._plan.container_id)
        network_namespace.ask_service(self._plan.network_socket, request)
        del self._interfaces[network_id]
        for key, item in self._interfaces.items():
            gateway, gateway6 = gateways.get(key, ("", ""))
            self._interfaces[key] = replace(item, gateway=gateway, gateway6=gateway6)
        self._apply(service)

    def rename(self, names: dict[str, Sequence[str]]) -> None:
        """Change the container's names on its networks, by network id."""
        for network_id, given in names.items():
            interface = self._interfaces.get(network_id)
            if interface is not None and interface.directory:
                self._interfaces[network_id] = replace(interface, names=tuple(given))
                names_file.rename(Path(interface.directory), self._plan.container_id, tuple(given))

    def _publish(self, interface: Interface) -> None:
        if interface.directory:
            names_file.publish(
                Path(interface.directory),
                self._plan.container_id,
                interface.names,
                interface.address,
                interface.address6,
            )

    def _apply(self, service: NameService) -> None:
        """Record the current networks."""
        self._service = service
        self._write_settings()
        network = replace(
            self._plan.network,
            interfaces=tuple(self._interfaces.values()),
            name_service=service if self._has_names else None,
        )
        self._plan = replace(self._plan, network=network)
        publish(self._plan, network.interfaces, self._listeners)
        write_json(self._paths.plan_file, self._plan.to_json())

    def _write_settings(self) -> None:
        service = self._service
        networks = [(item.network, item.directory) for item in self._interfaces.values() if item.directory]
        write_json(
            self._paths.names_file, build_settings(networks, service.servers, service.links, service.hosts)
        )

    # -- the name server ---------------------------------------------------------------------------------

    def _ensure_server(self) -> None:
        if self._sockets is None:
            self._sockets = open_sockets()
            self._start_server()

    def _start_server(self) -> None:
        if self._sockets is None or self._watch is None:
            return  # the container has ended in the meantime, or this is its starter
        self._started_at = time.monotonic()
        loop, signals = self._watch
        try:
            pid = fork_server(*self._sockets, self._paths.names_file, self._go_outside)
        except OSError as error:
            self._report(f"cannot fork the name server: {error.strerror}")
            loop.call_later(_RESTART_SECONDS, self._start_server)
            return
        self._server_pid = pid
        signals.on_exit(pid, self._on_server_exit)

    def _report(self, problem: str) -> None:
        print(f"container {self._plan.container_id[:12]}: {problem}", file=sys.stderr)

    def _on_server_exit(self, code: int) -> None:
        """Restart it: this process keeps the sockets and the pending queries."""
        if not self._server_pid or self._watch is None:
            return
        self._report(f"the name server ended with {code}")
        self._server_pid = 0
        wait_seconds = max(0.0, self._started_at + _RESTART_SECONDS - time.monotonic())
        self._watch[0].call_later(wait_seconds, self._start_server)
