"""Converts a container's definition of schema version 4 or earlier into the create request of version 5.  Pure.

It belongs to those two versions, and does not follow later changes of :mod:`pydock_core.spec.definition`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}


def convert(text: str) -> str:
    """Return the stored form of version 5 for the JSON text of version 4; earlier rows lack the newer keys."""
    old: dict[str, Any] = json.loads(text)
    volumes: dict[str, str] = {}
    host: dict[str, Any] = {
        "NetworkMode": old.get("network") or "none",
        "Runtime": old.get("runtime", "embedded"),
        "LogConfig": _log_config(old),
        **_convert_mounts(old.get("mounts", ()), volumes),
        "PortBindings": _bindings(old.get("ports", ())),
        "CapAdd": _capabilities(old.get("cap_add", ())),
        "CapDrop": _capabilities(old.get("cap_drop", ())),
        "ExtraHosts": ["{1}:{0}".format(*line.split("\t")) for line in old.get("hosts", ())],
        "GroupAdd": old.get("groups"),
        "OomScoreAdj": old.get("oom_score_adj"),
        "AutoRemove": old.get("auto_remove"),
        "Privileged": old.get("privileged"),
        "ReadonlyRootfs": old.get("read_only"),
        "SecurityOpt": _security(old),
        "ShmSize": old.get("shm_size_bytes"),
        "Sysctls": old.get("sysctls"),
        "CpuShares": old.get("cpu_shares"),
        "Memory": old.get("memory_bytes"),
        "NanoCpus": round((old.get("cpus") or 0) * 1e9),
        "CpusetCpus": old.get("cpuset_cpus"),
        "Devices": [
            {
                "PathOnHost": device["source"],
                "PathInContainer": device["target"],
                "CgroupPermissions": device["permissions"],
            }
            for device in old.get("devices", ())
        ],
        "MemorySwap": old.get("memory_swap_bytes"),
        "PidsLimit": old.get("pids_limit"),
        "Ulimits": [
            {"Name": name, "Soft": soft, "Hard": hard} for name, soft, hard in old.get("ulimits", ())
        ],
    }
    network = host["NetworkMode"]
    signal = old.get("stop_signal") or "TERM"
    request = {
        "Hostname": old.get("hostname"),
        "User": old.get("user"),
        "AttachStdin": old.get("stdin_once"),
        "AttachStdout": True,
        "AttachStderr": True,
        "ExposedPorts": {port: {} for port in old.get("exposed_ports", ())},
        "Tty": old.get("terminal"),
        "OpenStdin": old.get("open_stdin"),
        "StdinOnce": old.get("stdin_once"),
        "Env": old.get("env"),
        "Image": old["image"],
        "WorkingDir": old.get("working_directory"),
        "Entrypoint": old.get("entrypoint"),
        "Labels": old.get("labels"),
        "StopTimeout": old.get("stop_timeout_seconds"),
        "StopSignal": signal if signal.isdigit() or signal.upper().startswith("SIG") else f"SIG{signal}",
    }
    document = {
        **_given(request),
        "Cmd": old.get("command") or [],
        "HostConfig": _given(host),
        "NetworkingConfig": {"EndpointsConfig": {} if network.startswith("container:") else {network: {}}},
    }
    return json.dumps({"version": 1, "request": document, "volumes": volumes})


def _given(document: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the fields without a value, which have their default; zero is a value."""
    return {
        name: value
        for name, value in document.items()
        if value or (isinstance(value, int | float) and value is not False)
    }


def _capabilities(names: Any) -> list[str]:
    plain = [name.upper().removeprefix("CAP_") for name in names]
    return [name if name == "ALL" else f"CAP_{name}" for name in plain]


def _log_config(old: Mapping[str, Any]) -> dict[str, Any]:
    driver = old.get("log_driver", "json-file")
    defaults = _LOG_OPTIONS if driver == "json-file" else {}
    return {"Type": driver, "Config": {**defaults, **old.get("log_options", {})}}


def _security(old: Mapping[str, Any]) -> list[str]:
    seccomp = old.get("seccomp", "default")
    options = ["no-new-privileges"] if old.get("no_new_privileges") else []
    return options + ([] if seccomp == "default" else [f"seccomp={seccomp}"])


def _bindings(ports: Any) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        binding = {"HostIp": port["host_ip"], "HostPort": str(port["host_port"] or "")}
        bindings.setdefault(f"{port['container_port']}/{port.get('protocol', 'tcp')}", []).append(binding)
    return bindings


def _convert_mounts(mounts: Any, volumes: dict[str, str]) -> dict[str, Any]:
    """Return Mounts and Tmpfs; the names of anonymous volumes go into ``volumes``."""
    converted: list[dict[str, Any]] = []
    tmpfs: dict[str, str] = {}
    for mount in mounts:
        kind, source, target = mount["kind"], mount["source"], mount["target"]
        if kind == "tmpfs":
            read_only = ["ro"] if mount.get("read_only") and "ro" not in mount["options"] else []
            tmpfs[target] = ",".join((*mount["options"], *read_only))
            continue
        entry: dict[str, Any] = {"Type": kind, "Target": target}
        if kind == "volume" and _ANONYMOUS.fullmatch(source):
            volumes[target] = source
        else:
            entry["Source"] = source
        if mount.get("read_only"):
            entry["ReadOnly"] = True
        if kind == "bind":
            entry["BindOptions"] = _given(
                {"Propagation": mount.get("propagation"), "CreateMountpoint": mount.get("create_source")}
            )
        elif mount.get("no_copy"):
            entry["VolumeOptions"] = {"NoCopy": True}
        converted.append(entry)
    return {"Mounts": converted, "Tmpfs": tmpfs}
