"""Attacks from a container on a user-defined bridge: with IPv6, with an address of its own, and on an internal one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from pydock_core.network.addresses import link_local_of, mac_address_of, matching_address
from pydock_core.network.rules import Admission, BridgeRules, port_name
from pydock_core.supervision.plan import NetworkAttachment
from tests.support.bridge_host import OUTSIDE, Host, bridge_host, interface, run
from tests.support.raw_frames import (
    Namespace,
    ethernet,
    neighbour_advertisement,
    redirect6,
    router_advertisement,
    udp,
    udp6,
)
from tests.support.supervised import BUSYBOX, Box

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root makes bridges"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (Debian: busybox-static)"),
    pytest.mark.skipif(not shutil.which("nft"), reason="needs nft (Debian: nftables)"),
]
SUBNET, SUBNET6 = "10.66.0.0/24", "fd00:66::/64"
OPEN = BridgeRules("pdsix0", SUBNET, subnet6=SUBNET6)
CLOSED = BridgeRules("pdsix1", "10.67.0.0/24", subnet6="fd00:67::/64", internal=True)
IPV4, IPV6 = 0x0800, 0x86DD


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with bridge_host(tmp_path_factory.mktemp("network")) as made:
        yield made


@pytest.fixture
def containers(host: Host) -> Iterator[ExitStack]:
    """Ends the containers that a test starts, and removes their bridges."""
    with ExitStack() as stack:
        for rules in (OPEN, CLOSED):
            stack.callback(host.service.remove, rules)
        yield stack


def start(
    host: Host, containers: ExitStack, rules: BridgeRules, address: str, hardware: str = ""
) -> Namespace:
    """A container that sleeps, at an IPv4 address and the IPv6 address that follows from it."""
    prefix = rules.subnet.partition("/")[2]
    address6 = matching_address(address, rules.subnet, rules.subnet6)
    record = host.root.run / rules.bridge
    admission = Admission(address, "none", (), hardware, address6.partition("/")[0])
    host.service.ensure(rules, admission, record=record, needs_nft=True)
    plain = interface(rules.bridge, f"{address}/{prefix}", "" if rules.internal else rules.gateway)
    gateway6 = "" if rules.internal else rules.gateway6
    made = replace(plain, address6=address6, gateway6=gateway6, mac_address=hardware or plain.mac_address)
    box = Box(host.root, host.lower, ["sleep", "1000"], network=NetworkAttachment("bridge", (made,)))
    launch = containers.enter_context(box.launch())
    containers.callback(launch.wait, 10)
    containers.callback(box.client.stop, signal.SIGKILL)
    return Namespace(box.status().pid)


def reach(source: Namespace, target: str) -> bool:
    """Whether an echo request is answered."""
    words = ["busybox", "ping", "-c", "1", "-W", "2", target]
    return bool(source(lambda: subprocess.run(words, capture_output=True, check=False)).returncode == 0)


def neighbours(source: Namespace) -> set[tuple[str, str, str]]:
    """The MAC addresses that the namespace knows of its neighbours on a bridge: address, device, MAC address."""
    listed = (line.split() for line in source(lambda: run("ip", "-6", "neigh")).splitlines())
    return {(words[0], words[2], words[4]) for words in listed if "lladdr" in words and words[2] != "uplink"}


def test_no_ipv6_frame_under_another_name_passes_a_port(host: Host, containers: ExitStack) -> None:
    attacker = start(host, containers, OPEN, "10.66.0.2")
    victim = start(host, containers, OPEN, "10.66.0.3")
    own, other, gateway = "fd00:66::2", "fd00:66::3", "fd00:66::1"
    own_mac, other_mac, gateway_mac = (mac_address_of(f"10.66.0.{number}") for number in (2, 3, 1))
    for source, target in ((attacker, other), (attacker, gateway), (victim, gateway), (victim, own)):
        assert reach(source, target)
    own_link = link_local_of(own_mac)
    hostile = {
        "gateway's address, advertised": neighbour_advertisement(own, gateway, own_mac, other),
        "gateway's address, advertised to all": neighbour_advertisement(own, gateway, own_mac, "ff02::1"),
        "gateway's address, from the link-local one": neighbour_advertisement(
            own_link, gateway, own_mac, other
        ),
        "neighbour's address, to the gateway": neighbour_advertisement(own, other, own_mac, gateway),
        "router advertisement": router_advertisement(own_mac, "2001:db8:bad::", own_link),
        "redirect": redirect6(own_link, other, own_link),
        "redirect under the gateway's name": redirect6(link_local_of(gateway_mac), other, own_link),
        "neighbour's source address": udp6(other, 1, gateway, 4444, b"forged: neighbour"),
        "address from elsewhere": udp6("2001:db8::9", 1, other, 4444, b"forged: elsewhere"),
        "DHCPv6 server": udp6(own_link, 547, other, 546, b"forged: DHCPv6"),
    }
    before = neighbours(victim), neighbours(Namespace(os.getpid()))
    routes = victim(lambda: run("ip", "-6", "route"))
    with victim.catch("eth0") as at_victim:
        for name, packet in hostile.items():
            for target in (other_mac, gateway_mac, "33:33:00:00:00:01"):
                attacker.send([ethernet(target, own_mac, IPV6, packet)])
            attacker.send([ethernet(other_mac, other_mac, IPV6, packet)])
            assert name
        last = ethernet(other_mac, own_mac, IPV6, udp6(own, 1, other, 4444, b"allowed: the last one"))
        attacker.send([last])
        arrived = at_victim.until(b"allowed: the last one")
    for name, packet in hostile.items():
        assert not any(packet in frame for frame in arrived), name
    assert (neighbours(victim), neighbours(Namespace(os.getpid()))) == before
    assert victim(lambda: run("ip", "-6", "route")) == routes
    for source, target in ((attacker, other), (victim, gateway), (victim, own)):
        assert reach(source, target)


def test_an_address_that_changed_hands_is_its_new_container_s_alone(
    host: Host, containers: ExitStack
) -> None:
    hardware = "02:00:00:00:00:77"
    with ExitStack() as first:
        reach(start(host, first, OPEN, "10.66.0.2", hardware), "10.66.0.1")
    attacker = start(host, containers, OPEN, "10.66.0.2")
    victim = start(host, containers, OPEN, "10.66.0.3", hardware)
    assert reach(victim, "10.66.0.2")
    target, own = mac_address_of("10.66.0.1"), mac_address_of("10.66.0.2")
    forged = ethernet(
        target, hardware, IPV4, udp("10.66.0.2", 1, "10.66.0.1", 4444, b"forged: an earlier MAC address")
    )
    allowed = ethernet(target, own, IPV4, udp("10.66.0.2", 1, "10.66.0.1", 4444, b"allowed"))
    attacker.send([forged, allowed])
    assert reach(victim, "10.66.0.2")
    learned = run("bridge", "fdb", "show", "br", OPEN.bridge)
    assert f"{hardware} dev {port_name('10.66.0.3')}" in learned
    assert f"{hardware} dev {port_name('10.66.0.2')}" not in learned


def refusal(source: Namespace, address: str, port: int) -> str:
    """What becomes of a connection: "" if it is made, else the name of the error."""

    def work() -> str:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
            client.settimeout(2)
            try:
                client.connect((address, port))
            except TimeoutError:
                return "timeout"
            except OSError as error:
                return errno.errorcode[error.errno or 0]
            return ""

    return source(work)


def test_bridges_are_apart_and_an_internal_one_reaches_nothing(host: Host, containers: ExitStack) -> None:
    outer = start(host, containers, OPEN, "10.66.0.2")
    inner = start(host, containers, CLOSED, "10.67.0.2")
    other = start(host, containers, CLOSED, "10.67.0.3")
    run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    for source, addresses in (
        (outer, ("10.66.0.2", "fd00:66::2")),
        (inner, ("10.67.0.2", "fd00:67::2")),
    ):
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            made = source(
                lambda address=address, family=family: socket.create_server((address, 80), family=family)
            )
            containers.enter_context(made)
    server = containers.enter_context(
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    )
    port = server.getsockname()[1]
    world = Namespace.at(f"/proc/{os.getpid()}/fd/{host.outside_fd}")
    containers.enter_context(world(lambda: socket.create_server((OUTSIDE, 80))))
    # What is allowed.
    assert refusal(outer, OUTSIDE, 80) == ""
    for address in ("10.67.0.2", "fd00:67::2"):
        assert refusal(other, address, 80) == ""
        assert refusal(outer, address, 80) != ""
    # An internal bridge has no route; a container with NET_ADMIN gives itself one.
    inner(lambda: run("ip", "route", "add", "default", "via", "10.67.0.1"))
    inner(lambda: run("ip", "-6", "route", "add", "default", "via", "fd00:67::1"))
    for address in (OUTSIDE, "10.66.0.2", "fd00:66::2", "10.66.0.1", "fd00:66::1", "10.67.0.1", "fd00:67::1"):
        assert refusal(inner, address, 80 if address == OUTSIDE else port) != "", address
    assert not reach(inner, OUTSIDE)
    for address in ("10.66.0.1", "fd00:66::1", "198.51.100.2"):
        assert refusal(outer, address, port) in ("EHOSTUNREACH", "EACCES"), address
