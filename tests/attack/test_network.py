"""Attacks from a container on the bridge: on the host's configuration, on its neighbours, on what the host listens for.

The containers hold still; a thread in their network namespace does what a process with CAP_NET_RAW can do.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pydock_core.network.addresses import mac_address_of
from pydock_core.network.rules import Admission, BridgeRules, port_name
from tests.support.bridge_host import BRIDGE, Host, bridge_host, run
from tests.support.raw_frames import (
    BROADCAST,
    Catch,
    Namespace,
    arp_reply,
    ethernet,
    icmp_redirect,
    mac,
    router_advertisement,
    udp,
)
from tests.support.supervised import BUSYBOX, Box

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root makes bridges"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (Debian: busybox-static)"),
]

GATEWAY = "172.30.0.1"
GATEWAY_MAC = mac_address_of(GATEWAY)
ELSEWHERE = "203.0.113.9"  # RFC 5737
HOST_ADDRESS = "198.51.100.2"
METADATA = "169.254.169.254"
RESERVED = "01:80:c2:00:00:0e"  # IEEE 802.1D: a bridge does not forward it, and its port is the receiver
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with bridge_host(tmp_path_factory.mktemp("network")) as made:
        yield made


@pytest.fixture
def containers(host: Host) -> Iterator[ExitStack]:
    """Ends the containers that a test starts."""
    with ExitStack() as stack:
        yield stack


def start(host: Host, containers: ExitStack, **keywords: object) -> tuple[str, Namespace, Box]:
    """A container that sleeps: its address, its network namespace, the box."""
    box = host.box(["sleep", "1000"], **keywords)  # type: ignore[arg-type]  # the keywords of Host.box
    launch = containers.enter_context(box.launch())
    containers.callback(launch.wait, 10)
    containers.callback(box.client.stop, signal.SIGKILL)
    return box.plan.network.address.partition("/")[0], Namespace(box.status().pid), box


def configuration() -> str:
    """Addresses, routes and settings of the caller's namespace: what an advertisement or a redirect would change."""
    commands = (
        ["ip", "-4", "addr"],
        ["ip", "-6", "addr"],
        ["ip", "route", "show", "table", "all"],
        ["ip", "-6", "route", "show", "table", "all"],
    )
    text = "".join(run(*words) for words in commands)
    return "\n".join(line for line in text.splitlines() if "valid_lft" not in line)


def neighbours() -> set[tuple[str, str, str]]:
    """The ARP table of the caller's namespace: address, MAC address, device."""
    lines = [line.split() for line in Path("/proc/thread-self/net/arp").read_text().splitlines()[1:]]
    return {(fields[0], fields[3], fields[5]) for fields in lines}


def ping(source: Namespace, target: str) -> None:
    """One echo request, which fills both sides' ARP tables."""
    source(lambda: run("busybox", "ping", "-c", "1", "-W", "5", target))


def test_no_frame_under_another_name_passes_a_port(host: Host, containers: ExitStack) -> None:
    own, attacker, _ = start(host, containers)
    other, victim, _ = start(host, containers)
    own_mac, other_mac = mac_address_of(own), mac_address_of(other)
    for source, target in ((attacker, GATEWAY), (victim, GATEWAY), (victim, own)):
        ping(source, target)
    advertisement = router_advertisement(own_mac, "2001:db8:bad::")
    multicast = "33:33:00:00:00:01"
    answer = udp(ELSEWHERE, 53, other, 4444, b"forged: from elsewhere")
    hostile = {
        "router advertisement": ethernet(multicast, own_mac, IPV6, advertisement),
        "router advertisement to the victim": ethernet(other_mac, own_mac, IPV6, advertisement),
        "router advertisement to the port": ethernet(RESERVED, own_mac, IPV6, advertisement),
        "gateway's ARP": ethernet(BROADCAST, own_mac, ARP, arp_reply(own_mac, GATEWAY, BROADCAST, GATEWAY)),
        "gateway's ARP to the victim": ethernet(
            other_mac, own_mac, ARP, arp_reply(own_mac, GATEWAY, other_mac, other)
        ),
        "neighbour's ARP to the host": ethernet(
            GATEWAY_MAC, own_mac, ARP, arp_reply(own_mac, other, GATEWAY_MAC, GATEWAY)
        ),
        "neighbour's whole ARP": ethernet(
            GATEWAY_MAC, other_mac, ARP, arp_reply(other_mac, other, GATEWAY_MAC, GATEWAY)
        ),
        "own ARP with another MAC": ethernet(
            other_mac, own_mac, ARP, arp_reply("02:00:00:00:00:66", own, other_mac, other)
        ),
        "neighbour's address": ethernet(
            GATEWAY_MAC, own_mac, IPV4, udp(other, 1, GATEWAY, 4444, b"forged: neighbour")
        ),
        "address from elsewhere": ethernet(other_mac, own_mac, IPV4, answer),
        "gateway's address": ethernet(
            other_mac, own_mac, IPV4, udp(GATEWAY, 53, other, 4444, b"forged: gateway")
        ),
        "neighbour's MAC": ethernet(
            GATEWAY_MAC, other_mac, IPV4, udp(own, 1, GATEWAY, 4444, b"forged: MAC address")
        ),
        "DHCP offer": ethernet(
            BROADCAST, own_mac, IPV4, udp(own, 67, "255.255.255.255", 68, b"forged: DHCP offer")
        ),
        "redirect": ethernet(other_mac, own_mac, IPV4, icmp_redirect(GATEWAY, other, own, answer)),
        "datagram to the port": ethernet(
            RESERVED, own_mac, IPV4, udp(own, 1, GATEWAY, 4444, b"forged: to the port")
        ),
        "tagged ARP": ethernet(
            other_mac, own_mac, ARP, arp_reply(own_mac, GATEWAY, other_mac, other), tag=True
        ),
        "tagged advertisement": ethernet(multicast, own_mac, IPV6, advertisement, tag=True),
    }
    before = configuration(), neighbours(), victim(configuration), victim(neighbours)
    arp_before = {entry[:2] for entry in before[3]}
    assert (GATEWAY, GATEWAY_MAC) in arp_before
    with (
        Catch(port_name(own)) as sent,
        Catch(BRIDGE) as at_host,
        victim.catch("eth0") as at_victim,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("0.0.0.0", 4444))
        # What is allowed goes last and passes: everything before it has been judged by then.
        last = udp(own, 1, other, 4445, b"allowed: to the victim")
        to_host = udp(own, 1, GATEWAY, 4445, b"allowed: to the host's filter")
        attacker.send(
            [
                *hostile.values(),
                ethernet(other_mac, own_mac, IPV4, last),
                ethernet(GATEWAY_MAC, own_mac, IPV4, to_host),
            ]
        )
        # The tag is taken off what a packet socket sees.
        untagged = {
            name: frame[:12] + frame[16:] if frame[12:14] == b"\x81\x00" else frame
            for name, frame in hostile.items()
        }
        seen = sent.until(b"allowed: to the host's filter")
        assert [name for name, frame in untagged.items() if frame not in seen] == []
        for catch, end in (
            (at_victim, b"allowed: to the victim"),
            (at_host, b"allowed: to the host's filter"),
        ):
            passed = catch.until(end)
            assert [name for name, frame in untagged.items() if frame in passed] == []
        with pytest.raises(BlockingIOError):
            receiver.recv(100, socket.MSG_DONTWAIT)
    assert (configuration(), neighbours(), victim(configuration), victim(neighbours)) == before
    learned = run("bridge", "fdb", "show", "br", BRIDGE)
    assert f"{other_mac} dev {port_name(other)}" in learned
    assert f"{other_mac} dev {port_name(own)}" not in learned
    for source, target in ((victim, GATEWAY), (victim, own), (attacker, other), (attacker, GATEWAY)):
        ping(source, target)


def test_no_device_listens_to_advertisements_or_redirects(host: Host, containers: ExitStack) -> None:
    own, container, box = start(host, containers)
    # The bridge of an earlier version: as the kernel makes it.
    for name, value in (
        ("accept_ra", "1"),
        ("autoconf", "1"),
        ("disable_ipv6", "0"),
        ("accept_redirects", "1"),
    ):
        Path(f"/proc/sys/net/ipv6/conf/{BRIDGE}/{name}").write_text(value)
    Path(f"/proc/sys/net/ipv4/conf/{BRIDGE}/accept_redirects").write_text("1")
    host.admit(box.plan.network.address)

    def settings(device: str) -> dict[str, str]:
        names = ("accept_ra", "autoconf", "accept_redirects", "disable_ipv6")
        found = {name: Path(f"/proc/sys/net/ipv6/conf/{device}/{name}").read_text().strip() for name in names}
        found["ipv4"] = Path(f"/proc/sys/net/ipv4/conf/{device}/accept_redirects").read_text().strip()
        return found

    hardened = {"accept_ra": "0", "autoconf": "0", "accept_redirects": "0", "disable_ipv6": "1", "ipv4": "0"}
    assert settings(BRIDGE) == hardened
    assert settings(port_name(own)) == hardened
    assert container(lambda: settings("eth0")) == hardened
    redirects = Path("/proc/sys/net/ipv4/conf/all/accept_redirects")
    assert container(redirects.read_text).strip() == "0"
    assert "inet6" not in run("ip", "addr", "show", "dev", BRIDGE)


def outcome(source: Namespace, address: str, port: int) -> str:
    """What becomes of a connection: "open", or the name of the error."""

    def work() -> str:
        with socket.socket() as client:
            client.settimeout(5)
            try:
                client.connect((address, port))
            except TimeoutError:
                return "timeout"
            except OSError as error:
                return errno.errorcode[error.errno or 0]
            return "open"

    return source(work)


def test_the_host_and_what_is_link_local_are_closed_unless_opened(host: Host, containers: ExitStack) -> None:
    own, closed, _ = start(host, containers, resolvers=(GATEWAY, "169.254.169.253"))
    _, gateway, _ = start(host, containers, access="gateway")
    opened_address, opened, opened_box = start(host, containers, access="all")
    world_path = f"/proc/{os.getpid()}/fd/{host.outside_fd}"
    for address in (METADATA, "169.254.169.253"):
        run("nsenter", f"--net={world_path}", "ip", "addr", "add", f"{address}/32", "dev", "world")
        run("ip", "route", "add", address, "dev", "uplink")
        containers.callback(run, "ip", "route", "del", address, "dev", "uplink")
        containers.callback(
            run, "nsenter", f"--net={world_path}", "ip", "addr", "del", f"{address}/32", "dev", "world"
        )
    run("ip", "addr", "add", "169.254.1.1/32", "dev", "lo")  # link-local, and the host's own
    containers.callback(run, "ip", "addr", "del", "169.254.1.1/32", "dev", "lo")
    server = containers.enter_context(socket.create_server(("0.0.0.0", 0), backlog=100))
    containers.enter_context(socket.create_server(("0.0.0.0", 53), backlog=100))
    port = server.getsockname()[1]
    containers.enter_context(listen_in(world_path, port))
    containers.enter_context(listen_in(world_path, 53))
    own_addresses = (GATEWAY, HOST_ADDRESS, "169.254.1.1", METADATA)

    def reached(source: Namespace) -> list[str]:
        return [outcome(source, address, port) for address in own_addresses]

    refused = "EHOSTUNREACH"  # an ICMP message, so that nobody waits; the kernel sends a few of them a second
    run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0")
    assert reached(closed) == [refused] * 4
    assert reached(gateway) == ["open", refused, refused, refused]
    assert reached(opened) == ["open"] * 4
    assert outcome(closed, "198.51.100.1", port) == "open"  # the world beyond is not the host
    # Name servers of a container's resolv.conf answer, on their port.
    assert outcome(closed, GATEWAY, 53) == "open"
    assert outcome(closed, "169.254.169.253", 53) == "open"
    assert outcome(closed, HOST_ADDRESS, 53) == refused
    # Neither loopback, where the host's kernel would route it, nor broadcast and multicast.
    run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    containers.callback(run, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, Catch(BRIDGE) as arrived:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        receiver.bind(("0.0.0.0", 4444))
        targets = ("127.0.0.1", "172.30.255.255", "255.255.255.255", GATEWAY)
        closed.send(
            [
                ethernet(
                    GATEWAY_MAC,
                    mac_address_of(own),
                    IPV4,
                    udp(own, 1, target, 4444, b"to " + mac(GATEWAY_MAC)),
                )
                for target in targets
            ]
            + [ethernet(GATEWAY_MAC, mac_address_of(own), IPV4, udp(own, 1, GATEWAY, 4446, b"that was all"))]
        )
        frames = arrived.until(b"that was all")
        assert sum(b"to " + mac(GATEWAY_MAC) in frame for frame in frames) == len(targets)
        with pytest.raises(BlockingIOError):
            receiver.recv(100, socket.MSG_DONTWAIT)
    # The address of a container that has been opened is closed to the next that gets it.
    host.admit(opened_address)
    assert reached(opened) == [refused] * 4
    host.admit(opened_address, "gateway")
    assert reached(opened) == ["open", refused, refused, refused]
    # Rules that somebody else has flushed come back with the next start, for those that run, too.
    run("nft", "flush", "ruleset")
    host.admit(own)
    assert reached(closed) == reached(opened) == [refused] * 4
    ping(opened, own)
    assert opened_box.status().is_running


def listen_in(path: str, port: int) -> socket.socket:
    """A server on all addresses of the namespace of a descriptor."""
    return Namespace.at(path)(lambda: socket.create_server(("0.0.0.0", port), backlog=100))


def test_containers_of_another_bridge_are_out_of_reach(host: Host, containers: ExitStack) -> None:
    own, container, _ = start(host, containers)
    host.service.ensure(BridgeRules("pdtest1", "172.29.0.0/16"), Admission("172.29.0.2"))
    containers.callback(host.service.remove, BridgeRules("pdtest1", "172.29.0.0/16"))
    box = host.box(["sleep", "1000"])
    text = box.paths.plan_file.read_text()
    for old, new in (
        (box.plan.network.address, "172.29.0.2/16"),
        (box.plan.network.interfaces[0].gateway, "172.29.0.1"),
        (box.plan.network.interfaces[0].mac_address, mac_address_of("172.29.0.2")),
        (BRIDGE, "pdtest1"),
    ):
        text = text.replace(old, new)
    box.paths.plan_file.write_text(text)
    launch = containers.enter_context(box.launch())
    containers.callback(launch.wait, 10)
    containers.callback(box.client.stop, signal.SIGKILL)
    other = Namespace(box.status().pid)
    containers.enter_context(other(lambda: socket.create_server(("172.29.0.2", 80))))
    containers.enter_context(container(lambda: socket.create_server((own, 80))))
    ping(other, "172.29.0.1")
    assert outcome(other, "172.29.0.2", 80) == outcome(container, own, 80) == "open"
    for source, target in ((container, "172.29.0.2"), (other, own)):
        words = ["busybox", "ping", "-c", "1", "-W", "1", target]
        done = source(lambda words=words: subprocess.run(words, capture_output=True, check=False))
        assert done.returncode == 1
