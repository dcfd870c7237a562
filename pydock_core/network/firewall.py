"""Applies a bridge's firewall rules: two nftables tables per bridge, or iptables if nft is missing.

PyDock's table cannot lift another table's drop: with a FORWARD policy of DROP (Docker's, in iptables) the
host's own rules must accept the bridge.  ``dock doctor`` says so.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pydock_core.errors import FailedError, UnsupportedError
from pydock_core.network import port_rules
from pydock_core.network import rules as build
from pydock_core.network.port_rules import Publication
from pydock_core.network.rules import NO_BRIDGE_FAMILY, NO_NFT, Admission, BridgeRules
from pydock_core.runtime.record_file import read_json, write_json

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_FORWARDING6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")
_DEVICES = Path("/proc/net/dev")
_TIMEOUT_SECONDS = 20.0


def ensure(
    rules: BridgeRules, admission: Admission | None, record: Path | None = None, *, needs_nft: bool = False
) -> str:
    """Install a bridge's rules and admit a container's packets; idempotent.

    Args:
        admission: the container to admit; None to prepare only the bridge.
        record: path of the record of elements to remove at an address's next admission; its directory exists.
        needs_nft: whether iptables is insufficient; its rules have no parameter but the subnet.

    Returns:
        The reason why containers of the bridge can impersonate each other; "" if they cannot.

    Raises:
        UnsupportedError: the host has neither nft nor iptables.
        FailedError: the kernel or the program refused.
    """
    _enable_forwarding()
    if rules.subnet6:
        _enable_forwarding6()
    nft = shutil.which("nft")
    if nft is not None:
        return _ensure_nft(nft, rules, admission, record)
    if needs_nft:
        raise UnsupportedError(
            "this host has no nft, which user-defined networks need", "install nftables", exit_code=125
        )
    iptables = shutil.which("iptables")
    if iptables is None:
        raise UnsupportedError(
            "this host has no nft and no iptables, so containers on a bridge cannot reach the outside",
            hint="install nftables, or use --network none or host",
            exit_code=125,
        )
    _ensure_iptables(iptables, rules, admission)
    return NO_NFT


def remove(rules: BridgeRules) -> None:
    """Remove the rules of :func:`ensure`, if they exist."""
    nft = shutil.which("nft")
    if nft is not None:
        _run([nft, "-f", "-"], build.build_nft_removal(rules, "ip"))
        for family in ("ip6", "bridge"):  # not every kernel has these families
            _try([nft, "-f", "-"], build.build_nft_removal(rules, family))
        for family in ("ip", "ip6"):
            table = port_rules.table_name(rules)
            _try([nft, "-f", "-"], f"add table {family} {table}\ndelete table {family} {table}\n")
        return
    iptables = shutil.which("iptables")
    if iptables is not None:
        for table, chain, rule in build.build_iptables_rules(rules):
            _try([iptables, "-w", "-t", table, "-D", chain, *rule])
        for action in ("-F", "-X"):
            _try([iptables, "-w", action, rules.table])


def publish(rules: BridgeRules, publications: Sequence[Publication]) -> None:
    """Translate packets for published ports from outside to a container.

    Raises:
        UnsupportedError: the host has no nft.
        FailedError: the kernel refused, for example because it cannot match sockets (CONFIG_NFT_SOCKET).
    """
    nft = shutil.which("nft")
    if nft is None:
        raise UnsupportedError("this host has no nft", "install nftables")
    elements = port_rules.build_elements(rules, publications)
    if _try([nft, "-f", "-"], elements).returncode == 0:
        return
    # The table is missing or has another version, or an earlier run published the host port for another container.
    for item in publications:
        _try([nft, "-f", "-"], port_rules.build_deletion(rules, item))
    families = sorted({item.family for item in publications})
    base = "".join(port_rules.build_base(rules, family) for family in families)
    _run([nft, "-f", "-"], base + elements)


def apply(script: str) -> None:
    """Have nft apply a script.

    Raises:
        UnsupportedError: the host has no nft.
        FailedError: nft refused it.
    """
    nft = shutil.which("nft")
    if nft is None:
        raise UnsupportedError(NO_NFT, "install nftables", exit_code=125)
    _run([nft, "-f", "-"], script)


def probe_guard() -> str:
    """Return the reason why containers of a bridge could impersonate each other on this host; "" if they cannot.

    Needs root; asks the kernel and changes nothing.
    """
    nft = shutil.which("nft")
    if nft is None:
        return NO_NFT
    script = build.build_nft_script(BridgeRules("pydock-probe", "192.0.2.0/24"), (), guard=True)
    return "" if _try([nft, "-c", "-f", "-"], script).returncode == 0 else NO_BRIDGE_FAMILY


def probe_forwarding() -> str:
    """Return a chain whose policy drops forwarded packets, as "table ip filter, chain FORWARD"; "" if none does.

    Docker and many firewalls set that policy; no rule of another table can override it.  Needs root.
    """
    nft, iptables = shutil.which("nft"), shutil.which("iptables-legacy")
    listed = _try([nft, "list", "chains"]).stdout if nft is not None else ""
    if found := build.find_dropping_chain(listed):
        return found
    # nft does not list the rules of iptables-legacy.
    if iptables is not None and "-P FORWARD DROP" in _try([iptables, "-S", "FORWARD"]).stdout.splitlines():
        return "iptables-legacy, chain FORWARD"
    return ""


def _ensure_nft(nft: str, rules: BridgeRules, admission: Admission | None, record: Path | None) -> str:
    # An admission waits for no grace period of the kernel: it takes a tenth of the time of the full script.
    weakness = ""
    admitted = _admit(nft, rules, admission, record, guard=True) if admission is not None else False
    if not admitted:
        addresses = build.port_addresses(rules.subnet, _devices())
        script = build.build_nft_script(rules, addresses, guard=True)
        if _try([nft, "-f", "-"], script).returncode != 0:
            _run([nft, "-f", "-"], build.build_nft_script(rules, (), guard=False))
            weakness = NO_BRIDGE_FAMILY
        if admission is not None and not _admit(nft, rules, admission, record, guard=not weakness):
            raise FailedError(f"nft did not admit {admission.address} to {rules.bridge}", exit_code=125)
    return weakness


def _admit(nft: str, rules: BridgeRules, admission: Admission, record: Path | None, *, guard: bool) -> bool:
    """Admit a container's packets; return False if the tables are missing or of another version."""
    opened = _try([nft, "-f", "-"], build.build_nft_opened(rules))
    if opened.returncode != 0:
        return False
    if build.is_listed(opened.stdout, admission.address):
        _run([nft, "-f", "-"], build.build_nft_closing(rules, admission.address))
    lasting = build.lasting_elements(rules, admission) if guard else []
    script = build.build_nft_admission(rules, admission, guard=guard)
    if record is not None:
        script = build.build_nft_withdrawal(_recorded(record, admission.address, lasting)) + script
    return not script or _try([nft, "-f", "-"], script).returncode == 0


def _recorded(record: Path, address: str, lasting: list[str]) -> list[str]:
    """Return the recorded elements of an address's earlier containers, and record those of the new one.

    Args:
        record: path of the lock; the elements are in the file of the same name with the suffix ".json", which is replaced.
    """
    if not lasting and not record.exists():
        return []
    with open(record, "a+", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known: dict[str, list[str]] = read_json(record.with_suffix(".json")) or {}
        left = known.get(address, [])
        kept = list(dict.fromkeys([*left, *lasting]))
        if kept != left:
            write_json(record.with_suffix(".json"), {**known, address: kept})
    return [line for line in left if line not in lasting]


def _ensure_iptables(iptables: str, rules: BridgeRules, admission: Admission | None) -> None:
    _try([iptables, "-w", "-N", rules.table])
    # Inserted at the front: a chain may end in a rejection.
    for table, chain, rule in reversed(build.build_iptables_rules(rules)):
        _insert(iptables, table, chain, rule)
    if admission is not None:
        present, absent = build.build_iptables_admission(rules, admission)
        for table, chain, rule in absent:
            _try([iptables, "-w", "-t", table, "-D", chain, *rule])
        for table, chain, rule in present:
            _insert(iptables, table, chain, rule)


def _insert(iptables: str, table: str, chain: str, rule: Sequence[str]) -> None:
    if _try([iptables, "-w", "-t", table, "-C", chain, *rule]).returncode != 0:
        _run([iptables, "-w", "-t", table, "-I", chain, *rule])


def _devices() -> list[str]:
    """The network devices of the caller's namespace (proc_pid_net(5))."""
    lines = _DEVICES.read_text().splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines]


def _enable_forwarding() -> None:
    try:
        if _FORWARDING.read_text().strip() != "1":
            _FORWARDING.write_text("1")
    except OSError as error:
        raise FailedError(
            f"cannot enable IPv4 forwarding: {error.strerror}", hint="sysctl net.ipv4.ip_forward=1"
        ) from error


def _enable_forwarding6() -> None:
    """Enable IPv6 forwarding; devices keep accepting router advertisements (ip-sysctl.rst, accept_ra 2)."""
    try:
        if _FORWARDING6.read_text().strip() == "1":
            return
        for setting in _FORWARDING6.parent.parent.glob("*/accept_ra"):
            if setting.parent.name != "all" and setting.read_text().strip() == "1":
                setting.write_text("2")
        _FORWARDING6.write_text("1")
    except OSError as error:
        raise FailedError(
            f"cannot enable IPv6 forwarding: {error.strerror}", hint="sysctl net.ipv6.conf.all.forwarding=1"
        ) from error


def _try(command: Sequence[str], script: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, input=script, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FailedError(f"cannot run {command[0]}: {error}", exit_code=125) from error


def _run(command: Sequence[str], script: str | None = None) -> None:
    outcome = _try(command, script)
    if outcome.returncode != 0:
        lines = outcome.stderr.strip().splitlines() or [f"exit code {outcome.returncode}"]
        raise FailedError(
            f"{Path(command[0]).name} refused the firewall's rules: {lines[0]}",
            hint="`dock doctor` lists what the kernel lacks",
            exit_code=125,
        )
