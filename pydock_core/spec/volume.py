"""The rules of a volume: its name, its driver and the options of the local driver.  Pure.

The rules of the options are those of Docker's local driver (github.com/moby/moby, volume/local).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydock_core.errors import InvalidError, UnsupportedError

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
"""Docker's label of a volume that was made without a name."""
LOCAL = "local"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_NAME_BYTES = 230
"""Shorter than the maximum of a file name, because the trash adds a prefix and a suffix."""
_OPTIONS = ("type", "device", "o")
_PRIVILEGED = ("nfs", "nfs4", "cifs")
_ADDRESSED = ("nfs", "nfs4", "cifs")


def check_name(name: str) -> None:
    """Refuse a name that Docker refuses.

    Raises:
        InvalidError: exit code 125 for ``run``.
    """
    if not _NAME.match(name) or len(name) > _NAME_BYTES:
        raise InvalidError(
            f"invalid volume name {name[:80]!r}",
            "use letters, digits, '_', '.' and '-', a letter or a digit first; a path begins with /",
        )


def check_driver(driver: str) -> None:
    """Refuse another driver than the local one.

    Raises:
        UnsupportedError: the driver is not "local".
    """
    if driver not in ("", LOCAL):
        raise UnsupportedError(
            f"volume driver {driver} is not supported: PyDock has no plug-ins",
            "leave it out, or use local with -o type=…,device=…",
            exit_code=125,
        )


def check_volume(name: str, driver: str, options: Mapping[str, str], *, rootless: bool) -> None:
    """Check the definition of a new volume.

    Args:
        options: options of the driver.
        rootless: whether an ordinary user creates it.

    Raises:
        InvalidError: the name or an option is malformed.
        UnsupportedError: the driver is not "local", or an ordinary user cannot mount such a volume.
    """
    check_name(name)
    check_driver(driver)
    for key in options:
        if key not in _OPTIONS:
            raise InvalidError(
                f"volume {name}: unknown option {key}", f"the local driver has {', '.join(_OPTIONS)}"
            )
    if not options:
        return
    kind, device, words = (options.get(key, "") for key in _OPTIONS)
    missing = next(
        (key for key, value in (("device", device), ("type", kind or is_bind(options))) if not value), ""
    )
    if missing:
        raise InvalidError(
            f"volume {name}: the option {missing} is missing",
            "for example: -o type=tmpfs -o device=tmpfs -o o=size=100m, or -o type=none -o o=bind -o device=/DIR",
        )
    if is_bind(options) and not device.startswith("/"):
        raise InvalidError(f"volume {name}: device {device} is not an absolute path", "give -o device=/DIR")
    if kind in _ADDRESSED and not any(word.startswith(("addr=", "ip=")) for word in words.split(",")):
        raise InvalidError(
            f"volume {name}: the address of the server is missing",
            f"give it: -o o=addr=ADDRESS,…  (type {kind})",
        )
    if rootless and not is_bind(options) and kind != "tmpfs":
        raise UnsupportedError(
            f"volume {name}: mounting {kind} needs root",
            "mount it on the host, then use -o type=none -o o=bind -o device=/DIR",
        )


def is_bind(options: Mapping[str, str]) -> bool:
    """Whether a volume is a directory of the host."""
    words = options.get("o", "").split(",")
    return "bind" in words or "rbind" in words or options.get("type") == "bind"
