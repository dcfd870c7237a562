"""The options of a log, by Docker's names and units."""

from __future__ import annotations

import pytest

from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.spec.log_option import complete_options, parse_limits
from pydock_core.supervision.log_files import LogLimits


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({}, LogLimits(10_000_000, 3)),
        ({"max-size": "20k"}, LogLimits(20_000, 3)),
        ({"max-size": "1.5MB", "max-file": "1"}, LogLimits(1_500_000, 1)),
        ({"max-size": "7"}, LogLimits(7, 3)),
        ({"max-size": "1 GiB"}, LogLimits(10**9, 3)),
        ({"max-size": "-1"}, LogLimits(0, 3)),
    ],
)
def test_limits(options: dict[str, str], limits: LogLimits) -> None:
    assert parse_limits("json-file", options) == limits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max-size", value) for value in ("", "0", "-2", "10x", "m", "0.1", "1e3", "1_0")),
        *(("max-file", value) for value in ("", "0", "-1", "1.5", "1001", "1_0", "x")),
    ],
)
def test_bad_values_are_named(name: str, value: str) -> None:
    with pytest.raises(InvalidError, match=f"invalid --log-opt {name}={value}") as caught:
        parse_limits("json-file", {name: value})
    assert caught.value.exit_code == 125


def test_what_docker_has_and_this_does_not() -> None:
    for driver in ("local", "syslog", "journald", ""):
        with pytest.raises(UnsupportedError, match="unknown log driver"):
            parse_limits(driver, {})
    for name in ("compress", "mode", "tag"):
        with pytest.raises(UnsupportedError, match=f"--log-opt {name}"):
            parse_limits("json-file", {name: "x"})
    with pytest.raises(UnsupportedError, match="--log-opt max-size: the log driver none"):
        parse_limits("none", {"max-size": "1m"})
    assert parse_limits("none", {}) is None


def test_what_is_shown_is_what_holds() -> None:
    assert complete_options("json-file", {"max-file": "5"}) == {"max-size": "10m", "max-file": "5"}
    assert complete_options("none", {}) == {}
