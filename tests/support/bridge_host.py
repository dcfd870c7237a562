"""A network namespace that plays the host of a bridge, with a peer namespace that plays the world outside."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydock_core import syscalls
from pydock_core.engine.attachments import Attachments
from pydock_core.network.addresses import gateway_of, mac_address_of, pick_address
from pydock_core.network.client import NetworkService
from pydock_core.network.rules import Admission, BridgeRules
from pydock_core.paths import StateRoot
from pydock_core.spec.definition import Definition, complete, encode
from pydock_core.store.database import Database, containers
from pydock_core.store.database.containers import ContainerRow, Uses
from pydock_core.supervision.client import Zygote
from pydock_core.supervision.network_namespace import set_loopback_up
from pydock_core.supervision.plan import Interface, NetworkAttachment, PublishedPort
from tests.support.supervised import Box, end_boxes, end_server, leftovers, make_lower, wait_until

BRIDGE = "pdtest0"
SUBNET = "172.30.0.0/16"
RULES = BridgeRules(BRIDGE, SUBNET)
IMAGE = "sha256:" + "1" * 64
OUTSIDE = "198.51.100.1"  # RFC 5737: an address for documentation


def run(*words: str) -> str:
    """Run a network tool; it must succeed."""
    outcome = subprocess.run(words, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, f"{words}: {outcome.stderr}"
    return outcome.stdout


@dataclass
class Host:
    """A network namespace that plays the host, with a peer namespace that plays the world outside."""

    root: StateRoot
    service: NetworkService
    outside_fd: int
    taken: list[str]

    @property
    def lower(self) -> Path:
        return self.root.data.parent / "lower"

    def box(
        self,
        arguments: list[str],
        ports: tuple[PublishedPort, ...] = (),
        *,
        access: str = "none",
        resolvers: tuple[str, ...] = (),
    ) -> Box:
        """A container on the bridge; ``access`` and ``resolvers`` are its Admission's."""
        address = pick_address(SUBNET, self.taken)
        self.taken.append(address)
        self.admit(address, access, resolvers)
        network = NetworkAttachment("bridge", (interface(BRIDGE, address, gateway_of(SUBNET)),))
        return Box(self.root, self.lower, arguments, network=network, ports=ports)

    def admit(self, address: str, access: str = "none", resolvers: tuple[str, ...] = ()) -> None:
        """Have the bridge, and let the packets of an address in."""
        self.service.ensure(RULES, Admission(address.partition("/")[0], access, resolvers))


def interface(bridge: str, address: str, gateway: str) -> Interface:
    """The only interface of a container."""
    return Interface(
        "eth0", "0" * 64, "bridge", bridge, address, gateway.partition("/")[0], mac_address_of(address)
    )


def ports() -> list[str]:
    """The ports of containers that exist."""
    return [name for _, name in socket.if_nameindex() if name.startswith("pd") and name != BRIDGE]


@contextmanager
def bridge_host(base: Path) -> Iterator[Host]:
    """Move the calling thread into such a namespace, with a bridge; afterwards nothing of it may be left."""
    root = StateRoot(base / "data", base / "run")
    root.ensure()
    make_lower(base / "lower")
    own_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    syscalls.unshare(syscalls.CLONE_NEWNET)
    set_loopback_up()
    outside_fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    syscalls.unshare(syscalls.CLONE_NEWNET)
    set_loopback_up()
    servers: list[int] = []
    try:
        path = f"/proc/{os.getpid()}/fd/{outside_fd}"
        run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "world", "netns", path)
        run("ip", "addr", "add", "198.51.100.2/24", "dev", "uplink")
        run("ip", "link", "set", "uplink", "up")
        run("nsenter", f"--net={path}", "ip", "addr", "add", f"{OUTSIDE}/24", "dev", "world")
        run("nsenter", f"--net={path}", "ip", "link", "set", "world", "up")
        service = NetworkService(root)
        servers.append(service.ping()["pid"])
        servers.append(Zygote(root).ping()["pid"])
        service.ensure(RULES)
        yield Host(root, service, outside_fd, [])
        assert not any(leftovers(root).values())
        wait_until(lambda: not ports(), "the kernel has removed the namespaces of the containers")
        service.remove(RULES)
        service.remove(RULES)  # what is not there is not an error
        assert BRIDGE not in run("ip", "link") + run("nft", "list", "ruleset")
    finally:
        end_boxes(root)
        end_server(*servers)
        syscalls.setns(own_fd, syscalls.CLONE_NEWNET)
        os.close(own_fd)
        os.close(outside_fd)


def attach_alone(root: StateRoot, container_id: str) -> Interface:
    """Give a container of a root an address on the root's default bridge; record the container if it is new."""
    request = complete({"NetworkingConfig": {"EndpointsConfig": {"bridge": {}}}})
    definition = Definition(request, {})
    database = Database(root.database)
    try:
        with database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO image VALUES (?, '', '', 0, 0, '{}', 0)", (IMAGE,))
        if not any(row.id == container_id for row in containers.all_rows(database)):
            row = ContainerRow(container_id, f"name-{container_id[:1]}", IMAGE, 0, encode(definition))
            containers.insert(database, row, Uses())
        made = Attachments(root, database).attach(
            container_id, "name", definition, resolvers=(), servers=tuple, to_gateway=True
        )
    finally:
        database.close()
    return made.interfaces[0]
