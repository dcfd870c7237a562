"""The programs that connect an ordinary user's network namespace to the outside: pasta, or else slirp4netns.

They read packets from a TAP device, and forward them through sockets of their own in the host's network namespace.
passt(1), slirp4netns(1).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pydock_core.network.rules import NO_NFT

DEVICE = "outside"
"""The TAP device in the namespace."""
ADDRESS = "192.0.0.100"
GATEWAY = "192.0.0.2"
PREFIX_BITS = 24
"""The addresses are from RFC 6890's block for protocol assignments, so they shadow no other host."""
ADDRESS6 = "fd00:c000::100"
GATEWAY6 = "fd00:c000::2"
MTU_BYTES = 65520
"""The maximum of a TAP device, because each packet costs the program two system calls."""
MISSING = "neither pasta nor slirp4netns is installed"
NO_TUN = "/dev/net/tun cannot be opened"
INSTALL_HINT = "sudo apt-get install passt slirp4netns"
_TUN = Path("/dev/net/tun")
_SYSTEM_DIRECTORIES = "/usr/sbin:/sbin:/usr/local/sbin"
_HELP_SECONDS = 10.0
_SINCE_2024 = "--map-host-loopback"
"""An option that pasta has from its versions of August 2024 on."""


def search_path() -> str:
    """Return PATH with the sbin directories, which contain nft and which an ordinary user's PATH may lack."""
    return f"{os.environ.get('PATH') or '/usr/bin:/bin'}:{_SYSTEM_DIRECTORIES}"


def find_program(name: str = "") -> str:
    """Return the path of one of the two programs, or of either; "" if it is not installed."""
    names = (name,) if name else ("pasta", "slirp4netns")
    paths = (shutil.which(item, path=search_path()) for item in names)
    return next(filter(None, paths), "")


def choose_program(read_help: Callable[[str], str]) -> str:
    """Return the path of the program to use; "" if there is none.

    pasta, unless it is an old one and slirp4netns is there: with Debian 12's, uploads of some hundred MiB stall or are reset.

    Args:
        read_help: returns what a program says of its options; old versions do not know which they are.
    """
    pasta, slirp = find_program("pasta"), find_program("slirp4netns")
    if pasta and slirp and is_old(pasta, read_help):
        return slirp
    return pasta or slirp


def is_old(program: str, read_help: Callable[[str], str]) -> bool:
    """Whether a program is a pasta of before August 2024."""
    return Path(program).name == "pasta" and _SINCE_2024 not in read_help(program)


def find_nft() -> str:
    """Return the path of nft; "" if it is not installed."""
    return shutil.which("nft", path=search_path()) or ""


def has_route() -> bool:
    """Whether the caller's network namespace has an IPv4 default route; without one, pasta does not start."""
    with open("/proc/self/net/route", encoding="ascii") as lines:
        return any(line.split()[1] == line.split()[7] == "00000000" for line in lines)


def lack() -> str:
    """Return the reason why an ordinary user cannot have bridge networks on this host; "" if there is none."""
    if not find_program():
        return MISSING
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return NO_TUN
    return "" if find_nft() else NO_NFT


def remedy(reason: str) -> str:
    """Return the command that fixes the result of :func:`lack`."""
    commands = {MISSING: INSTALL_HINT, NO_TUN: f"sudo chmod 666 {_TUN}"}
    return commands.get(reason, "sudo apt-get install nftables")


def build_command(program: str, namespace: str, *, has_ipv6: bool, read_help: Callable[[], str]) -> list[str]:
    """Return the command that connects a namespace and stays in the foreground.

    The program forwards no port into the namespace, and maps no address to the host's loopback.

    Args:
        program: path from :func:`find_program`.
        namespace: path of the namespace's file.
        has_ipv6: whether the host has an IPv6 default route.
        read_help: returns the program's help text, because options differ between versions.
    """
    if Path(program).name == "slirp4netns":
        words = [
            "--configure",
            "--disable-host-loopback",
            f"--mtu={MTU_BYTES}",
            f"--cidr=192.0.0.0/{PREFIX_BITS}",
        ]
        words += ["--enable-ipv6"] if has_ipv6 else []
        available = read_help()
        words += [word for word in ("--enable-sandbox", "--enable-seccomp") if word in available]
        return [program, *words, "--netns-type=path", namespace, DEVICE]
    words = ["--foreground", "--quiet", "--config-net", "--ns-ifname", DEVICE, "--mtu", str(MTU_BYTES)]
    words += ["--address", ADDRESS, "--netmask", str(PREFIX_BITS), "--gateway", GATEWAY]
    words += ["--address", ADDRESS6, "--gateway", GATEWAY6] if has_ipv6 else ["--ipv4-only"]
    words += ["-t", "none", "-u", "none", "-T", "none", "-U", "none"]
    available = read_help()
    words += [
        word for word in ("--no-dhcp", "--no-dhcpv6", "--no-ra", "--no-netns-quit") if word in available
    ]
    # By default the gateway's address maps to the host's loopback; newer versions have the second form.
    words += ["--no-map-gw"] if "--no-map-gw" in available else ["--map-host-loopback", "none"]
    return [program, *words, "--netns", namespace]


def read_help(program: str) -> str:
    """Return a program's help text."""
    import subprocess  # late: the engine imports this module, and starts no program

    done = subprocess.run(
        [program, "--help"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_HELP_SECONDS,
        check=False,
    )
    return done.stdout + done.stderr
