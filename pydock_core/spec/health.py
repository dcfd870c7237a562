"""Health checks by Docker's rules: validation, the merge with an image's HEALTHCHECK, and the words of a probe.  Pure.

A check's ``Test`` is [] (the image's), ["NONE"], ["CMD", word, ...] or ["CMD-SHELL", text]; times are in nanoseconds, and 0 is
the image's or the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydock_core.errors import InvalidError
from pydock_core.spec.definition import CreateRequest, HealthConfig

if TYPE_CHECKING:
    from pydock_core.supervision.health_plan import HealthPlan

_TIMES = {
    "Interval": "--health-interval",
    "Timeout": "--health-timeout",
    "StartPeriod": "--health-start-period",
    "StartInterval": "--health-start-interval",
}
_FIELDS = ("Test", *_TIMES, "Retries")
_LEAST_NS = 1_000_000
_DEFAULT_SHELL = ("/bin/sh", "-c")
_KINDS = ("NONE", "CMD", "CMD-SHELL")


def check_health(health: Mapping[str, Any]) -> HealthConfig | None:
    """Return a request's health check without empty fields, None if none is left.

    Raises:
        InvalidError: a field is malformed or too small; exit code 125.
    """
    if unknown := set(health) - set(_FIELDS):
        raise _invalid(
            f"invalid Healthcheck: unknown field {min(unknown)}", f"there are {', '.join(_FIELDS)}"
        )
    test = health.get("Test") or []
    if not isinstance(test, list) or not all(isinstance(word, str) for word in test):
        raise _invalid("invalid Healthcheck.Test: not a list of strings", 'write ["CMD", "true"]')
    if test and test[0] not in _KINDS:
        raise _invalid(f"invalid Healthcheck.Test {test[0]}: unknown kind", f"there are {', '.join(_KINDS)}")
    if test and test[0] != "NONE" and len(test) < 2:
        raise _invalid(f"invalid Healthcheck.Test {test[0]}: the command is missing", "give a command")
    for name in (*_TIMES, "Retries"):
        value = health.get(name) or 0
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _invalid(f"invalid Healthcheck.{name} {value}: not a number from 0", "see the Engine API")
        if name in _TIMES and 0 < value < _LEAST_NS:
            raise _invalid(
                f"invalid {_TIMES[name]}: less than 1 ms", "give 1ms or more, or 0 for the default"
            )
    kept: HealthConfig = {name: value for name, value in health.items() if value}  # type: ignore[assignment]  # checked
    return kept or None


def _invalid(message: str, hint: str) -> InvalidError:
    return InvalidError(message, hint, exit_code=125)


def merge_health(requested: HealthConfig | None, image: Mapping[str, Any] | None) -> HealthConfig | None:
    """Return the check, with the image's values for fields missing from the request."""
    known: dict[str, Any] = {name: (image or {})[name] for name in _FIELDS if (image or {}).get(name)}
    merged: HealthConfig = {**known, **(requested or {})}  # type: ignore[typeddict-item]  # the image's are checked
    return merged or None


def has_probe(health: HealthConfig | None) -> bool:
    """Whether the check has a command."""
    test = (health or {}).get("Test") or []
    return len(test) > 1 and test[0] in ("CMD", "CMD-SHELL")


def build_health_plan(request: CreateRequest) -> HealthPlan | None:
    """Return the supervisor's part of the check; None without one."""
    health = request["Healthcheck"]
    if health is None or not has_probe(health):
        return None
    from pydock_core.supervision.health_plan import HealthPlan  # late: few containers have a check

    kind, *words = health["Test"]
    shell: Sequence[str] = request["Shell"] or _DEFAULT_SHELL
    plan = HealthPlan(tuple([*shell, words[0]] if kind == "CMD-SHELL" else words))
    given = {
        "interval_seconds": health.get("Interval", 0) / 1e9,
        "timeout_seconds": health.get("Timeout", 0) / 1e9,
        "start_period_seconds": health.get("StartPeriod", 0) / 1e9,
        "start_interval_seconds": health.get("StartInterval", 0) / 1e9,
        "retries": health.get("Retries", 0),
    }
    return plan.with_values({name: value for name, value in given.items() if value})
