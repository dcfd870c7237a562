"""A state database of an earlier version becomes one of the present version, and says the same."""

from __future__ import annotations

import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pydock_core.errors import CorruptError
from pydock_core.spec.definition import ENDPOINT, HOST_CONFIG, Definition, compact, complete, decode, encode
from pydock_core.spec.mount import Mount, read_mounts
from pydock_core.spec.port import read_ports
from pydock_core.spec.validation import check_request
from pydock_core.store.database import Database, containers, networks, schema
from pydock_core.store.database.definition_upgrade import convert
from pydock_core.supervision.plan import PublishedPort
from tests.support.image_store import build_config, build_docker_archive, build_tar, digest, entry, open_store

VERSION_4 = Path(__file__).parents[1] / "support" / "state_version_4.sql"
LAYER = build_tar([entry("a", data=b"a")])


def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with sqlite3.connect(path) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {table: connection.execute(f"PRAGMA table_info({table})").fetchall() for table in tables}
    connection.close()
    # (position, name, type, not null, default, key): the default only fills what an upgrade adds.
    return {table: [(*row[:4], row[5]) for row in rows] for table, rows in found.items()}


def downgrade(path: Path) -> None:
    """Undo versions 3 to 6."""
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE container RENAME COLUMN definition TO config")
    for table in ("repository_digest", "layer_form", "blob_place", "lease", "event"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("ALTER TABLE image DROP COLUMN labels")
    connection.execute("ALTER TABLE image DROP COLUMN tagged_ns")
    for table, column in (
        ("volume", "labels"),
        ("volume", "options"),
        ("container_volume", "anonymous"),
        ("container_volume", "targets"),
    ):
        connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    connection.execute("DROP TABLE mounted_image")
    for table in ("endpoint", "network"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute(
        "CREATE TABLE network (name TEXT PRIMARY KEY, bridge TEXT NOT NULL, subnet TEXT NOT NULL) STRICT"
    )
    connection.execute(
        "CREATE TABLE address (network TEXT NOT NULL, address TEXT NOT NULL, container_id TEXT NOT NULL, "
        "PRIMARY KEY (network, address)) STRICT"
    )
    connection.execute("INSERT INTO network VALUES ('bridge', 'pydock0', '172.30.0.0/16')")
    connection.execute("INSERT INTO address VALUES ('bridge', '172.30.0.9/16', 'c1')")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()


def test_an_upgraded_database_has_the_present_schema(tmp_path: Path) -> None:
    Database(tmp_path / "new").query("SELECT * FROM image")
    Database(tmp_path / "old").query("SELECT * FROM image")
    downgrade(tmp_path / "old")
    Database(tmp_path / "old").query("SELECT labels FROM image")
    assert columns(tmp_path / "old") == columns(tmp_path / "new")


def test_addresses_of_an_earlier_version_are_kept(tmp_path: Path) -> None:
    database = Database(tmp_path / "old")
    database.query("SELECT * FROM image")
    database.close()
    downgrade(tmp_path / "old")
    upgraded = Database(tmp_path / "old")
    rows = {row.name: row for row in networks.all_rows(upgraded)}
    assert {name: (row.driver, row.subnet) for name, row in rows.items()} == {
        "bridge": ("bridge", "172.30.0.0/16"),
        "host": ("host", ""),
        "none": ("null", ""),
    }
    assert (
        len({row.id for row in rows.values()} & {row.id for row in rows.values() if len(row.id) == 64}) == 3
    )
    assert networks.endpoints_of_container(upgraded, "c1")["bridge"][1].address == "172.30.0.9/16"


def test_images_of_an_earlier_version_keep_their_labels(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    config = build_config(digest(LAYER), Labels={"a": "1"})
    store.images.load(io.BytesIO(build_docker_archive(LAYER, tags=["old:1"], config=config)))
    store.close()
    downgrade(store.root.database)
    again = open_store(tmp_path)
    (summary,) = again.images.list(filters={"label": ["a=1"]})
    assert summary["RepoTags"] == ["old:1"]
    assert again.images.inspect("old:1")["Metadata"] == {"LastTagTime": None}  # it is not known
    again.images.tag("old:1", "new:1")
    assert again.images.inspect("old:1")["Metadata"]["LastTagTime"].startswith("20")
    again.close()


def read_version_4(path: Path) -> dict[str, Definition]:
    """The definitions of a database that version 4 wrote (tests/support/state_version_4.sql), by name."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_4.read_text())
    database = Database(path)
    rows = containers.all_rows(database)
    database.close()
    return {row.name: decode(row.definition) for row in rows}


def test_definitions_of_version_4_are_valid_requests(tmp_path: Path) -> None:
    definitions = read_version_4(tmp_path / "db")
    assert set(definitions) == {"plain", "image", "everything", "privileged", "joined"}
    for definition in definitions.values():
        # What was stored before and what is stored now say the same.
        assert check_request(compact(definition.request))["HostConfig"] == definition.host
        assert decode(encode(definition)) == definition
        assert definition.command_line


def test_a_definition_of_version_4_keeps_everything(tmp_path: Path) -> None:
    definitions = read_version_4(tmp_path / "db")
    plain, image, everything = (definitions[name] for name in ("plain", "image", "everything"))
    assert plain.request == {
        **complete({}),
        "Image": "busybox",
        "Cmd": ["true"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "WorkingDir": "/",
        "StopSignal": "SIGTERM",
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            **HOST_CONFIG,
            "NetworkMode": "none",
            "Runtime": "embedded",
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        },
        "NetworkingConfig": {"EndpointsConfig": {"none": ENDPOINT}},
    }
    assert (image.request["Entrypoint"], image.request["User"]) == (["/entry"], "app")
    assert (image.request["StopSignal"], image.request["Labels"]) == ("SIGQUIT", {"from": "image"})
    assert image.volumes == {"/kept": "01" * 32, "/var/lib/data": "02" * 32}

    request, host = everything.request, everything.host
    assert set(read_mounts(request, everything.volumes)) == {
        Mount("bind", "/srv/data", "/data", True, create_source=True),
        Mount("bind", "/srv/shared", "/shared", propagation="rslave", create_source=True),
        Mount("volume", "cache", "/cache"),
        Mount("volume", "model", "/model", True, no_copy=True),
        Mount("volume", "03" * 32, "/anonymous", unnamed=True),
        Mount("bind", "/etc", "/host", True, "rslave"),
        Mount("volume", "named", "/named", no_copy=True),
        Mount("volume", "04" * 32, "/unnamed", True, unnamed=True),
        Mount("tmpfs", "", "/t", options=("nosuid", "nodev", "size=1048576", "mode=700")),
        Mount("tmpfs", "", "/run", options=("noexec", "nosuid", "nodev", "size=2m")),
        Mount("tmpfs", "", "/scratch", True, options=("nosuid", "nodev", "exec", "ro")),
    }
    assert set(read_ports(host["PortBindings"])) == {
        PublishedPort("127.0.0.1", 8080, 80),
        PublishedPort("127.0.0.2", 0, 53, "udp"),
        PublishedPort("0.0.0.0", 81, 80),
        PublishedPort("::1", 82, 82),
    }
    assert {
        name: value for name, value in host.items() if name not in ("Mounts", "Tmpfs", "PortBindings")
    } == {
        **{
            name: value
            for name, value in HOST_CONFIG.items()
            if name not in ("Mounts", "Tmpfs", "PortBindings")
        },
        "NetworkMode": "bridge",
        "AutoRemove": True,
        "GroupAdd": ["5", "video"],
        "ExtraHosts": ["db:10.0.0.1", "host:host-gateway", "six:fe80::1"],
        "Memory": 64 << 20,
        "MemorySwap": 128 << 20,
        "NanoCpus": 500_000_000,
        "CpuShares": 512,
        "CpusetCpus": "0",
        "OomScoreAdj": 7,
        "PidsLimit": 10,
        "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}, {"Name": "core", "Soft": -1, "Hard": -1}],
        "Sysctls": {"net.ipv4.ip_forward": "1"},
        "ReadonlyRootfs": True,
        "ShmSize": 1 << 20,
        "CapAdd": ["CAP_NET_ADMIN"],
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", 'seccomp={"defaultAction": "SCMP_ACT_ALLOW"}'],
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nil", "CgroupPermissions": "r"}],
        "Runtime": "crun",
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "3"}},
    }
    assert (request["Tty"], request["OpenStdin"], request["StdinOnce"]) == (True, True, True)
    assert (request["StopSignal"], request["StopTimeout"], request["Hostname"]) == ("SIGINT", 3.0, "box")
    assert (request["User"], request["WorkingDir"], request["Env"][1:]) == ("1:2", "/w", ["A=1", "B="])
    assert set(request["ExposedPorts"]) == {"80/tcp", "53/udp", "82/tcp", "6006/tcp"}

    privileged, joined = definitions["privileged"], definitions["joined"]
    assert (privileged.host["Privileged"], privileged.host["MemorySwap"]) == (True, -1)
    assert privileged.host["LogConfig"] == {"Type": "none", "Config": {}}
    assert privileged.host["SecurityOpt"] == ["seccomp=unconfined"]
    assert privileged.request["StopTimeout"] == -1
    assert joined.host["NetworkMode"] == "container:" + "ab" * 32
    assert joined.request["NetworkingConfig"] == {"EndpointsConfig": {}}


def test_a_row_without_the_keys_of_a_later_version_is_converted() -> None:
    old = {"image": "busybox", "command": ["true"], "mounts": [], "ports": [], "devices": [], "ulimits": []}
    definition = decode(convert(json.dumps(old)))
    assert (definition.host["Runtime"], definition.host["NetworkMode"]) == ("embedded", "none")
    assert definition.host["ShmSize"] == HOST_CONFIG["ShmSize"]


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    Database(tmp_path / "db").query("SELECT 1")
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.commit()
    connection.close()
    with pytest.raises(CorruptError, match=f"version {schema.VERSION + 1}"):
        Database(tmp_path / "db").query("SELECT 1")
