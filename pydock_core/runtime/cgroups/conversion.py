"""Converts OCI ``linux.resources`` to the files of control groups: small pure functions.

See config-linux.md, "Control groups".  The conversions between the versions are those of crun and runc, so a
configuration has the same meaning with each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydock_core.errors import InvalidError, UnsupportedError

Setting = tuple[str, str, str]
"""Controller, file, value."""

_KNOWN: dict[str, frozenset[str]] = {
    "memory": frozenset(
        {
            "limit",
            "swap",
            "reservation",
            "swappiness",
            "disableOOMKiller",
            "useHierarchy",
            "checkBeforeUpdate",
        }
    ),
    "cpu": frozenset(
        {"shares", "quota", "burst", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems", "idle"}
    ),
    "pids": frozenset({"limit"}),
    "blockIO": frozenset(
        {
            "weight",
            "weightDevice",
            "throttleReadBpsDevice",
            "throttleWriteBpsDevice",
            "throttleReadIOPSDevice",
            "throttleWriteIOPSDevice",
        }
    ),
}
_WITHOUT_KEYS = frozenset({"devices", "hugepageLimits", "unified"})
_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
)
_DEFAULT_PERIOD_US = 100_000


def check_resources(resources: Mapping[str, Any]) -> None:
    """Refuse resources that have no conversion here; the message names one."""
    for group, values in resources.items():
        if not values or group in _WITHOUT_KEYS:
            continue
        known = _KNOWN.get(group)
        if known is None:
            raise UnsupportedError(
                f"linux.resources.{group} is not supported", "leave it out, or use --runtime crun"
            )
        for key, value in values.items():
            if value not in (None, False, [], "") and key not in known:
                raise UnsupportedError(f"linux.resources.{group}.{key} is not supported", "leave it out")


def has_limits(resources: Mapping[str, Any]) -> bool:
    """Whether there is a setting that needs a control group."""
    return any(bool(values) for values in resources.values())


def convert_shares_to_weight(shares: int) -> int:
    """Convert cpu.shares (2 to 262144, default 1024) to cpu.weight (1 to 10000), linearly; 0 stays 0 (not set)."""
    return 0 if shares == 0 else 1 + ((min(max(shares, 2), 262_144) - 2) * 9999) // 262_142


def convert_block_weight(weight: int) -> int:
    """Convert blkio.weight (10 to 1000) to io.weight (1 to 10000), linearly; 0 stays 0 (not set)."""
    return 0 if weight == 0 else 1 + ((min(max(weight, 10), 1000) - 10) * 9999) // 990


def convert_swap(swap: int, limit: int) -> str:
    """Convert the total of memory and swap (OCI) to the swap alone (version 2), as text in bytes.

    Raises:
        InvalidError: the total comes without a memory limit, or is below it.
    """
    if swap == -1:
        return "max"
    if limit <= 0:
        raise InvalidError("memory.swap is the total of memory and swap: it needs memory.limit")
    if swap < limit:
        raise InvalidError(
            f"memory.swap {swap} is the total of memory and swap, and below memory.limit {limit}"
        )
    return str(swap - limit)


def _limit(value: int, unlimited: str) -> str:
    return unlimited if value < 0 else str(value)


def build_v1_settings(resources: Mapping[str, Any]) -> list[Setting]:
    """Return the settings to write for version 1, in order, except devices."""
    check_resources(resources)
    if resources.get("unified"):
        raise UnsupportedError("linux.resources.unified needs control groups of version 2")
    settings: list[Setting] = []

    def add(controller: str, file: str, value: object) -> None:
        settings.append((controller, file, str(value)))

    memory = resources.get("memory") or {}
    if memory.get("limit"):
        add("memory", "memory.limit_in_bytes", memory["limit"])
    if memory.get("reservation"):
        add("memory", "memory.soft_limit_in_bytes", memory["reservation"])
    if memory.get("swap"):
        convert_swap(memory["swap"], memory.get("limit") or 0)
        add("memory", "memory.memsw.limit_in_bytes", memory["swap"])
    if memory.get("swappiness") is not None:
        add("memory", "memory.swappiness", memory["swappiness"])
    if memory.get("disableOOMKiller"):
        add("memory", "memory.oom_control", 1)
    cpu = resources.get("cpu") or {}
    for key, file in (
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("burst", "cpu.cfs_burst_us"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
    ):
        if cpu.get(key):
            add("cpu", file, cpu[key])
    if cpu.get("idle") is not None:
        add("cpu", "cpu.idle", cpu["idle"])
    for key in ("cpus", "mems"):
        if cpu.get(key):
            add("cpuset", f"cpuset.{key}", cpu[key])
    pids = (resources.get("pids") or {}).get("limit")
    if pids is not None:
        add("pids", "pids.max", "max" if pids <= 0 else pids)
    block = resources.get("blockIO") or {}
    if block.get("weight"):
        add("blkio", "blkio.weight", block["weight"])
    for device in block.get("weightDevice") or ():
        add("blkio", "blkio.weight_device", f"{device['major']}:{device['minor']} {device['weight']}")
    for key, file, _ in _THROTTLES:
        for device in block.get(key) or ():
            add("blkio", file, f"{device['major']}:{device['minor']} {device['rate']}")
    for page in resources.get("hugepageLimits") or ():
        add("hugetlb", f"hugetlb.{page['pageSize']}.limit_in_bytes", page["limit"])
    return settings


def build_v2_settings(resources: Mapping[str, Any]) -> list[Setting]:
    """Return the settings to write for version 2, in order, except devices."""
    check_resources(resources)
    settings: list[Setting] = []

    def add(controller: str, file: str, value: object) -> None:
        settings.append((controller, file, str(value)))

    memory = resources.get("memory") or {}
    for key in ("swappiness", "disableOOMKiller"):
        if memory.get(key):
            raise UnsupportedError(f"linux.resources.memory.{key} needs control groups of version 1")
    if memory.get("limit"):
        add("memory", "memory.max", _limit(memory["limit"], "max"))
    if memory.get("swap"):
        add("memory", "memory.swap.max", convert_swap(memory["swap"], memory.get("limit") or 0))
    if memory.get("reservation"):
        add("memory", "memory.low", _limit(memory["reservation"], "max"))
    cpu = resources.get("cpu") or {}
    for key in ("realtimePeriod", "realtimeRuntime"):
        if cpu.get(key):
            raise UnsupportedError(f"linux.resources.cpu.{key} needs control groups of version 1")
    if cpu.get("shares"):
        add("cpu", "cpu.weight", convert_shares_to_weight(cpu["shares"]))
    if cpu.get("quota") or cpu.get("period"):
        quota = cpu.get("quota") or -1
        add("cpu", "cpu.max", f"{_limit(quota, 'max')} {cpu.get('period') or _DEFAULT_PERIOD_US}")
    if cpu.get("burst"):
        add("cpu", "cpu.max.burst", cpu["burst"])
    if cpu.get("idle") is not None:
        add("cpu", "cpu.idle", cpu["idle"])
    for key in ("cpus", "mems"):
        if cpu.get(key):
            add("cpuset", f"cpuset.{key}", cpu[key])
    pids = (resources.get("pids") or {}).get("limit")
    if pids is not None:
        add("pids", "pids.max", "max" if pids <= 0 else pids)
    block = resources.get("blockIO") or {}
    if block.get("weight"):
        add("io", "io.weight", f"default {convert_block_weight(block['weight'])}")
    for device in block.get("weightDevice") or ():
        weight = convert_block_weight(device["weight"])
        add("io", "io.weight", f"{device['major']}:{device['minor']} {weight}")
    for key, _, word in _THROTTLES:
        for device in block.get(key) or ():
            add("io", "io.max", f"{device['major']}:{device['minor']} {word}={device['rate']}")
    for page in resources.get("hugepageLimits") or ():
        add("hugetlb", f"hugetlb.{page['pageSize']}.max", page["limit"])
    for file, value in (resources.get("unified") or {}).items():
        if "/" in file:
            raise InvalidError(f"linux.resources.unified: {file} is not a file of a control group")
        add(file.partition(".")[0], file, value)
    return settings


def list_controllers(settings: Sequence[Setting]) -> list[str]:
    """Return the controllers that the settings need, each once, in order."""
    return list(dict.fromkeys(controller for controller, _, _ in settings))
