"""Refuses the options of a container that this host cannot honour, or drops them with a warning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydock_core.engine.bundle import read_numbers
from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.runtime.cgroups import CgroupSupport, probe_cgroups
from pydock_core.spec.definition import HOST_CONFIG, HostConfig
from pydock_core.spec.host_option import HOST, THROTTLES, block_devices

_ONLY_VERSION_1 = "control groups of version 2 have no such setting"
_FLAGS: Mapping[str, str] = {
    "BlkioDeviceReadBps": "--device-read-bps",
    "BlkioDeviceWriteBps": "--device-write-bps",
    "BlkioDeviceReadIOps": "--device-read-iops",
    "BlkioDeviceWriteIOps": "--device-write-iops",
}


def check_host_support(host: HostConfig, *, rootless: bool) -> None:
    """Check the options that require a feature of the host.

    Raises:
        UnsupportedError: the host, or an ordinary user on it, lacks an option's requirement; exit code 125.
        NotFoundError, InvalidError: a device with limits is not a block device; exit code 125.
    """
    for path in block_devices(host):
        read_numbers(path)
    if host["CpusetCpus"] or host["CpusetMems"]:
        check_cpuset(host)
    if host["UsernsMode"] == HOST and rootless:
        raise _unsupported(
            "--userns host",
            "an ordinary user's containers are in the user's own user namespace",
            "leave it out",
        )
    if not host["PidMode"] and not host["CgroupParent"]:
        return
    support = probe_cgroups()
    if not support.available:
        hint = "leave it out, or run it as root (dock doctor)"
        if not host["PidMode"]:
            raise _unsupported("--cgroup-parent", support.reason, hint)
        # Without a PID namespace of its own, only its control group identifies the container's processes.
        raise UnsupportedError(
            f"--pid {host['PidMode']} needs a control group of the container's own, to end its processes: "
            f"{support.reason}",
            hint,
            exit_code=125,
        )


def check_cpuset(host: Mapping[str, Any]) -> None:
    """Check that this host has the requested processors and memory nodes.

    Args:
        host: HostConfig, or a part of it, with valid lists (cpuset(7)).

    Raises:
        InvalidError: it lacks one; exit code 125.
    """
    for field, flag, kind, what in (
        ("CpusetCpus", "--cpuset-cpus", "cpu", "processors"),
        ("CpusetMems", "--cpuset-mems", "node", "memory nodes"),
    ):
        requested = host.get(field) or ""
        try:
            online = Path(f"/sys/devices/system/{kind}/online").read_text().strip() if requested else ""
        except OSError:  # a kernel without NUMA has no nodes
            continue
        if online and not _parse_list(requested) <= _parse_list(online):
            raise InvalidError(
                f"invalid {flag} {requested}: this host has {what} {online}",
                f"give some of {online}",
                exit_code=125,
            )


def _parse_list(text: str) -> set[int]:
    ends = (part.partition("-")[::2] for part in text.split(","))
    return {number for first, last in ends for number in range(int(first), int(last or first) + 1)}


def _unsupported(option: str, reason: str, hint: str) -> UnsupportedError:
    return UnsupportedError(f"{option} is refused: {reason}", hint, exit_code=125)


def lost_limits(host: Mapping[str, Any], *, rootless: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the defaults of the limits that cannot be enforced, and warnings that name them."""
    support = probe_cgroups()
    limits = _limits(support, rootless=rootless)
    lost = {name: flag for name, (flag, can) in limits.items() if host[name] and not can}
    old = {"MemorySwappiness": "--memory-swappiness", "OomKillDisable": "--oom-kill-disable"}
    has_old = support.version == 1 and support.memory
    outdated = {name: flag for name, flag in old.items() if host[name] not in (None, False) and not has_old}
    warnings = []
    for names, reason in (
        (lost, support.reason or "its cgroup controller is not there"),
        (outdated, _ONLY_VERSION_1 if support.version == 2 else support.reason),
    ):
        if names:
            warnings.append(f"cannot enforce {', '.join(names.values())} here: {reason} (dock doctor)")
    defaults = cast("Mapping[str, Any]", HOST_CONFIG)
    return {name: defaults[name] for name in (*lost, *outdated)}, warnings


def _limits(support: CgroupSupport, *, rootless: bool) -> Mapping[str, tuple[str, bool]]:
    """Return each limit's option, and whether it can be enforced."""
    return {
        "Memory": ("-m", support.memory),
        "MemorySwap": ("--memory-swap", support.swap),
        "MemoryReservation": ("--memory-reservation", support.memory),
        "NanoCpus": ("--cpus", support.cpu),
        "CpuPeriod": ("--cpu-period", support.cpu),
        "CpuQuota": ("--cpu-quota", support.cpu),
        "CpusetMems": ("--cpuset-mems", support.cpuset),
        "BlkioWeight": ("--blkio-weight", support.io),
        "BlkioWeightDevice": ("--blkio-weight-device", support.io),
        "CpuShares": ("--cpu-shares", support.cpu),
        "CpusetCpus": ("--cpuset-cpus", support.cpuset),
        "PidsLimit": ("--pids-limit", support.pids),
        "DeviceCgroupRules": ("--device-cgroup-rule", support.devices and not rootless),
        **{name: (_FLAGS[name], support.io) for name in THROTTLES},
    }
