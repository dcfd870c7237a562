"""Merges a create request with its image's configuration.  Pure.

The rules are those of ``docker run``: the image gives what the request leaves open, the request's environment wins by
name, and an entry point in the request drops the image's command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydock_core.errors import InvalidError
from pydock_core.spec.defaults import DEFAULT_PATH
from pydock_core.spec.definition import ENDPOINT, CreateRequest, EndpointSettings, HealthConfig
from pydock_core.spec.log_option import complete_options
from pydock_core.spec.validation import HOST_GATEWAY
from pydock_core.supervision.plan import EMBEDDED


def merge(request: CreateRequest, image_config: Mapping[str, Any], default_network: str) -> CreateRequest:
    """Return the request with the image's and the host's values in the fields that it leaves open.

    Args:
        request: of :func:`pydock_core.spec.validation.check_request`.
        image_config: the ``config`` object of the OCI image configuration (may be empty).
        default_network: the network mode of a request without one.

    Raises:
        InvalidError: neither names a command, or fields contradict each other; exit code 125.
    """
    check_image_config(request["Image"], image_config)
    entrypoint, command = _command(request, image_config)
    if not entrypoint and not command:
        raise InvalidError(
            f"image {request['Image']} names no command to run",
            f"give one: dock run {request['Image']} COMMAND",
            exit_code=125,
        )
    host = request["HostConfig"]
    network = host["NetworkMode"] or default_network
    _check_network(request, network)
    exposed = [
        port if "/" in port else f"{port}/tcp" for port in sorted(image_config.get("ExposedPorts") or ())
    ]
    log = host["LogConfig"]
    merged: CreateRequest = {
        **request,
        "Entrypoint": entrypoint or None,
        "Cmd": command,
        "Env": merge_environment([DEFAULT_PATH, *(image_config.get("Env") or ())], request["Env"]),
        "WorkingDir": request["WorkingDir"] or image_config.get("WorkingDir") or "/",
        "User": request["User"] or image_config.get("User") or "",
        "ExposedPorts": {port: {} for port in (*exposed, *request["ExposedPorts"])},
        "Volumes": {path: {} for path in (*request["Volumes"], *sorted(image_config.get("Volumes") or ()))},
        "Labels": {**(image_config.get("Labels") or {}), **request["Labels"]},
        "StopSignal": request["StopSignal"] or str(image_config.get("StopSignal") or "SIGTERM"),
        "Healthcheck": _merge_health(request, image_config),
        "Shell": request["Shell"] or image_config.get("Shell") or None,
        "HostConfig": {
            **host,
            "NetworkMode": network,
            "Runtime": host["Runtime"] or EMBEDDED,
            "LogConfig": {"Type": log["Type"], "Config": complete_options(log["Type"], log["Config"])},
        },
        "NetworkingConfig": {"EndpointsConfig": _endpoints(request, network)},
    }
    return merged


def _endpoints(request: CreateRequest, network: str) -> dict[str, EndpointSettings]:
    """Return the networks, with the default one under its name; the network mode's network comes first."""
    if network.startswith("container:"):
        return {}
    given = request["NetworkingConfig"]["EndpointsConfig"]
    named = {network if name == "default" else name: settings for name, settings in given.items()}
    return {network: named.pop(network, ENDPOINT), **named}


def _check_network(request: CreateRequest, network: str) -> None:
    kind = network.partition(":")[0]
    is_shared = kind in ("host", "container")
    for option, name in (("hostname", request["Hostname"]), ("domainname", request["Domainname"])):
        if name and kind == "container":
            raise InvalidError(
                f"conflicting options: {option} and the network mode",
                f"leave --{option} out: that container's is used",
                exit_code=125,
            )
    if request["Hostname"] and is_shared:
        raise _combined("--hostname", kind, "leave one of the two out")
    host = request["HostConfig"]
    if (host["PortBindings"] or host["PublishAllPorts"]) and is_shared:
        raise _combined("-p", kind, "leave -p out: the ports are that network's own")
    hosts = host["ExtraHosts"] or ()
    if host["Links"] and kind in ("host", "container", "none"):
        raise _combined("--link", kind, "leave --link out, or use a bridge network")
    if (host["Dns"] or host["DnsSearch"] or host["DnsOptions"]) and kind == "container":
        raise _combined("--dns", kind, "leave it out: that container's name servers are used")
    if hosts and kind == "container":
        raise _combined("--add-host", kind, "leave it out: that container's hosts file is used")
    if kind == "none" and any(line.endswith(f":{HOST_GATEWAY}") for line in hosts):
        raise _combined(f"--add-host NAME:{HOST_GATEWAY}", kind, "use --network bridge (needs root) or host")


def _combined(option: str, network: str, hint: str) -> InvalidError:
    return InvalidError(f"{option} cannot be combined with --network {network}", hint, exit_code=125)


_TEXTS = ("User", "WorkingDir", "StopSignal")
_LISTS = ("Env", "Cmd", "Entrypoint", "Shell")
_MAPPINGS = ("Labels", "Volumes", "ExposedPorts", "Healthcheck")
_PORT = re.compile(r"\d{1,5}(/(tcp|udp|sctp))?")


def check_image_config(image: str, config: Mapping[str, Any]) -> None:
    """Check the types of an image's configuration (image specification, config.md).

    Raises:
        InvalidError: a field has another type; exit code 125.
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
    if not bad and config.get("Healthcheck"):
        from pydock_core.spec.health import check_health  # late: few images have a check

        try:
            check_health(config["Healthcheck"])
        except InvalidError:
            bad.append("Healthcheck")
    if bad:
        raise InvalidError(
            f"image {image}: {bad[0]} of its configuration is malformed",
            "have the image made anew",
            exit_code=125,
        )


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _merge_health(request: CreateRequest, image_config: Mapping[str, Any]) -> HealthConfig | None:
    if request["Healthcheck"] is None and not image_config.get("Healthcheck"):
        return None
    from pydock_core.spec.health import merge_health  # late: few containers have a check

    return merge_health(request["Healthcheck"], image_config.get("Healthcheck"))


def merge_environment(base: Iterable[str], over: Iterable[str]) -> list[str]:
    """Return the NAME=VALUE of ``base`` overridden by name by those of ``over``, each name once."""
    merged: dict[str, str] = {}
    for entry in (*base, *over):
        name, _, value = entry.partition("=")
        merged[name] = value
    return [f"{name}={value}" for name, value in merged.items()]


def _command(request: CreateRequest, image_config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the entry point and the command; the entry point [""] is none, which replaces the image's."""
    entrypoint, command = request["Entrypoint"], request["Cmd"] or []
    if entrypoint is not None:
        return [] if entrypoint == [""] else entrypoint, command
    return list(image_config.get("Entrypoint") or ()), command or list(image_config.get("Cmd") or ())
