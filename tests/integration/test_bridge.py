"""Bridges: two containers that reach each other and the outside, in a network namespace that stands for the host."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

import pytest

from pydock_core import syscalls
from pydock_core.errors import ConflictError, UnavailableError
from pydock_core.network.addresses import host_routes
from pydock_core.network.client import NetworkService
from pydock_core.network.rules import BridgeRules, port_name
from pydock_core.paths import StateRoot
from pydock_core.store.database import Database
from pydock_core.store.database.networks import endpoints_of_container
from pydock_core.supervision.client import Zygote
from pydock_core.supervision.plan import NetworkAttachment, PublishedPort
from tests.integration.conftest import children_of
from tests.support.bridge_host import (
    BRIDGE,
    OUTSIDE,
    RULES,
    SUBNET,
    Host,
    attach_alone,
    bridge_host,
    interface,
    run,
)
from tests.support.process import has_ended
from tests.support.raw_frames import Namespace
from tests.support.supervised import BUSYBOX, Box, end_boxes, end_server, wait_until

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root makes bridges"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (Debian: busybox-static)"),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with bridge_host(tmp_path_factory.mktemp("bridge")) as made:
        yield made


def test_containers_reach_each_other(host: Host) -> None:
    server = host.box(["httpd", "-f", "-p", "80", "-h", "/etc"])
    with server.launch():
        address = server.plan.network.address.partition("/")[0]
        client = host.box(
            [
                "sh",
                "-c",
                f"ping -c 1 -W 5 {address} && until wget -q -O - http://{address}/passwd; do :; done",
            ]
        )
        with client.launch() as launch:
            end = launch.wait(20)
        assert end is not None
        assert end.exit_code == 0, client.log()
        assert client.log().endswith(b"root:x:0:0:root:/:/bin/sh\n")
        server.client.stop(signal.SIGKILL)


def test_the_interface_is_what_the_plan_says(host: Host) -> None:
    box = host.box(["sh", "-c", "ip addr show eth0; ip route; ip link show lo"])
    with box.launch() as launch:
        launch.wait(10)
    log = box.log().decode()
    assert f"inet {box.plan.network.address}" in log
    assert f"link/ether {box.plan.network.interfaces[0].mac_address}" in log
    assert "default via 172.30.0.1 dev eth0" in log
    assert "LOOPBACK,UP" in log


def test_the_outside_sees_the_hosts_address_and_can_not_begin(host: Host) -> None:
    server = in_namespace(host.outside_fd)
    seen: list[str] = []

    def serve() -> None:
        accepted, (peer, _) = server.accept()
        seen.append(peer)
        accepted.sendall(b"from outside\n")
        accepted.close()

    thread = threading.Thread(target=serve)
    thread.start()
    box = host.box(["sh", "-c", f"nc {OUTSIDE} 80 < /dev/null; exec sleep 1000"])
    with server, box.launch():
        thread.join(20)
        assert seen == ["198.51.100.2"]
        wait_until(lambda: box.log() == b"from outside\n", "the answer arrives")
        path = f"/proc/{os.getpid()}/fd/{host.outside_fd}"
        run("nsenter", f"--net={path}", "ip", "route", "add", SUBNET, "via", "198.51.100.2")
        address = box.plan.network.address.partition("/")[0]
        ping = ["nsenter", f"--net={path}", "busybox", "ping", "-c", "1", "-W", "1", address]
        assert subprocess.run(ping, capture_output=True, check=False).returncode == 1
        run("nsenter", f"--net={path}", "ip", "route", "del", SUBNET)
        box.client.stop(signal.SIGKILL)


def in_namespace(namespace_fd: int, host: str = OUTSIDE) -> socket.socket:
    """Make a socket that listens on port 80 in another network namespace."""
    made: list[socket.socket] = []

    def listen() -> None:
        syscalls.setns(namespace_fd, syscalls.CLONE_NEWNET)  # of this thread only
        made.append(socket.create_server((host, 80), backlog=2000))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    return made[0]


def test_published_ports_of_both_protocols(host: Host) -> None:
    ports = (PublishedPort("127.0.0.1", 8080, 80), PublishedPort("127.0.0.1", 8053, 53, "udp"))
    box = host.box(["httpd", "-f", "-p", "80", "-h", "/etc"], ports)
    with box.launch():

        def fetches() -> bool:
            try:
                with socket.create_connection(("127.0.0.1", 8080), timeout=10) as client:
                    client.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
                    with client.makefile("rb") as answer:
                        return answer.read().endswith(b"root:x:0:0:root:/:/bin/sh\n")
            except ConnectionResetError:
                return False

        wait_until(fetches, "the page arrives through the published port")
        with socket.socket() as other:
            assert other.connect_ex(("198.51.100.2", 8080)) != 0  # 127.0.0.1 only
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, UdpEcho(box):
            client.settimeout(5)
            client.connect(("127.0.0.1", 8053))
            for payload in (b"one", b"x" * 60_000):
                client.send(payload)
                assert client.recv(65535) == payload
        with box.client.dial(80) as dialled:
            assert dialled.getpeername()[1] == 80
        with pytest.raises(UnavailableError):
            box.client.dial(81)
        box.client.stop(signal.SIGKILL)


class UdpEcho:
    """Echo two datagrams on port 53, in a container's network namespace."""

    def __init__(self, box: Box) -> None:
        self._path = f"/proc/{box.status().pid}/ns/net"
        self._address = box.plan.network.address.partition("/")[0]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> None:
        thread = threading.Thread(target=self._bind)
        thread.start()
        thread.join()
        self._thread.start()

    def _bind(self) -> None:
        with open(self._path, "rb") as namespace:
            syscalls.setns(namespace.fileno(), syscalls.CLONE_NEWNET)  # of this thread only
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self._address, 53))
        self._socket.settimeout(10)

    def _serve(self) -> None:
        for _ in range(2):
            data, client = self._socket.recvfrom(65535)
            self._socket.sendto(data, client)

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._socket.close()


def test_many_connections_through_a_published_port(host: Host) -> None:
    count = 1000
    box = host.box(["sleep", "1000"], (PublishedPort("127.0.0.1", 8081, 80),))
    with contextlib.ExitStack() as opened, box.launch():
        with open(f"/proc/{box.status().pid}/ns/net", "rb") as namespace:
            server = opened.enter_context(in_namespace(namespace.fileno(), "127.0.0.1"))
        clients = []
        for number in range(count):
            client = opened.enter_context(socket.create_connection(("127.0.0.1", 8081), timeout=30))
            client.sendall(b"%d" % number)
            clients.append(client)
        forwarder = forwarder_of(box)
        accepted = [opened.enter_context(server.accept()[0]) for _ in range(count)]
        for connection in accepted:
            connection.sendall(connection.recv(100))
        assert [client.recv(100) for client in clients] == [b"%d" % number for number in range(count)]
        # Two sockets a connection: pipes are lent only while data is under way.
        assert len(os.listdir(f"/proc/{forwarder}/fd")) < 2 * count + 200
        opened.close()
        wait_until(
            lambda: len(os.listdir(f"/proc/{forwarder}/fd")) < 200, "the forwarder closes what is over"
        )
        box.client.stop(signal.SIGKILL)
        wait_until(lambda: has_ended(forwarder), "the forwarder ends with its supervisor")


def ask_from(space: str, address: str, port: int, *, udp: bool = False) -> str:
    """What a client in a namespace gets from a server that tells the client's address."""

    def ask() -> str:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as client:
            client.settimeout(3)
            try:
                client.connect((address, port))
                client.send(b"who am I")
                return client.recv(100).decode()
            except OSError:
                return ""

    return Namespace.at(space)(ask)


@contextlib.contextmanager
def telling_in(box: Box, kind: int) -> Iterator[None]:
    """Have a socket in a box on port 80 tell each client its address."""
    inside = Namespace(box.status().pid)
    made, last = (
        inside(lambda: socket.socket(socket.AF_INET, kind)),
        inside(lambda: socket.socket(socket.AF_INET, kind)),
    )
    made.bind(("0.0.0.0", 80))

    def serve_stream() -> None:
        while True:
            accepted, (peer, _) = made.accept()
            with accepted:
                if not accepted.recv(100):
                    return
                accepted.sendall(peer.encode())

    def serve_datagrams() -> None:
        while True:
            data, client = made.recvfrom(100)
            if not data:
                return
            made.sendto(client[0].encode(), client)

    if kind == socket.SOCK_STREAM:
        made.listen()
    thread = threading.Thread(target=serve_stream if kind == socket.SOCK_STREAM else serve_datagrams)
    with made, last:
        thread.start()
        try:
            yield
        finally:
            last.connect(("127.0.0.1", 80))
            last.send(b"") if kind == socket.SOCK_DGRAM else last.shutdown(socket.SHUT_WR)
            thread.join(10)


def test_clients_from_outside_are_seen_by_their_addresses(host: Host) -> None:
    ports = (
        PublishedPort("0.0.0.0", 8090, 80),
        PublishedPort("198.51.100.2", 8091, 80, "udp"),
        PublishedPort("127.0.0.1", 8092, 80),
    )
    box = host.box(["sleep", "1000"], ports)
    outside = f"/proc/{os.getpid()}/fd/{host.outside_fd}"
    here = "/proc/thread-self/ns/net"
    with contextlib.ExitStack() as ended:
        ended.enter_context(box.launch())
        other = host.box(["sleep", "1000"])
        ended.enter_context(other.launch())
        ended.callback(other.client.stop, signal.SIGKILL)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            ended.enter_context(telling_in(box, kind))
        assert ask_from(outside, "198.51.100.2", 8090) == OUTSIDE
        assert ask_from(outside, "198.51.100.2", 8091, udp=True) == OUTSIDE
        assert ask_from(outside, "198.51.100.2", 8092) == ""
        for address, port in (("198.51.100.2", 8090), ("127.0.0.1", 8090), ("127.0.0.1", 8092)):
            assert ask_from(here, address, port) in ("127.0.0.1", box.plan.network.address.partition("/")[0])
        # A container reaches no address of the host, so not by way of a published port either.
        space = f"/proc/{other.status().pid}/ns/net"
        assert ask_from(space, "198.51.100.2", 8090) == ""
        box.client.stop(signal.SIGKILL)
        # The rules are still there, and act no more: the port is another program's.
        with socket.create_server(("0.0.0.0", 8090)) as successor:
            with contextlib.closing(socket.create_connection(("198.51.100.2", 8090), timeout=5)):
                successor.accept()[0].close()

            def serve() -> None:
                accepted, _ = successor.accept()
                with accepted:
                    accepted.recv(100)
                    accepted.sendall(b"somebody else")

            thread = threading.Thread(target=serve)
            thread.start()
            assert ask_from(outside, "198.51.100.2", 8090) == "somebody else"
            thread.join(10)


def is_open(box: Box) -> bool:
    try:
        box.client.dial(80).close()
    except UnavailableError:
        return False
    return True


def forwarder_of(box: Box) -> int:
    status = box.status()

    def others() -> set[int]:
        return set(children_of(status.supervisor_pid)) - {status.pid}

    wait_until(lambda: len(others()) == 1, "the processes of the start have ended")
    return others().pop()


def test_an_idle_forwarder_does_nothing(host: Host) -> None:
    box = host.box(["httpd", "-f", "-p", "80", "-h", "/etc"], (PublishedPort("127.0.0.1", 8082, 80),))
    with box.launch():
        wait_until(lambda: is_open(box), "httpd listens")
        # A connection of which one side has ended and the other waits is the usual cause of a busy loop.
        with socket.create_connection(("127.0.0.1", 8082), timeout=10) as half:
            half.shutdown(socket.SHUT_WR)
            forwarder = forwarder_of(box)

            def ticks() -> int:
                return sum(int(word) for word in Path(f"/proc/{forwarder}/stat").read_text().split()[13:15])

            before = ticks()
            subprocess.run(["sleep", "0.5"], check=True)  # the time over which nothing must happen
            assert ticks() - before <= 2
        box.client.stop(signal.SIGKILL)


def test_ensuring_twice_and_at_once(host: Host) -> None:
    failures: list[BaseException] = []

    def ensure() -> None:
        try:
            host.service.ensure(RULES)
        except BaseException as error:  # noqa: BLE001 - carried to the test
            failures.append(error)

    threads = [threading.Thread(target=ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert run("ip", "-4", "addr", "show", "dev", BRIDGE).count("inet ") == 1
    assert run("nft", "list", "ruleset").count("masquerade") == 1


def test_a_device_that_is_no_bridge_is_told(host: Host) -> None:
    with pytest.raises(ConflictError, match="uplink is not a bridge"):
        host.service.ensure(BridgeRules("uplink", SUBNET))


def test_a_start_without_the_bridge_is_undone(host: Host) -> None:
    box = host.box(["true"])
    text = box.paths.plan_file.read_text()
    box.paths.plan_file.write_text(text.replace(f'"{BRIDGE}"', '"nobridge0"'))
    with pytest.raises(Exception, match="bridge nobridge0 does not exist") as caught:
        box.launch()
    assert getattr(caught.value, "exit_code", None) == 125
    assert box.status().status == "created"
    box.paths.plan_file.write_text(text.replace("network.sock", "nowhere.sock"))
    with pytest.raises(UnavailableError, match="network service"):
        box.launch()


def test_the_routes_of_the_host_are_seen(host: Host) -> None:
    assert set(host_routes()) >= {SUBNET, "198.51.100.0/24"}


CHOOSE = """
import sys
from pathlib import Path
from pydock_core.paths import StateRoot
from tests.support.bridge_host import attach_alone
root = StateRoot(Path(sys.argv[1], "data"), Path(sys.argv[1], "run"))
print("ready", flush=True)
sys.stdin.readline()
made = attach_alone(root, "c" * 64)
print(made.bridge, made.address, made.gateway)
"""
"""A program that gives a container an address on a root's bridge, when it is told to."""


def attach_at_once(roots: list[StateRoot]) -> list[NetworkAttachment]:
    """Give a container of each root an address, at the same moment."""
    words = [sys.executable, "-c", CHOOSE]
    with contextlib.ExitStack() as opened:
        programs = [
            opened.enter_context(
                subprocess.Popen(
                    [*words, str(root.data.parent)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for root in roots
        ]
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        answers = [program.communicate(timeout=60) for program in programs]
    assert [program.returncode for program in programs] == [0] * len(roots), [error for _, error in answers]
    return [NetworkAttachment("bridge", (interface(*output.split()),)) for output, _ in answers]


def test_roots_that_start_at_once_have_subnets_of_their_own(host: Host, tmp_path: Path) -> None:
    roots = [
        StateRoot(tmp_path / str(number) / "data", tmp_path / str(number) / "run") for number in range(3)
    ]
    with contextlib.ExitStack() as ended:
        for root in roots:
            root.ensure()
            ended.callback(end_boxes, root)
        # Before the start, so that the choices and not the services' starts meet.
        ended.callback(
            end_server, *(server(root).ping()["pid"] for root in roots for server in (NetworkService, Zygote))
        )
        networks = attach_at_once(roots)
        for network in networks:
            ended.callback(subprocess.run, ["ip", "link", "del", network.interfaces[0].bridge], check=True)
        subnets = {SUBNET, *(str(ip_interface(network.address).network) for network in networks)}
        assert len(subnets) == 1 + len(roots)
        boxes = [
            Box(root, host.lower, ["sleep", "1000"], network=network)
            for root, network in zip(roots, networks, strict=True)
        ]
        for box in boxes:
            ended.enter_context(box.launch())
            ended.callback(box.client.stop, signal.SIGKILL)
        for box in boxes:  # all run by now: each could have cut off the others
            space = f"--net=/proc/{box.status().pid}/ns/net"
            gateway = box.plan.network.interfaces[0].gateway
            run("nsenter", space, "busybox", "ping", "-c", "1", "-W", "5", gateway)


def test_a_port_of_another_bridge_is_left_alone(host: Host) -> None:
    box = host.box(["true"])
    port = port_name(box.plan.network.address)
    run("ip", "link", "add", "pdother0", "type", "bridge")
    try:
        run("ip", "link", "add", port, "master", "pdother0", "type", "veth", "peer", "name", "otherend")
        with pytest.raises(ConflictError, match=f"{port} is a port of another bridge"):
            box.launch()
        assert "master pdother0" in run("ip", "link", "show", "dev", port)
        run("ip", "link", "set", "dev", port, "nomaster")  # as one that is just going away
        with box.launch() as launch:
            end = launch.wait(10)
        assert end is not None
        assert end.exit_code == 0
    finally:
        run("ip", "link", "del", "pdother0")


def test_a_subnet_that_another_device_took_is_chosen_anew(host: Host, tmp_path: Path) -> None:
    root = StateRoot(tmp_path / "data", tmp_path / "run")
    root.ensure()
    with contextlib.ExitStack() as ended:
        ended.callback(end_server, NetworkService(root).ping()["pid"])
        first = attach_alone(root, "a" * 64)
        assert attach_alone(root, "b" * 64).gateway == first.gateway
        run("ip", "link", "del", first.bridge)  # as a reboot does
        again = attach_alone(root, "a" * 64)
        assert again == first
        run("ip", "link", "del", first.bridge)
        run("ip", "link", "add", "pdother0", "type", "bridge")
        ended.callback(run, "ip", "link", "del", "pdother0")
        run("ip", "addr", "add", f"{first.gateway}/16", "dev", "pdother0")
        run("ip", "link", "set", "pdother0", "up")
        moved = attach_alone(root, "a" * 64)
        ended.callback(run, "ip", "link", "del", moved.bridge)
        assert ip_interface(moved.address).network != ip_interface(first.address).network
        database = Database(root.database)
        ended.callback(database.close)
        assert endpoints_of_container(database, "a" * 64)["bridge"][1].address == moved.address
        assert endpoints_of_container(database, "b" * 64) == {}
