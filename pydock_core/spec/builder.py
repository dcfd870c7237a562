"""Builds an OCI runtime configuration (config.json) from what ``dock run`` can ask for: pure, no I/O.

Everything that has to be looked up (users, device numbers, what the host's control groups can do, the kernel)
comes in with the request, so that the same request gives the same configuration everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydock_core.errors import InvalidError
from pydock_core.runtime.capabilities import NAMES as ALL_CAPABILITIES
from pydock_core.runtime.capabilities import normalize_name
from pydock_core.spec import defaults
from pydock_core.spec.seccomp_profile import read_default_profile, resolve_profile

_CPU_PERIOD_US = 100_000
_DEVICE_TYPES = ("c", "b", "u", "p")
_PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")


@dataclass(frozen=True, slots=True)
class SpecMount:
    """One mount that the user or the engine asks for.

    Attributes:
        kind: "bind" (volumes too, their directory is the source) or "tmpfs".
        target: absolute path in the container.
        source: absolute host path of a bind; empty for a tmpfs.
        read_only: the mount itself.
        recursive: a bind takes the source's submounts along.
        recursive_read_only: with ``read_only``, they are read-only too (Linux 5.12); for a directory only.
        propagation: of a bind; one of private, rprivate, slave, rslave, shared, rshared.
        options: further words of mount(8): "size=64m", "mode=1777", "noexec", ...
    """

    kind: str
    target: str
    source: str = ""
    read_only: bool = False
    recursive: bool = True
    recursive_read_only: bool = False
    propagation: str = "rprivate"
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpecDevice:
    """One device node.

    Attributes:
        host_path: on the host; bound from there in a user namespace.
        path: in the container.
        kind: "c" or "b" ("p" for a pipe).
        major, minor: device numbers.
        mode: permission bits.
        uid, gid: owner in the container.
        access: what the device control group allows, of "rwm".
    """

    host_path: str
    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


@dataclass(frozen=True, slots=True)
class SpecLimits:
    """Limits of control groups; None (or empty) is no limit.

    Attributes:
        memory_bytes: memory; memory_swap_bytes: memory and swap together, -1 without limit, None twice the memory.
        memory_reservation_bytes: a soft limit.
        cpus: processors' worth of time; cpu_shares: relative weight, 1024 is usual.
        cpuset_cpus, cpuset_mems: lists such as "0-2,4".
        pids_limit: processes and threads; 0 or less is no limit.
        block_weight: 10 to 1000.
        swap_limit_available: this host can limit swap; where it cannot, only an explicit wish for it is written.
    """

    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    memory_reservation_bytes: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    block_weight: int | None = None
    swap_limit_available: bool = True


@dataclass(frozen=True, slots=True)
class SpecRequest:
    """What a container is to be.

    Attributes:
        args: the command and its arguments, not empty.
        rootfs: path of the root filesystem, relative to the bundle or absolute.
        machine, kernel: ``uname -m``; major and minor of the kernel: the seccomp profile depends on them.
        env: NAME=VALUE.
        cwd: absolute path in the container.
        uid, gid, additional_gids: see :func:`pydock_core.spec.users.resolve_user`.
        umask: or None for 022.
        terminal: with a pseudo-terminal of ``console_size`` (rows, columns; zeros where unknown).
        hostname, domainname: set in a UTS namespace of the container's own.
        share_host_uts, share_host_ipc, share_host_pid: no namespace of its own of that kind.
        network_namespace: path to join; empty for a new one; "host" for none.
        read_only_root: the root filesystem cannot be written to.
        mounts: in the user's order; a mount on one of the default targets takes the place of the default.
        shm_size_bytes: of /dev/shm.
        cap_add, cap_drop: names with or without CAP_, in any case, and ALL.
        privileged: all capabilities, access to every device (list the host's nodes in ``devices``), no seccomp
            filter but one that is asked for, nothing masked, /sys and control groups writable.
        no_new_privileges: see prctl(2), PR_SET_NO_NEW_PRIVS.
        seccomp: "default", "unconfined", or a profile (Docker's or OCI's form).
        apparmor_profile, selinux_label: handed to the executor.
        devices: further device nodes.
        device_rules: further OCI device rules ("--device-cgroup-rule").
        limits: see :class:`SpecLimits`.
        cgroups_path: "/pydock/ID"; empty where no control group can be made (no limits either, then).
        device_filter: the device control group can be used.
        cgroup_mount: show the container its control group.
        sysctls: name to value, of the container's own namespaces.
        rlimits: (name, soft, hard): "nofile" or "RLIMIT_NOFILE"; -1 is unlimited.
        oom_score_adj: -1000 to 1000, or None.
        rootless: in a user namespace: devices are bound, and no device rules.
        can_mount_sysfs: sysfs can be mounted (not with the host's network in a user namespace).
        map_tty_group: group 5 is mapped, so that terminals can belong to it.
        hooks, annotations, labels: labels become annotations, too.
    """

    args: Sequence[str]
    rootfs: str
    machine: str
    kernel: tuple[int, int]
    env: Sequence[str] = ()
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    additional_gids: Sequence[int] = ()
    umask: int | None = None
    terminal: bool = False
    console_size: tuple[int, int] = (0, 0)
    hostname: str = ""
    domainname: str = ""
    share_host_uts: bool = False
    share_host_ipc: bool = False
    share_host_pid: bool = False
    network_namespace: str = ""
    read_only_root: bool = False
    mounts: Sequence[SpecMount] = ()
    shm_size_bytes: int = 64 * 1024 * 1024
    cap_add: Sequence[str] = ()
    cap_drop: Sequence[str] = ()
    privileged: bool = False
    no_new_privileges: bool = False
    seccomp: str | Mapping[str, Any] = "default"
    apparmor_profile: str = ""
    selinux_label: str = ""
    devices: Sequence[SpecDevice] = ()
    device_rules: Sequence[Mapping[str, Any]] = ()
    limits: SpecLimits = field(default_factory=SpecLimits)
    cgroups_path: str = ""
    device_filter: bool = True
    cgroup_mount: bool = True
    sysctls: Mapping[str, str] = field(default_factory=dict)
    rlimits: Sequence[tuple[str, int, int]] = ()
    oom_score_adj: int | None = None
    rootless: bool = False
    can_mount_sysfs: bool = True
    map_tty_group: bool = True
    hooks: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def build_spec(request: SpecRequest) -> dict[str, Any]:
    """Build config.json.

    Returns:
        A document that the runtime specification's schema accepts.

    Raises:
        InvalidError: a value that makes no sense, by name.
    """
    capabilities = build_capabilities(request.cap_add, request.cap_drop, privileged=request.privileged)
    spec: dict[str, Any] = {
        "ociVersion": defaults.OCI_VERSION,
        "process": _build_process(request, capabilities),
        "root": {"path": request.rootfs, "readonly": request.read_only_root},
        "mounts": _build_mounts(request),
        "annotations": {**request.labels, **request.annotations},
        "linux": _build_linux(request, capabilities),
    }
    if not request.share_host_uts:
        spec["hostname"] = request.hostname
        if request.domainname:
            spec["domainname"] = request.domainname
    if request.hooks:
        spec["hooks"] = dict(request.hooks)
    return spec


def build_process(
    args: Sequence[str],
    env: Sequence[str],
    cwd: str,
    *,
    template: Mapping[str, Any],
    user: Mapping[str, Any] | None = None,
    terminal: bool = False,
    console_size: tuple[int, int] = (0, 0),
    privileged: bool = False,
) -> dict[str, Any]:
    """Build the OCI process object of an exec.

    Args:
        args, env, cwd, terminal, console_size: as in :class:`SpecRequest`.
        template: the container's own process object, whose confinement (capabilities, limits,
            no_new_privileges) the new process gets.
        user: an OCI user object; None is the container's own user.
        privileged: all capabilities.
    """
    process = {
        **template,
        "args": _check_args(args),
        "env": list(env),
        "cwd": _check_cwd(cwd),
        "terminal": terminal,
        "user": dict(user if user is not None else template["user"]),
    }
    process.pop("consoleSize", None)
    if terminal and all(console_size):
        process["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    held = (
        list(ALL_CAPABILITIES) if privileged else list(template.get("capabilities", {}).get("bounding", ()))
    )
    process["capabilities"] = _build_sets(held, process["user"]["uid"])
    return process


# -- process ---------------------------------------------------------------------------------------------


def build_capabilities(add: Sequence[str], drop: Sequence[str], *, privileged: bool = False) -> list[str]:
    """Return the capabilities of a container, in the kernel's order, as Docker computes them.

    ``ALL`` is understood in both lists.  Adding beats dropping, but for what is dropped from ``--cap-add ALL``.

    Raises:
        InvalidError: a name that no capability has.
    """
    added = [name.upper() if name.upper() == "ALL" else normalize_name(name) for name in add]
    dropped = [name.upper() if name.upper() == "ALL" else normalize_name(name) for name in drop]
    if privileged:
        return list(ALL_CAPABILITIES)
    if "ALL" in added:
        chosen = set(ALL_CAPABILITIES) - set(dropped)
    elif "ALL" in dropped:
        chosen = set(added)
    else:
        chosen = (set(defaults.CAPABILITIES) - set(dropped)) | set(added)
    return [name for name in ALL_CAPABILITIES if name in chosen]


def _build_sets(names: Sequence[str], uid: int) -> dict[str, list[str]]:
    """Root holds the capabilities; another user can get them only through files that carry them (moby #43420)."""
    held = list(names) if uid == 0 else []
    return {"bounding": list(names), "effective": held, "permitted": held}


def _check_args(args: Sequence[str]) -> list[str]:
    if not args or not args[0]:
        raise InvalidError("there is no command to run", "give one after the image's name")
    return list(args)


def _check_cwd(cwd: str) -> str:
    if not cwd.startswith("/"):
        raise InvalidError(
            f"the working directory {cwd or '(none)'} is not an absolute path in the container"
        )
    return cwd


def _build_process(request: SpecRequest, capabilities: Sequence[str]) -> dict[str, Any]:
    user: dict[str, Any] = {"uid": request.uid, "gid": request.gid}
    if request.additional_gids:
        user["additionalGids"] = list(request.additional_gids)
    if request.umask is not None:
        user["umask"] = request.umask
    process: dict[str, Any] = {
        "terminal": request.terminal,
        "user": user,
        "args": _check_args(request.args),
        "env": list(request.env),
        "cwd": _check_cwd(request.cwd),
        "capabilities": _build_sets(capabilities, request.uid),
        "noNewPrivileges": request.no_new_privileges,
    }
    if request.terminal and all(request.console_size):
        process["consoleSize"] = {"height": request.console_size[0], "width": request.console_size[1]}
    if request.rlimits:
        process["rlimits"] = [_build_rlimit(name, soft, hard) for name, soft, hard in request.rlimits]
    if request.oom_score_adj is not None:
        if not -1000 <= request.oom_score_adj <= 1000:
            raise InvalidError(
                f"oom_score_adj {request.oom_score_adj} is out of range", "it goes from -1000 to 1000"
            )
        process["oomScoreAdj"] = request.oom_score_adj
    if request.apparmor_profile:
        process["apparmorProfile"] = request.apparmor_profile
    if request.selinux_label:
        process["selinuxLabel"] = request.selinux_label
    return process


def _build_rlimit(name: str, soft: int, hard: int) -> dict[str, Any]:
    full = name.upper() if name.upper().startswith("RLIMIT_") else f"RLIMIT_{name.upper()}"
    unlimited = 2**64 - 1
    low, high = (unlimited if value < 0 else value for value in (soft, hard))
    if low > high:
        raise InvalidError(f"ulimit {name}: the soft limit {soft} is above the hard limit {hard}")
    return {"type": full, "soft": low, "hard": high}


# -- mounts ----------------------------------------------------------------------------------------------


def _build_mounts(request: SpecRequest) -> list[dict[str, Any]]:
    """The default mounts, then the user's, parents before children as Docker sorts them."""
    shm = {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": [*defaults.SHM_OPTIONS, f"size={request.shm_size_bytes}"],
    }
    devpts = dict(defaults.DEVPTS_MOUNT)
    if not request.map_tty_group:
        devpts["options"] = [option for option in devpts["options"] if not option.startswith("gid=")]
    system = [
        defaults.PROC_MOUNT,
        defaults.DEV_MOUNT,
        devpts,
        defaults.SYS_MOUNT if request.can_mount_sysfs else defaults.SYS_BIND,
        defaults.MQUEUE_MOUNT,
        shm,
    ]
    if request.cgroup_mount and request.can_mount_sysfs:
        system.append(defaults.CGROUP_MOUNT)
    if request.share_host_ipc:
        system.remove(defaults.MQUEUE_MOUNT)
        system += [_build_bind("/dev/mqueue")]
        system.remove(shm)
        system += [_build_bind("/dev/shm")]
    if request.privileged:
        system = [_without_read_only(mount) for mount in system]
    asked = [_build_mount(mount) for mount in request.mounts]
    if request.rootless:
        asked += [_build_device_bind(device) for device in request.devices]
    taken = {mount["destination"] for mount in asked}
    kept = [mount for mount in system if mount["destination"] not in taken]
    # A sort is stable: mounts on one depth keep the user's order.
    asked.sort(key=lambda mount: mount["destination"].rstrip("/").count("/"))
    return [{**mount, "options": list(mount["options"])} for mount in (*kept, *asked)]


def _build_bind(path: str) -> dict[str, Any]:
    return {
        "destination": path,
        "type": "bind",
        "source": path,
        "options": ["bind", "nosuid", "noexec", "nodev"],
    }


def _without_read_only(mount: Mapping[str, Any]) -> dict[str, Any]:
    return {**mount, "options": [option for option in mount["options"] if option not in ("ro", "rro")]}


def _build_mount(mount: SpecMount) -> dict[str, Any]:
    if not mount.target.startswith("/"):
        raise InvalidError(
            f"mount target {mount.target or '(none)'} is not an absolute path in the container"
        )
    target = _clean(mount.target)
    if target == "/":
        raise InvalidError("the container's root cannot be a mount target")
    read_only = ["ro"] if mount.read_only else []
    if mount.kind == "tmpfs":
        options = [*defaults.TMPFS_OPTIONS, *read_only, *mount.options]
        return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
    if mount.kind != "bind":
        raise InvalidError(f"mount {target}: there is no mount of kind {mount.kind}")
    if not mount.source.startswith("/"):
        raise InvalidError(
            f"mount {target}: the source {mount.source or '(none)'} is not an absolute host path"
        )
    if mount.propagation not in _PROPAGATIONS:
        raise InvalidError(f"mount {target}: there is no propagation {mount.propagation}")
    kind = "rbind" if mount.recursive else "bind"
    if mount.read_only and mount.recursive_read_only:
        read_only.append("rro")
    options = [kind, mount.propagation, *read_only, *mount.options]
    return {"destination": target, "type": "bind", "source": mount.source, "options": options}


def _clean(path: str) -> str:
    """Drop empty and "." parts; ".." stays, and the executor resolves it inside the root."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _build_device_bind(device: SpecDevice) -> dict[str, Any]:
    read_only = [] if "w" in device.access else ["ro"]
    options = ["bind", "rprivate", "nosuid", "noexec", *read_only]
    return {"destination": device.path, "type": "bind", "source": device.host_path, "options": options}


# -- linux -----------------------------------------------------------------------------------------------


def _build_linux(request: SpecRequest, capabilities: Sequence[str]) -> dict[str, Any]:
    linux: dict[str, Any] = {"namespaces": _build_namespaces(request)}
    if request.cgroups_path:
        linux["cgroupsPath"] = request.cgroups_path
    resources = _build_resources(request)
    if resources:
        linux["resources"] = resources
    if request.devices and not request.rootless:
        linux["devices"] = [_build_device(device) for device in request.devices]
    if request.sysctls:
        linux["sysctl"] = dict(request.sysctls)
    if not request.privileged:
        linux["maskedPaths"] = list(defaults.MASKED_PATHS)
        linux["readonlyPaths"] = list(defaults.READ_ONLY_PATHS)
    seccomp = _build_seccomp(request, capabilities)
    if seccomp is not None:
        linux["seccomp"] = seccomp
    propagation = _build_propagation(request.mounts)
    if propagation:
        linux["rootfsPropagation"] = propagation
    return linux


def _build_namespaces(request: SpecRequest) -> list[dict[str, Any]]:
    kinds = ["mount", "cgroup"]
    kinds += ["uts"] if not request.share_host_uts else []
    kinds += ["ipc"] if not request.share_host_ipc else []
    kinds += ["pid"] if not request.share_host_pid else []
    namespaces: list[dict[str, Any]] = [{"type": kind} for kind in kinds]
    if request.network_namespace == "":
        namespaces.append({"type": "network"})
    elif request.network_namespace != "host":
        namespaces.append({"type": "network", "path": request.network_namespace})
    return namespaces


def _build_propagation(mounts: Sequence[SpecMount]) -> str:
    """A mount that is to hear of the host's mounts, or the host of its, needs a root that lets them through."""
    wishes = {mount.propagation for mount in mounts if mount.kind == "bind"}
    if wishes & {"shared", "rshared"}:
        return "shared"
    return "rslave" if wishes & {"slave", "rslave"} else ""


def _build_seccomp(request: SpecRequest, capabilities: Sequence[str]) -> dict[str, Any] | None:
    if request.seccomp == "unconfined" or (request.privileged and request.seccomp == "default"):
        return None
    if request.seccomp == "default":
        profile = read_default_profile()
    elif isinstance(request.seccomp, str):
        raise InvalidError(f"seccomp {request.seccomp} is neither default nor unconfined nor a profile")
    else:
        profile = request.seccomp
    return resolve_profile(profile, capabilities, request.machine, request.kernel)


def _build_device(device: SpecDevice) -> dict[str, Any]:
    if device.kind not in _DEVICE_TYPES:
        raise InvalidError(f"device {device.path}: there is no device type {device.kind}")
    return {
        "path": device.path,
        "type": device.kind,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode & 0o777,
        "uid": device.uid,
        "gid": device.gid,
    }


def _build_resources(request: SpecRequest) -> dict[str, Any]:
    if not request.cgroups_path:
        return {}
    limits = request.limits
    resources: dict[str, Any] = {}
    if request.device_filter and not request.rootless:
        resources["devices"] = _build_device_rules(request)
    memory = _build_memory(limits)
    if memory:
        resources["memory"] = memory
    cpu: dict[str, Any] = {}
    if limits.cpus:
        if limits.cpus < 0.01:
            raise InvalidError(f"cpus {limits.cpus} is less than 0.01 of a processor")
        cpu |= {"period": _CPU_PERIOD_US, "quota": round(limits.cpus * _CPU_PERIOD_US)}
    if limits.cpu_shares:
        if limits.cpu_shares < 2:
            raise InvalidError(f"cpu_shares {limits.cpu_shares} is below the least, 2")
        cpu["shares"] = limits.cpu_shares
    if limits.cpuset_cpus:
        cpu["cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        cpu["mems"] = limits.cpuset_mems
    if cpu:
        resources["cpu"] = cpu
    if limits.pids_limit is not None and limits.pids_limit > 0:
        resources["pids"] = {"limit": limits.pids_limit}
    if limits.block_weight:
        if not 10 <= limits.block_weight <= 1000:
            raise InvalidError(
                f"block weight {limits.block_weight} is out of range", "it goes from 10 to 1000"
            )
        resources["blockIO"] = {"weight": limits.block_weight}
    return resources


def _build_memory(limits: SpecLimits) -> dict[str, Any]:
    memory: dict[str, Any] = {}
    swap = limits.memory_swap_bytes
    if limits.memory_bytes:
        memory["limit"] = limits.memory_bytes
        if swap is None and limits.swap_limit_available:
            swap = 2 * limits.memory_bytes
    if swap:
        if not limits.memory_bytes:
            raise InvalidError("a limit on memory and swap needs a limit on memory", "give both")
        if 0 <= swap < limits.memory_bytes:
            raise InvalidError(
                f"the limit on memory and swap, {swap} bytes, is below that on memory, {limits.memory_bytes} bytes",
                "it is the sum of both",
            )
        memory["swap"] = swap
    if limits.memory_reservation_bytes:
        memory["reservation"] = limits.memory_reservation_bytes
    return memory


def _build_device_rules(request: SpecRequest) -> list[dict[str, Any]]:
    if request.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules = [dict(rule) for rule in defaults.DEVICE_RULES]
    for device in request.devices:
        if device.kind != "p":
            rules.append(
                {
                    "allow": True,
                    "type": device.kind,
                    "major": device.major,
                    "minor": device.minor,
                    "access": device.access,
                }
            )
    return rules + [dict(rule) for rule in request.device_rules]
