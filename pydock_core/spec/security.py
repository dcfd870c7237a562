"""The SecurityOpt of a definition.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydock_core.errors import InvalidError, UnsupportedError

UNCONFINED = "unconfined"


class Security(NamedTuple):
    """The confinement that options select.

    Attributes:
        seccomp: a profile in Docker's or OCI's form; None for the default one, "unconfined" for none.
    """

    no_new_privileges: bool = False
    seccomp: Mapping[str, Any] | str | None = None


def split_security_option(option: str) -> tuple[str, str]:
    """Split NAME=VALUE, or Docker's older NAME:VALUE."""
    name, _, value = (option if "=" in option else option.replace(":", "=", 1)).partition("=")
    return name, value


def read_security(options: Iterable[str]) -> Security:
    """Read options; a later one replaces an earlier one.

    Raises:
        InvalidError: a seccomp profile is malformed; exit code 125.
        UnsupportedError: an unknown option; exit code 125.
    """
    security = Security()
    for option in options:
        name, value = split_security_option(option)
        if name == "no-new-privileges" and value in ("", "true", "false"):
            security = security._replace(no_new_privileges=value != "false")
        elif name == "seccomp" and value in (UNCONFINED, "builtin", "default"):
            security = security._replace(seccomp=UNCONFINED if value == UNCONFINED else None)
        elif name == "seccomp" and value:
            security = security._replace(seccomp=_parse_profile(value))
        elif (name, value) not in (("apparmor", UNCONFINED), ("label", "disable")):
            # These two have no effect: PyDock uses neither AppArmor nor SELinux.
            raise UnsupportedError(
                f"unknown security option {option[:80]}",
                "there are no-new-privileges, seccomp=unconfined and seccomp=FILE",
                exit_code=125,
            )
    return security


def _parse_profile(text: str) -> Mapping[str, Any]:
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise InvalidError(
            f"invalid seccomp profile: it is not valid JSON: {error}",
            "name a profile in Docker's form",
            exit_code=125,
        ) from error
    if not isinstance(profile, dict):
        raise InvalidError(
            "invalid seccomp profile: it is not an object", "name a profile in Docker's form", exit_code=125
        )
    return profile
