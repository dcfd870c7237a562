"""What a container on the default bridge reaches of its host, through ``dock``, and the ways to open it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pydock_core.network import firewall
from pydock_core.network.rules import HOST_ACCESS, NO_BRIDGE_FAMILY, Admission, BridgeRules
from pydock_core.paths import StateRoot
from tests.integration.conftest import Dock, end_servers
from tests.support.network_namespace import NetworkNamespace, network_namespace

ASK = "host.docker.internal"
FETCH = "nc -w 5 {} 8000 </dev/null"


@dataclass
class Host:
    """``dock`` on a state root of its own, in a namespace where a server listens on every address."""

    namespace: NetworkNamespace
    base: Path
    path: str = field(default_factory=lambda: os.environ["PATH"])

    def dock(self, *words: object, code: int | None = 0, **environment: str) -> str:
        """Run a command; return all that it wrote."""
        variables = {"PYDOCK_ROOT": str(self.base), "PATH": self.path, **environment}
        program = Dock(self.base).served_words(*words)
        done = self.namespace.run(*program, code=code, environment=variables)
        return done.stdout + done.stderr

    def shell(self, script: str, *options: str, code: int | None = 0, **environment: str) -> str:
        """Run a script in a container of busybox."""
        return self.dock("run", "--rm", *options, "busybox", "sh", "-c", script, code=code, **environment)

    def gateway(self) -> str:
        """The bridge's own address."""
        return re.findall(r"default via (\S+)", self.shell("ip route"))[0]

    def close(self) -> None:
        self.namespace(end_servers, StateRoot(self.base / "data", self.base / "run"))


@pytest.fixture(scope="module")
def namespace() -> Iterator[NetworkNamespace]:
    with network_namespace() as made:
        server = made(lambda: socket.create_server(("0.0.0.0", 8000)))

        def serve() -> None:
            while True:
                try:
                    accepted, _ = server.accept()
                except OSError:
                    return
                with accepted:
                    accepted.recv(4096)
                    accepted.sendall(b"the host answers\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield made
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


@pytest.fixture(scope="module")
def host(
    namespace: NetworkNamespace, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    made = Host(namespace, tmp_path_factory.mktemp("host-access"))
    made.dock("load", "-q", "-i", archive)
    yield made
    made.close()


def test_the_host_is_closed_and_each_way_opens_it(host: Host) -> None:
    gateway = host.gateway()
    fetch = FETCH.format(gateway)
    option = ("--add-host", f"{ASK}:host-gateway")
    assert "No route to host" in host.shell(fetch, code=1)
    opened = host.shell(f"cat /etc/hosts; {fetch}", *option)
    assert f"{gateway}\t{ASK}\n" in opened
    assert "the host answers" in opened
    assert "No route to host" in host.shell(fetch, code=1)  # the same address, of another container
    assert "the host answers" in host.shell(fetch, **{HOST_ACCESS: "all"})
    assert f"invalid {HOST_ACCESS}: yes" in host.shell("true", code=125, **{HOST_ACCESS: "yes"})


def test_host_gateway_is_kept_and_needs_a_network(host: Host) -> None:
    option = ("--add-host", f"{ASK}:host-gateway")
    identifier = host.dock("create", *option, "busybox", "true").strip()
    (inspected,) = json.loads(host.dock("inspect", identifier))
    assert inspected["HostConfig"]["ExtraHosts"] == [f"{ASK}:host-gateway"]
    host.dock("rm", identifier)
    assert f"127.0.0.1\t{ASK}\n" in host.shell("cat /etc/hosts", "--network", "host", *option)
    refused = host.dock("create", "--network", "none", *option, "busybox", "true", code=125)
    assert "host-gateway cannot be combined with --network none" in refused


def network_check(host: Host, **environment: str) -> dict[str, str]:
    checks = json.loads(host.dock("doctor", "--format", "json", code=None, **environment))["Checks"]
    (check,) = [check for check in checks if check["name"] == "network"]
    return dict(check)


def test_the_doctor_says_what_is_closed(host: Host) -> None:
    assert network_check(host)["found"].endswith("the host's own addresses are closed to containers")
    opened = network_check(host, **{HOST_ACCESS: "all"})
    assert opened["state"] == "limited"
    assert "cloud metadata" in opened["cost"]


@pytest.mark.skipif(not shutil.which("nft"), reason="needs nft")
def test_a_kernel_without_tables_for_bridges_is_told(
    namespace: NetworkNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nft = tmp_path / "nft"
    nft.write_text(
        '#!/bin/sh\nscript=$(cat)\ncase $script in (*"table bridge"*) exit 1;; esac\n'
        f'echo "$script" | {shutil.which("nft")} "$@"\n'
    )
    nft.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    rules = BridgeRules("pdlack0", "10.9.0.0/16")
    for access in ("gateway", "none"):
        weakness = namespace(firewall.ensure, rules, Admission("10.9.0.2", access))
        assert weakness == namespace(firewall.probe_guard) == NO_BRIDGE_FAMILY
        listing = namespace.run("nft", "list", "table", "ip", rules.table).stdout
        assert "reject with icmp" in listing
        assert ("10.9.0.2 : jump to-gateway" in listing) == (access == "gateway")
    namespace(firewall.remove, rules)
    assert rules.table not in namespace.run("nft", "list", "ruleset").stdout


@pytest.mark.skipif(not shutil.which("iptables"), reason="needs iptables")
def test_without_nft_the_host_is_closed_and_the_lack_is_told(
    namespace: NetworkNamespace, archive: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("iptables", "nsenter"):
        (programs / name).symlink_to(str(shutil.which(name)))
    host = Host(namespace, tmp_path / "state", str(programs))
    host.base.mkdir()
    host.dock("load", "-q", "-i", archive)
    try:
        assert "can impersonate each other and its gateway: this host has no nft" in host.shell("true")
        (recorded,) = (host.base / "run").rglob("*.weakness")
        assert stat.S_IMODE(recorded.stat().st_mode) == 0o600
        installed = programs / "nft"
        installed.symlink_to("/bin/true")
        assert "impersonate" not in host.dock("create", "busybox", "true")
        installed.unlink()
        assert "impersonate" in host.dock("create", "busybox", "true")
        assert network_check(host)["state"] == "limited"
        gateway = host.gateway()
        fetch = FETCH.format(gateway)
        option = ("--add-host", f"{ASK}:host-gateway")
        assert "No route to host" in host.shell(f"ping -c 1 -W 5 {gateway} && {fetch}", code=1)
        assert "the host answers" in host.shell(fetch, *option)
        assert "the host answers" in host.shell(fetch, **{HOST_ACCESS: "all"})
        assert "No route to host" in host.shell(fetch, code=1)
    finally:
        host.close()
    rules = namespace.run("iptables-save").stdout
    assert "-i pydock" not in rules
    assert "pydock-" not in rules


@pytest.mark.skipif(not shutil.which("nft"), reason="needs nft")
def test_the_doctor_finds_a_firewall_that_drops_what_is_forwarded(host: Host) -> None:
    chain = "{ type filter hook forward priority 0 ; policy drop ; }"
    host.namespace.run("nft", f"add table ip filter; add chain ip filter FORWARD {chain}")
    try:
        check = network_check(host)
        assert check["state"] == "limited"
        assert "(table ip filter, chain FORWARD)" in check["found"]
        assert "iptables -I FORWARD -i pydock+ -j ACCEPT" in check["remedy"]
    finally:
        host.namespace.run("nft", "delete table ip filter")
    assert network_check(host)["state"] == "ok"
