"""The rules of a bridge: names of ports, the scripts for nft, the rules for iptables."""

from __future__ import annotations

import pytest

from pydock_core.errors import InvalidError
from pydock_core.network import rules as build
from pydock_core.network.rules import Admission, BridgeRules

RULES = BridgeRules("pydock0", "172.30.0.0/16")


def test_a_port_is_named_by_its_address() -> None:
    assert build.port_name("172.30.0.2/16") == "pdac1e0002"
    assert build.port_addresses(
        "172.30.0.0/16", ["lo", "pdac1e0002", "pdac1d0002", "pydock0", "pd12345678ab"]
    ) == ["172.30.0.2"]


@pytest.mark.parametrize(
    ("subnet", "patterns"),
    [
        ("172.30.0.0/16", ["pdac1e"]),
        ("10.9.8.0/24", ["pd0a0908"]),
        ("10.9.8.0/22", ["pd0a0908", "pd0a0909", "pd0a090a", "pd0a090b"]),
        ("10.9.8.4/30", [f"pd0a09080{digit}" for digit in "4567"]),
    ],
)
def test_patterns_cover_a_subnet_and_nothing_else(subnet: str, patterns: list[str]) -> None:
    assert build.port_patterns(subnet) == patterns


def test_nothing_is_removed_while_an_element_may_be_added() -> None:
    script = build.build_nft_script(RULES, ["172.30.0.2"], guard=True)
    assert "delete" not in script
    assert '{ "pdac1e0002" . 02:42:ac:1e:00:02 . 172.30.0.2 }' in script
    assert "table bridge" not in build.build_nft_script(RULES, ["172.30.0.2"], guard=False)


def test_an_admission_adds_and_does_nothing_else() -> None:
    for access in ("none", "gateway", "all"):
        script = build.build_nft_admission(RULES, Admission("172.30.0.2", access, ("10.0.0.1",)), guard=True)
        assert all(line.startswith("add element ") for line in script.splitlines())
    assert build.build_nft_admission(RULES, Admission("172.30.0.2"), guard=False) == ""


def test_a_listing_is_read_by_whole_addresses() -> None:
    listing = "elements = { 172.30.0.20 : accept,\n\t172.30.0.3 : jump to-gateway }"
    assert build.is_listed(listing, "172.30.0.3")
    assert not build.is_listed(listing, "172.30.0.2")


def test_iptables_admits_by_the_same_three_words() -> None:
    def targets(access: str) -> tuple[int, int]:
        present, absent = build.build_iptables_admission(RULES, Admission("172.30.0.2", access))
        return len(present), len(absent)

    assert [targets(access) for access in ("none", "gateway", "all")] == [(0, 2), (1, 1), (1, 1)]


def test_the_setting_is_one_of_two_words() -> None:
    assert build.host_access({}) == build.host_access({build.HOST_ACCESS: ""}) == "none"
    assert build.host_access({build.HOST_ACCESS: "all"}) == "all"
    with pytest.raises(InvalidError, match="invalid PYDOCK_HOST_ACCESS: yes"):
        build.host_access({build.HOST_ACCESS: "yes"})


def test_a_chain_that_drops_what_is_forwarded_is_found() -> None:
    listing = """
table bridge b {
	chain forward {
		type filter hook forward priority filter; policy drop;
	}
}
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}
	chain FORWARD {
		type filter hook forward priority filter; policy %s;
	}
	chain DOCKER {
	}
}
"""
    assert build.find_dropping_chain(listing % "drop") == "table ip filter, chain FORWARD"
    assert build.find_dropping_chain(listing % "accept") == ""
    assert build.find_dropping_chain("") == ""


def test_an_internal_bridge_forwards_nothing_and_an_outer_one_as_it_is_told() -> None:
    internal = build.build_nft_script(BridgeRules("br-x", "10.5.0.0/24", internal=True), [], guard=True)
    assert "masquerade" not in internal
    assert 'forward iifname "br-x" drop' in internal
    assert 'forward iifname "br-x" accept' not in internal
    plain = build.build_nft_script(BridgeRules("br-x", "10.5.0.0/24", masquerade=False), [], guard=True)
    assert "masquerade" not in plain
    assert "169.254.0.0/16" in plain
    opened = build.build_nft_script(BridgeRules("br-x", "10.5.0.0/24", link_local=True), [], guard=True)
    assert "169.254.0.0/16" not in opened


def test_what_becomes_wrong_is_withdrawn() -> None:
    rules = BridgeRules("br-x", "10.5.0.0/24", "10.5.0.254", "fd00:5::/64")
    assert rules.own_addresses == ["10.5.0.254/24", "fd00:5::1/64"]
    plain = build.lasting_elements(RULES, Admission("172.30.0.2", "gateway"))
    assert plain == []
    lasting = build.lasting_elements(
        rules, Admission("10.5.0.2", "all", (), "02:00:00:00:00:07", "fd00:5::2")
    )
    assert [line.split()[2:5:2] for line in lasting] == [
        ["bridge", name] for name in ([line.split()[4] for line in lasting[:-1]])
    ] + [["ip6", lasting[-1].split()[4]]]
    assert len(lasting) == 6
    script = build.build_nft_withdrawal(lasting).splitlines()
    assert [line.split()[0] for line in script] == ["add", "delete"] * 6
    assert build.build_nft_withdrawal(["add element bridge t custom-00000000 { x }"]) == ""
