"""The log driver of a container and its options, by Docker's names.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.supervision.log_files import LogLimits

if TYPE_CHECKING:
    from pydock_core.spec.definition import CreateRequest

JSON_FILE = "json-file"
LOCAL = "local"
JOURNALD = "journald"
NONE = "none"
DRIVERS = (JSON_FILE, LOCAL, JOURNALD, NONE)
DEFAULT_OPTIONS: Mapping[str, str] = {"max-size": "10m", "max-file": "3"}
"""The values that Docker's documentation advises.  Its own default has no limit, and a container can fill the disk by
writing to its standard output."""
_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    JSON_FILE: DEFAULT_OPTIONS,
    LOCAL: {"max-size": "20m", "max-file": "5"},  # Docker's own
    JOURNALD: {},
    NONE: {},
}
_FILE = ("max-size", "max-file", "compress", "mode")
_SELECTION = ("labels", "labels-regex", "env", "env-regex", "tag")
_KNOWN: Mapping[str, tuple[str, ...]] = {
    JSON_FILE: (*_FILE, *_SELECTION),
    LOCAL: _FILE,
    JOURNALD: (*_SELECTION, "mode", "max-buffer-size"),
    NONE: (),
}
DEFAULT_BUFFER_BYTES = 1_000_000

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_MOST_FILES = 1000
_TAG = r"\{\{\s*\.([A-Za-z]+)\s*\}\}"
_SHORT_DIGITS = 12


def complete_options(driver: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the options as ``inspect`` shows them, with the defaults of those that are not given."""
    return {**_DEFAULTS[driver], **options}


def check_options(driver: str, options: Mapping[str, str]) -> None:
    """Check a driver and its options.

    Raises:
        UnsupportedError: PyDock does not support the driver, the option or the value; exit code 125.
        InvalidError: a value is malformed; exit code 125.
    """
    if driver not in DRIVERS:
        raise UnsupportedError(
            f"--log-driver {driver}: unknown log driver", f"there are {', '.join(DRIVERS)}", exit_code=125
        )
    for name, value in options.items():
        if name not in _KNOWN[driver]:
            known = ", ".join(_KNOWN[driver]) or "no options"
            raise UnsupportedError(
                f"--log-opt {name}: the log driver {driver} does not have this option",
                f"{driver} has {known}",
                exit_code=125,
            )
        _check_option(driver, name, value)


def _check_option(driver: str, name: str, value: str) -> None:
    if name == "max-size":
        _parse_size(name, value)
    elif name == "max-file":
        _parse_count(value)
    elif name == "max-buffer-size":
        parse_buffer_bytes({name: value})
    elif name == "compress":
        if value not in ("true", "false"):
            raise _invalid(name, value, "neither true nor false", "write true or false")
        if value == "true":
            raise UnsupportedError(
                "--log-opt compress=true: older log files are not compressed",
                "leave it out, or keep fewer: --log-opt max-file=2",
                exit_code=125,
            )
    elif name == "mode":
        _check_mode(driver, value)
    elif name.endswith("-regex"):
        try:
            re.compile(value)
        except re.error as error:
            raise _invalid(name, value, f"not a regular expression: {error}", "see re(3)") from None
    elif name == "tag":
        build_tag(value, {})


def _check_mode(driver: str, value: str) -> None:
    if value not in ("blocking", "non-blocking"):
        raise _invalid("mode", value, "no such mode", "write blocking or non-blocking")
    if value == "non-blocking" and driver != JOURNALD:
        raise UnsupportedError(
            f"--log-opt mode=non-blocking: the log driver {driver} writes a file, and waits for no reader",
            "leave it out",
            exit_code=125,
        )
    if value == "blocking" and driver == JOURNALD:
        raise UnsupportedError(
            "--log-opt mode=blocking: a container never waits for the journal; what it cannot take is dropped",
            "leave it out, or give it more room: --log-opt max-buffer-size=10m",
            exit_code=125,
        )


def parse_limits(driver: str, options: Mapping[str, str]) -> LogLimits | None:
    """Return the limits of the log files; None for a driver without files.

    Sizes are in powers of 1000, as in Docker (units.FromHumanSize).

    Raises:
        PyDockError: see :func:`check_options`.
    """
    check_options(driver, options)
    if driver not in (JSON_FILE, LOCAL):
        return None
    given = complete_options(driver, options)
    return LogLimits(_parse_size("max-size", given["max-size"]), _parse_count(given["max-file"]))


def parse_buffer_bytes(options: Mapping[str, str]) -> int:
    """Return the size of the buffer for output that the journal does not accept.

    Raises:
        InvalidError: it is not a size; exit code 125.
    """
    text = options.get("max-buffer-size")
    return DEFAULT_BUFFER_BYTES if text is None else _parse_size("max-buffer-size", text)


def build_tag(template: str, values: Mapping[str, str]) -> str:
    """Return a tag, Docker's template with the container's values (``{{.Name}}``).

    Raises:
        UnsupportedError: another template; exit code 125.
    """

    def replace(match: re.Match[str]) -> str:
        if match.group(1) not in _TAG_NAMES:
            raise _unknown_tag(template)
        return values.get(match.group(1), "")

    text = re.sub(_TAG, replace, template)
    if "{{" in text:
        raise _unknown_tag(template)
    return text


_TAG_NAMES = ("ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName")


def _unknown_tag(template: str) -> UnsupportedError:
    names = ", ".join(f"{{{{.{name}}}}}" for name in _TAG_NAMES)
    return UnsupportedError(
        f"--log-opt tag={template}: not a template of these names", f"there are {names}", exit_code=125
    )


def build_attributes(request: CreateRequest, container_id: str, name: str, image_id: str) -> dict[str, str]:
    """Return the attributes of each entry that the options request: labels, variables and a tag (``logs --details``).

    Args:
        container_id, image_id: full ids; the image's with its algorithm.
    """
    log = request["HostConfig"]["LogConfig"]
    options, driver = log["Config"], log["Type"]
    attributes = _choose(request["Labels"], options.get("labels", ""), options.get("labels-regex"))
    variables = dict(entry.partition("=")[::2] for entry in request["Env"])
    attributes |= _choose(variables, options.get("env", ""), options.get("env-regex"))
    if driver == JOURNALD or "tag" in options:
        digits = image_id.partition(":")[2]
        values = {
            "ID": container_id[:_SHORT_DIGITS],
            "FullID": container_id,
            "Name": name,
            "ImageID": digits[:_SHORT_DIGITS],
            "ImageFullID": image_id,
            "ImageName": request["Image"],
            "DaemonName": "pydock",
        }
        attributes["tag"] = build_tag(options.get("tag", "{{.ID}}"), values)
    return attributes


def _choose(values: Mapping[str, str], names: str, pattern: str | None) -> dict[str, str]:
    chosen = {name: values[name] for name in names.split(",") if name in values}
    if pattern is not None:
        chosen |= {name: value for name, value in values.items() if re.search(pattern, name)}
    return chosen


def _parse_size(name: str, text: str) -> int:
    if text == "-1" and name == "max-size":
        return 0
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match.group(1)) * _UNITS[match.group(2).lower()]) if match else 0
    if size < 1:
        hint = "write a size, 10m" + (", or -1 for no limit" if name == "max-size" else "")
        raise _invalid(name, text, "not a size", hint)
    return size


def _parse_count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= _MOST_FILES:
        raise _invalid("max-file", text, "not a number of files", f"write a number from 1 to {_MOST_FILES}")
    return int(text)


def _invalid(name: str, text: str, reason: str, hint: str) -> InvalidError:
    return InvalidError(f"invalid --log-opt {name}={text}: {reason}", hint, exit_code=125)
