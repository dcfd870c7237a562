"""Bridge networks of an ordinary user, in a network namespace that stands for the host; another one stands for the world."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pydock_core.supervision import user_network
from tests.bench.samples import busybox_archive
from tests.integration.conftest import wait_until
from tests.integration.user import SEEN_AT, OrdinaryUser, ordinary_user
from tests.support import dns
from tests.support.image_store import build_config, build_docker_archive, build_tar, digest, entry
from tests.support.network_namespace import NetworkNamespace, network_namespace
from tests.support.raw_frames import Namespace

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a user and network namespaces"),
    pytest.mark.skipif(not shutil.which("newuidmap"), reason="needs newuidmap (Debian: uidmap)"),
    pytest.mark.skipif(not shutil.which("pasta"), reason="needs pasta (Debian: passt)"),
    pytest.mark.skipif(not shutil.which("slirp4netns"), reason="needs slirp4netns"),
    pytest.mark.skipif(not shutil.which("nft"), reason="needs nft (Debian: nftables)"),
    pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="needs /dev/net/tun"),
]
SLEEP = ("busybox", "sleep", "1000")
HOST, WORLD = "198.51.100.2", "198.51.100.1"  # RFC 5737
OTHER = "203.0.113.7"
HOST6, WORLD6 = "2001:db8::2", "2001:db8::1"
METADATA = "169.254.169.254"


@dataclass
class Host:
    """``dock`` of an ordinary user on a state root of its own, on a host with one neighbour."""

    user: OrdinaryUser
    here: NetworkNamespace
    world: NetworkNamespace
    base: Path
    path: str = ""
    containers: dict[str, str] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        """The run directory of the state root."""
        return self.base / "run"

    def dock(self, *words: object, code: int | None = 0) -> str:
        """Run the program as the user, in the namespace; return what it wrote, its errors too."""
        done = self.here(
            lambda: self.user.run(
                [self.user.python, "-m", "pydock_core", *words],
                cwd=self.user.home,
                seconds=60,
                resolv_conf=self.user.home / "resolv.conf",
                PYTHONPATH=str(SEEN_AT),
                PYDOCK_ROOT=str(self.base),
                PYDOCK_PROGRAM_SERVER="off",
                PATH=self.path,
            )
        )
        assert code in (None, done.returncode), f"{words}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout.strip()

    def start(self, name: str, *words: object) -> Namespace:
        """Start a container that sleeps; return its network namespace."""
        self.containers[name] = self.dock("run", "-d", "--name", name, *words, *SLEEP)
        return self.inside(name)

    def inside(self, name: str) -> Namespace:
        """The network namespace of a container."""
        return Namespace(self._read(name, "state.json")["init"]["pid"])

    def address(self, name: str, network: str = "bridge") -> str:
        """A container's address on a network."""
        interfaces = self._read(name, "plan.json")["network"]["interfaces"]
        (address,) = (item["address"] for item in interfaces if item["network"] == network)
        return str(address).partition("/")[0]

    def _read(self, name: str, file: str) -> Any:
        return json.loads((self.run / "c" / self.containers[name] / file).read_text())

    def clear(self) -> None:
        """Remove the containers of a test."""
        if self.containers:
            self.dock("rm", "-f", *self.containers)
            self.containers.clear()

    def network(self) -> user_network.UserNetwork:
        """The user's network, which exists."""
        found = user_network.read(self.run)
        assert found is not None
        return found

    def programs(self) -> list[str]:
        """The programs of the way out that run as the user."""
        found = subprocess.run(
            ["ps", "-u", self.user.name, "-o", "comm="], capture_output=True, text=True, check=False
        )
        return [name for name in found.stdout.split() if name.startswith(("pas", "slirp"))]

    def program_pid(self) -> int:
        """The one program of the way out."""
        words = ["ps", "-u", self.user.name, "-o", "pid=,comm="]
        lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
        (pid,) = (int(pid) for pid, name in map(str.split, lines) if name.startswith(("pas", "slirp")))
        return pid


@contextmanager
def listening(namespace: NetworkNamespace | Namespace, address: str, port: int = 8000) -> Iterator[list[str]]:
    """Serve TCP in a namespace: each client is told who it is; yield the clients' addresses."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = namespace(lambda: socket.create_server((address, port), family=family))
    clients: list[str] = []

    def serve() -> None:
        while True:
            try:
                accepted, peer = listener.accept()
            except OSError:
                return
            clients.append(peer[0])
            with accepted:
                accepted.sendall(b"hello " + peer[0].encode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield clients
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def greet(address: str, port: int = 8000, seconds: float = 1.0) -> str:
    """What a server says; "" if it cannot be reached."""
    try:
        with socket.create_connection((address, port), timeout=seconds) as connection:
            return connection.recv(100).decode()
    except OSError:
        return ""


def reaches(namespace: Namespace, address: str, port: int = 8000) -> bool:
    """Whether a server can be reached from a namespace."""
    return namespace(lambda: greet(address, port)).startswith("hello")


def open_ones(namespace: Namespace, addresses: Sequence[str], port: int = 8000) -> list[str]:
    """Those of the addresses at which a server can be reached; all are tried at once."""

    def look() -> list[str]:
        with ThreadPoolExecutor(len(addresses)) as pool:
            answers = pool.map(lambda address: greet(address, port), addresses)
            return [address for address, answer in zip(addresses, answers, strict=True) if answer]

    return namespace(look)


def _prepare(host: NetworkNamespace, world: NetworkNamespace) -> None:
    host.run(
        "ip",
        "link",
        "add",
        "uplink",
        "type",
        "veth",
        "peer",
        "name",
        "world",
        "netns",
        f"/proc/{world.pid}/ns/net",
    )
    for namespace, device, addresses in ((world, "world", (WORLD, WORLD6)), (host, "uplink", (HOST, HOST6))):
        namespace.run("ip", "addr", "add", f"{addresses[0]}/24", "dev", device)
        namespace.run("ip", "addr", "add", f"{addresses[1]}/64", "dev", device, "nodad")
        namespace.run("ip", "link", "set", device, "up")
    host.run("ip", "addr", "add", f"{OTHER}/24", "dev", "lo")
    host.run("ip", "route", "add", "default", "via", WORLD)
    host.run("ip", "-6", "route", "add", "default", "via", WORLD6)
    world.run("ip", "addr", "add", f"{METADATA}/32", "dev", "world")


def tools(host: Host, *names: str) -> str:
    """A directory with these programs alone, and those of the tests."""
    directory = host.user.home / "-".join(("bin", *names))
    if directory.exists():
        return str(directory)
    directory.mkdir()
    for name in (*names, "nft", "newuidmap", "newgidmap", "unshare", "bash", "mount", "setpriv"):
        (directory / name).symlink_to(str(shutil.which(name)))
    return str(directory)


@contextmanager
def rootless_host(name: str) -> Iterator[Host]:
    with ordinary_user(name) as user, network_namespace() as here, network_namespace() as world:
        _prepare(here, world)
        (user.home / "resolv.conf").write_text("nameserver 127.0.0.53\nsearch example.com\n")
        made = Host(user, here, world, user.home / "state")
        made.path = tools(made, "pasta")  # slirp4netns would take the place of an old one
        made.dock("load", "-q", "-i", busybox_archive(user.home / "busybox.tar"))
        yield made
        made.clear()
        wait_until(lambda: not made.programs(), "the way out ends with the last container")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with rootless_host("pydock-net") as made:
        yield made


@pytest.fixture(autouse=True)
def clean(host: Host) -> Iterator[None]:
    yield
    host.clear()


def test_none_starts_nothing(host: Host) -> None:
    assert host.dock("run", "--rm", "--network", "none", "busybox", "ip", "-o", "link").count("\n") == 0
    assert not (host.run / "network.sock").exists()
    assert user_network.read(host.run) is None
    wait_until(lambda: host.programs() == [], "no program of a way out runs")


def test_the_default_is_a_bridge_with_a_way_out(host: Host) -> None:
    inside = host.start("one")
    assert "bridge, with pasta" in host.dock("doctor")
    with listening(host.world, WORLD) as clients, listening(host.world, METADATA, 80):
        assert reaches(inside, WORLD)
        assert clients == [HOST]
        assert not reaches(inside, METADATA, 80)
    text = host.dock("exec", "one", "cat", "/etc/resolv.conf")
    assert text.splitlines() == ["search example.com", "nameserver 192.0.0.3"]


def test_the_host_s_resolver_on_loopback_is_asked(host: Host) -> None:
    host.dock("network", "create", "web")
    default, named = host.start("one"), host.start("two", "--network", "web")

    def steps() -> None:
        with dns.serve(dns.answer_with("203.0.113.1"), "127.0.0.53") as asked:
            for tcp in (False, True):
                for inside, server in ((default, ("192.0.0.3", 53)), (named, dns.NAME_SERVER)):
                    found = inside(
                        lambda tcp=tcp, server=server: dns.ask("example.com", tcp=tcp, server=server)
                    )
                    assert found == (0, ["203.0.113.1"])
            assert len(asked) == 4

    host.here(steps)
    host.clear()
    host.dock("network", "rm", "web")


def test_containers_talk_by_name_on_their_own_networks(host: Host) -> None:
    host.dock("network", "create", "front")
    host.dock("network", "create", "--internal", "back")
    first = host.start("one", "--network", "front", "--network-alias", "uno")
    second = host.start("two", "--network", "front")
    third = host.start("three", "--network", "back")
    address, apart = host.address("one", "front"), host.address("three", "back")
    for name in ("one", "uno", host.containers["one"][:12]):
        assert second(lambda name=name: dns.ask(name)) == (0, [address])
    assert second(lambda: dns.ask(dns.reverse(address), dns.PTR)) == (0, ["one.front"])
    assert second(lambda: dns.ask("host.docker.internal"))[1]
    assert third(lambda: dns.ask("one")) == third(lambda: dns.ask("example.com")) == (3, [])
    with listening(first, "0.0.0.0"), listening(third, "0.0.0.0"), listening(host.world, WORLD):
        assert reaches(second, address)
        assert not reaches(second, apart)
        assert not reaches(third, address)
        assert reaches(second, WORLD)
        assert not reaches(third, WORLD)
    host.dock("network", "connect", "back", "two")
    with listening(third, "0.0.0.0"):
        assert second(lambda: dns.ask("three")) == (0, [apart])
        assert reaches(second, apart)
        host.dock("network", "disconnect", "back", "two")
        assert not reaches(second, apart)
    assert "has running containers: one, two" in host.dock("network", "rm", "front", code=1)
    bridges = [name for name in host.network().devices() if name.startswith("br-")]
    assert len(bridges) == 2
    words = ["nsenter", f"--net={host.network().path}", "nft", "list", "tables"]
    tables = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    for bridge in bridges:  # their guard of senders is there
        assert f"table bridge pydock-{bridge}" in tables
    host.clear()
    host.dock("network", "rm", "front", "back")
    if (network := user_network.read(host.run)) is not None:
        assert not set(bridges) & set(network.devices())


def test_the_host_is_closed_unless_it_is_opened(host: Host) -> None:
    """Its loopback, and whatever address its services listen on; also in IPv6, and in IPv6's form of an IPv4 address."""
    host.dock("network", "create", "--ipv6", "six")
    inside = host.start("one", "--network", "six")
    opened = host.start("two", "--network", "six", "--add-host", "host.docker.internal:host-gateway")
    gateway = host.dock("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "six")
    own = [HOST, OTHER, gateway, "192.0.0.2", "192.0.0.3", "192.0.0.100", HOST6, "fd00:c000::2"]
    with (
        listening(host.world, WORLD6),
        listening(host.here, "0.0.0.0"),
        listening(host.here, "127.0.0.1", 8001),
    ):
        assert reaches(inside, WORLD6)
        assert open_ones(inside, [*own, "::ffff:127.0.0.1"]) == []
        assert reaches(opened, gateway)
        assert open_ones(opened, [OTHER, HOST6]) == []
        assert open_ones(opened, [gateway, "192.0.0.2", "::ffff:127.0.0.1", "fd00:c000::2"], 8001) == []
        # An address that the host gets later is its own too, and an opening ends with its container.
        host.here.run("ip", "addr", "add", "198.51.100.9/24", "dev", "uplink")
        wait_until(lambda: "198.51.100.9" in rules(host), "the new address is closed")
        assert not reaches(inside, "198.51.100.9")
        taken = host.address("two", "six")
        host.dock("rm", "-f", "two")
        del host.containers["two"]
        heir = host.start("three", "--network", "six")
        assert host.address("three", "six") == taken
        assert not reaches(heir, gateway)
    host.clear()
    host.dock("network", "rm", "six")


@contextmanager
def neighbour(host: Host) -> Iterator[NetworkNamespace]:
    """A container of somebody else, on a bridge of the host."""
    with network_namespace() as made:
        veth = ("ip", "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns")
        host.here.run("ip", "link", "add", "br0", "type", "bridge")
        host.here.run(*veth, f"/proc/{made.pid}/ns/net")
        host.here.run("ip", "link", "set", "v0", "master", "br0")
        for namespace, device, number in ((host.here, "br0", 1), (made, "eth0", 2)):
            namespace.run("ip", "addr", "add", f"10.88.0.{number}/24", "dev", device)
            namespace.run("ip", "addr", "add", f"2001:db8:88::{number}/64", "dev", device, "nodad")
            namespace.run("ip", "link", "set", device, "up")
        made.run("ip", "route", "add", "default", "via", "10.88.0.1")
        host.here.run("ip", "link", "set", "v0", "up")
        yield made
        host.here.run("ip", "link", "del", "br0")


def test_other_containers_of_the_host_are_closed(host: Host) -> None:
    """A bridge that leads to a network outside is not, even if it has been one of containers."""
    host.dock("network", "create", "--ipv6", "six")
    inside = host.start("one", "--network", "six")
    addresses = ["10.88.0.2", "2001:db8:88::2", "::ffff:10.88.0.2"]
    with neighbour(host) as other, listening(other, "0.0.0.0"), listening(other, "::"):
        assert host.here(greet, "10.88.0.2").startswith("hello")
        assert host.here(greet, "2001:db8:88::2").startswith("hello")
        wait_until(lambda: "10.88.0.0/24" in rules(host), "its subnet is closed")
        assert open_ones(inside, addresses) == []
        host.here.run("ip", "tuntap", "add", "machine", "mode", "tap")
        host.here.run("ip", "link", "set", "machine", "master", "br0")
        wait_until(lambda: "10.88.0.0/24" not in rules(host), "its subnet is open")
        assert reaches(inside, "10.88.0.2")
    host.clear()
    host.dock("network", "rm", "six")


def rules(host: Host) -> str:
    """The rules of the way out."""
    words = ["nsenter", f"--net={host.network().path}", "nft", "list", "table", "ip", "pydock-outside"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_ports_are_published(host: Host) -> None:
    inside = host.start(
        "one", "-p", "127.0.0.1:8080:8000", "-p", "127.0.0.1:5353:8000/udp", "-p", f"{HOST}::8000"
    )
    port = int(host.dock("port", "one", "8000/tcp").splitlines()[-1].rpartition(":")[2])
    address = host.address("one")

    def echo() -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind((address, 8000))
        return bound

    with listening(inside, address), inside(echo) as bound:
        assert host.here(greet, "127.0.0.1", 8080).startswith("hello")
        assert host.world(greet, HOST, port).startswith("hello")

        def ask() -> bytes:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(5)
                client.sendto(b"ping", ("127.0.0.1", 5353))
                data, peer = bound.recvfrom(100)
                bound.sendto(data + b" pong", peer)
                return client.recv(100)

        assert host.here(ask) == b"ping pong"


def killed(pid: int) -> None:
    """Kill a process, and wait for its end."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_over(pid), f"{pid} ends")
    os.close(pidfd)


def is_over(pid: int) -> bool:
    """Whether a process has ended; its parent may not have reaped it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_a_killed_program_is_started_again(host: Host) -> None:
    inside = host.start("one")
    with listening(host.world, WORLD):
        killed(host.program_pid())
        wait_until(lambda: reaches(inside, WORLD), "there is a way out again")
    assert host.programs() == [host.programs()[0]]


def test_a_killed_uplink_comes_back_with_the_next_start(host: Host) -> None:
    host.dock("network", "create", "web")
    inside = host.start("one", "--network", "web")
    network, program = host.network(), host.program_pid()
    killed(network.uplink.pid)
    wait_until(lambda: is_over(program), "the program dies with its parent")
    assert host.dock("ps", "--format", "{{.Names}} {{.State}}") == "one running"
    second = host.start("two", "--network", "web")
    assert host.network().holder == network.holder
    with listening(host.world, WORLD), listening(inside, "0.0.0.0"):
        assert reaches(inside, WORLD)
        assert reaches(second, host.address("one", "web"))
    host.clear()
    host.dock("network", "rm", "web")


def test_system_check_looks_into_the_users_network(host: Host) -> None:
    host.dock("network", "create", "web")
    inside = host.start("one", "--network", "web")
    assert host.dock("system", "check") == "no inconsistencies found"
    killed(host.network().uplink.pid)
    bridge = next(name for name in host.network().devices() if name.startswith("br-"))
    words = ["nsenter", "-t", str(host.network().holder.pid), "-n"]
    subprocess.run([*words, "nft", "delete", "table", "bridge", f"pydock-{bridge}"], check=True)
    subprocess.run([*words, "nft", "delete", "table", "ip", f"pydock-{bridge}"], check=True)
    found = host.dock("system", "check", code=1)
    assert "its uplink to the host's network was killed" in found
    assert "its firewall rules are not" in found
    host.dock("system", "check", "--repair")
    assert host.dock("system", "check") == "no inconsistencies found"
    with listening(host.world, WORLD):
        assert reaches(inside, WORLD)
    host.clear()
    host.dock("network", "rm", "web")
    assert host.dock("system", "check") == "no inconsistencies found"


def test_a_killed_holder_takes_the_network_along(host: Host) -> None:
    host.dock("network", "create", "web")
    inside = host.start("one", "--network", "web")
    network = host.network()
    killed(network.holder.pid)
    wait_until(lambda: is_over(network.uplink.pid), "the uplink follows")
    wait_until(lambda: host.programs() == [], "no program of a way out runs")
    assert host.dock("ps", "--format", "{{.Names}} {{.State}}") == "one running"
    host.dock("restart", "-t", "0", "one")
    inside = host.inside("one")
    with listening(host.world, WORLD):
        assert reaches(inside, WORLD)
    assert inside(lambda: dns.ask("one")) == (0, [host.address("one", "web")])
    host.clear()
    host.dock("network", "rm", "web")


def test_a_new_zygote_and_a_new_service_join_the_network(host: Host) -> None:
    """A bridge takes containers of its own user namespace only."""
    first = host.start("one")
    network = host.network()
    for name in ("zygote.sock", "network.sock"):
        killed(server_pid(host.run / name))
    second = host.start("two")
    assert host.network() == network
    with listening(first, "0.0.0.0"), listening(host.world, WORLD):
        assert reaches(second, host.address("one"))
        assert reaches(second, WORLD)


def server_pid(path: Path) -> int:
    """The process that listens on a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(path))
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder)


def test_nothing_is_left_after_the_last_container(host: Host) -> None:
    host.start("one")
    network = host.network()
    host.clear()
    wait_until(lambda: is_over(network.holder.pid) and is_over(network.uplink.pid), "both have ended")
    wait_until(lambda: host.programs() == [], "no program of a way out runs")
    left = {path.name for path in host.run.iterdir()}
    assert not left & {"user-network.json", "user-network.ns"}


def test_without_a_way_out_there_is_none(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "path", tools(host))
    assert host.dock("run", "--rm", "busybox", "ip", "-o", "link").count("\n") == 0
    for words in (("run", "--network", "bridge", "busybox", "true"), ("network", "create", "web")):
        refused = host.dock(*words, code=125)
        assert "neither pasta nor slirp4netns is installed" in refused
        assert "hint: sudo apt-get install passt slirp4netns; or use --network none" in refused
    assert "none and host; neither pasta nor slirp4netns" in host.dock("doctor")


def test_the_default_bridge_avoids_a_network_made_before_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.clear()
    monkeypatch.setattr(host, "base", host.user.home / "later")
    host.dock("load", "-q", "-i", busybox_archive(host.user.home / "later.tar"))
    host.dock("network", "create", "early")
    host.start("one", "--network", "early")
    host.start("two")
    assert host.address("one", "early").rpartition(".")[0] != host.address("two").rpartition(".")[0]
    host.clear()


def test_one_id_is_enough(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without subordinate ids: there are networks, and images whose files belong to several ids, all shown as root's."""
    host.clear()
    wait_until(lambda: not host.programs(), "pasta ends")
    directory = Path(tools(host, "pasta", "slirp4netns"))
    for name in ("newuidmap", "newgidmap"):
        (directory / name).unlink()
    monkeypatch.setattr(host, "path", str(directory))
    monkeypatch.setattr(host, "base", host.user.home / "single")
    layer = build_tar(
        [
            entry("bin", "dir"),
            entry("bin/busybox", data=Path("/bin/busybox").read_bytes(), mode=0o755),
            entry("owned", data=b"x", uid=1000, gid=44, mode=0o640),
        ]
    )
    archive = host.user.home / "owned.tar"
    archive.write_bytes(build_docker_archive(layer, tags=["owned"], config=build_config(digest(layer))))
    host.dock("load", "-q", "-i", archive)
    words = ("/bin/busybox", "sh", "-c", "/bin/busybox stat -c '%u:%g %a' /owned; /bin/busybox sleep 1000")
    host.containers["one"] = host.dock("run", "-d", "--name", "one", "owned", *words)
    with listening(host.world, WORLD):
        assert reaches(host.inside("one"), WORLD)
    assert host.dock("logs", "one") == "0:0 640"
    refused = host.dock("run", "--rm", "--user", "1000", "owned", *words, code=125)
    assert (
        "error: cannot become user 1000:0: Invalid argument\nhint: in a user namespace only mapped ids"
        in refused
    )
    assert "images with several users do not work fully" in host.dock("doctor")
    host.clear()


@pytest.fixture
def only_slirp(host: Host) -> Iterator[None]:
    """A PATH with slirp4netns and without pasta; the way out of the tests before has ended."""
    host.clear()
    wait_until(lambda: not host.programs(), "pasta ends")
    killed(server_pid(host.run / "network.sock"))  # it has the PATH of its start
    host.path, before = tools(host, "slirp4netns"), host.path
    yield
    host.clear()
    wait_until(lambda: not host.programs(), "slirp4netns ends")
    killed(server_pid(host.run / "network.sock"))
    host.path = before


def test_slirp4netns_does_it_too(host: Host, only_slirp: None) -> None:
    inside = host.start("one", "-p", "8080:8000")
    assert host.programs() == ["slirp4netns"]
    assert "bridge, with slirp4netns; the host's own addresses are closed" in host.dock("doctor")
    with (
        listening(host.world, WORLD),
        listening(host.world, METADATA, 80),
        listening(host.here, "0.0.0.0", 8001),
        listening(inside, "127.0.0.1"),
    ):
        assert reaches(inside, WORLD)
        assert host.here(greet, "127.0.0.1", 8080).startswith("hello")
        for address, port in (
            (METADATA, 80),
            (HOST, 8001),
            (OTHER, 8001),
            ("192.0.0.2", 8001),
            ("192.0.0.3", 8001),
        ):
            assert not reaches(inside, address, port)
