"""Control groups: layouts, conversions, device filters."""

from __future__ import annotations

import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.runtime.cgroups import build_support
from pydock_core.runtime.cgroups.conversion import (
    build_v1_settings,
    build_v2_settings,
    convert_block_weight,
    convert_shares_to_weight,
    convert_swap,
)
from pydock_core.runtime.cgroups.device_filter import (
    DEFAULT_RULES,
    DeviceRule,
    build_v1_lines,
    build_v2_program,
    parse_rules,
)
from pydock_core.runtime.cgroups.layout import CgroupLayout, find_v2_base, parse_layout
from pydock_core.runtime.cgroups.v2 import V2Cgroup

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def test_the_hybrid_layout() -> None:
    layout = parse_layout(HYBRID, "4:memory:/a/b\n2:cpu,cpuacct:/c\n0::/d\n")
    assert layout.version == 1
    assert layout.v1["cpuacct"] == layout.v1["cpu"] == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert layout.unified == Path("/sys/fs/cgroup/unified")
    assert layout.own == {"memory": "/a/b", "cpu": "/c", "cpuacct": "/c", "": "/d"}


def test_the_unified_layout() -> None:
    assert parse_layout(UNIFIED, "0::/\n").version == 2
    assert parse_layout("", "").version == 0


def test_the_base_is_the_topmost_group_that_is_delegated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = tmp_path / "user.slice" / "user@5.service" / "app.slice" / "x.scope"
    scope.mkdir(parents=True)
    delegated = scope.parents[1]
    monkeypatch.setattr(
        "pydock_core.runtime.cgroups.layout.is_writable", lambda path: path.is_relative_to(delegated)
    )
    own = "/" + str(scope.relative_to(tmp_path))
    assert find_v2_base(CgroupLayout({}, tmp_path, {"": own})) == delegated
    assert find_v2_base(CgroupLayout({}, tmp_path, {"": "/"})) is None


def test_support_of_a_host_without_groups() -> None:
    support = build_support(CgroupLayout({}, None, {}))
    assert (support.version, support.available) == (0, False)
    assert support.reason


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 0), (2, 1), (1024, 39), (262_144, 10_000), (9_999_999, 10_000)]
)
def test_shares(shares: int, weight: int) -> None:
    assert convert_shares_to_weight(shares) == weight


@pytest.mark.parametrize(("block", "weight"), [(0, 0), (10, 1), (1000, 10_000)])
def test_block_weights(block: int, weight: int) -> None:
    assert convert_block_weight(block) == weight


@given(st.integers(2, 262_144), st.integers(2, 262_144))
def test_shares_keep_their_order(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert convert_shares_to_weight(low) <= convert_shares_to_weight(high)


def test_swap() -> None:
    assert convert_swap(-1, 0) == "max"
    assert convert_swap(30, 10) == "20"
    assert convert_swap(10, 10) == "0"
    for swap, limit in ((5, 10), (5, 0)):
        with pytest.raises(InvalidError):
            convert_swap(swap, limit)


RESOURCES: dict[str, Any] = {
    "memory": {"limit": 1000, "swap": 3000, "reservation": 500},
    "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0-1", "mems": "0"},
    "pids": {"limit": 7},
    "blockIO": {"weight": 1000, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 99}]},
}


def test_version_1() -> None:
    assert build_v1_settings(RESOURCES) == [
        ("memory", "memory.limit_in_bytes", "1000"),
        ("memory", "memory.soft_limit_in_bytes", "500"),
        ("memory", "memory.memsw.limit_in_bytes", "3000"),
        ("cpu", "cpu.shares", "1024"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "7"),
        ("blkio", "blkio.weight", "1000"),
        ("blkio", "blkio.throttle.read_bps_device", "8:0 99"),
    ]


def test_version_2() -> None:
    assert build_v2_settings({**RESOURCES, "unified": {"memory.high": "900"}}) == [
        ("memory", "memory.max", "1000"),
        ("memory", "memory.swap.max", "2000"),
        ("memory", "memory.low", "500"),
        ("cpu", "cpu.weight", "39"),
        ("cpu", "cpu.max", "50000 100000"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "7"),
        ("io", "io.weight", "default 10000"),
        ("io", "io.max", "8:0 rbps=99"),
        ("memory", "memory.high", "900"),
    ]


def test_no_limit_is_written_as_max() -> None:
    assert build_v2_settings({"cpu": {"period": 5000}}) == [("cpu", "cpu.max", "max 5000")]
    assert build_v1_settings({"pids": {"limit": -1}}) == [("pids", "pids.max", "max")]


@pytest.mark.parametrize(
    ("resources", "name"),
    [
        ({"rdma": {"x": 1}}, "rdma"),
        ({"network": {"classID": 1}}, "network"),
        ({"memory": {"kernel": 5}}, "memory.kernel"),
        ({"cpu": {"nonsense": 5}}, "cpu.nonsense"),
    ],
)
def test_what_is_not_known_is_refused_by_name(resources: dict[str, Any], name: str) -> None:
    for build in (build_v1_settings, build_v2_settings):
        with pytest.raises(UnsupportedError, match=name):
            build(resources)


def test_what_one_version_cannot_do_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="swappiness"):
        build_v2_settings({"memory": {"swappiness": 5}})
    with pytest.raises(UnsupportedError, match="unified"):
        build_v1_settings({"unified": {"memory.high": "1"}})
    with pytest.raises(InvalidError):
        build_v2_settings({"unified": {"../../cgroup.procs": "1"}})


# -- device filters --------------------------------------------------------------------------------------


def run_program(program: bytes, kind: int, access: int, major: int, minor: int) -> bool:
    """Interpret the few eBPF instructions that the filters are made of."""
    registers = [0] * 11
    context = {0: access << 16 | kind, 4: major, 8: minor}
    position = 0
    while True:
        code, both, offset, value = struct.unpack_from("=BBhi", program, position * 8)
        destination, source = both & 15, both >> 4
        position += 1
        match code:
            case 0x61:
                registers[destination] = context[offset]
            case 0x57:
                registers[destination] &= value
            case 0x77:
                registers[destination] >>= value
            case 0xBF:
                registers[destination] = registers[source]
            case 0xB7:
                registers[destination] = value
            case 0x55:
                position += offset if registers[destination] != value else 0
            case 0x5D:
                position += offset if registers[destination] != registers[source] else 0
            case 0x15:
                position += offset if registers[destination] == value else 0
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(f"instruction {code:#x}")


BITS = {"m": 1, "r": 2, "w": 4}
KINDS = {"b": 1, "c": 2}


def decide(rules: list[DeviceRule], kind: str, access: str, major: int, minor: int) -> bool:
    """What the documents say: the last rule that matches decides; none: allowed."""
    for rule in reversed(rules):
        if rule.kind not in ("a", kind):
            continue
        if rule.major not in (None, major) or rule.minor not in (None, minor):
            continue
        asked, named = set(access), set(rule.access)
        if (rule.allow and asked <= named) or (not rule.allow and asked & named):
            return rule.allow
    return True


numbers = st.one_of(st.none(), st.integers(0, 3))
rule_lists = st.lists(
    st.builds(
        DeviceRule,
        st.booleans(),
        st.sampled_from("abc"),
        numbers,
        numbers,
        st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"]),
    ),
    max_size=6,
)


@given(
    rules=rule_lists,
    kind=st.sampled_from("bc"),
    access=st.sampled_from(["r", "w", "m", "rw", "rwm"]),
    major=st.integers(0, 3),
    minor=st.integers(0, 3),
)
def test_the_program_decides_as_the_rules_say(
    rules: list[DeviceRule], kind: str, access: str, major: int, minor: int
) -> None:
    bits = sum(BITS[letter] for letter in access)
    program = build_v2_program(rules)
    assert run_program(program, KINDS[kind], bits, major, minor) == decide(rules, kind, access, major, minor)


def test_nothing_of_the_program_is_out_of_reach() -> None:
    # The kernel's verifier refuses unreachable instructions.
    everything = DeviceRule(False)
    assert build_v2_program([DeviceRule(True, "c", 1, 3), everything]) == build_v2_program([everything])


def test_default_rules_come_last_and_only_where_there_are_others() -> None:
    assert parse_rules([]) == []
    rules = parse_rules([{"allow": False, "access": "rwm"}])
    assert rules == [DeviceRule(False), *DEFAULT_RULES]
    program = build_v2_program(rules)
    assert run_program(program, KINDS["c"], BITS["r"] | BITS["w"], 1, 3)
    assert not run_program(program, KINDS["b"], BITS["r"], 254, 0)
    assert run_program(program, KINDS["b"], BITS["m"], 254, 0)


def test_lines_of_version_1() -> None:
    rules = [DeviceRule(False), DeviceRule(True, "c", 1, None, "rw"), DeviceRule(True, "a", 5, 5, "r")]
    assert build_v1_lines(rules) == [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:* rw"),
        ("devices.allow", "c 5:5 r"),
        ("devices.allow", "b 5:5 r"),
    ]


@pytest.mark.parametrize("entry", [{"type": "x"}, {"access": "rx"}])
def test_bad_rules(entry: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        parse_rules([{"allow": True, **entry}])


@pytest.mark.parametrize("has_kill_file", [True, False])
def test_a_group_of_version_2_is_empty_after_a_kill(tmp_path: Path, has_kill_file: bool) -> None:
    """cgroup.kill only sends the signal: the kernel empties cgroup.procs later.  Before Linux 5.14 it is missing."""
    kill_file, processes = tmp_path / "cgroup.kill", tmp_path / "cgroup.procs"
    if has_kill_file:
        kill_file.touch()
    with subprocess.Popen(["sleep", "100"]) as child:
        processes.write_text(f"{child.pid}\n")

        def leave() -> None:
            child.wait()
            processes.write_text("")

        kernel = threading.Thread(target=leave)
        kernel.start()
        try:
            V2Cgroup(str(tmp_path)).kill()
            assert processes.read_text() == ""
        finally:
            child.kill()
            kernel.join()
    assert kill_file.exists() == has_kill_file
    assert not has_kill_file or kill_file.read_text() == "1"
