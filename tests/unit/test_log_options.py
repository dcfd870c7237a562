"""The options of a log, by Docker's names and units."""

from __future__ import annotations

import pytest

from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.spec.log_option import build_attributes, complete_options, parse_limits
from pydock_core.spec.validation import check_request
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
    for driver in ("syslog", "fluentd", ""):
        with pytest.raises(UnsupportedError, match="unknown log driver"):
            parse_limits(driver, {})
    for driver, name, value in (
        ("json-file", "compress", "true"),
        ("local", "mode", "non-blocking"),
        ("journald", "mode", "blocking"),
        ("journald", "max-size", "1m"),
        ("local", "tag", "x"),
        ("json-file", "max-buffer-size", "1m"),
        ("json-file", "tag", "{{.Nonsense}}"),
        ("json-file", "tag", "{{index .Labels 1}}"),
    ):
        with pytest.raises(UnsupportedError, match=f"--log-opt {name}"):
            parse_limits(driver, {name: value})
    with pytest.raises(UnsupportedError, match="--log-opt max-size: the log driver none"):
        parse_limits("none", {"max-size": "1m"})
    assert parse_limits("none", {}) is None


def test_what_is_shown_is_what_holds() -> None:
    assert complete_options("json-file", {"max-file": "5"}) == {"max-size": "10m", "max-file": "5"}
    assert complete_options("local", {}) == {"max-size": "20m", "max-file": "5"}
    assert complete_options("none", {}) == {}
    assert parse_limits("local", {"mode": "blocking", "compress": "false"}) == LogLimits(20_000_000, 5)
    assert parse_limits("journald", {"mode": "non-blocking", "max-buffer-size": "2m"}) is None


@pytest.mark.parametrize(
    ("driver", "options", "attributes"),
    [
        ("json-file", {}, {}),
        ("json-file", {"labels": "a,none", "env": "X"}, {"a": "1", "X": "env"}),
        ("json-file", {"labels-regex": "^.$", "env-regex": "Y"}, {"a": "1", "b": "2", "Y": "y"}),
        ("json-file", {"tag": "{{.Name}}/{{ .ID }}/{{.ImageName}}"}, {"tag": "web/cccccccccccc/busybox"}),
        ("journald", {}, {"tag": "cccccccccccc"}),
    ],
)
def test_attributes(driver: str, options: dict[str, str], attributes: dict[str, str]) -> None:
    request = check_request(
        {
            "Image": "busybox",
            "Labels": {"a": "1", "b": "2", "cc": "3"},
            "Env": ["X=env", "Y=y"],
            "HostConfig": {"LogConfig": {"Type": driver, "Config": options}},
        }
    )
    assert build_attributes(request, "c" * 64, "web", "sha256:" + "d" * 64) == attributes
