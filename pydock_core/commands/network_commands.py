"""The command table's entries for networks.  Pure data."""

from __future__ import annotations

from pydock_core.commands.command import (
    FORCE,
    NO_LINK_LOCAL,
    NO_TRUNC,
    PRUNE_FILTER,
    QUIET,
    Argument,
    Command,
    Option,
    document_format,
    filter_option,
    listing_format,
)

_NETWORK = Argument("NETWORK", complete="network")
_NETWORKS = Argument("NETWORK", "+", complete="network")
_SWARM_DETAILS = "its details are those of a swarm's services"
_TEMPLATE = "there are no networks that only configure others; give each network its own options"
_SWARM = "it needs a swarm, and PyDock has none"

NETWORK_COMMANDS: tuple[Command, ...] = (
    Command(
        ("network", "create"),
        "Create a network",
        "networks:create",
        (
            Option(("-d", "--driver"), "bridge", "DRIVER", default="bridge"),
            Option(("--subnet",), "a subnet of addresses: 10.5.0.0/16, fd00:5::/64", "SUBNET", many=True),
            Option(("--gateway",), "the bridge's own address in a subnet", "ADDRESS", many=True),
            Option(
                ("--ip-range",), "the part of a subnet that addresses are chosen from", "SUBNET", many=True
            ),
            Option(("--aux-address",), "an address that is not given out", "NAME=ADDRESS", many=True),
            Option(("--internal",), "reach nothing outside the network"),
            Option(("--ipv4",), "IPv4 addresses, which a network always has", default="true"),
            Option(("--ipv6",), "IPv6 addresses too"),
            Option(("--attachable",), "kept as Docker does; every network can be attached to"),
            Option(("-l", "--label"), "a label", "KEY[=VALUE]", many=True),
            Option(
                ("-o", "--opt"),
                "an option of the driver: com.docker.network.driver.mtu=1400",
                "KEY=VALUE",
                many=True,
            ),
            Option(("--ipam-driver",), "default", "DRIVER", default="default"),
            Option(("--ipam-opt",), "an option of the IPAM driver, which has none", "KEY=VALUE", many=True),
            Option(("--scope",), "local", "SCOPE"),
        ),
        (Argument("NETWORK"),),
        refused={
            "--ingress": _SWARM,
            "--config-only": _TEMPLATE,
            "--config-from": _TEMPLATE,
            "--ipv4=false": "the firewall knows a container's port by its IPv4 address",
        },
    ),
    Command(
        ("network", "ls"),
        "List networks",
        "networks:ls",
        (
            filter_option("driver=bridge, name=web, label=KEY, dangling=true"),
            listing_format("{{.Name}}: {{.Driver}}"),
            NO_TRUNC,
            QUIET,
        ),
        (),
        (("network", "list"),),
    ),
    Command(
        ("network", "inspect"),
        "Show details of networks as JSON",
        "networks:inspect",
        (document_format("{{json .IPAM.Config}}", "-f"),),
        (_NETWORKS,),
        refused={"-v": _SWARM_DETAILS, "--verbose": _SWARM_DETAILS},
    ),
    Command(
        ("network", "rm"),
        "Remove networks",
        "networks:rm",
        (Option(("-f", "--force"), "ignore missing networks"),),
        (_NETWORKS,),
        (("network", "remove"),),
    ),
    Command(
        ("network", "connect"),
        "Connect a container to a network",
        "networks:connect",
        (
            Option(("--alias",), "a further name of the container on the network", "NAME", many=True),
            Option(("--ip",), "its IPv4 address", "ADDRESS"),
            Option(("--ip6",), "its IPv6 address", "ADDRESS"),
            Option(("--link",), "a name for another container", "CONTAINER[:ALIAS]", many=True),
            Option(("--driver-opt",), "an option of the driver for the container", "KEY=VALUE", many=True),
            Option(("--gw-priority",), "the network with the highest has the default route", "NUMBER"),
        ),
        (_NETWORK, Argument("CONTAINER", complete="container")),
        refused={"--link-local-ip": NO_LINK_LOCAL},
    ),
    Command(
        ("network", "disconnect"),
        "Disconnect a container from a network",
        "networks:disconnect",
        (Option(("-f", "--force"), "ignore a container that is not on the network"),),
        (_NETWORK, Argument("CONTAINER", complete="container")),
    ),
    Command(
        ("network", "prune"),
        "Remove the networks without containers",
        "networks:prune",
        (PRUNE_FILTER, FORCE),
    ),
)
