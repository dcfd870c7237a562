"""Generation of OCI configurations: Docker's defaults, options, and validity by the specification's schema."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.cdi.edit import ContainerEdits, HookEdit, MountEdit
from pydock_core.errors import InvalidError
from pydock_core.runtime.capabilities import NAMES
from pydock_core.spec.builder import (
    DeviceNode,
    HostFacts,
    build_capabilities,
    build_process,
    build_spec,
)
from pydock_core.spec.defaults import CAPABILITIES, MASKED_PATHS
from pydock_core.spec.definition import Definition, complete
from pydock_core.spec.users import ResolvedUser
from tests.support.runtime_spec import check_spec

FACTS = HostFacts(rootfs="rootfs", machine="x86_64", kernel=(6, 1), hostname="h", cgroups_path="/pydock/x")


def build(
    host: Mapping[str, Any] | None = None, facts: Mapping[str, Any] | None = None, **config: Any
) -> dict[str, Any]:
    """Build config.json of a request with these fields, on a host with these facts."""
    request = complete({"Cmd": ["sh"], **config, "HostConfig": host or {}})
    return build_spec(Definition(request, {}), dataclasses.replace(FACTS, **(facts or {})))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {
            "Env": ["A=b"],
            "WorkingDir": "/work",
            "Tty": True,
            "Labels": {"l": "v"},
            "host": {
                "ReadonlyRootfs": True,
                "Binds": ["/srv:/data:ro"],
                "Tmpfs": {"/scratch": "size=1m"},
                "CapAdd": ["net_admin"],
                "CapDrop": ["CAP_CHOWN"],
                "SecurityOpt": ["no-new-privileges"],
                "Memory": 1 << 26,
                "NanoCpus": 1_500_000_000,
                "CpuShares": 512,
                "CpusetCpus": "0",
                "PidsLimit": 9,
                "Sysctls": {"net.core.somaxconn": "9"},
                "Ulimits": [
                    {"Name": "nofile", "Soft": 1, "Hard": 2},
                    {"Name": "core", "Soft": -1, "Hard": -1},
                ],
                "OomScoreAdj": 5,
            },
            "facts": {
                "user": ResolvedUser(5, 6, (7, 8), home="/home"),
                "console_size": (24, 80),
                "network_namespace": "/run/netns/x",
                "devices": [DeviceNode("/dev/fuse", "/dev/fuse", "c", 10, 229, access="rw")],
                "files": {"/etc/hosts": "/data/hosts"},
            },
        },
        {"host": {"Privileged": True}},
        {"facts": {"rootless": True, "network_namespace": "host", "cgroups_path": ""}},
        {"host": {"SecurityOpt": ["seccomp=unconfined"]}},
        {"host": {"SecurityOpt": ['seccomp={"defaultAction": "SCMP_ACT_ALLOW"}']}},
    ],
)
def test_specs_are_valid(fields: dict[str, Any]) -> None:
    check_spec(build(**fields))


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
        build({"CapAdd": ["NONSENSE"]})


def test_another_user_has_no_effective_capabilities() -> None:
    sets = build(facts={"user": ResolvedUser(1)})["process"]["capabilities"]
    assert sets == {"bounding": list(build_capabilities((), ())), "effective": [], "permitted": []}


def test_privileged() -> None:
    spec = build({"Privileged": True})
    linux = spec["linux"]
    assert spec["process"]["capabilities"]["effective"] == list(NAMES)
    assert not {"maskedPaths", "readonlyPaths", "seccomp"} & linux.keys()
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    for mount in spec["mounts"]:
        assert "ro" not in mount["options"]


def test_a_privileged_container_keeps_a_profile_that_is_asked_for() -> None:
    profile = 'seccomp={"defaultAction": "SCMP_ACT_ALLOW"}'
    assert build({"Privileged": True, "SecurityOpt": [profile]})["linux"]["seccomp"]


def test_masks_by_default() -> None:
    assert tuple(build()["linux"]["maskedPaths"]) == MASKED_PATHS


def destinations(spec: dict[str, Any]) -> list[str]:
    return [mount["destination"] for mount in spec["mounts"]]


def test_parents_are_mounted_before_children_and_system_mounts_first() -> None:
    found = destinations(build({"Tmpfs": {"/a/b/c": ""}, "Binds": ["/y:/a/b", "/x:/a/"]}))
    assert found[0] == "/proc"
    assert found[-3:] == ["/a", "/a/b", "/a/b/c"]


def test_a_mount_takes_the_place_of_a_default() -> None:
    spec = build({"Tmpfs": {"/dev/shm/": "size=1m"}})
    (shm,) = (mount for mount in spec["mounts"] if mount["destination"] == "/dev/shm")
    assert shm["options"][-1] == "size=1m"


def test_the_size_of_shm() -> None:
    (shm,) = (m for m in build({"ShmSize": 123})["mounts"] if m["destination"] == "/dev/shm")
    assert "size=123" in shm["options"]


def test_rootless_devices_are_bound() -> None:
    device = DeviceNode("/dev/fuse", "/dev/myfuse", "c", 10, 229)
    spec = build(facts={"rootless": True, "devices": [device]})
    assert "devices" not in spec["linux"]
    assert "devices" not in spec["linux"].get("resources", {})
    (bound,) = (mount for mount in spec["mounts"] if mount["destination"] == "/dev/myfuse")
    assert (bound["type"], bound["source"]) == ("bind", "/dev/fuse")


def test_a_device_is_allowed_as_asked() -> None:
    device = DeviceNode("/dev/fuse", "/dev/fuse", "c", 10, 229, access="r")
    rules = build(facts={"devices": [device]})["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"} in rules


def test_limits() -> None:
    limits = {"Memory": 100 << 20, "NanoCpus": 250_000_000, "PidsLimit": 10}
    resources = build(limits)["linux"]["resources"]
    assert resources["memory"] == {"limit": 100 << 20, "swap": 200 << 20}
    assert resources["cpu"] == {"period": 100_000, "quota": 25_000}
    assert resources["pids"] == {"limit": 10}


def test_swap_is_left_out_where_the_host_cannot_limit_it() -> None:
    memory = build({"Memory": 100}, {"swap_limit": False})["linux"]["resources"]["memory"]
    assert memory == {"limit": 100}


def test_without_a_control_group_there_are_no_resources() -> None:
    linux = build({"PidsLimit": 5}, {"cgroups_path": ""})["linux"]
    assert not {"resources", "cgroupsPath"} & linux.keys()


def test_namespaces() -> None:
    def kinds(spec: dict[str, Any]) -> dict[str, str]:
        return {entry["type"]: entry.get("path", "") for entry in spec["linux"]["namespaces"]}

    assert kinds(build()) == dict.fromkeys(("mount", "cgroup", "uts", "ipc", "pid", "network"), "")
    assert "network" not in kinds(build(facts={"network_namespace": "host"}))
    assert kinds(build(facts={"network_namespace": "/n"}))["network"] == "/n"


@pytest.mark.parametrize("command", [[], [""]])
def test_a_container_needs_a_command(command: list[str]) -> None:
    with pytest.raises(InvalidError):
        build(Cmd=command)


def test_an_exec_s_process_has_the_container_s_confinement() -> None:
    host = {"SecurityOpt": ["no-new-privileges"], "CapDrop": ["chown"]}
    template = build(host, {"user": ResolvedUser(3)})["process"]
    process = build_process(("id",), ("B=c",), "/tmp", template=template, user={"uid": 0, "gid": 0})
    assert process["noNewPrivileges"] is True
    assert "CAP_CHOWN" not in process["capabilities"]["bounding"]
    assert process["capabilities"]["effective"] == process["capabilities"]["bounding"]
    assert (process["args"], process["env"], process["cwd"]) == (["id"], ["B=c"], "/tmp")


def test_building_changes_no_default() -> None:
    first = json.dumps(build(), sort_keys=True)
    spec = build()
    spec["mounts"][0]["options"].append("changed")
    spec["linux"]["maskedPaths"].clear()
    assert json.dumps(build(), sort_keys=True) == first


# -- devices ---------------------------------------------------------------------------------------------

EDITS = ContainerEdits(
    env=("A=device", "GPU=0"),
    mounts=(
        MountEdit("/host/lib.so", "/usr/lib/x/lib.so", "", ("ro", "rbind")),
        MountEdit("tmpfs", "/data", "tmpfs", ("size=1m",)),
    ),
    hooks=(
        HookEdit("createContainer", "/bin/hook", ("hook",), ("B=1",), 5),
        HookEdit("poststop", "/bin/last"),
    ),
    additional_gids=(44,),
)


def test_the_edits_of_devices_are_the_last_word() -> None:
    hook = {"path": "/usr/bin/python3", "args": ["python3", "x"]}
    nodes = [
        DeviceNode("/dev/host", "/dev/gpu0", "c", 195, 0, access="rw"),
        DeviceNode("/dev/pipe", "/dev/pipe", "p", 0, 0),
        DeviceNode("/dev/closed", "/dev/closed", "c", 9, 9, access=""),
    ]
    spec = build(
        {"Binds": ["/srv:/data"]},
        {
            "edits": EDITS,
            "root_edit_hook": hook,
            "devices": nodes,
            "user": ResolvedUser(additional_gids=(5, 44)),
        },
        Env=["A=own"],
    )
    check_spec(spec)
    assert {"A=device", "GPU=0"} <= set(spec["process"]["env"])
    assert "A=own" not in spec["process"]["env"]
    assert spec["process"]["user"]["additionalGids"] == [5, 44]
    mounts = {mount["destination"]: mount for mount in spec["mounts"]}
    assert mounts["/usr/lib/x/lib.so"]["type"] == "bind"
    assert mounts["/data"]["type"] == "tmpfs"
    assert [mount["destination"] for mount in spec["mounts"]].count("/data") == 1
    assert spec["hooks"] == {
        "createContainer": [hook, {"path": "/bin/hook", "args": ["hook"], "env": ["B=1"], "timeout": 5}],
        "poststop": [{"path": "/bin/last"}],
    }
    assert [device["path"] for device in spec["linux"]["devices"]] == [
        "/dev/gpu0",
        "/dev/pipe",
        "/dev/closed",
    ]
    own = [rule for rule in spec["linux"]["resources"]["devices"] if rule.get("major") in (195, 0, 9)]
    assert own == [{"allow": True, "type": "c", "major": 195, "minor": 0, "access": "rw"}]


def test_a_container_without_devices_has_no_hooks() -> None:
    assert "hooks" not in build()
