"""The commands for networks."""

from __future__ import annotations

import ipaddress
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydock_core.commands.containers import label_of
from pydock_core.commands.context import Context
from pydock_core.commands.dialog import confirm
from pydock_core.commands.dispatch import for_each
from pydock_core.commands.format import write_listing
from pydock_core.commands.inspect import inspect_all
from pydock_core.commands.network_words import build_settings
from pydock_core.commands.values import parse_filters
from pydock_core.engine import parse_moment_ns
from pydock_core.errors import InvalidError

_COLUMNS = (("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope"))
_HEADERS = {field: header for header, field in _COLUMNS} | {
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}


def create(context: Context, words: Namespace) -> int:
    """Create a network and print its id."""
    request = {
        "Name": words.NETWORK,
        "Driver": words.driver,
        "Internal": words.internal,
        "Attachable": words.attachable,
        "EnableIPv4": bool(words.ipv4),
        "EnableIPv6": words.ipv6,
        "Scope": words.scope or "",
        "IPAM": {
            "Driver": words.ipam_driver,
            "Options": _pairs(words.ipam_opt),
            "Config": build_pools(words.subnet, words.gateway, words.ip_range, words.aux_address),
        },
        "Options": _pairs(words.opt),
        "Labels": _pairs(words.label),
    }
    network_id, warnings = context.engine.networks.create(request)
    for warning in warnings:
        context.warn(warning)
    context.print(network_id)
    return 0


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def build_pools(
    subnets: Sequence[str], gateways: Sequence[str], ranges: Sequence[str], auxiliary: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the IPAM configuration: each gateway, range and auxiliary address with its subnet.

    Raises:
        InvalidError: a subnet is malformed, two overlap, or a value belongs to none.
    """
    pools: dict[str, dict[str, Any]] = {}
    networks: list[Any] = []
    for text in subnets:
        network = _read("--subnet", text, ipaddress.ip_network)
        if any(network.version == other.version and network.overlaps(other) for other in networks):
            raise InvalidError(
                f"--subnet {text}: it overlaps another one", "give subnets that do not overlap"
            )
        networks.append(network)
        pools[str(network)] = {"Subnet": text}

    def pool_of(flag: str, text: str, part: Any) -> dict[str, Any]:
        for network in networks:
            if part.version == network.version and part.subnet_of(network):
                return pools[str(network)]
        raise InvalidError(f"{flag} {text}: it is part of no subnet", "give its subnet with --subnet")

    for flag, field, texts in (("--ip-range", "IPRange", ranges), ("--gateway", "Gateway", gateways)):
        for text in texts:
            pool = pool_of(flag, text, _read(flag, text, ipaddress.ip_network))
            if field in pool:
                raise InvalidError(f"{flag} {text}: the subnet has one already", "give one for each subnet")
            pool[field] = text
    for text in auxiliary:
        name, equals, address = text.partition("=")
        if not name or not equals:
            raise InvalidError(f"--aux-address {text}: malformed", "write --aux-address NAME=ADDRESS")
        pool = pool_of("--aux-address", text, _read("--aux-address", address, ipaddress.ip_network))
        pool.setdefault("AuxiliaryAddresses", {})[name] = address
    return list(pools.values())


def _read(flag: str, text: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(text)
    except ValueError as error:
        example = "10.5.0.0/16 or fd00:5::/64"
        with suppress(ValueError):  # host bits alone are wrong
            example = str(ipaddress.ip_network(text, strict=False))
        raise InvalidError(f"{flag} {text}: {error}", f"write {example}") from error


def ls(context: Context, words: Namespace) -> int:
    """List networks."""
    documents = context.engine.networks.list(parse_filters(words.filter))
    if words.quiet and not words.format:
        for document in documents:
            context.print(document["Id"] if words.no_trunc else document["Id"][:12])
        return 0
    records = [_record(document, whole=words.no_trunc) for document in documents]
    write_listing(context, records, _COLUMNS, words.format, _HEADERS)
    return 0


def _record(document: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    labels = document["Labels"]
    return {
        "ID": document["Id"] if whole else document["Id"][:12],
        "Name": document["Name"],
        "Driver": document["Driver"],
        "Scope": document["Scope"],
        "IPv4": str(document["EnableIPv4"]).lower(),
        "IPv6": str(document["EnableIPv6"]).lower(),
        "Internal": str(document["Internal"]).lower(),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "CreatedAt": _created_at(document["Created"]),
        "Label": label_of(labels),
    }


def _created_at(text: str) -> str:
    """Return a moment in Go's format, in UTC: "2026-01-31 12:00:00.5 +0000 UTC"."""
    nanoseconds = parse_moment_ns(text, "Created", 0)
    fraction = f"{nanoseconds % 10**9:09d}".rstrip("0")
    return f"{text[:10]} {text[11:19]}{'.' + fraction if fraction else ''} +0000 UTC"


def inspect(context: Context, words: Namespace) -> int:
    """Show networks."""
    return inspect_all(context, words.NETWORK, words.format, context.engine.networks.inspect)


def rm(context: Context, words: Namespace) -> int:
    """Remove networks."""

    def remove(name: str) -> None:
        if context.engine.networks.remove(name, force=words.force):
            context.print(name)

    return for_each(context, words.NETWORK, remove)


def connect(context: Context, words: Namespace) -> int:
    """Connect a container to a network."""
    context.engine.networks.connect(words.NETWORK, words.CONTAINER, build_settings(words))
    return 0


def disconnect(context: Context, words: Namespace) -> int:
    """Disconnect a container from a network."""
    context.engine.networks.disconnect(words.NETWORK, words.CONTAINER, force=words.force)
    return 0


def prune(context: Context, words: Namespace) -> int:
    """Remove the networks without containers."""
    filters = parse_filters(words.filter)
    warning = (
        "WARNING! This will remove all custom networks not used by at least one container.\n"
        "Are you sure you want to continue?"
    )
    if not words.force and not confirm(context, warning):
        return 0
    removed = context.engine.networks.prune(filters)["NetworksDeleted"]
    if removed:
        context.print("Deleted Networks:")
        for name in removed:
            context.print(name)
        context.print()
    return 0
