"""The diagram of networks: what is drawn, what is told, and that foreign text stays text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

import pydock_jupyter
from pydock_core.errors import InvalidError, NotFoundError
from pydock_jupyter.display.network_graph import Member, Network, NetworkGraph, Place
from pydock_jupyter.display.network_picture import describe, draw_html, draw_svg
from pydock_jupyter.display.network_pictures import read_networks

SVG = "{http://www.w3.org/2000/svg}"
WEB = Network("web", "bridge", (("172.27.0.0/16", "172.27.0.1"), ("fd00::/64", "fd00::1")))
INNER = Network("inner", "bridge", (("172.26.0.0/16", ""),), is_internal=True)
HOST = Network("host", "host")
ONE = Member(
    "one",
    "running",
    "busybox",
    (Place("web", ("172.27.0.2", "fd00::2"), ("one", "api")),),
    ("127.0.0.1:8080 → 80/tcp",),
)
TWO = Member(
    "two",
    "paused",
    "busybox",
    (Place("web", ("172.27.0.3",), ("two",)), Place("inner", ("172.26.0.2",), ("two",))),
)
THREE = Member("three", "running", "busybox", (Place("host"),))
FOUR = Member("four", "running", "busybox", shares="one")
GRAPH = NetworkGraph((INNER, WEB, HOST), (ONE, TWO, THREE, FOUR))


def boxes(graph: NetworkGraph) -> list[tuple[float, float, float, float]]:
    root = ElementTree.fromstring(draw_svg(graph))
    frames = [group.find(f"{SVG}rect") for group in root.iter(f"{SVG}g")]
    found = []
    for frame in frames:
        assert frame is not None
        x, y, width, height = (float(frame.attrib[name]) for name in ("x", "y", "width", "height"))
        found.append((x, y, x + width, y + height))
    return found


def test_the_text_form() -> None:
    assert describe(GRAPH).splitlines() == [
        "network inner  bridge, 172.26.0.0/16 (internal)",
        "  two (paused)  172.26.0.2  answers to two",
        "network web  bridge, 172.27.0.0/16 gateway 172.27.0.1, fd00::/64 gateway fd00::1",
        "  one (running)  172.27.0.2, fd00::2  answers to one, api",
        "  two (paused)  172.27.0.3  answers to two",
        "network host  the host's own",
        "  three (running)",
        "port 127.0.0.1:8080 → 80/tcp of one",
        "container four has the network of one",
    ]


def test_a_box_for_each_network_place_container_and_port() -> None:
    found = boxes(GRAPH)
    assert len(found) == 3 + 4 + 4 + 1
    for number, one in enumerate(found):
        for other in found[number + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    root = ElementTree.fromstring(draw_svg(GRAPH))
    assert all(
        box[2] <= float(root.attrib["width"]) and box[3] <= float(root.attrib["height"]) for box in found
    )
    lines = [
        tuple(float(line.attrib[end]) for end in ("x1", "y1", "x2", "y2")) for line in root.iter(f"{SVG}line")
    ]
    along = [line for line in lines if line[1] == line[3]]
    down = [line for line in lines if line[0] == line[2]]
    assert (len(along), len(down)) == (3, 4)  # a line for each network, and one down from it to each address
    assert {x for x, *_ in down} <= {(box[0] + box[2]) / 2 for box in found}
    assert all(y in {row for _, row, *_ in along} for _, y, *_ in down)
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert {"gateway 172.27.0.1", "no connection outside"} < set(words)
    assert {"172.27.0.2", "one, api", "the host's addresses", "network of one", "internal", "paused"} < set(
        words
    )


def test_the_legend_tells_each_kind_by_a_style_of_its_own() -> None:
    legend = ElementTree.fromstring(draw_html(GRAPH)).find("div")
    assert legend is not None
    kinds = [span.text or "".join(span.itertext()) for span in legend.findall("span")][:-1]
    assert kinds == [
        "network",
        "internal network",
        "address and names",
        "container",
        "published port",
    ]
    styles = [
        dict(part.split(":", 1) for part in frame.attrib["style"].split(";")) for frame in legend.iter("rect")
    ]
    looks = {(style["fill"], style["stroke"], "stroke-dasharray" in style) for style in styles}
    assert len(looks) == len(kinds)


def test_foreign_text_stays_text() -> None:
    hostile = Member(
        "a", "running", "<script>alert(1)</script>\x1b[31m", (Place("web", ("10.0.0.1",), ('"><b>',)),)
    )
    html = draw_html(NetworkGraph((WEB,), (hostile,)))
    assert "<script>" not in html
    assert "<b>" not in html
    assert "\x1b" not in html
    ElementTree.fromstring(html)


def test_nothing_to_draw() -> None:
    assert "No network" in draw_html(NetworkGraph((), ()))
    assert describe(NetworkGraph((), ())) == "No network has a running container."
    assert boxes(NetworkGraph((WEB,), ()))


def endpoint(address: str, names: list[str]) -> dict[str, Any]:
    return {"IPAddress": address, "GlobalIPv6Address": "", "DNSNames": names}


def build_engine() -> Any:
    def name(reference: str) -> str:
        if reference not in ("web", "bridge"):
            raise NotFoundError(f"no such network: {reference}", "")
        return reference

    def network(name: str, driver: str, subnet: str) -> dict[str, Any]:
        config = [{"Subnet": subnet, "Gateway": "172.27.0.1"}] if subnet else []
        return {"Name": name, "Driver": driver, "Internal": False, "IPAM": {"Config": config}}

    container = {
        "Id": "0123456789abcdef",
        "Name": "/one",
        "State": {"Status": "running"},
        "Config": {"Image": "busybox"},
        "HostConfig": {"NetworkMode": "web"},
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}], "81/tcp": None},
            "Networks": {"web": endpoint("172.27.0.2", ["one", "0123456789ab"])},
        },
    }
    listed = [
        network("bridge", "bridge", ""),
        network("none", "null", ""),
        network("web", "bridge", "172.27.0.0/16"),
    ]
    return SimpleNamespace(
        networks=SimpleNamespace(list=lambda: listed, name=name),
        containers=SimpleNamespace(list=lambda: [{"Id": "1"}], inspect=lambda _: container),
    )


def test_networks_that_were_made_or_are_used() -> None:
    graph = read_networks(build_engine(), ())
    assert [network.name for network in graph.networks] == ["web"]
    (member,) = graph.members
    assert member.ports == ("[::1]:8080 → 80/tcp",)
    assert member.places == (Place("web", ("172.27.0.2",), ("one",)),)
    chosen = read_networks(build_engine(), ["bridge"])
    assert ([network.name for network in chosen.networks], chosen.members) == (["bridge"], ())
    with pytest.raises(NotFoundError, match="nonesuch"):
        read_networks(build_engine(), ["nonesuch"])
    with pytest.raises(InvalidError):
        pydock_jupyter.network_graph(3)  # type: ignore[arg-type]  # what a person may write
