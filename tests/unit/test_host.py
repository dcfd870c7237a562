"""What ``dock doctor`` says of a host that forbids user namespaces."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from pydock_core import host


@pytest.mark.parametrize(
    ("settings", "found", "remedy"),
    [
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            "forbidden by AppArmor",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            {"user/max_user_namespaces": "0"},
            "cannot be created",
            "sudo sysctl -w user.max_user_namespaces=15000",
        ),
        ({}, "cannot be created", "allow unprivileged user namespaces"),
    ],
)
def test_what_forbids_user_namespaces_is_named(
    settings: dict[str, str], found: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(words: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        asked.append(words[-1])
        return subprocess.CompletedProcess(words, 1)

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(host, "_read", lambda path: settings.get(path.removeprefix("/proc/sys/")))
    check = host._user_namespaces(required=True)
    assert (check.state, check.found, check.required) == ("missing", found, True)
    assert check.remedy.startswith(remedy)
    assert "CLONE_NEWNET" in asked[0]  # AppArmor refuses this one, not the first
