"""Shared namespaces and limits of devices: config.json, and what a host leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pydock_core.engine import host_support
from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.runtime.cgroups import CgroupSupport
from pydock_core.runtime.cgroups.conversion import build_v1_settings, build_v2_settings
from pydock_core.spec.definition import HostConfig
from pydock_core.spec.host_option import block_devices, build_device_rules, build_host_resources
from pydock_core.spec.validation import check_request

ALL = {"memory": True, "swap": True, "cpu": True, "cpuset": True, "pids": True, "io": True, "devices": True}
LIMITS = {
    "BlkioWeightDevice": [{"Path": "/dev/a", "Weight": 100}],
    "BlkioDeviceReadBps": [{"Path": "/dev/a", "Rate": 5}],
    "BlkioDeviceWriteIOps": [{"Path": "/dev/b", "Rate": 7}],
}
NUMBERS = {"/dev/a": (8, 0), "/dev/b": (8, 16)}


def host_of(**fields: Any) -> HostConfig:
    return check_request({"Image": "i", "HostConfig": fields})["HostConfig"]


def test_limits_of_devices_reach_both_versions() -> None:
    host = host_of(**LIMITS)
    assert block_devices(host) == ["/dev/a", "/dev/b"]
    resources = build_host_resources(host, NUMBERS)
    assert build_v1_settings(resources) == [
        ("blkio", "blkio.weight_device", "8:0 100"),
        ("blkio", "blkio.throttle.read_bps_device", "8:0 5"),
        ("blkio", "blkio.throttle.write_iops_device", "8:16 7"),
    ]
    assert build_v2_settings(resources) == [
        ("io", "io.weight", "8:0 910"),
        ("io", "io.max", "8:0 rbps=5"),
        ("io", "io.max", "8:16 wiops=7"),
    ]


def test_what_version_1_alone_has() -> None:
    resources = build_host_resources(host_of(MemorySwappiness=0, OomKillDisable=True), {})
    assert resources == {"memory": {"swappiness": 0, "disableOOMKiller": True}}
    assert build_host_resources(host_of(MemorySwappiness=-1), {}) == {}


def test_device_rules() -> None:
    rules = build_device_rules(host_of(DeviceCgroupRules=["c 1:3 rw", "b *:* m", "a 7:* rwm"]))
    assert rules == [
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"allow": True, "type": "b", "access": "m"},
        {"allow": True, "type": "a", "major": 7, "access": "rwm"},
    ]


@pytest.mark.parametrize(
    ("support", "lost", "words"),
    [
        (CgroupSupport(1, True, **ALL), set(), []),
        (
            CgroupSupport(2, True, **ALL),
            {"MemorySwappiness", "OomKillDisable"},
            ["--memory-swappiness, --oom-kill-disable", "version 2 have no such setting"],
        ),
        (
            CgroupSupport(1, False, reason="root only"),
            {"MemorySwappiness", "OomKillDisable", *LIMITS},
            ["--blkio-weight-device, --device-read-bps, --device-write-iops here: root only"],
        ),
    ],
    ids=["1", "2", "none"],
)
def test_limits_that_a_host_leaves_out(
    monkeypatch: pytest.MonkeyPatch, support: CgroupSupport, lost: set[str], words: list[str]
) -> None:
    monkeypatch.setattr(host_support, "probe_cgroups", lambda: support)
    host = host_of(MemorySwappiness=5, OomKillDisable=True, **LIMITS)
    left_out, warnings = host_support.lost_limits(host, rootless=False)
    assert set(left_out) == lost
    for word in words:
        assert word in "\n".join(warnings)


def test_a_rule_of_devices_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_support, "probe_cgroups", lambda: CgroupSupport(2, True, **ALL))
    host = host_of(DeviceCgroupRules=["c 1:3 rw"])
    assert host_support.lost_limits(host, rootless=True)[0] == {"DeviceCgroupRules": None}
    assert host_support.lost_limits(host, rootless=False)[0] == {}


@pytest.mark.parametrize(
    ("fields", "rootless", "message"),
    [
        ({"UsernsMode": "host"}, True, "--userns host is refused"),
        (
            {"PidMode": "host"},
            True,
            "--pid host needs a control group of the container's own, to end its processes: none",
        ),
        ({"PidMode": "container:x"}, True, "--pid container:x needs a control group"),
        ({"CgroupParent": "/x"}, True, "--cgroup-parent is refused: none"),
    ],
)
def test_what_an_ordinary_user_cannot_share(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], rootless: bool, message: str
) -> None:
    monkeypatch.setattr(host_support, "probe_cgroups", lambda: CgroupSupport(1, False, reason="none"))
    with pytest.raises(UnsupportedError, match=message):
        host_support.check_host_support(host_of(**fields), rootless=rootless)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("CpusetCpus", "99", "invalid --cpuset-cpus 99: this host has processors 0"),
        ("CpusetCpus", "0,90-99", "invalid --cpuset-cpus 0,90-99: this host has processors 0"),
        ("CpusetMems", "999", "invalid --cpuset-mems 999: this host has memory nodes 0"),
    ],
)
def test_processors_that_the_host_lacks(field: str, text: str, message: str) -> None:
    if field == "CpusetMems" and not Path("/sys/devices/system/node/online").exists():
        pytest.skip("a kernel without memory nodes")
    with pytest.raises(InvalidError, match=message):
        host_support.check_host_support(host_of(**{field: text}), rootless=False)
    host_support.check_host_support(host_of(**{field: "0"}), rootless=False)
