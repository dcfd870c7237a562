"""Reports this host's features, the cost of each missing one, and the command that fixes it (``dock doctor``)."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydock_core.errors import DeniedError
from pydock_core.paths import StateRoot
from pydock_core.private_files import check_way

OLDEST_KERNEL = (5, 12)
"""mount_setattr(2) (Linux 5.12); overlayfs in a user namespace, openat2 and pidfd are older."""
_PROBE_SECONDS = 20
_APPARMOR = "kernel/apparmor_restrict_unprivileged_userns"
_SUBORDINATE_IDS = 65536
_FIRST_SUBORDINATE_ID = 100000
_HIGHEST_ID = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: the feature.
        state: "ok", "limited" (something is lost) or "missing".
        found: what the check found, in a few words.
        cost: the consequence; empty if ``state`` is ok.
        remedy: the command that fixes it; empty if ``state`` is ok.
        required: no container runs without it.
    """

    name: str
    state: str
    found: str
    cost: str = ""
    remedy: str = ""
    required: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the check as plain data."""
        return asdict(self)


def examine(root: StateRoot) -> list[Check]:
    """Run all checks; they change nothing on the host.

    Args:
        root: the state root, whose filesystem is checked too.
    """
    rootless = os.geteuid() != 0
    checks: list[Callable[[], Check]] = [
        _kernel,
        lambda: _user_namespaces(required=rootless),
        *([_subordinate_ids] if rootless else []),
        _overlay,
        lambda: _cgroups(rootless=rootless),
        _seccomp,
        lambda: _network(rootless=rootless),
        lambda: _state_directory(root),
        _runtimes,
        _gpu,
    ]
    return [check() for check in checks]


def _kernel() -> Check:
    from pydock_core.spec.seccomp_profile import parse_kernel_release

    release = platform.release()
    version = parse_kernel_release(release)
    if version >= OLDEST_KERNEL:
        return Check("kernel", "ok", release)
    return Check(
        "kernel",
        "missing",
        release,
        f"PyDock is made for Linux {OLDEST_KERNEL[0]}.{OLDEST_KERNEL[1]} and newer",
        "run it on a newer kernel",
        required=True,
    )


def _user_namespaces(*, required: bool) -> Check:
    """Try to make one in a separate process, because many settings can forbid it and they differ between distributions.

    AppArmor may allow the user namespace but refuse its root every capability, so the test makes a second one inside it.
    """
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "from pydock_core import syscalls\n"
        "syscalls.unshare(syscalls.CLONE_NEWUSER)\n"
        "syscalls.unshare(syscalls.CLONE_NEWNET)"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, timeout=_PROBE_SECONDS, check=False
    )
    if result.returncode == 0:
        return Check("user namespaces", "ok", "can be created")
    return Check(
        "user namespaces",
        "missing" if required else "limited",
        "forbidden by AppArmor" if _is_closed_by_apparmor() else "cannot be created",
        "containers need root on this host"
        if required
        else "ordinary users of this host cannot run containers",
        _user_namespace_remedy(),
        required=required,
    )


def _is_closed_by_apparmor() -> bool:
    """Whether AppArmor restricts user namespaces to programs with a profile: Ubuntu's default from 23.10 on."""
    return _read(f"/proc/sys/{_APPARMOR}") == "1"


def _user_namespace_remedy() -> str:
    for name, value, setting in (
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (_APPARMOR, "1", f"{_APPARMOR.replace('/', '.')}=0"),
    ):
        if _read(f"/proc/sys/{name}") == value:
            return f"sudo sysctl -w {setting}"
    return "allow unprivileged user namespaces (inside a container: run that one with fewer restrictions)"


def _subordinate_ids() -> Check:
    from pydock_core.supervision.user_namespace import subordinate_ids

    counts = [
        sum(count for _, count in subordinate_ids(Path(path))) for path in ("/etc/subuid", "/etc/subgid")
    ]
    user = _user_name()
    tools = all(shutil.which(tool) for tool in ("newuidmap", "newgidmap"))
    if min(counts) >= 65535 and tools:
        return Check("subordinate ids", "ok", f"{min(counts)} for {user}")
    cost = "all files and processes of a container belong to one user: images with several users do not work fully"
    if not tools:
        return Check("subordinate ids", "limited", "no newuidmap", cost, "sudo apt-get install uidmap")
    return Check(
        "subordinate ids",
        "limited",
        f"{min(counts)} for {user}",
        cost,
        _subordinate_remedy(user),
    )


def _subordinate_remedy(user: str) -> str:
    """Return the command that gives a user a range of ids that nobody has in /etc/subuid and /etc/subgid."""
    first = _free_range(_taken_ranges((_read("/etc/subuid") or "", _read("/etc/subgid") or "")))
    if first is None:
        return f"sudo usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST {user} (subuid(5))"
    ids = f"{first}-{first + _SUBORDINATE_IDS - 1}"
    return f"sudo usermod --add-subuids {ids} --add-subgids {ids} {user}"


def _taken_ranges(texts: Iterable[str]) -> list[tuple[int, int]]:
    """Return the first id and the number of ids of each range, of all users, in subuid(5)'s format."""
    fields = [line.strip().split(":") for text in texts for line in text.splitlines()]
    return [
        (int(entry[1]), int(entry[2]))
        for entry in fields
        if len(entry) == 3 and entry[1].isdecimal() and entry[2].isdecimal()
    ]


def _free_range(taken: Sequence[tuple[int, int]]) -> int | None:
    """Return the first id of a free range: behind all others if there is room, else the highest gap; None if there is none.

    Args:
        taken: first id and number of ids of each range, of all users.
    """
    starts = {_FIRST_SUBORDINATE_ID, *(first + count for first, count in taken)}
    for start in sorted(starts, reverse=True):
        end = start + _SUBORDINATE_IDS
        if (
            start >= _FIRST_SUBORDINATE_ID
            and end <= _HIGHEST_ID
            and all(first + count <= start or first >= end for first, count in taken)
        ):
            return start
    return None


def _overlay() -> Check:
    if "overlay" in (_read("/proc/filesystems") or "").split():
        return Check("overlay file system", "ok", "in the kernel")
    modules = Path(f"/lib/modules/{platform.release()}/kernel/fs/overlayfs")
    if modules.is_dir():
        return (
            Check("overlay file system", "ok", "a module, loaded when it is needed")
            if os.geteuid() == 0
            else Check(
                "overlay file system",
                "missing",
                "a module that is not loaded",
                "containers have no root file system",
                "sudo modprobe overlay",
                required=True,
            )
        )
    return Check(
        "overlay file system",
        "missing",
        "not in this kernel",
        "containers have no root file system",
        "run a kernel with CONFIG_OVERLAY_FS",
        required=True,
    )


def _cgroups(*, rootless: bool) -> Check:
    from pydock_core.runtime.cgroups import probe_cgroups

    support = probe_cgroups()
    if not support.version:
        return Check("cgroups", "limited", "none", "no limit is enforced", "mount a cgroup hierarchy")
    controllers = {"memory": support.memory, "cpu": support.cpu, "pids": support.pids}
    missing = [name for name, there in controllers.items() if not there]
    if not missing:
        return Check("cgroups", "ok", f"version {support.version}")
    if support.available:
        found = f"version {support.version}, without {', '.join(missing)}: {support.reason}"
    else:
        why = "only root can use it" if support.version == 1 else support.reason
        found = f"version {support.version}: {why}, so there are no limits of {', '.join(missing)}"
    return Check(
        "cgroups",
        "limited",
        found,
        f"no limit is enforced for {', '.join(missing)} (-m, --cpus, --pids-limit)",
        "log in through systemd on a host with cgroup v2 (Delegate=yes)"
        if rootless
        else "mount the controllers",
    )


def _seccomp() -> Check:
    if _read("/proc/sys/kernel/seccomp/actions_avail") is None:
        return Check(
            "seccomp",
            "missing",
            "not in this kernel",
            "containers run only with --security-opt seccomp=unconfined",
            "run a kernel with CONFIG_SECCOMP_FILTER",
        )
    try:
        import pyseccomp

        return Check("seccomp", "ok", f"libseccomp, API level {pyseccomp.get_api()}")
    except (ImportError, RuntimeError, OSError):
        return Check(
            "seccomp",
            "missing",
            "no libseccomp",
            "containers run only with --security-opt seccomp=unconfined",
            "sudo apt-get install libseccomp2",
        )


def _network(*, rootless: bool) -> Check:
    if rootless:
        return _user_network()
    from pydock_core.network.firewall import probe_forwarding, probe_guard
    from pydock_core.network.rules import NO_NFT

    tools = [tool for tool in ("nft", "iptables") if shutil.which(tool)]
    if not tools:
        return Check(
            "network",
            "limited",
            "no nft",
            "containers cannot run on the bridge",
            "apt-get install nftables",
        )
    weakness = probe_guard()
    if weakness:
        return Check(
            "network",
            "limited",
            f"bridge, with {tools[0]}; {weakness}",
            "a container on the bridge can impersonate its neighbours and the gateway (ARP, source addresses)",
            "apt-get install nftables" if weakness == NO_NFT else "run a kernel with CONFIG_NF_TABLES_BRIDGE",
        )
    if chain := probe_forwarding():
        return Check(
            "network",
            "limited",
            f"bridge, with {tools[0]}; a firewall drops forwarded packets ({chain})",
            "containers on a bridge reach neither other hosts nor, where br_netfilter is on, each other",
            _forwarding_remedy(chain),
        )
    return _bridge(tools[0])


def _user_network() -> Check:
    from pydock_core.network.uplink_program import choose_program, is_old, lack, read_help, remedy

    if reason := lack():
        return Check(
            "network",
            "limited",
            f"none and host; {reason}",
            "an ordinary user's container reaches no other hosts by default, and there are no networks by name; "
            "its ports are reachable through the proxy and -p",
            remedy(reason),
        )
    program = choose_program(read_help)
    if is_old(program, read_help):
        return Check(
            "network",
            "limited",
            "bridge, with pasta of before August 2024",
            "large uploads of containers may stall or be reset",
            "sudo apt-get install slirp4netns",
        )
    return _bridge(Path(program).name)


def _bridge(program: str) -> Check:
    from pydock_core.network.rules import HOST_ACCESS

    if os.environ.get(HOST_ACCESS, "none") not in ("", "none"):
        return Check(
            "network",
            "limited",
            f"bridge, with {program}; {HOST_ACCESS} is set",
            "containers started with it reach every service of this host, and link-local addresses (cloud metadata)",
            f"unset {HOST_ACCESS}; --add-host host.docker.internal:host-gateway opens the gateway to one container",
        )
    return Check(
        "network", "ok", f"bridge, with {program}; the host's own addresses are closed to containers"
    )


def _forwarding_remedy(chain: str) -> str:
    """Return the command that lets the bridges' packets through a firewall, in Docker's chain for users if it exists."""
    if "chain FORWARD" in chain:
        accept = "iptables -I {0} -i {1} -j ACCEPT; iptables -I {0} -o {1} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        return "; ".join(accept.format("FORWARD", name) for name in ("pydock+", "br-+"))
    return "have the firewall accept what comes from and answers to the devices pydock* and br-*"


def _state_directory(root: StateRoot) -> Check:
    try:
        for way in (root.data, root.run):
            check_way(way)
    except DeniedError as error:
        return Check(
            "state directory", "missing", error.message, "nothing can be stored", error.hint, required=True
        )
    path = root.data
    while not path.exists():
        path = path.parent
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    kind = _file_system_of(path)
    found = f"{root.data}, {kind}, {free / 1e9:.1f} GB free"
    if not os.access(path, os.W_OK):
        return Check(
            "state directory",
            "missing",
            found,
            "nothing can be stored",
            "set PYDOCK_ROOT to a directory of yours",
            required=True,
        )
    if kind in ("nfs", "nfs4", "overlay", "cifs", "lustre", "gpfs", "fuse.sshfs"):
        return Check(
            "state directory",
            "limited",
            found,
            f"overlayfs cannot keep a writable layer on {kind}",
            "set PYDOCK_ROOT to a directory on a local disk",
        )
    if free < 1e9:
        return Check(
            "state directory", "limited", found, "images may not fit", "free some space, or set PYDOCK_ROOT"
        )
    return Check("state directory", "ok", found)


def _file_system_of(path: Path) -> str:
    """Return the filesystem type of a path: that of the last mount among the longest mount points above it
    (proc_pid_mountinfo(5)).
    """
    best, kind = "", "unknown"
    target = f"{path.resolve()}/"
    for line in (_read("/proc/self/mountinfo") or "").splitlines():
        fields = line.split(" ")
        point = fields[4].rstrip("/") + "/"
        if target.startswith(point) and len(point) >= len(best):
            best, kind = point, fields[fields.index("-") + 1]
    return kind


def _runtimes() -> Check:
    present = [name for name in ("crun", "runc") if shutil.which(name)]
    return Check("other runtimes", "ok", ", ".join(present) if present else "none (embedded does it all)")


def _gpu() -> Check:
    from pydock_core.cdi.survey import survey

    seen = survey()
    found = "; ".join(seen.devices) or "none on this host"
    if not seen.problems:
        return Check("GPU", "ok", found)
    problem, remedy = seen.problems[0]
    return Check("GPU", "limited", found, problem, remedy)


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
