"""Applies a bridge's firewall rules: two nftables tables per bridge, or iptables if nft is missing.

PyDock's table cannot lift another table's drop: with a FORWARD policy of DROP (Docker's, in iptables) the
host's own rules must accept the bridge.  ``dock doctor`` says so.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pydock_core.errors import FailedError, UnsupportedError
from pydock_core.network import rules as build
from pydock_core.network.rules import NO_BRIDGE_FAMILY, NO_NFT, Admission, BridgeRules

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_DEVICES = Path("/proc/net/dev")
_TIMEOUT_SECONDS = 20.0


def ensure(rules: BridgeRules, admission: Admission | None) -> str:
    """Install a bridge's rules and admit a container's packets; idempotent.

    Args:
        admission: None for the bridge alone.

    Returns:
        The reason why containers of the bridge can impersonate each other; "" if they cannot.

    Raises:
        UnsupportedError: the host has neither nft nor iptables.
        FailedError: the kernel or the program refused.
    """
    _enable_forwarding()
    nft = shutil.which("nft")
    if nft is not None:
        return _ensure_nft(nft, rules, admission)
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
        _try([nft, "-f", "-"], build.build_nft_removal(rules, "bridge"))  # not every kernel has this family
        return
    iptables = shutil.which("iptables")
    if iptables is not None:
        for table, chain, rule in build.build_iptables_rules(rules):
            _try([iptables, "-w", "-t", table, "-D", chain, *rule])
        for action in ("-F", "-X"):
            _try([iptables, "-w", action, rules.table])


def probe_guard() -> str:
    """Return the reason why containers of a bridge could impersonate each other on this host; "" if they cannot.

    Needs root; asks the kernel and changes nothing.
    """
    nft = shutil.which("nft")
    if nft is None:
        return NO_NFT
    script = build.build_nft_script(BridgeRules("pydock-probe", "192.0.2.0/24"), (), guard=True)
    return "" if _try([nft, "-c", "-f", "-"], script).returncode == 0 else NO_BRIDGE_FAMILY


def _ensure_nft(nft: str, rules: BridgeRules, admission: Admission | None) -> str:
    # An admission waits for no grace period of the kernel: it takes a tenth of the time of the full script.
    weakness = ""
    admitted = _admit(nft, rules, admission, guard=True) if admission is not None else False
    if not admitted:
        addresses = build.port_addresses(rules.subnet, _devices())
        script = build.build_nft_script(rules, addresses, guard=True)
        if _try([nft, "-f", "-"], script).returncode != 0:
            _run([nft, "-f", "-"], build.build_nft_script(rules, (), guard=False))
            weakness = NO_BRIDGE_FAMILY
        if admission is not None and not _admit(nft, rules, admission, guard=not weakness):
            raise FailedError(f"nft did not admit {admission.address} to {rules.bridge}", exit_code=125)
    return weakness


def _admit(nft: str, rules: BridgeRules, admission: Admission, *, guard: bool) -> bool:
    """Admit a container's packets; return False if the tables are missing or of another version."""
    opened = _try([nft, "-f", "-"], build.build_nft_opened(rules))
    if opened.returncode != 0:
        return False
    if build.is_listed(opened.stdout, admission.address):
        _run([nft, "-f", "-"], build.build_nft_closing(rules, admission.address))
    script = build.build_nft_admission(rules, admission, guard=guard)
    return not script or _try([nft, "-f", "-"], script).returncode == 0


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
