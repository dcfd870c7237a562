"""The way out of an ordinary user's network namespace: the program's command, and the rules."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import pairwise

import pytest

from pydock_core.network import uplink_program, uplink_rules
from pydock_core.network.container_subnets import Link, find_container_subnets
from pydock_core.network.resolvers import parse_server
from pydock_core.network.rules import Admission
from pydock_core.network.uplink_program import build_command

NAMESPACE = "/run/user/1000/pydock/user-network.ns"
DEBIAN_12 = "--no-dhcp --no-dhcpv6 --no-ndp --no-ra --no-map-gw --no-netns-quit"


def test_pasta_forwards_nothing_into_the_namespace() -> None:
    words = build_command("/usr/bin/pasta", NAMESPACE, has_ipv6=False, read_help=lambda: DEBIAN_12)
    assert words[0] == "/usr/bin/pasta"
    assert words[-2:] == ["--netns", NAMESPACE]
    pairs = list(pairwise(words))
    assert {(option, "none") for option in ("-t", "-u", "-T", "-U")} <= set(pairs)
    assert {"--foreground", "--config-net", "--no-map-gw", "--no-netns-quit", "--ipv4-only"} <= set(words)
    assert "--no-ndp" not in words  # the namespace asks for its gateway's address


def test_an_option_that_a_version_lacks_is_left_out_but_for_the_host_s_loopback() -> None:
    words = build_command("/usr/bin/pasta", NAMESPACE, has_ipv6=True, read_help=lambda: "--no-ra")
    assert "--no-netns-quit" not in words
    assert words[words.index("--map-host-loopback") + 1] == "none"
    assert "--ipv4-only" not in words
    assert uplink_program.ADDRESS6 in words


def test_slirp4netns_is_closed_to_the_host_s_loopback() -> None:
    words = build_command(
        "/usr/bin/slirp4netns",
        NAMESPACE,
        has_ipv6=False,
        read_help=lambda: "--enable-sandbox --enable-seccomp",
    )
    assert {"--disable-host-loopback", "--configure", "--enable-sandbox", "--enable-seccomp"} <= set(words)
    assert "--enable-ipv6" not in words
    assert words[-3:] == ["--netns-type=path", NAMESPACE, uplink_program.DEVICE]
    plain = build_command("/usr/bin/slirp4netns", NAMESPACE, has_ipv6=True, read_help=lambda: "")
    assert "--enable-ipv6" in plain
    assert "--enable-sandbox" not in plain


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there: set[str] = set()
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"/bin/{name}" if name in there else None)
    monkeypatch.setattr(os, "access", lambda *_: "tun" in there)
    for name, reason in (
        ("slirp4netns", uplink_program.MISSING),
        ("tun", uplink_program.NO_TUN),
        ("nft", uplink_program.NO_NFT),
    ):
        assert uplink_program.lack() == reason
        assert uplink_program.remedy(reason).startswith("sudo ")
        there.add(name)
    assert uplink_program.lack() == ""
    assert uplink_program.find_program() == "/bin/slirp4netns"
    there.add("pasta")
    assert uplink_program.find_program() == "/bin/pasta"


@pytest.mark.parametrize(
    ("there", "text", "expected"),
    [
        ({"pasta", "slirp4netns"}, DEBIAN_12, "slirp4netns"),
        ({"pasta", "slirp4netns"}, "--map-host-loopback", "pasta"),
        ({"pasta"}, DEBIAN_12, "pasta"),
        ({"slirp4netns"}, "", "slirp4netns"),
        (set(), "", ""),
    ],
)
def test_an_old_pasta_gives_way_to_slirp4netns(
    there: set[str], text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: name if name in there else None)
    assert uplink_program.choose_program(lambda _: text) == expected


FIB = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 198.51.100.0/24 2 0 2
        |-- 198.51.100.0
           /24 link UNICAST
        |-- 198.51.100.2
           /32 host LOCAL
        |-- 198.51.100.255
           /32 link BROADCAST
Local:
        |-- 198.51.100.2
           /32 host LOCAL
"""


def test_the_host_s_addresses_are_read() -> None:
    assert uplink_rules.parse_fib(FIB) == ["127.0.0.0/8", "127.0.0.1/32", "198.51.100.2/32"]
    line = "20010db8000000000000000000000002 0d 40 00 80   uplink\n"
    assert uplink_rules.parse_addresses6(line * 2) == ["2001:db8::2"]
    assert uplink_rules.parse_addresses6("") == []


def test_the_bridges_of_other_containers_are_told_from_those_that_lead_outside() -> None:
    links = [
        Link(1, "", 0),
        Link(2, "bridge", 0),  # of containers
        Link(3, "veth", 2),
        Link(4, "bridge", 0),  # of containers, without one at the moment
        Link(5, "bridge", 0),  # of a network card
        Link(6, "", 5),
        Link(7, "veth", 5),
        Link(8, "bridge", 0),  # of a virtual machine
        Link(9, "tun", 8),
        Link(10, "bridge", 0),  # the way out of a host that is a container itself
        Link(11, "veth", 10),
    ]
    addresses = [(index, f"10.0.{index}.1/24") for index in range(1, 12)]
    addresses += [(2, "fd00:2::1/64"), (2, "fe80::1/64")]
    found = find_container_subnets(links, addresses, {10, None})
    assert found == ["10.0.2.0/24", "10.0.4.0/24", "fd00:2::/64"]


ZERO = "0" * 32


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{ZERO} 00 {ZERO} 00 20010db8{'0' * 23}1 00000400 00000001 00000000 00000003   uplink", True),
        (f"{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo", False),
        (f"20010db8{'0' * 24} 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001   uplink", False),
        ("", False),
    ],
)
def test_the_way_out_by_ipv6_is_seen(line: str, expected: bool) -> None:
    assert uplink_rules.has_default_route6(f"{line}\n") is expected


def test_the_gate_is_never_a_loopback_address() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(uplink_rules, "_ANYWHERE", ("no address", 9))
        assert (
            uplink_rules.gate_address(["127.0.0.1/32", "10.0.0.0/8", "2001:db8::1", "10.0.0.2/32"])
            == "10.0.0.2"
        )
        assert uplink_rules.gate_address(["127.0.0.1/32"]) == ""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nft (Debian: nftables)"
)
def test_nft_understands_the_rules() -> None:
    script = uplink_rules.build_tables(["127.0.0.0/8", "127.0.0.1/32", "2001:db8::2"], "198.51.100.2")
    for access in ("all", "gateway", "none"):
        script += uplink_rules.build_opening(
            Admission("172.30.0.2", access, address6="fd00::2"), "172.30.0.1"
        )
    done = subprocess.run(["nft", "-c", "-f", "-"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("access", "expected"), [("none", []), ("gateway", ["gates"]), ("all", ["opened", "gates", "opened"])]
)
def test_an_opening_replaces_the_one_before(access: str, expected: list[str]) -> None:
    lines = uplink_rules.build_opening(
        Admission("172.30.0.2", access, address6="fd00::2"), "172.30.0.1"
    ).splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["add", "delete"] * 3
    assert [line.split()[4] for line in lines[6:]] == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nameserver 127.0.0.53", "127.0.0.53"),
        ("nameserver fe80::1%eth0", "fe80::1"),
        ("nameserver", None),
        ("nameserver not-an-address", None),
        ("search example.com", None),
    ],
)
def test_name_servers_are_read(line: str, expected: str | None) -> None:
    found = parse_server(line)
    assert (str(found) if found is not None else None) == expected
