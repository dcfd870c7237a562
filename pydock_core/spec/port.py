"""Ports of a container: the Engine API's PortBindings, read into the sockets that a supervisor opens.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydock_core.errors import InvalidError
from pydock_core.supervision.plan import PublishedPort

LOOPBACK = "127.0.0.1"
"""The address of a binding that names none: a notebook's host is often shared."""
_PORT = re.compile(r"([0-9]{1,5})/(tcp|udp)")
_HOST_PORT = re.compile(r"([0-9]{0,5})(?:-([0-9]{1,5}))?")


def publish_all(
    bindings: Mapping[str, Sequence[Any] | None], exposed: Iterable[str]
) -> dict[str, Sequence[Any] | None]:
    """Return the bindings, adding one on a free host port for each exposed port without a binding."""
    return {**{port: None for port in exposed if port not in bindings}, **bindings}


def read_ports(
    bindings: Mapping[str, Sequence[Any] | None], default_address: str = LOOPBACK
) -> tuple[PublishedPort, ...]:
    """Return the published ports.

    Args:
        default_address: address of bindings without one.

    Raises:
        InvalidError: a port or an address is malformed, or one is given twice; exit code 125.
    """
    published = []
    for port, places in bindings.items():
        number, protocol = check_port(port).split("/")
        for place in places or ({},):
            address, text = place.get("HostIp") or default_address, place.get("HostPort") or "0"
            first, last = _read_range(port, text)
            checked = _check_address(port, address)
            published.append(PublishedPort(checked, first, int(number), protocol, last))
    taken: set[tuple[str, int, str]] = set()
    for item in published:
        key = (item.host_ip, item.host_port, item.protocol)
        if item.host_port and not item.last_host_port and key in taken:
            raise _invalid(
                f"{item.container_port}/{item.protocol}",
                f"{item.host_ip}:{item.host_port} is given twice",
                "publish each port once",
            )
        taken.add(key)
    return tuple(published)


def _read_range(port: str, text: Any) -> tuple[int, int]:
    """Return the first and the last host port; the last is 0 if there is only one."""
    match = _HOST_PORT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise _invalid(port, f"{text!r} is not a port", "a port is a number from 1 to 65535")
    first, last = int(match[1] or 0), int(match[2] or 0)
    if first > 65535 or last > 65535 or (last and not 1 <= first <= last):
        raise _invalid(port, f"{text!r} is not a port", "a port is a number from 1 to 65535")
    return first, last if last != first else 0


def check_port(text: str) -> str:
    """Return a container's port in the form "80/tcp".

    Raises:
        InvalidError: it is malformed, or out of range; exit code 125.
    """
    match = _PORT.fullmatch(text if "/" in text else f"{text}/tcp")
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise _invalid(text, "not a port", "write a number from 1 to 65535, and /tcp or /udp")
    return f"{int(match[1])}/{match[2]}"


def _check_address(port: str, text: str) -> str:
    if text == LOOPBACK:
        return text
    from ipaddress import ip_address  # late: a listing, which filters by ports, does without

    try:
        return str(ip_address(text))
    except ValueError:
        raise _invalid(port, f"{text!r} is not an address", "write an IP address of this host") from None


def _invalid(port: str, reason: str, hint: str) -> InvalidError:
    return InvalidError(f"invalid port {port}: {reason}", hint, exit_code=125)
