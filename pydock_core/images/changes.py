"""Applies the ``--change`` instructions of import and commit: Dockerfile instructions for execution parameters."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydock_core.errors import InvalidError
from pydock_core.spelling import parse_duration_ns

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")


def apply_changes(config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Return an image config's ``config`` with Dockerfile instructions applied, in order.

    Args:
        config: execution parameters, keys as in config.md.
        changes: "CMD [\\"sh\\"]", "ENV A=1 B=2", "EXPOSE 80/tcp", ...

    Raises:
        InvalidError: an instruction is unknown or malformed.
    """
    changed = dict(config)
    has_command = False
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        instruction = _INSTRUCTIONS.get(word.upper())
        if instruction is None:
            raise InvalidError(
                f"--change {change!r}: cannot carry out the instruction {word or 'nothing'} here",
                f"there are {', '.join(sorted(_INSTRUCTIONS))}",
            )
        if not rest.strip():
            raise InvalidError(f"--change {change!r}: {word.upper()} needs a value", "as in a Dockerfile")
        try:
            instruction(changed, rest.strip())
        except ValueError as error:
            raise InvalidError(f"--change {change!r}: {error}", "as in a Dockerfile") from error
        has_command = has_command or word.upper() == "CMD"
        if word.upper() == "ENTRYPOINT" and not has_command:
            # As in a Dockerfile: the existing command belongs to another entry point.
            changed.pop("Cmd", None)
    return changed


def _command(text: str) -> list[str]:
    """The exec form, a JSON array, or the shell form (Dockerfile reference, "Shell and exec form")."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return _shell_form(text)


def _shell_form(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def _words(text: str) -> list[str]:
    if text.startswith("["):
        return _command(text)
    return shlex.split(text)


def _pairs(text: str) -> list[tuple[str, str]]:
    """Parse KEY=VALUE words with a shell's quotes, or the old form, KEY and the rest of the line."""
    first = text.split(maxsplit=1)
    if "=" not in first[0]:
        if len(first) != 2:
            raise ValueError(f"{text} has no value")
        return [(first[0], first[1])]
    pairs = []
    for word in shlex.split(text):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"{word!r} is not KEY=VALUE")
        pairs.append((key, value))
    return pairs


def _set_env(config: dict[str, Any], text: str) -> None:
    env = dict(entry.partition("=")[::2] for entry in config.get("Env") or [])
    env.update(_pairs(text))
    config["Env"] = [f"{key}={value}" for key, value in env.items()]


def _set_labels(config: dict[str, Any], text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(text))}


def _set_ports(config: dict[str, Any], text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in text.split():
        match = _PORT.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 1 <= first <= last <= 65535:
            raise ValueError(f"invalid port {word}")
        ports.update({f"{port}/{match[3] or 'tcp'}": {} for port in range(first, last + 1)})
    config["ExposedPorts"] = ports


def _set_volumes(config: dict[str, Any], text: str) -> None:
    volumes = dict(config.get("Volumes") or {})
    for path in _words(text):
        if not path.startswith("/"):
            raise ValueError(f"{path} is not an absolute path")
        volumes[path] = {}
    config["Volumes"] = volumes


def _set_directory(config: dict[str, Any], text: str) -> None:
    base = config.get("WorkingDir") or "/"
    config["WorkingDir"] = text if text.startswith("/") else f"{base.rstrip('/')}/{text}"


def _set_command(config: dict[str, Any], text: str) -> None:
    config["Cmd"] = _command(text)


def _set_entrypoint(config: dict[str, Any], text: str) -> None:
    config["Entrypoint"] = _command(text)


def _add_trigger(config: dict[str, Any], text: str) -> None:
    word = text.split(maxsplit=1)[0].upper()
    if word in ("ONBUILD", "FROM", "MAINTAINER"):
        raise ValueError(f"{word} cannot be a trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


def _set_health_check(config: dict[str, Any], text: str) -> None:
    """Set a health check (Dockerfile reference, HEALTHCHECK): options and CMD COMMAND, or NONE.  Times are nanoseconds."""
    check: dict[str, Any] = {}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        key, _, value = option[2:].partition("=")
        text = text.strip()
        if key == "retries" and value.isdigit():
            check["Retries"] = int(value)
        elif key in _HEALTH_TIMES:
            check[_HEALTH_TIMES[key]] = _nanoseconds(value)
        else:
            raise ValueError(f"unknown option of HEALTHCHECK: {option}")
    word, _, rest = text.partition(" ")
    if word.upper() == "NONE" and not rest and not check:
        config["Healthcheck"] = {"Test": ["NONE"]}
    elif word.upper() == "CMD" and rest.strip():
        words = _command(rest.strip())
        is_shell_form = words == _shell_form(rest.strip())
        test = ["CMD-SHELL", rest.strip()] if is_shell_form else ["CMD", *words]
        config["Healthcheck"] = {"Test": test, **check}
    else:
        raise ValueError("write HEALTHCHECK [OPTIONS] CMD COMMAND, or HEALTHCHECK NONE")


_HEALTH_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def _nanoseconds(text: str) -> int:
    """Parse a duration in Go's format: "1m30s"."""
    value = parse_duration_ns(text)
    if value is None:
        raise ValueError(f"invalid duration {text!r}: write 30s or 1m30s")
    return value


def _set_user(config: dict[str, Any], text: str) -> None:
    config["User"] = text


def _set_stop_signal(config: dict[str, Any], text: str) -> None:
    config["StopSignal"] = text


_INSTRUCTIONS: Mapping[str, Callable[[dict[str, Any], str], None]] = {
    "CMD": _set_command,
    "ENTRYPOINT": _set_entrypoint,
    "ENV": _set_env,
    "EXPOSE": _set_ports,
    "HEALTHCHECK": _set_health_check,
    "LABEL": _set_labels,
    "ONBUILD": _add_trigger,
    "STOPSIGNAL": _set_stop_signal,
    "USER": _set_user,
    "VOLUME": _set_volumes,
    "WORKDIR": _set_directory,
}
