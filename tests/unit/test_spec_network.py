"""The definition of a network: what is accepted, what is refused and why, and the words of ``network create``."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.commands.networks import build_pools
from pydock_core.errors import InvalidError, PyDockError, UnsupportedError
from pydock_core.network.addresses import (
    link_local_of,
    matching_address,
    overlapping,
    pick_address,
    private_subnet6,
)
from pydock_core.spec.network import check_network, decode, encode, read_options


def pool(subnet: str, **fields: Any) -> dict[str, Any]:
    return {"IPAM": {"Config": [{"Subnet": subnet, **fields}]}}


def test_a_definition_survives_being_stored() -> None:
    document = {
        "Name": "web",
        "Internal": True,
        "EnableIPv6": True,
        "Labels": {"a": "b"},
        "Options": {"com.docker.network.driver.mtu": "1400"},
        "IPAM": {
            "Driver": "default",
            "Config": [
                {"Subnet": "10.5.0.0/16", "IPRange": "10.5.1.0/24", "Gateway": "10.5.0.9"},
                {"Subnet": "fd00:5::/64", "AuxiliaryAddresses": {"r": "fd00:5::9"}},
            ],
        },
    }
    name, driver, request = check_network(document)
    assert (name, driver) == ("web", "bridge")
    assert decode(encode(request)) == request
    assert encode(check_network({"Name": "plain"})[2]) == "{}"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"Name": ""}, "invalid network name ''"),
        ({"Name": "a/b"}, "invalid network name"),
        ({"Name": "container:x"}, "invalid network name"),
        ({"Name": "bridge"}, "is reserved"),
        ({"Name": "default"}, "is reserved"),
        ({"Name": ["a"]}, "invalid Name: not a string"),
        ({"Driver": "host"}, "only one network of the driver host"),
        ({"Driver": "overlay"}, "network driver overlay is not supported"),
        ({"Driver": "macvlan"}, "network driver macvlan is not supported"),
        ({"Ingress": True}, "--ingress needs a swarm"),
        ({"ConfigOnly": True}, "--config-only needs a swarm"),
        ({"ConfigFrom": {"Network": "x"}}, "--config-from needs a swarm"),
        ({"Scope": "swarm"}, "scope swarm needs a swarm"),
        ({"EnableIPv4": False}, "without IPv4"),
        ({"IPAM": {"Driver": "dhcp"}}, "IPAM driver dhcp"),
        ({"IPAM": {"Options": {"a": "b"}}}, "has no options"),
        ({"IPAM": "x"}, "invalid IPAM: not an object"),
        ({"Labels": {"a": 1}}, "not an object of strings"),
        ({"Options": {"colour": "red"}}, "unknown option colour"),
        ({"Options": {"com.docker.network.driver.mtu": "9"}}, "not a size"),
        ({"Options": {"com.docker.network.driver.mtu": "500"}, "EnableIPv6": True}, "too small for IPv6"),
        ({"Options": {"com.docker.network.bridge.enable_icc": "maybe"}}, "not a boolean"),
        ({"Options": {"com.docker.network.bridge.name": "a/b"}}, "not a device's name"),
        ({"Options": {"com.docker.network.bridge.name": "abcdefghijklmnop"}}, "not a device's name"),
        ({"Options": {"com.docker.network.bridge.host_binding_ipv4": "x"}}, "not an address"),
        (pool(""), "needs its subnet"),
        (pool("10.5.0.1/16"), "has host bits set"),
        (pool("10.5.0.0/31"), "31 bits long"),
        (pool("0.0.0.0/0"), "0 bits long"),
        (pool("127.0.0.0/8"), "not for networks"),
        (pool("fe80::/64"), "not for networks"),
        (pool("fd00::/64"), "needs IPv6"),
        (pool("10.5.0.0/16", Gateway="10.6.0.1"), "not a host address of 10.5.0.0/16"),
        (pool("10.5.0.0/16", Gateway="10.5.0.0"), "not a host address of 10.5.0.0/16"),
        (pool("10.5.0.0/16", Gateway="fd00::1"), "not a host address"),
        (pool("10.5.0.0/16", Gateway="x"), "not an address"),
        (pool("10.5.0.0/16", IPRange="10.6.0.0/24"), "not part of 10.5.0.0/16"),
        (pool("10.5.0.0/16", IPRange="fd00::/64"), "not part of 10.5.0.0/16"),
        (pool("10.5.0.0/16", AuxiliaryAddresses={"a": "10.6.0.1"}), "auxiliary address 10.6.0.1"),
        ({"IPAM": {"Config": [{"Subnet": "10.5.0.0/16"}, {"Subnet": "10.6.0.0/16"}]}}, "has one IPv4 subnet"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(document: dict[str, Any], reason: str) -> None:
    with pytest.raises((InvalidError, UnsupportedError)) as caught:
        check_network({"Name": "web", **document})
    assert reason in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from("Name Driver IPAM Options Labels ConfigFrom Scope Internal".split()), NESTED
    )
)
def test_any_json_is_accepted_or_refused(document: dict[str, Any]) -> None:
    try:
        check_network({"Name": "web", **document})
    except PyDockError as error:
        assert error.hint


@given(NESTED)
def test_any_pools_are_accepted_or_refused(config: Any) -> None:
    try:
        check_network({"Name": "web", "IPAM": {"Config": config}})
    except PyDockError as error:
        assert error.hint


def test_the_options_are_docker_s_and_one_of_ours() -> None:
    options = read_options(
        {
            "com.docker.network.bridge.name": "br-x",
            "com.docker.network.bridge.enable_ip_masquerade": "0",
            "com.docker.network.bridge.enable_icc": "FALSE",
            "com.docker.network.container_iface_prefix": "net",
            "pydock.network.link_local": "true",
        }
    )
    assert (options.bridge, options.masquerade, options.connectivity) == ("br-x", False, False)
    assert (options.interface, options.link_local) == ("net", True)


def test_words_go_to_the_subnet_that_they_are_part_of() -> None:
    assert build_pools(
        ["10.5.0.0/16", "fd00:5::/64"],
        ["fd00:5::9", "10.5.0.9"],
        ["10.5.1.0/24"],
        ["a=10.5.0.3", "b=fd00:5::3"],
    ) == [
        {
            "Subnet": "10.5.0.0/16",
            "Gateway": "10.5.0.9",
            "IPRange": "10.5.1.0/24",
            "AuxiliaryAddresses": {"a": "10.5.0.3"},
        },
        {"Subnet": "fd00:5::/64", "Gateway": "fd00:5::9", "AuxiliaryAddresses": {"b": "fd00:5::3"}},
    ]
    assert build_pools([], [], [], []) == []
    with pytest.raises(InvalidError) as caught:
        build_pools(["10.200.0.5/24"], [], [], [])
    assert caught.value.hint == "write 10.200.0.0/24"
    for words in (
        (["10.5.0.0/16"], ["10.6.0.1"], [], []),
        ([], ["10.6.0.1"], [], []),
        (["10.5.0.0/16"], ["10.5.0.1", "10.5.0.2"], [], []),
        (["10.5.0.0/16", "10.5.1.0/24"], [], [], []),
        (["x"], [], [], []),
        (["10.5.0.0/16"], [], [], ["10.5.0.3"]),
    ):
        with pytest.raises(InvalidError):
            build_pools(*words)


def test_addresses_of_both_families() -> None:
    assert pick_address("10.5.0.0/24", ["10.5.0.1"], "", ("10.5.0.254",)) == "10.5.0.2/24"
    assert pick_address("10.5.0.0/24", [], "10.5.0.128/25", ("10.5.0.128",)) == "10.5.0.129/24"
    assert pick_address("fd00::/64", ["fd00::2"]) == "fd00::3/64"
    assert matching_address("10.5.1.2/16", "10.5.0.0/16", "fd00::/64") == "fd00::102/64"
    assert matching_address("10.5.1.2/16", "10.5.0.0/16", "fd00::/120") == ""
    assert link_local_of("02:42:0a:63:00:81") == "fe80::42:aff:fe63:81"
    assert private_subnet6("0123456789abcdef") == "fd01:2345:6789::/64"
    assert overlapping("10.5.0.0/16", ["0.0.0.0/0", "fd00::/8", "10.5.3.0/24"]) == "10.5.3.0/24"
    assert overlapping("10.5.0.0/16", ["10.6.0.0/16", "::/0"]) == ""
