"""The create request: validation, the merge with an image, the stored form, and every option of ``run`` on its way."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.commands.container_commands import CREATE_OPTIONS
from pydock_core.commands.create_words import CONVERSIONS, build_request
from pydock_core.commands.parser import Parsed, parse
from pydock_core.engine.launch import build_plan
from pydock_core.engine.shapes import Seen, build_inspect, build_summary
from pydock_core.engine.volume_files import name_volumes
from pydock_core.errors import CorruptError, InvalidError, PyDockError, UnsupportedError
from pydock_core.paths import StateRoot
from pydock_core.spec import definition as documents
from pydock_core.spec.builder import DeviceNode, HostFacts, build_spec
from pydock_core.spec.definition import (
    CONFIG,
    ENDPOINT,
    FIXED_CONFIG,
    FIXED_HOST_CONFIG,
    HOST_CONFIG,
    Definition,
    complete,
    decode,
    encode,
)
from pydock_core.spec.merge import merge
from pydock_core.spec.mount import read_mounts
from pydock_core.spec.validation import _TYPES, check_request
from pydock_core.store.database.containers import ContainerRow
from pydock_core.store.database.networks import EndpointRow, NetworkRow
from pydock_core.supervision.container_status import Status
from pydock_core.supervision.plan import LaunchPlan, NetworkAttachment
from tests.support.runtime_spec import check_spec

IMAGE = {"Env": ["PATH=/bin", "A=image"], "Cmd": ["serve"], "ExposedPorts": {"80": {}}, "Volumes": {"/v": {}}}


def define(document: dict[str, Any], image: dict[str, Any] | None = None) -> Definition:
    return name_volumes(merge(check_request(document), IMAGE if image is None else image, "bridge"))[0]


def facts_of(definition: Definition) -> HostFacts:
    mounts = read_mounts(definition.request, definition.volumes)
    return HostFacts(
        rootfs="/rootfs",
        machine="x86_64",
        kernel=(6, 1),
        hostname=definition.host_name("a" * 64),
        cgroups_path="/pydock/x",
        block_devices={"/dev/sda": (8, 0)},
        volumes={mount.target: f"/volumes/{mount.source}" for mount in mounts if mount.kind == "volume"},
        devices=[
            DeviceNode(device["PathOnHost"], device["PathInContainer"], "c", 1, 3)
            for device in definition.host["Devices"]
        ],
    )


def inspect(definition: Definition) -> dict[str, Any]:
    paths = StateRoot(data=Path("/data"), run=Path("/run/pydock")).container("a" * 64)
    return build_inspect(see(definition), paths, "directory")


def see(definition: Definition) -> Seen:
    row = ContainerRow("a" * 64, "name", "sha256:" + "b" * 64, time.time_ns(), encode(definition))
    return Seen(row, definition, Status("created"))


# -- every option of the command table -------------------------------------------------------------------

EXAMPLES = {
    "--env": "A=1",
    "--volume": "/srv:/data:ro",
    "--mount": "type=bind,source=/srv,target=/data,readonly",
    "--volumes-from": "other:ro",
    "--volume-driver": "local",
    "--tmpfs": "/scratch:size=1m",
    "--publish": "8080:80",
    "--expose": "6006",
    "--workdir": "/work",
    "--user": "1:2",
    "--group-add": "5",
    "--entrypoint": "/entry",
    "--dns": "10.0.0.1",
    "--dns-search": "example.com",
    "--dns-option": "ndots:2",
    "--hostname": "box",
    "--add-host": "db:10.0.0.1",
    "--label": "a=b",
    "--annotation": "org.example=x",
    "--memory": "64m",
    "--memory-swap": "-1",
    "--cpus": "0.5",
    "--cpu-shares": "512",
    "--cpuset-cpus": "0",
    "--cpuset-mems": "0",
    "--cpu-period": "50000",
    "--cpu-quota": "20000",
    "--memory-reservation": "32m",
    "--blkio-weight": "300",
    "--pids-limit": "10",
    "--ulimit": "nofile=10:20",
    "--oom-score-adj": "5",
    "--sysctl": "net.ipv4.ip_forward=1",
    "--shm-size": "1m",
    "--cap-add": "NET_ADMIN",
    "--cap-drop": "CHOWN",
    "--security-opt": "no-new-privileges",
    "--device": "/dev/null:/dev/nil:r",
    "--gpus": "all,capabilities=utility",
    "--stop-signal": "SIGINT",
    "--stop-timeout": "3",
    "--runtime": "crun",
    "--log-driver": "none",
    "--log-opt": "max-size=1m",
    "--restart": "on-failure:3",
    "--health-cmd": "curl localhost",
    "--domainname": "example.org",
    "--ipc": "none",
    "--pid": "host",
    "--uts": "host",
    "--userns": "host",
    "--cgroupns": "host",
    "--cgroup-parent": "/jobs",
    "--device-cgroup-rule": "c 1:* rw",
    "--blkio-weight-device": "/dev/sda:100",
    "--device-read-bps": "/dev/sda:1mb",
    "--device-write-bps": "/dev/sda:1mb",
    "--device-read-iops": "/dev/sda:100",
    "--device-write-iops": "/dev/sda:100",
    "--memory-swappiness": "10",
    "--health-interval": "1m30s",
    "--health-timeout": "1s",
    "--health-start-period": "2s",
    "--health-start-interval": "500ms",
    "--health-retries": "5",
}
OPTIONS = [option for option in CREATE_OPTIONS if option.field]


def field_of(document: Any, path: str) -> Any:
    """Return a field of a request, or of its HostConfig."""
    name, _, rest = path.partition(".")
    value = document[name] if name in document else document["HostConfig"][name]
    return (value or {}).get(rest) if rest else value


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.long_flag)
def test_every_option_alone_reaches_inspect_and_config_json(option: Any, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("A=1\n")
    value = str(file) if option.long_flag.endswith("-file") else EXAMPLES.get(option.long_flag)
    words = parse(["run", option.long_flag, *([] if value is None else [value]), "image", "true"])
    assert isinstance(words, Parsed)
    request = build_request(words.words, {}, "/")
    assert field_of(request, option.field) != field_of(complete({}), option.field)
    assert check_request(json.loads(json.dumps(request))) == request

    definition, _ = name_volumes(merge(request, {}, "bridge"))
    stored = decode(encode(definition))
    assert stored == definition
    document = inspect(stored)
    shown = {**document["Config"], "HostConfig": document["HostConfig"]}
    assert field_of(shown, option.field) == field_of(definition.request, option.field)
    assert json.loads(json.dumps(document)) == document
    assert build_summary(see(stored))["Command"]

    check_spec(build_spec(stored, facts_of(stored)))
    paths = StateRoot(data=Path("/data"), run=Path("/run/pydock")).container("a" * 64)
    plan = build_plan(
        stored,
        "a" * 64,
        paths,
        executor="embedded",
        root_mounts=(),
        network=NetworkAttachment(),
        network_socket=Path("/socket"),
        size=(0, 0),
    )
    assert LaunchPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_the_table_names_fields_and_conversions_that_exist() -> None:
    for option in OPTIONS:
        field_of(complete({}), option.field)
        assert not option.convert or option.convert in CONVERSIONS


def test_every_declared_type_has_a_check() -> None:
    shapes = (documents.ContainerConfig, documents.HostConfig, documents.EndpointSettings)
    declared = {hint.__forward_arg__ for shape in shapes for hint in shape.__annotations__.values()}
    assert declared <= set(_TYPES)


def test_the_engine_api_has_every_field() -> None:
    path = Path(__file__).parents[1] / "jupyter" / "engine_api_1.51.json"
    schemas = json.loads(path.read_text())["definitions"]
    host = {name for part in schemas["HostConfig"]["allOf"] for name in fields_of(schemas, part)}
    assert set(CONFIG) | set(FIXED_CONFIG) <= set(schemas["ContainerConfig"]["properties"])
    assert set(HOST_CONFIG) | set(FIXED_HOST_CONFIG) <= host
    assert set(ENDPOINT) <= set(schemas["EndpointSettings"]["properties"])


def fields_of(schemas: dict[str, Any], part: dict[str, Any]) -> set[str]:
    schema = schemas[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    return set(schema["properties"])


# -- validation ------------------------------------------------------------------------------------------


def test_a_document_of_defaults_is_accepted() -> None:
    """Clients send every field: null, empty, or as ``inspect`` shows it."""
    plain = check_request({"Image": "i"})
    host = {**HOST_CONFIG, **FIXED_HOST_CONFIG, "MemorySwappiness": -1, "IpcMode": "", "Annotations": None}
    nulls = dict.fromkeys((*HOST_CONFIG, *FIXED_HOST_CONFIG))
    for document in (
        {**CONFIG, **FIXED_CONFIG, "Healthcheck": None, "Image": "i", "HostConfig": host},
        {**dict.fromkeys(CONFIG), "Image": "i", "HostConfig": nulls, "NetworkingConfig": None},
        {"Image": "i", "NetworkingConfig": {"EndpointsConfig": {"default": {"Links": None}}}},
    ):
        assert check_request(document) == plain


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"OnBuild": ["RUN true"]}, "OnBuild"),
        ({"Nonsense": 1}, "Nonsense"),
        ({"HostConfig": {"CpuCount": 2}}, "CpuCount"),
        ({"HostConfig": {"DeviceRequests": [{"Count": 1, "Options": {"a": "b"}}]}}, "DeviceRequests options"),
        ({"HostConfig": {"DeviceRequests": [{"Count": 1, "Other": "b"}]}}, "DeviceRequests.Other"),
        ({"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "Consistency": "x"}]}}, "Consistency"),
        (
            {"HostConfig": {"Mounts": [{"Type": "volume", "Target": "/b", "VolumeOptions": {"Colour": {"a": "b"}}}]}},
            "Colour",
        ),
        ({"HostConfig": {"VolumeDriver": "convoy"}}, "convoy"),
        ({"HostConfig": {"VolumesFrom": ["other:z"]}}, "SELinux"),
        ({"HostConfig": {"SecurityOpt": ["frobnicate=1"]}}, "frobnicate"),
        ({"HostConfig": {"LogConfig": {"Type": "syslog"}}}, "syslog"),
        ({"NetworkingConfig": {"EndpointsConfig": {"a": {"IPAMConfig": {"LinkLocalIPs": ["169.254.1.1"]}}}}}, "LinkLocalIPs"),
        ({"NetworkingConfig": {"EndpointsConfig": {"a": {"DriverOpts": {"x": "y"}}}}}, "driver option x"),
        ({"NetworkingConfig": {"EndpointsConfig": {"a": {"EndpointID": "x"}}}}, "EndpointID"),
        ({"NetworkingConfig": {"Other": 1}}, "Other"),
    ],
)  # fmt: skip
def test_an_unsupported_field_is_refused_by_name(document: dict[str, Any], field: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        check_request({"Image": "i", **document})
    assert field in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "document",
    [
        {"Image": ""},
        {"Image": None},
        {"Cmd": "sh -c true"},
        {"Cmd": ["a", 1]},
        {"Cmd": ["a\0b"]},
        {"Cmd": ["\ud800"]},
        {"Env": ["=x"]},
        {"Labels": {"a": 1}},
        {"Tty": "yes"},
        {"StopTimeout": True},
        {"StopTimeout": float("nan")},
        {"StopSignal": "SIGNOTHING"},
        {"WorkingDir": "relative"},
        {"ExposedPorts": {"http": {}}},
        {"Volumes": {"relative": {}}},
        {"HostConfig": []},
        {"HostConfig": {"Memory": "64m"}},
        {"HostConfig": {"Memory": 1024}},
        {"HostConfig": {"Memory": -1}},
        {"HostConfig": {"MemorySwap": 1 << 30}},
        {"HostConfig": {"CpuShares": 1}},
        {"HostConfig": {"CpuPeriod": 10}},
        {"HostConfig": {"CpuQuota": 10}},
        {"HostConfig": {"CpuQuota": 5000, "NanoCpus": 10**8}},
        {"HostConfig": {"BlkioWeight": 5}},
        {"HostConfig": {"MemoryReservation": 1024}},
        {"HostConfig": {"Memory": 64 << 20, "MemoryReservation": 65 << 20}},
        {"HostConfig": {"NanoCpus": 1}},
        {"HostConfig": {"OomScoreAdj": 1001}},
        {"HostConfig": {"Binds": ["relative/path:/x"]}},
        {"HostConfig": {"Binds": ["/x:/"]}},
        {"HostConfig": {"Binds": ["/a:/x", "/b:/x/"]}},
        {"HostConfig": {"Mounts": [{"Type": "bind", "Target": "/x"}]}},
        {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "a", "Target": "/x"}]}},
        {"HostConfig": {"Mounts": [{"Type": "bind", "Source": 1, "Target": "/x"}]}},
        {"HostConfig": {"Mounts": [{"Type": "tmpfs", "Source": "/a", "Target": "/x"}]}},
        {"HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": "1"}}]}},
        {"HostConfig": {"Mounts": [{"Type": "nfs", "Target": "/x"}]}},
        {"HostConfig": {"PortBindings": {"80/icmp": None}}},
        {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8001-8000"}]}}},
        {"HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "nowhere"}]}}},
        {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": 80}]}}},
        {"HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]}},
        {"HostConfig": {"Ulimits": [{"Name": 1}]}},
        {"HostConfig": {"Devices": [{"PathOnHost": "null"}]}},
        {"HostConfig": {"DeviceRequests": [{"Count": "all"}]}},
        {"HostConfig": {"DeviceRequests": [{"Count": 1, "DeviceIDs": ["0"]}]}},
        {"HostConfig": {"DeviceRequests": [{"Capabilities": ["gpu"]}]}},
        {"HostConfig": {"DeviceRequests": [{"Driver": "cdi"}]}},
        {"HostConfig": {"CapAdd": ["NONSENSE"]}},
        {"HostConfig": {"ExtraHosts": ["db"]}},
        {"HostConfig": {"GroupAdd": [5]}},
        {"HostConfig": {"SecurityOpt": ["seccomp={"]}},
        {"HostConfig": {"LogConfig": {"Type": 1}}},
        {"HostConfig": {"NetworkMode": "none"}, "NetworkingConfig": {"EndpointsConfig": {"bridge": {}}}},
    ],
)
def test_a_malformed_document_is_refused_in_one_line(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidError) as caught:
        check_request({"Image": "i", **document})
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 125


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(sorted((*HOST_CONFIG, *FIXED_HOST_CONFIG, "Other")))


@given(
    config=st.dictionaries(st.sampled_from(sorted((*CONFIG, *FIXED_CONFIG, "Other"))), JSON, max_size=3),
    host=st.dictionaries(NAMES, JSON, max_size=4),
)
def test_any_json_is_accepted_or_refused(config: dict[str, Any], host: dict[str, Any]) -> None:
    try:
        request = check_request({"Image": "i", **config, "HostConfig": host})
        assert check_request(json.loads(json.dumps(request))) == request
        definition = define(dict(request))
        assert decode(encode(definition)) == definition
        spec = build_spec(definition, facts_of(definition))
    except PyDockError as error:
        assert error.hint
        return
    check_spec(spec)


# -- the merge with an image -----------------------------------------------------------------------------


def test_the_image_gives_what_the_request_leaves_open() -> None:
    definition = define(
        {"Image": "i", "Env": ["A=request"], "HostConfig": {"PortBindings": {"90/tcp": None}}}
    )
    request = definition.request
    assert request["Env"] == ["PATH=/bin", "A=request"]
    assert definition.command_line == ["serve"]
    assert set(request["ExposedPorts"]) == {"80/tcp", "90/tcp"}
    assert list(definition.volumes) == ["/v"]
    assert (request["StopSignal"], request["WorkingDir"]) == ("SIGTERM", "/")
    assert definition.host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert list(request["NetworkingConfig"]["EndpointsConfig"]) == ["bridge"]


@pytest.mark.parametrize(
    ("request_fields", "words"),
    [
        ({}, ["/entry", "serve"]),
        ({"Cmd": ["x"]}, ["/entry", "x"]),
        ({"Entrypoint": ["/e"]}, ["/e"]),
        ({"Entrypoint": ["/e"], "Cmd": ["x"]}, ["/e", "x"]),
        ({"Entrypoint": [""], "Cmd": ["x"]}, ["x"]),
        ({"Entrypoint": [], "Cmd": ["x"]}, ["x"]),
    ],
)
def test_entry_points(request_fields: dict[str, Any], words: list[str]) -> None:
    image = {"Entrypoint": ["/entry"], "Cmd": ["serve"]}
    assert define({"Image": "i", **request_fields}, image).command_line == words


def test_an_image_without_a_command_needs_one() -> None:
    with pytest.raises(InvalidError, match="names no command"):
        define({"Image": "i"}, {})


@pytest.mark.parametrize(
    "document",
    [
        {"Hostname": "h", "HostConfig": {"NetworkMode": "host"}},
        {"HostConfig": {"NetworkMode": "container:x", "PortBindings": {"80/tcp": None}}},
        {"HostConfig": {"NetworkMode": "none", "ExtraHosts": ["h:host-gateway"]}},
    ],
)
def test_fields_that_contradict_the_network(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match="cannot be combined with --network"):
        define({"Image": "i", **document})


def test_a_mount_takes_the_place_of_the_image_s_volume() -> None:
    definition = define({"Image": "i", "HostConfig": {"Binds": ["/srv:/v"]}})
    assert [mount.kind for mount in read_mounts(definition.request, definition.volumes)] == ["bind"]
    assert definition.volumes == {}


# -- stored and shown ------------------------------------------------------------------------------------


def test_another_version_is_refused() -> None:
    with pytest.raises(CorruptError, match="version 99"):
        decode('{"version": 99}')


def test_inspect_shows_every_field() -> None:
    document = inspect(define({"Image": "i"}))
    left_out = {"Healthcheck", "Shell", "Init"}  # by Docker too, where there is none
    fields = {*HOST_CONFIG, *FIXED_HOST_CONFIG, "MaskedPaths", "ReadonlyPaths"}
    assert fields - left_out == set(document["HostConfig"])
    assert {*CONFIG, *FIXED_CONFIG} - left_out == set(document["Config"])
    assert document["Config"]["Hostname"] == "a" * 12
    assert document["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == ""


def test_a_seen_container_with_an_address_shows_its_network() -> None:
    seen = see(define({"Image": "i"}))
    row = NetworkRow("c" * 64, "bridge", "bridge", 1, "pydock0", "172.30.0.0/16", "", "{}")
    place = (row, EndpointRow(row.id, seen.row.id, "172.30.0.2/16"))
    running = Seen(seen.row, seen.definition, Status("running", pid=5), {"bridge": place})
    shown = build_summary(running)["NetworkSettings"]["Networks"]["bridge"]
    assert (shown["IPAddress"], shown["IPPrefixLen"], shown["Gateway"]) == ("172.30.0.2", 16, "172.30.0.1")
    assert shown["MacAddress"]
    assert shown["NetworkID"] == row.id
