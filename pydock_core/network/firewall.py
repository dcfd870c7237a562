"""Lets containers on a bridge reach the outside: one nftables table per bridge, or iptables where nft is missing.

A table of our own cannot lift what another drops: with a FORWARD policy of DROP (Docker's, in iptables) the
host's own rules must accept the bridge.  ``dock doctor`` says so.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pydock_core.errors import FailedError, UnsupportedError

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_TIMEOUT_SECONDS = 20.0


def build_nft_script(bridge: str, subnet: str) -> str:
    """Return the script that makes the bridge's table what it should be, whatever it was; nft applies it atomically.

    Containers reach each other and the outside, under the host's address; from outside nobody reaches a
    container unasked (published ports go through the supervisor).
    """
    table = f"ip pydock-{bridge}"
    return f"""\
add table {table}
delete table {table}
table {table} {{
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} oifname != "{bridge}" masquerade
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{bridge}" accept
        oifname "{bridge}" ct state established,related accept
        oifname "{bridge}" drop
    }}
}}
"""


def build_iptables_rules(bridge: str, subnet: str) -> list[tuple[str, str, list[str]]]:
    """Return the same as rules for iptables: table, chain, match and target; in the order in which they stand."""
    established = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
    return [
        ("nat", "POSTROUTING", ["-s", subnet, "!", "-o", bridge, "-j", "MASQUERADE"]),
        ("filter", "FORWARD", ["-i", bridge, "-j", "ACCEPT"]),
        ("filter", "FORWARD", ["-o", bridge, *established, "-j", "ACCEPT"]),
        ("filter", "FORWARD", ["-o", bridge, "-j", "DROP"]),
    ]


def ensure(bridge: str, subnet: str) -> None:
    """Make forwarding and masquerading work for a bridge; idempotent.

    Raises:
        UnsupportedError: the host has neither nft nor iptables.
        FailedError: the kernel or the program refused.
    """
    _enable_forwarding()
    nft = shutil.which("nft")
    if nft is not None:
        _run([nft, "-f", "-"], build_nft_script(bridge, subnet))
        return
    iptables = shutil.which("iptables")
    if iptables is None:
        raise UnsupportedError(
            "this host has no nft and no iptables, so containers on a bridge can not reach the outside",
            hint="install nftables, or use --network none or host",
            exit_code=125,
        )
    # Inserted at the front, so that a chain which ends in a rejection does not keep them from being reached.
    for table, chain, rule in reversed(build_iptables_rules(bridge, subnet)):
        if _try([iptables, "-w", "-t", table, "-C", chain, *rule]) != 0:
            _run([iptables, "-w", "-t", table, "-I", chain, *rule])


def remove(bridge: str, subnet: str) -> None:
    """Take away what :func:`ensure` made; what is not there is not an error."""
    nft = shutil.which("nft")
    if nft is not None:
        _run([nft, "-f", "-"], f"add table ip pydock-{bridge}\ndelete table ip pydock-{bridge}\n")
        return
    iptables = shutil.which("iptables")
    if iptables is not None:
        for table, chain, rule in build_iptables_rules(bridge, subnet):
            _try([iptables, "-w", "-t", table, "-D", chain, *rule])


def _enable_forwarding() -> None:
    try:
        if _FORWARDING.read_text().strip() != "1":
            _FORWARDING.write_text("1")
    except OSError as error:
        raise FailedError(
            f"IPv4 forwarding can not be enabled: {error.strerror}", hint="sysctl net.ipv4.ip_forward=1"
        ) from error


def _try(command: Sequence[str]) -> int:
    return subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False).returncode


def _run(command: Sequence[str], script: str | None = None) -> None:
    try:
        outcome = subprocess.run(
            command, input=script, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FailedError(f"{command[0]} can not be run: {error}", exit_code=125) from error
    if outcome.returncode != 0:
        lines = outcome.stderr.strip().splitlines() or [f"exit code {outcome.returncode}"]
        raise FailedError(
            f"{Path(command[0]).name} refused the firewall's rules: {lines[0]}",
            hint="`dock doctor` says what the kernel lacks",
            exit_code=125,
        )
