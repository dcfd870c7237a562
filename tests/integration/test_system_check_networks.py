"""``dock system check`` on networks: bridges, rules, names and addresses without an owner."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import asdict

import pytest

from pydock_core.engine.consistency.finding import Finding
from pydock_core.engine.network_rows import Network
from pydock_core.runtime.record_file import write_json
from pydock_core.store.database import networks
from pydock_core.supervision.container_status import derive_status
from pydock_core.supervision.names.names_file import publish
from tests.integration.conftest import archive, wait_until
from tests.integration.test_networks import Host, clean, host
from tests.support.process import has_ended

__all__ = ["archive", "clean", "host"]  # fixtures

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root makes bridges"),
    pytest.mark.skipif(not shutil.which("nft"), reason="needs nft (Debian: nftables)"),
]


def check(host: Host, *, repair: bool = False) -> list[Finding]:
    def run() -> list[Finding]:
        try:
            return host.engine.system.check(repair=repair)
        finally:
            host.engine.close()

    return host.namespace(run)


def mend(host: Host, problem: str) -> None:
    """Find one inconsistency of a network, mend it, and find nothing more."""
    (found,) = check(host)
    assert found.kind == "network"
    assert problem in found.problem
    (mended,) = check(host, repair=True)
    assert (mended.state, mended.error) == ("repaired", "")
    assert check(host) == []


def row_of(host: Host, name: str) -> networks.NetworkRow:
    row = networks.find_by_name(host.engine.state.database, name)
    host.engine.close()
    assert row is not None
    return row


def test_running_containers_and_a_killed_one(host: Host) -> None:
    host.dock("network", "create", "web")
    container_id = host.start("one", "--network", "web")
    host.start("two", "--network", "web")
    host.start("three")
    assert check(host) == []
    status = derive_status(host.root.container(container_id))
    os.kill(status.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: has_ended(status.pid), "its process has gone")
    (found,) = check(host, repair=True)
    assert (found.kind, found.state) == ("container", "repaired")
    assert host.names("web") == ["two"]
    directory = host.root.network_directory(row_of(host, "web").id)
    publish(directory, container_id, ("one",), "10.0.0.9")
    mend(host, "it has the name of one, which does not run")
    assert host.names("web") == ["two"]


def test_a_network_without_a_row(host: Host) -> None:
    """The row of a removed network goes first; a kill then leaves its directory, its bridge and its rules."""
    host.dock("network", "create", "web")
    row = row_of(host, "web")
    networks.delete(host.engine.state.database, row.id)
    mend(host, "it is not recorded, but its directory is there")
    assert host.left() == []
    # The same without the directory, as if run/ had been emptied.
    host.dock("network", "create", "web")
    row = row_of(host, "web")
    networks.delete(host.engine.state.database, row.id)
    shutil.rmtree(host.root.network_directory(row.id))
    mend(host, f"the host has the bridge {row.bridge} and the rules pydock-{row.bridge}")
    assert host.left() == []


def test_bridges_and_rules_without_each_other(host: Host) -> None:
    host.dock("network", "create", "web")
    row = row_of(host, "web")
    for family in ("ip", "bridge"):
        host.namespace.run("nft", "delete", "table", family, f"pydock-{row.bridge}")
    mend(host, "its firewall rules are not")
    assert f"table ip pydock-{row.bridge}" in host.left()
    host.namespace.run("ip", "link", "del", row.bridge)
    mend(host, "its firewall rules are there")
    assert host.left() == []
    host.start("one", "--network", "web")  # makes both again
    assert check(host) == []
    host.namespace.run("ip", "link", "del", row.bridge)
    (found,) = check(host, repair=True)
    assert "containers run on it" in found.problem
    assert found.remedy.startswith("restart them: dock restart ")
    host.dock("restart", "-t", "0", "one")
    assert check(host) == []


def test_addresses_without_a_container(host: Host) -> None:
    host.dock("network", "create", "web")
    row = row_of(host, "web")
    with host.engine.state.database.transaction() as connection:
        connection.execute("INSERT INTO endpoint VALUES (?, ?, '10.0.0.9/16', '')", (row.id, "5" * 64))
    mend(host, "which is gone")


def test_other_state_roots_are_left_alone(host: Host) -> None:
    host.namespace.run("ip", "link", "add", "br-0123456789ab", "type", "bridge")
    host.namespace.run("nft", "add", "table", "ip", "pydock-br-0123456789ab")
    try:
        assert check(host, repair=True) == []
    finally:
        host.namespace.run("nft", "delete", "table", "ip", "pydock-br-0123456789ab")
        host.namespace.run("ip", "link", "del", "br-0123456789ab")


def test_a_directory_of_an_unmade_network(host: Host) -> None:
    network_id = "6" * 64
    directory = host.root.network_directory(network_id)
    directory.mkdir()
    host.dock("network", "create", "web")
    rules = Network(row_of(host, "web")).rules
    write_json(directory / "bridge.json", {**asdict(rules), "bridge": "br-666666666666"})
    mend(host, "it is not recorded, but its directory is there")
    assert not directory.exists()
