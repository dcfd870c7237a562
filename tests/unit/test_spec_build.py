"""Generation of OCI configurations: Docker's defaults, options, and validity by the specification's schema."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
from hypothesis import given
from hypothesis import strategies as st
from referencing.jsonschema import DRAFT4

from pydock_core.errors import InvalidError
from pydock_core.runtime.capabilities import NAMES
from pydock_core.spec.builder import (
    SpecDevice,
    SpecLimits,
    SpecMount,
    SpecRequest,
    build_capabilities,
    build_process,
    build_spec,
)
from pydock_core.spec.defaults import CAPABILITIES, MASKED_PATHS

SCHEMAS = Path(__file__).parents[1] / "support" / "runtime-spec-schema"
"""Unchanged from opencontainers/runtime-spec (Apache License 2.0)."""
BASE = SpecRequest(args=("sh",), rootfs="rootfs", machine="x86_64", kernel=(6, 1), cgroups_path="/pydock/x")


def request(**changes: Any) -> SpecRequest:
    return dataclasses.replace(BASE, **changes)


@pytest.fixture(scope="session")
def check() -> Callable[[dict[str, Any]], None]:
    """Validates a configuration against the runtime specification's own schema."""
    documents = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    resources = [(name, DRAFT4.create_resource(document)) for name, document in documents.items()]
    registry = referencing.Registry().with_resources(resources)
    validator = jsonschema.Draft4Validator(documents["config-schema.json"], registry=registry)

    def validate(spec: dict[str, Any]) -> None:
        validator.validate(json.loads(json.dumps(spec)))

    return validate


FULL = request(
    env=("A=b",),
    cwd="/work",
    uid=5,
    gid=6,
    additional_gids=(7, 8),
    umask=0o27,
    terminal=True,
    console_size=(24, 80),
    hostname="h",
    domainname="d",
    network_namespace="/run/netns/x",
    read_only_root=True,
    mounts=(
        SpecMount("bind", "/data", "/srv", read_only=True, recursive_read_only=True),
        SpecMount("tmpfs", "/scratch", options=("size=1m",)),
    ),
    cap_add=("net_admin",),
    cap_drop=("CAP_CHOWN",),
    no_new_privileges=True,
    devices=(SpecDevice("/dev/fuse", "/dev/fuse", "c", 10, 229, access="rw"),),
    limits=SpecLimits(
        memory_bytes=1 << 26,
        memory_reservation_bytes=1 << 25,
        cpus=1.5,
        cpu_shares=512,
        cpuset_cpus="0",
        cpuset_mems="0",
        pids_limit=9,
        block_weight=300,
    ),
    sysctls={"net.core.somaxconn": "9"},
    rlimits=(("nofile", 1, 2), ("RLIMIT_CORE", -1, -1)),
    oom_score_adj=5,
    hooks={"poststop": [{"path": "/bin/true"}]},
    annotations={"org.opencontainers.image.title": "t"},
    labels={"l": "v"},
)


@pytest.mark.parametrize(
    "changed",
    [
        BASE,
        FULL,
        request(privileged=True),
        request(rootless=True, can_mount_sysfs=False, network_namespace="host", cgroups_path=""),
        request(share_host_ipc=True, share_host_pid=True, share_host_uts=True),
        request(seccomp="unconfined"),
        request(seccomp={"defaultAction": "SCMP_ACT_ALLOW"}),
    ],
)
def test_specs_are_valid(changed: SpecRequest, check: Callable[[dict[str, Any]], None]) -> None:
    check(build_spec(changed))


@given(
    add=st.lists(st.sampled_from([*NAMES, "ALL", "net_admin"]), max_size=4),
    drop=st.lists(st.sampled_from([*NAMES, "all", "Chown"]), max_size=4),
)
def test_capabilities_are_in_order_and_once(add: list[str], drop: list[str]) -> None:
    chosen = build_capabilities(add, drop)
    assert chosen == [name for name in NAMES if name in set(chosen)]


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), set(CAPABILITIES)),
        (("NET_ADMIN",), (), {*CAPABILITIES, "CAP_NET_ADMIN"}),
        ((), ("chown",), set(CAPABILITIES) - {"CAP_CHOWN"}),
        (("chown",), ("chown",), set(CAPABILITIES)),
        ((), ("ALL",), set()),
        (("SYS_PTRACE",), ("all",), {"CAP_SYS_PTRACE"}),
        (("ALL",), (), set(NAMES)),
        (("all",), ("cap_sys_admin",), set(NAMES) - {"CAP_SYS_ADMIN"}),
    ],
)
def test_capabilities_as_docker_has_them(
    add: tuple[str, ...], drop: tuple[str, ...], expected: set[str]
) -> None:
    assert set(build_capabilities(add, drop)) == expected


def test_there_are_fourteen_default_capabilities() -> None:
    assert len(CAPABILITIES) == len(set(CAPABILITIES)) == 14


def test_an_unknown_capability_is_named() -> None:
    with pytest.raises(InvalidError, match="NONSENSE"):
        build_spec(request(cap_add=("NONSENSE",)))


def test_another_user_has_no_effective_capabilities() -> None:
    sets = build_spec(request(uid=1))["process"]["capabilities"]
    assert sets == {"bounding": list(build_capabilities((), ())), "effective": [], "permitted": []}


def test_privileged() -> None:
    spec = build_spec(request(privileged=True))
    linux = spec["linux"]
    assert spec["process"]["capabilities"]["effective"] == list(NAMES)
    assert not {"maskedPaths", "readonlyPaths", "seccomp"} & linux.keys()
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    for mount in spec["mounts"]:
        assert "ro" not in mount["options"]


def test_a_privileged_container_keeps_a_profile_that_is_asked_for() -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW"}
    assert build_spec(request(privileged=True, seccomp=profile))["linux"]["seccomp"]


def test_masks_by_default() -> None:
    assert tuple(build_spec(BASE)["linux"]["maskedPaths"]) == MASKED_PATHS


def destinations(spec: dict[str, Any]) -> list[str]:
    return [mount["destination"] for mount in spec["mounts"]]


def test_parents_are_mounted_before_children_and_system_mounts_first() -> None:
    mounts = (
        SpecMount("tmpfs", "/a/b/c"),
        SpecMount("bind", "/a/", "/x"),
        SpecMount("bind", "/a/b", "/y"),
    )
    found = destinations(build_spec(request(mounts=mounts)))
    assert found[0] == "/proc"
    assert found[-3:] == ["/a", "/a/b", "/a/b/c"]


def test_a_mount_takes_the_place_of_a_default() -> None:
    spec = build_spec(request(mounts=(SpecMount("tmpfs", "/dev/shm/", options=("size=1m",)),)))
    (shm,) = (mount for mount in spec["mounts"] if mount["destination"] == "/dev/shm")
    assert shm["options"][-1] == "size=1m"


def test_the_size_of_shm() -> None:
    (shm,) = (m for m in build_spec(request(shm_size_bytes=123))["mounts"] if m["destination"] == "/dev/shm")
    assert "size=123" in shm["options"]


@pytest.mark.parametrize(
    "mount",
    [
        SpecMount("bind", "relative", "/x"),
        SpecMount("bind", "/", "/x"),
        SpecMount("bind", "/a", "relative"),
        SpecMount("bind", "/a", "/x", propagation="sideways"),
        SpecMount("nfs", "/a", "/x"),
    ],
)
def test_bad_mounts(mount: SpecMount) -> None:
    with pytest.raises(InvalidError):
        build_spec(request(mounts=(mount,)))


def test_rootless_devices_are_bound() -> None:
    device = SpecDevice("/dev/fuse", "/dev/myfuse", "c", 10, 229)
    spec = build_spec(request(rootless=True, devices=(device,)))
    assert "devices" not in spec["linux"]
    assert "devices" not in spec["linux"].get("resources", {})
    (bound,) = (mount for mount in spec["mounts"] if mount["destination"] == "/dev/myfuse")
    assert (bound["type"], bound["source"]) == ("bind", "/dev/fuse")


def test_a_device_is_allowed_as_asked() -> None:
    device = SpecDevice("/dev/fuse", "/dev/fuse", "c", 10, 229, access="r")
    rules = build_spec(request(devices=(device,)))["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"} in rules


def test_limits() -> None:
    limits = SpecLimits(memory_bytes=100 << 20, cpus=0.25, pids_limit=10)
    resources = build_spec(request(limits=limits))["linux"]["resources"]
    assert resources["memory"] == {"limit": 100 << 20, "swap": 200 << 20}
    assert resources["cpu"] == {"period": 100_000, "quota": 25_000}
    assert resources["pids"] == {"limit": 10}


def test_swap_is_left_out_where_the_host_cannot_limit_it() -> None:
    limits = SpecLimits(memory_bytes=100, swap_limit_available=False)
    assert build_spec(request(limits=limits))["linux"]["resources"]["memory"] == {"limit": 100}


@pytest.mark.parametrize(
    "limits",
    [
        SpecLimits(memory_swap_bytes=5),
        SpecLimits(memory_bytes=10, memory_swap_bytes=5),
        SpecLimits(cpus=0.001),
        SpecLimits(cpu_shares=1),
        SpecLimits(block_weight=5000),
    ],
)
def test_bad_limits(limits: SpecLimits) -> None:
    with pytest.raises(InvalidError):
        build_spec(request(limits=limits))


def test_without_a_control_group_there_are_no_resources() -> None:
    linux = build_spec(request(cgroups_path="", limits=SpecLimits(pids_limit=5)))["linux"]
    assert not {"resources", "cgroupsPath"} & linux.keys()


def test_namespaces() -> None:
    def kinds(spec: dict[str, Any]) -> dict[str, str]:
        return {entry["type"]: entry.get("path", "") for entry in spec["linux"]["namespaces"]}

    assert kinds(build_spec(BASE)) == dict.fromkeys(("mount", "cgroup", "uts", "ipc", "pid", "network"), "")
    assert "network" not in kinds(build_spec(request(network_namespace="host")))
    assert kinds(build_spec(request(network_namespace="/n")))["network"] == "/n"
    assert not {"ipc", "pid"} & kinds(build_spec(request(share_host_ipc=True, share_host_pid=True))).keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"args": ()},
        {"args": ("",)},
        {"cwd": "relative"},
        {"seccomp": "nonsense"},
        {"oom_score_adj": 1001},
        {"rlimits": (("nofile", 9, 3),)},
    ],
)
def test_bad_requests(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        build_spec(request(**changes))


def test_an_exec_s_process_has_the_container_s_confinement() -> None:
    template = build_spec(request(no_new_privileges=True, cap_drop=("chown",), uid=3))["process"]
    process = build_process(("id",), ("B=c",), "/tmp", template=template, user={"uid": 0, "gid": 0})
    assert process["noNewPrivileges"] is True
    assert "CAP_CHOWN" not in process["capabilities"]["bounding"]
    assert process["capabilities"]["effective"] == process["capabilities"]["bounding"]
    assert (process["args"], process["env"], process["cwd"]) == (["id"], ["B=c"], "/tmp")


def test_building_changes_no_default() -> None:
    first = json.dumps(build_spec(BASE), sort_keys=True)
    spec = build_spec(BASE)
    spec["mounts"][0]["options"].append("changed")
    spec["linux"]["maskedPaths"].clear()
    assert json.dumps(build_spec(BASE), sort_keys=True) == first
