"""Address arithmetic, the firewall's rules, subordinate ids: the pure parts of networks and namespaces."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import ConflictError, InvalidError
from pydock_core.network import addresses
from pydock_core.runtime.cgroups import oom_counter as cgroup_events
from pydock_core.supervision import dial, user_namespace


def test_the_first_free_subnet_is_picked() -> None:
    candidates = ["172.30.0.0/16", "172.29.0.0/16"]
    assert addresses.pick_subnet(candidates, ["10.0.0.0/8", "fe80::/64"]) == "172.30.0.0/16"
    assert addresses.pick_subnet(candidates, ["172.30.5.1/24"]) == "172.29.0.0/16"
    with pytest.raises(ConflictError):
        addresses.pick_subnet(candidates, ["172.16.0.0/12"])


@given(
    prefix=st.integers(20, 30),
    base=st.integers(0, 2**32 - 1),
    taken=st.sets(st.integers(0, 2**12), max_size=50),
)
def test_an_address_is_free_inside_and_not_the_gateways(prefix: int, base: int, taken: set[int]) -> None:
    network = ipaddress.ip_network((base, prefix), strict=False)
    used = [str(network[number]) for number in taken if number < network.num_addresses]
    try:
        picked = addresses.pick_address(str(network), used)
    except ConflictError:
        assert len(used) >= network.num_addresses - 3 - len({0, 1} - taken)
        return
    address = ipaddress.ip_interface(picked)
    assert address.network == network
    assert str(address.ip) not in used
    assert address.ip not in (network.network_address, network.broadcast_address)
    assert picked != addresses.gateway_of(str(network))


@pytest.mark.parametrize("subnet", ["172.30.0.1/16", "nonsense", "10.0.0.0/31"])
def test_what_is_no_subnet_is_refused(subnet: str) -> None:
    with pytest.raises(InvalidError):
        addresses.gateway_of(subnet)


def test_mac_addresses_are_local_and_follow_the_address() -> None:
    assert addresses.mac_address_of("172.30.0.2/16") == "02:42:ac:1e:00:02"


def test_routes_are_read() -> None:
    text = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "br\t00001EAC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    assert addresses.parse_routes(text) == ["10.0.0.0/24", "172.30.0.0/16"]


def test_subordinate_ids() -> None:
    text = "# comment\nann:100000:65536\n1001:300000:10\nbob:1:1\nann:bad:1\nann:200000:0\n"
    ranges = user_namespace.parse_subordinate_ids(text, ["ann", "1001"])
    assert ranges == [(100000, 65536), (300000, 10)]
    assert user_namespace.build_mapping(1001, ranges) == [
        (0, 1001, 1),
        (1, 100000, 65536),
        (65537, 300000, 10),
    ]


def test_where_to_dial() -> None:
    assert dial.addresses("") == ("127.0.0.1", "::1")
    assert dial.addresses("172.30.0.2/16") == ("127.0.0.1", "::1", "172.30.0.2")


def test_the_memory_counter_of_both_versions() -> None:
    unified = cgroup_events.find_counter_of("0::/a/b\n")
    assert unified == "/sys/fs/cgroup/a/b/memory.events"
    legacy = cgroup_events.find_counter_of("5:memory:/x\n1:name=systemd:/y\n0::/\n")
    assert legacy == "/sys/fs/cgroup/memory/x/memory.oom_control"
    assert cgroup_events.find_counter_of("3:cpu:/x\n") == ""
    assert cgroup_events.parse_oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n") == 3
    assert cgroup_events.parse_oom_kills("low 0\n") == 0


def test_a_subnet_is_shadowed_by_routes_that_are_no_wider() -> None:
    subnet = "172.30.0.0/16"
    assert addresses.is_shadowed(subnet, ["10.0.0.0/8", "172.30.0.0/16"])
    assert addresses.is_shadowed(subnet, ["172.30.5.1/24"])
    assert not addresses.is_shadowed(subnet, ["172.16.0.0/12", "128.0.0.0/1", "172.31.0.0/16", "fe80::/64"])
    assert not addresses.is_shadowed(subnet, [])
