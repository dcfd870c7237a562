"""User-defined networks through ``dock``, in a network namespace that stands for the host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import run_command
from pydock_core.engine import Engine
from pydock_core.paths import StateRoot
from pydock_core.store.database import Database, networks
from pydock_core.supervision.container_status import derive_status
from tests.integration.conftest import children_of, end_servers, wait_until
from tests.support import dns
from tests.support.commands import Output
from tests.support.network_namespace import NetworkNamespace, network_namespace
from tests.support.raw_frames import Namespace

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root makes bridges"),
    pytest.mark.skipif(not shutil.which("nft"), reason="needs nft (Debian: nftables)"),
]
SLEEP = ("busybox", "sleep", "1000")


@dataclass
class Host:
    """``dock`` on a state root of its own, in a network namespace."""

    namespace: NetworkNamespace
    root: StateRoot
    engine: Engine

    def dock(self, *words: object, code: int | None = 0) -> str:
        """Run a command in this process, in the namespace; return what it wrote, its errors too."""
        output = Output()
        context = Context(engine=self.engine, stdout=output, stderr=output)

        def run() -> int:
            try:
                return run_command([str(word) for word in words], context)
            finally:
                self.engine.close()

        done = self.namespace(run)
        assert code in (None, done), f"{words}: exit code {done}\n{output.text}"
        return output.text.strip()

    def program(self, *words: object, before: str) -> str:
        """Run the program, in a mount namespace of its own that a shell command has changed."""
        program = ["unshare", "--mount", "sh", "-c", f'{before} && exec "$@"', "sh"]
        environment = {"PYDOCK_ROOT": str(self.root.data.parent)}
        words = (*program, sys.executable, "-m", "pydock_core", *words)
        return self.namespace.run(*words, environment=environment).stdout.strip()

    def start(self, name: str, *words: object) -> str:
        """Start a container that sleeps; return its id."""
        return self.dock("run", "-d", "--name", name, *words, *SLEEP)

    def inside(self, container: str) -> Namespace:
        """The network namespace of a container."""
        return Namespace(int(self.dock("inspect", "-f", "{{.State.Pid}}", container)))

    def look(self, container: str, network: str) -> dict[str, Any]:
        """A container's endpoint on a network."""
        (document,) = json.loads(self.dock("inspect", container))
        return dict(document["NetworkSettings"]["Networks"][network])

    def names(self, network: str) -> list[str]:
        """The names that a network's names file has."""
        file = (
            self.root.network_directory(self.dock("network", "inspect", "-f", "{{.Id}}", network))
            / "names.json"
        )
        entries = json.loads(file.read_text()).values() if file.exists() else ()
        return sorted(entry["names"][0] for entry in entries)

    def left(self) -> list[str]:
        """What there is of networks in the namespace: links and tables."""
        links = [
            name for _, name in self.namespace(socket.if_nameindex) if name.startswith(("br-", "pd", "eth"))
        ]
        tables = self.namespace.run("nft", "list", "tables").stdout.split("\n")
        return [name for name in links if not name.startswith("pydock")] + [
            line for line in tables if "pydock-br-" in line
        ]


@pytest.fixture(scope="module")
def host(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    base = tmp_path_factory.mktemp("networks")
    with network_namespace() as namespace:
        root = StateRoot(base / "data", base / "run")
        made = Host(namespace, root, Engine(root))
        made.dock("load", "-q", "-i", archive)
        yield made
        namespace(end_servers, made.root)


@pytest.fixture(autouse=True)
def clean(host: Host) -> Iterator[None]:
    """Remove what a test has made; then nothing may be left of it."""
    yield
    if names := host.dock("ps", "-aq").split():
        host.dock("rm", "-f", *names)
    host.dock("network", "prune", "-f")
    wait_until(lambda: not host.left(), f"networks leave nothing: {host.left()}")
    assert set(os.listdir(host.root.run / "n")) <= {
        host.dock("network", "inspect", "-f", "{{.Id}}", "bridge")
    }


def test_the_life_of_a_network(host: Host) -> None:
    identifier = host.dock("network", "create", "--label", "a=b", "web")
    assert len(identifier) == 64
    listed = host.dock("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").splitlines()
    assert listed == ["bridge bridge local", "host host local", "none null local", "web bridge local"]
    assert host.dock("network", "ls", "-q", "--no-trunc", "-f", "label=a=b") == identifier
    for words in (
        ("driver=null",),
        ("name=on", "type=builtin"),
        ("id=" + identifier[:6],),
        ("dangling=true",),
    ):
        filters = [word for text in words for word in ("--filter", text)]
        assert len(host.dock("network", "ls", "-q", *filters).splitlines()) == 1
    assert "already exists" in host.dock("network", "create", "web", code=1)
    first, second = host.start("one", "--network", "web"), host.start("two", "--network", identifier[:12])
    (shown,) = json.loads(host.dock("network", "inspect", "web"))
    assert {container["Name"] for container in shown["Containers"].values()} == {"one", "two"}
    place = host.look("one", "web")
    assert place["NetworkID"] == identifier
    assert place["DNSNames"] == ["one", first[:12]]
    assert shown["Containers"][first]["IPv4Address"] == f"{place['IPAddress']}/16"
    assert host.dock("ps", "-q", "--no-trunc", "--filter", "network=web").split() == [second, first]
    refused = host.dock("network", "rm", "web", code=1)
    assert "error: network web has running containers: one, two\nhint: stop them" in refused
    assert host.dock("network", "prune", "-f") == ""
    host.dock("rm", "-f", "one", "two")
    assert host.dock("network", "rm", "web") == "web"
    assert "no such network: web" in host.dock("network", "rm", "web", code=1)
    assert host.dock("network", "rm", "-f", "web") == ""
    assert "is predefined" in host.dock("network", "rm", "bridge", code=1)
    actions = [event["Action"] for event in events_of(host, identifier)]
    assert actions == ["create", "connect", "connect", "disconnect", "disconnect", "destroy"]


def events_of(host: Host, identifier: str) -> list[dict[str, Any]]:
    database = Database(host.root.database)
    rows = database.query("SELECT action, attributes FROM event WHERE actor = ? ORDER BY id", (identifier,))
    database.close()
    return [{"Action": action, **json.loads(attributes)} for action, attributes in rows]


def test_pruning_removes_the_idle_default_bridge_from_the_host(host: Host) -> None:
    def remains() -> list[str]:
        links = [name for _, name in host.namespace(socket.if_nameindex) if name.startswith("pydock")]
        tables = host.namespace.run("nft", "list", "tables").stdout.splitlines()
        return links + [line for line in tables if "pydock-pydock" in line]

    host.dock("run", "-d", "--name", "one", *SLEEP)
    host.dock("network", "prune", "-f")
    assert host.dock("exec", "one", "ip", "route", "get", "192.0.2.1"), "a bridge in use stays"
    assert len(remains()) >= 3
    host.dock("stop", "-t", "0", "one")
    host.dock("network", "prune", "-f")
    assert remains() == []
    host.dock("start", "one")
    assert len(remains()) >= 3
    host.dock("rm", "-f", "one")


def test_names_addresses_and_aliases_resolve(host: Host) -> None:
    host.dock("network", "create", "web")
    first = host.start("one", "--network", "web", "--network-alias", "Shop", "-h", "cashier")
    host.start("two", "--network", "web", "--network-alias", "shop", "--link", "one:till")
    address, other = host.look("one", "web")["IPAddress"], host.look("two", "web")["IPAddress"]
    inside = host.inside("two")
    for name in ("one", "ONE", "one.web", first[:12], "cashier", "till"):
        for tcp in (False, True):
            assert inside(lambda name=name, tcp=tcp: dns.ask(name, tcp=tcp)) == (0, [address]), name
    seen = {tuple(inside(lambda: dns.ask("shop"))[1]) for _ in range(4)}
    assert seen == {(address, other), (other, address)}
    assert inside(lambda: dns.ask("one", dns.AAAA)) == inside(lambda: dns.ask("one", dns.MX)) == (0, [])
    assert inside(lambda: dns.ask(dns.reverse(address), dns.PTR)) == (0, ["one.web"])
    assert host.inside("one")(lambda: dns.ask("two")) == (0, [other])
    assert host.dock("exec", "two", "ping", "-c", "1", "-W", "5", "shop")
    host.dock("rename", "one", "uno")
    assert inside(lambda: dns.ask("uno")) == (0, [address])
    assert inside(lambda: dns.ask("one.web"))[1] == []
    host.dock("stop", "-t", "0", "uno")
    assert inside(lambda: dns.ask("uno.web"))[1] == []
    host.dock("start", "uno")
    assert inside(lambda: dns.ask("uno")) == (0, [address])


def test_a_container_runs_a_name_server_of_its_own(host: Host) -> None:
    host.dock("network", "create", "web")
    host.start("one", "--network", "web")
    inside = host.inside("one")

    def listen() -> None:
        with dns.serve(dns.answer_with("203.0.113.1"), "0.0.0.0"):
            assert dns.ask("one")[1] == [host.look("one", "web")["IPAddress"]]

    inside(listen)


def test_other_names_are_asked_of_the_host_s_servers(host: Host, tmp_path: Path) -> None:
    host.dock("network", "create", "web")
    host.dock("network", "create", "--internal", "closed")
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\nsearch example.com\noptions rotate\n")
    words = ["run", "-d", "--name", "one", "--network", "web", *SLEEP]
    host.program(*words, before=f"mount --bind {resolv} /etc/resolv.conf")
    host.start("two", "--network", "web", "--dns", "127.0.0.9", "--dns", "127.0.0.1", "--dns-search", ".")
    host.start("three", "--network", "closed", "--dns", "127.0.0.1")
    text = host.dock("exec", "one", "cat", "/etc/resolv.conf")
    assert text == "nameserver 127.0.0.11\nsearch example.com\noptions rotate ndots:0"
    assert "search" not in host.dock("exec", "two", "cat", "/etc/resolv.conf")
    inside = host.inside("one")

    def forward() -> None:
        with dns.serve(dns.answer_with("203.0.113.1")) as asked:
            for tcp in (False, True):
                for container in (inside, host.inside("two")):
                    assert container(lambda tcp=tcp: dns.ask("example.com", tcp=tcp)) == (0, ["203.0.113.1"])
            assert len(asked) == 4
            assert inside(lambda: dns.ask("one"))[0] == 0
            assert host.inside("three")(lambda: dns.ask("example.com")) == (3, [])
            assert len(asked) == 4  # a container's own names go nowhere, and an internal network's nothing

    host.namespace(forward)
    assert inside(lambda: dns.ask("example.com", timeout=10)) == (2, [])  # there is no server now


def test_a_killed_name_server_is_started_again(host: Host) -> None:
    host.dock("network", "create", "web")
    host.start("one", "--network", "web")
    paths = host.root.container(host.dock("inspect", "-f", "{{.Id}}", "one"))
    status = derive_status(paths)
    wait_until(lambda: len(children_of(status.supervisor_pid)) == 2, "the processes of the start have ended")
    (server,) = set(children_of(status.supervisor_pid)) - {status.pid}
    inside = host.inside("one")
    os.kill(server, signal.SIGKILL)
    assert inside(lambda: dns.ask("one", timeout=10))[0] == 0
    os.kill(status.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: derive_status(paths).status == "exited", "the container ends with its supervisor")
    assert host.names("web") == ["one"]
    host.dock("start", "one")
    assert host.names("web") == ["one"]
    os.kill(derive_status(paths).supervisor_pid, signal.SIGKILL)
    wait_until(lambda: derive_status(paths).status == "exited", "the container ends with its supervisor")
    host.dock("rm", "one")
    assert host.names("web") == []


def test_a_killed_port_forwarder_is_replaced(host: Host) -> None:
    """Twice; a client that comes in between is served later, not refused."""
    server = ("busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
    host.dock("run", "-d", "--name", "one", "-p", "127.0.0.1:8085:80", *server)
    status = derive_status(host.root.container(host.dock("inspect", "-f", "{{.Id}}", "one")))

    def fetch() -> bytes:
        with suppress(OSError), socket.create_connection(("127.0.0.1", 8085), timeout=10) as client:
            client.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: client.recv(4096), b""))
        return b""

    wait_until(lambda: b"root" in host.namespace(fetch), "httpd listens")
    for _ in range(2):
        (forwarder,) = set(children_of(status.supervisor_pid)) - {status.pid}
        os.kill(forwarder, signal.SIGKILL)
        assert b"root" in host.namespace(fetch)


def test_networks_are_connected_and_disconnected(host: Host) -> None:
    for name in ("back", "front"):
        host.dock("network", "create", name)
    host.dock("network", "create", "--internal", "closed")
    identifier = host.start("one", "--network", "name=front,alias=a")
    host.start("two", "--network", "front", "--network", "name=back,alias=b", "--network", "closed")
    assert list(json.loads(host.dock("inspect", "two"))[0]["NetworkSettings"]["Networks"]) == [
        "front",
        "back",
        "closed",
    ]
    gateways = {name: host.look("two", name)["Gateway"] for name in ("back", "front", "closed")}
    assert gateways["closed"] == ""
    assert f"default via {gateways['back']} dev eth1" in host.dock("exec", "two", "ip", "route")
    inside = host.inside("one")
    assert inside(lambda: dns.ask("b.back"))[1] == []
    host.dock("network", "connect", "--alias", "x", "back", "one")
    assert inside(lambda: dns.ask("b")) == (0, [host.look("two", "back")["IPAddress"]])
    assert host.inside("two")(lambda: dns.ask("x")) == (0, [host.look("one", "back")["IPAddress"]])
    assert f"{host.look('one', 'back')['IPAddress']}\t{identifier[:12]}" in host.dock(
        "exec", "one", "cat", "/etc/hosts"
    )
    assert host.dock("exec", "one", "ping", "-c", "1", "-W", "5", "b")
    assert "on network back already" in host.dock("network", "connect", "back", "one", code=1)
    host.dock("network", "disconnect", "back", "two")
    assert f"default via {gateways['front']} dev eth0" in host.dock("exec", "two", "ip", "route")
    assert "eth1" not in host.dock("exec", "two", "ip", "addr")
    assert inside(lambda: dns.ask("b.back"))[1] == []
    assert "not on network back" in host.dock("network", "disconnect", "back", "two", code=1)
    host.dock("network", "disconnect", "-f", "back", "two")
    host.dock("stop", "-t", "0", "one")
    host.dock("network", "connect", "closed", "one")
    host.dock("network", "disconnect", "front", "one")
    host.dock("start", "one")
    assert inside_addresses(host, "one") == {
        host.look("one", "back")["IPAddress"],
        host.look("one", "closed")["IPAddress"],
    }
    network = host.dock("network", "inspect", "-f", "{{.Id}}", "back")
    second = host.dock("inspect", "-f", "{{.Id}}", "two")
    assert [(event["Action"], event.get("container")) for event in events_of(host, network)] == [
        ("create", None),
        ("connect", second),
        ("connect", identifier),
        ("disconnect", second),
        ("disconnect", identifier),
        ("connect", identifier),
    ]


def inside_addresses(host: Host, container: str) -> set[str]:
    lines = host.dock("exec", container, "ip", "-4", "addr").splitlines()
    found = {line.split()[1].partition("/")[0] for line in lines if "inet " in line}
    return found - {"127.0.0.1"}


def test_the_default_bridge_gets_names_by_connection(host: Host) -> None:
    host.dock("network", "create", "web")
    host.start("one", "--network", "web")
    host.start("plain")
    assert "nameserver 127.0.0.11" not in host.dock("exec", "plain", "cat", "/etc/resolv.conf")
    host.dock("network", "connect", "web", "plain")
    assert "nameserver 127.0.0.11" in host.dock("exec", "plain", "cat", "/etc/resolv.conf")
    assert host.dock("exec", "plain", "ping", "-c", "1", "-W", "5", "one")
    assert "dock network connect bridge one" in host.dock("run", "--link", "one", *SLEEP, code=125)
    host.dock("network", "connect", "bridge", "one")
    assert set(host.look("one", "bridge")) >= {"IPAddress"}
    host.start("linked", "--link", "plain:db")
    address = host.look("plain", "bridge")["IPAddress"]
    identifier = host.dock("inspect", "-f", "{{.Id}}", "plain")
    assert f"{address}\tdb {identifier[:12]} plain" in host.dock("exec", "linked", "cat", "/etc/hosts")
    host.dock("stop", "-t", "0", "plain")
    assert "cannot link to container plain" in host.dock("run", "--link", "plain", *SLEEP, code=125)
    for mode in ("none", "host"):
        host.start(mode, "--network", mode)
        assert f"created with --network {mode}" in host.dock("network", "connect", "web", mode, code=1)
        assert "cannot be connected to network" in host.dock("network", "connect", mode, "one", code=1)


def test_addresses_are_those_that_are_asked_for(host: Host) -> None:
    host.dock(
        *"network create --subnet 10.99.0.0/24 --gateway 10.99.0.254 --ip-range 10.99.0.128/25 --ipv6".split(),
        *"--aux-address r=10.99.0.128 --subnet fd00:99::/64 -o com.docker.network.driver.mtu=1400".split(),
        *"-o com.docker.network.bridge.name=pdnamed0 -o com.docker.network.container_iface_prefix=net web".split(),
    )
    host.start(
        "one",
        "--network",
        "web",
        "--ip",
        "10.99.0.7",
        "--ip6",
        "fd00:99::99",
        "--mac-address",
        "02:00:00:00:00:07",
    )
    host.start("two", "--network", "web")
    one, two = host.look("one", "web"), host.look("two", "web")
    assert (one["IPAddress"], one["GlobalIPv6Address"]) == ("10.99.0.7", "fd00:99::99")
    assert (one["Gateway"], one["IPv6Gateway"], one["MacAddress"]) == (
        "10.99.0.254",
        "fd00:99::1",
        "02:00:00:00:00:07",
    )
    assert (two["IPAddress"], two["GlobalIPv6Address"]) == ("10.99.0.129", "fd00:99::81")
    shown = host.dock("exec", "one", "ip", "addr", "show", "net0")
    assert "mtu 1400" in shown
    assert "link/ether 02:00:00:00:00:07" in shown
    for name in ("10.99.0.129", "fd00:99::81", "fd00:99::1", "two"):
        assert host.dock("exec", "one", "ping", "-c", "1", "-W", "5", name)
    inside = host.inside("two")
    assert inside(lambda: dns.ask("one", dns.AAAA)) == (0, ["fd00:99::99"])
    assert inside(lambda: dns.ask(dns.reverse("fd00:99::99"), dns.PTR)) == (0, ["one.web"])
    assert "default via fd00:99::1" in host.dock("exec", "two", "ip", "-6", "route")
    for words, reason in (
        (("--network", "web", "--ip", "10.99.0.7"), "address 10.99.0.7 of network web is taken"),
        (("--network", "web", "--ip", "10.98.0.7"), "not a host address of network web"),
        (("--network", "nothere"), "no such network: nothere"),
        (("--network", "web", "--network", "name=web"), "given twice"),
    ):
        assert reason in host.dock("run", *words, *SLEEP, code=125)
    host.start("plain")
    for words, reason in (
        (("--ip", "10.99.0.7"), "address 10.99.0.7 of network web is taken"),
        (("--ip", "10.98.0.7"), "not a host address"),
        (("--ip", "x"), "invalid IPv4Address x"),
        (("--alias", "a/b"), "not a host name"),
        (("--driver-opt", "a=b"), "driver option a"),
        (("--gw-priority", "x"), "not a whole number"),
    ):
        refused = host.dock("network", "connect", *words, "web", "plain", code=None)
        assert reason in refused
        assert list(json.loads(host.dock("inspect", "plain"))[0]["NetworkSettings"]["Networks"]) == ["bridge"]
    host.dock("network", "connect", "--ip", "10.99.0.7", "web", "plain", code=1)
    host.dock("network", "create", "chosen")
    assert "was not requested" in host.dock(
        "create", "--network", "chosen", "--ip", "172.30.0.9", *SLEEP, code=125
    )
    assert "overlaps 10.99.0.0/24" in host.dock("network", "create", "--subnet", "10.99.0.0/16", "x", code=1)
    assert "pdnamed0 exists already" in host.dock(
        *"network create -o com.docker.network.bridge.name=pdnamed0 x".split(), code=1
    )
    host.dock("rm", "-f", "one")
    host.start("three", "--network", "web", "--ip", "10.99.0.7")  # the address of another MAC address
    assert host.dock("exec", "three", "ping", "-c", "1", "-W", "5", "two")


def test_a_network_without_free_addresses(host: Host) -> None:
    host.dock("network", "create", "--subnet", "10.99.0.0/30", "small")
    host.start("one", "--network", "small")
    refused = host.dock("run", "--network", "small", *SLEEP, code=125)
    assert "the network 10.99.0.0/30 has no free address" in refused
    host.dock("rm", "-f", "one")
    host.start("one", "--network", "small")


def test_the_networks_of_another_container_are_joined(host: Host) -> None:
    host.dock("network", "create", "web")
    host.start("one", "--network", "web")
    host.start("two", "--network", "container:one")
    assert "nameserver 127.0.0.11" in host.dock("exec", "two", "cat", "/etc/resolv.conf")
    assert host.dock("exec", "two", "ping", "-c", "1", "-W", "5", "one")


def test_containers_without_connectivity_are_apart(host: Host) -> None:
    host.dock("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart")
    host.start("one", "--network", "apart")
    host.start("two", "--network", "apart")
    gateway = host.look("one", "apart")["Gateway"]
    assert host.dock("exec", "one", "ping", "-c", "1", "-W", "5", gateway)
    host.dock("exec", "one", "ping", "-c", "1", "-W", "1", "two", code=1)


def published(host: Host, container: str) -> dict[str, Any]:
    (document,) = json.loads(host.dock("inspect", container))
    return dict(document["NetworkSettings"]["Ports"])


def test_ports_are_published(host: Host) -> None:
    host.dock("network", "create", "-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.5", "bound")
    host.start("one", "-P", "--expose", "80", "--expose", "53/udp", "-p", "90")
    ports = published(host, "one")
    assert set(ports) == {"80/tcp", "53/udp", "90/tcp"}
    assert {place["HostIp"] for places in ports.values() for place in places} == {"127.0.0.1"}
    assert all(int(place["HostPort"]) > 1023 for places in ports.values() for place in places)
    host.dock("run", "-d", "--name", "two", "--network", "bound", "-p", "8000-8001:80", "-p", "[::1]::81", "busybox",
              "httpd", "-f", "-p", "80", "-h", "/etc")  # fmt: skip
    host.start("three", "--network", "bound", "-p", "8000-8001:80")
    assert published(host, "two")["80/tcp"] == [{"HostIp": "127.0.0.5", "HostPort": "8000"}]
    assert published(host, "two")["81/tcp"][0]["HostIp"] == "::1"
    assert published(host, "three")["80/tcp"] == [{"HostIp": "127.0.0.5", "HostPort": "8001"}]
    refused = host.dock("run", "--network", "bound", "-p", "8000-8001:80", *SLEEP, code=125)
    assert "every port from 8000 to 8001 of 127.0.0.5 is in use" in refused

    def fetch() -> bytes:
        with socket.create_connection(("127.0.0.5", 8000), timeout=10) as client:
            client.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
            return client.makefile("rb").read()

    def answers() -> bool:
        try:
            return b"404" in host.namespace(fetch) or b"200" in host.namespace(fetch)
        except OSError:
            return False

    wait_until(answers, "httpd answers through the published port")


def test_many_starts_and_ends_at_once(host: Host) -> None:
    host.dock("network", "create", "web")
    failures: list[object] = []

    def live(number: int) -> None:
        try:
            for _ in range(3):
                host.dock("run", "--rm", "--network", "web", "--name", f"c{number}", "busybox", "true")
        except BaseException as error:  # noqa: BLE001 - carried to the test
            failures.append(error)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert host.names("web") == []


def test_what_a_killed_command_leaves_goes_with_the_next(host: Host) -> None:
    """A process is killed after each step of create and of rm; the steps are those of the engine's own functions."""
    for step in ("table.insert", "Attachments.make", "table.delete"):
        script = KILLED.format(step=step)
        environment = {"PYDOCK_ROOT": str(host.root.data.parent)}
        host.namespace.run(sys.executable, "-c", script, code=-signal.SIGKILL, environment=environment)
        host.namespace(Engine(host.root).state.sweep_once)
        database = Database(host.root.database)
        rows = {row.id for row in networks.all_rows(database)}
        database.close()
        assert set(os.listdir(host.root.run / "n")) <= rows
        host.dock("network", "prune", "-f")
        assert host.left() == [], step


def test_a_connection_that_is_killed_can_be_made_and_undone(host: Host) -> None:
    """A process is killed after each step of connect and of disconnect; the same command, or its opposite, then succeeds."""
    environment = {"PYDOCK_ROOT": str(host.root.data.parent)}
    host.start("one", "--network", "bridge")
    for step in ("Attachments.admit", "SupervisorClient.connect", "table.connect"):
        host.dock("network", "create", "web")
        script = KILLED.format(step=step)
        host.namespace.run(sys.executable, "-c", script, code=-signal.SIGKILL, environment=environment)
        is_attached = step != "Attachments.admit"
        assert ("eth1" in host.dock("exec", "one", "ip", "addr")) == is_attached
        if step == "table.connect":
            host.dock("network", "disconnect", "web", "one")
        host.dock("network", "connect", "web", "one")
        assert host.dock("exec", "one", "ping", "-c", "1", "-W", "5", "one.web")
        host.namespace.run(
            *(sys.executable, "-c", KILLED.format(step="SupervisorClient.disconnect")),
            code=-signal.SIGKILL,
            environment=environment,
        )
        assert "eth1" not in host.dock("exec", "one", "ip", "addr")
        host.dock("network", "disconnect", "web", "one")
        host.namespace.run(
            *(sys.executable, "-c", KILLED.format(step="SupervisorClient.connect")),
            code=-signal.SIGKILL,
            environment=environment,
        )
        assert "has running containers: one" in host.dock("network", "rm", "web", code=1)
        host.dock("network", "disconnect", "web", "one")
        host.dock("network", "rm", "web")


KILLED = """
import os, signal
from pydock_core.engine import Engine
from pydock_core.engine import networks
from pydock_core.engine.networks import Attachments, SupervisorClient, table
owner, name = "{step}".split(".")
owner = {{"table": table, "Attachments": Attachments, "SupervisorClient": SupervisorClient}}[owner]
function = getattr(owner, name)
def then_die(*words, **keywords):
    function(*words, **keywords)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, then_die)
engine = Engine()
if name in ("admit", "connect"):
    engine.networks.connect("web", "one")
elif name == "disconnect":
    engine.networks.disconnect("web", "one")
else:
    engine.networks.create({{"Name": "killed"}})
    engine.networks.remove("killed")
"""


def test_an_ordinary_user_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.dock("network", "ls")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("pydock_core.network.uplink_program.find_program", lambda: "")
    refused = host.dock("network", "create", "web", code=125)
    monkeypatch.undo()
    assert "an ordinary user has no network web here: neither pasta nor slirp4netns is installed" in refused
    assert "sudo apt-get install passt slirp4netns" in refused
