"""Restart policies: which ends are followed by a run, the delays, and the unit that starts containers after a boot."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.engine import boot
from pydock_core.errors import FailedError, UnsupportedError
from pydock_core.supervision.restart_policy import (
    ALWAYS,
    LONGEST_DELAY_SECONDS,
    NAMES,
    NO,
    ON_FAILURE,
    UNLESS_STOPPED,
    RestartPolicy,
    Restarts,
)


def delays(policy: RestartPolicy, runs: list[float]) -> list[float]:
    restarts: Restarts | None = Restarts(policy)
    found = []
    for seconds in runs:
        assert restarts is not None
        restarts = restarts.after(1, seconds)
        assert restarts is not None
        found.append(round(restarts.delay_seconds, 3))
    return found


def test_the_delay_doubles_up_to_a_minute() -> None:
    found = delays(RestartPolicy(ALWAYS), [0.1] * 12)
    assert found == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60]


def test_a_run_of_ten_seconds_resets_the_delay() -> None:
    assert delays(RestartPolicy(ALWAYS), [1, 9.9, 10, 1]) == [0.1, 0.2, 0.1, 0.2]


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        (NO, 1, False),
        (ON_FAILURE, 0, False),
        (ON_FAILURE, 1, True),
        (ALWAYS, 0, True),
        (UNLESS_STOPPED, 0, True),
    ],
)
def test_which_ends_are_followed_by_a_run(name: str, code: int, expected: bool) -> None:
    assert RestartPolicy(name).allows(code, 0) is expected


@given(
    name=st.sampled_from(NAMES),
    most=st.integers(0, 5),
    codes=st.lists(st.integers(0, 255), max_size=20),
    seconds=st.floats(0, 100),
)
def test_counts_and_bounds(name: str, most: int, codes: list[int], seconds: float) -> None:
    restarts = Restarts(RestartPolicy(name, most if name == ON_FAILURE else 0))
    for code in codes:
        following = restarts.after(code, seconds)
        if following is None:
            return
        assert following.count == restarts.count + 1
        assert 0.1 <= following.delay_seconds <= LONGEST_DELAY_SECONDS
        assert not (name == ON_FAILURE and most) or following.count <= most
        assert Restarts.from_json(following.to_json()) == following
        restarts = following


@pytest.mark.parametrize(
    ("name", "stopped", "expected"),
    [
        (NO, False, False),
        (ON_FAILURE, False, False),
        (ALWAYS, False, True),
        (ALWAYS, True, True),
        (UNLESS_STOPPED, False, True),
        (UNLESS_STOPPED, True, False),
    ],
)
def test_which_containers_a_boot_starts(name: str, stopped: bool, expected: bool) -> None:
    assert RestartPolicy(name).starts_at_boot(stopped_by_hand=stopped) is expected


def test_the_unit_quotes_what_systemd_would_expand() -> None:
    text = boot.build_unit(["/opt/100%/$python", "-m", 'a"b'], {"PYDOCK_ROOT": "/srv/a b"}, is_user=True)
    assert 'ExecStart="/opt/100%%/$$python" "-m" "a\\"b"\n' in text
    assert 'Environment="PYDOCK_ROOT=/srv/a b"\n' in text
    assert "WantedBy=default.target" in text


def test_without_systemd_a_crontab_line_is_offered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(boot, "_SYSTEMD_RUNS", tmp_path / "none")
    monkeypatch.setenv("PYDOCK_ROOT", "/srv/a b")
    with pytest.raises(UnsupportedError) as caught:
        boot.install_unit()
    assert "systemd is not the init system" in caught.value.message
    assert "@reboot PYDOCK_ROOT='/srv/a b' " in caught.value.hint
    assert caught.value.hint.endswith("-I -m pydock_core system start-restart")


@pytest.fixture
def systemctl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A systemctl that notes its words, and fails for the word in the file "fail"."""
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
        f'grep -qx "$1" {tmp_path}/fail 2>/dev/null && {{ echo refused >&2; exit 1; }}\nexit 0\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(boot, "_SYSTEMD_RUNS", tmp_path)
    monkeypatch.setattr(boot, "_SYSTEM_UNITS", tmp_path / "units")
    monkeypatch.setattr(boot.os, "geteuid", lambda: 0)
    return tmp_path


def test_the_unit_is_installed_and_removed(systemctl: Path) -> None:
    path = Path(boot.install_unit())
    assert path == systemctl / "units" / boot.UNIT
    assert 'system" "start-restart"' in path.read_text()
    boot.install_unit(remove=True)
    assert not path.exists()
    assert (systemctl / "calls").read_text().splitlines() == [
        "daemon-reload",
        f"enable {boot.UNIT}",
        f"disable {boot.UNIT}",
        "daemon-reload",
    ]


def test_a_unit_that_cannot_be_enabled_is_not_left(systemctl: Path) -> None:
    (systemctl / "fail").write_text("enable\n")
    with pytest.raises(FailedError, match="refused"):
        boot.install_unit()
    assert list((systemctl / "units").iterdir()) == []
