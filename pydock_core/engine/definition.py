"""Merges a request with its image's configuration into the definition that is stored.  Pure.

The rules are those of ``docker run``: the image gives what the request leaves open, the request's environment wins by
name, and an entry point given by hand drops the image's command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydock_core.engine.config import ContainerConfig, Mount
from pydock_core.engine.container_files import HOST_GATEWAY, names_gateway
from pydock_core.engine.log_options import parse_limits
from pydock_core.errors import InvalidError

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def merge(request: ContainerConfig, image_config: Mapping[str, Any], default_network: str) -> ContainerConfig:
    """Return the definition of a container.

    Args:
        request: what was asked for.
        image_config: the ``config`` object of the OCI image configuration (may be empty).
        default_network: where the request names none.

    Raises:
        InvalidError: neither says what to run, or the options contradict each other; exit code 125.
        UnsupportedError: there is no such log driver, or it has no such option; exit code 125.
    """
    check_image_config(request.image, image_config)
    parse_limits(request.log_driver, request.log_options)
    entrypoint, command = _command(request, image_config)
    if not entrypoint and not command:
        raise InvalidError(
            f"image {request.image} names no command to run",
            f"give one: dock run {request.image} COMMAND",
            exit_code=125,
        )
    network = request.network or default_network
    if request.hostname and (network == "host" or network.startswith("container:")):
        raise InvalidError(
            f"--hostname cannot be combined with --network {network.partition(':')[0]}",
            "leave one of the two out",
            exit_code=125,
        )
    if request.ports and (network == "host" or network.startswith("container:")):
        raise InvalidError(
            f"-p cannot be combined with --network {network.partition(':')[0]}",
            "leave -p out: the ports are that network's own",
            exit_code=125,
        )
    if network not in ("bridge", "host") and any(map(names_gateway, request.hosts)):
        raise InvalidError(
            f"--add-host NAME:{HOST_GATEWAY} cannot be combined with --network {network.partition(':')[0]}",
            "use --network bridge (needs root) or host",
            exit_code=125,
        )
    targets = {mount.target for mount in request.mounts}
    anonymous = tuple(
        Mount("volume", "", target) for target in _keys(image_config.get("Volumes")) if target not in targets
    )
    exposed = dict.fromkeys([*_ports(image_config.get("ExposedPorts")), *request.exposed_ports])
    return replace(
        request,
        entrypoint=entrypoint,
        command=command,
        env=merge_environment([DEFAULT_PATH, *(image_config.get("Env") or ())], request.env),
        working_directory=request.working_directory or image_config.get("WorkingDir") or "/",
        user=request.user if request.user is not None else image_config.get("User") or "",
        mounts=(*request.mounts, *anonymous),
        exposed_ports=tuple(exposed),
        network=network,
        labels={**(image_config.get("Labels") or {}), **request.labels},
        stop_signal=request.stop_signal or str(image_config.get("StopSignal") or "TERM"),
    )


_TEXTS = ("User", "WorkingDir", "StopSignal")
_LISTS = ("Env", "Cmd", "Entrypoint")
_MAPPINGS = ("Labels", "Volumes", "ExposedPorts")
_PORT = re.compile(r"\d{1,5}(/(tcp|udp|sctp))?")


def check_image_config(image: str, config: Mapping[str, Any]) -> None:
    """See that an image's configuration has the types that it must have (image specification, config.md).

    Raises:
        InvalidError: it has not; exit code 125.
    """
    bad = [name for name in _TEXTS if not isinstance(config.get(name) or "", str)]
    bad += [name for name in _LISTS if not _is_text_list(config.get(name) or [])]
    bad += [name for name in _MAPPINGS if not isinstance(config.get(name) or {}, Mapping)]
    if not bad and not all(isinstance(value, str) for value in (config.get("Labels") or {}).values()):
        bad.append("Labels")
    if not bad and not all(_PORT.fullmatch(port) for port in config.get("ExposedPorts") or {}):
        bad.append("ExposedPorts")
    if not bad and not all(path.startswith("/") for path in config.get("Volumes") or {}):
        bad.append("Volumes")
    if bad:
        raise InvalidError(
            f"image {image}: {bad[0]} of its configuration is malformed",
            "have the image made anew",
            exit_code=125,
        )


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def merge_environment(base: Iterable[str], over: Iterable[str]) -> tuple[str, ...]:
    """Return the NAME=VALUE of ``base`` overridden by name by those of ``over``, each name once."""
    merged: dict[str, str] = {}
    for entry in [*base, *over]:
        name, _, value = entry.partition("=")
        merged[name] = value
    return tuple(f"{name}={value}" for name, value in merged.items())


def _command(
    request: ContainerConfig, image_config: Mapping[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if request.entrypoint is not None:
        return request.entrypoint, request.command or ()
    entrypoint = tuple(image_config.get("Entrypoint") or ())
    if request.command:
        return entrypoint, request.command
    return entrypoint, tuple(image_config.get("Cmd") or ())


def _keys(value: Any) -> list[str]:
    return sorted(value) if isinstance(value, Mapping) else []


def _ports(value: Any) -> list[str]:
    return [port if "/" in port else f"{port}/tcp" for port in _keys(value)]
