"""Builds an OCI runtime configuration (config.json) from a container's definition: pure, no I/O.

Everything that has to be looked up (users, device numbers, the abilities of the host's control groups, the kernel) comes
in as :class:`HostFacts`, so that the same definition and facts give the same configuration everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydock_core.errors import InvalidError
from pydock_core.runtime.capabilities import NAMES as ALL_CAPABILITIES
from pydock_core.runtime.capabilities import normalize_name
from pydock_core.spec import defaults
from pydock_core.spec.definition import CreateRequest, Definition, HostConfig, Ulimit
from pydock_core.spec.host_option import HOST, NONE, build_device_rules, build_host_resources
from pydock_core.spec.merge import merge_environment
from pydock_core.spec.mount import TOP_ONLY, Mount, definition_mounts
from pydock_core.spec.seccomp_profile import read_default_profile, resolve_profile
from pydock_core.spec.security import UNCONFINED, Security, read_security
from pydock_core.spec.users import ResolvedUser

if TYPE_CHECKING:
    from pydock_core.cdi.edit import ContainerEdits, MountEdit
    from pydock_core.spec.keep_id import KeptIds

_CPU_PERIOD_US = 100_000
_UNLIMITED = 2**64 - 1


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """One device node.

    Attributes:
        host_path: path on the host, the bind source in a user namespace.
        path: path in the container.
        kind: "c" or "b"; for a CDI device also "u" and "p".
        major, minor: device numbers.
        mode: permission bits.
        uid, gid: owner in the container.
        access: the accesses that the device control group allows, a subset of "rwm".
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
class HostFacts:
    """The facts of one start that the definition does not state.

    Attributes:
        rootfs: path of the root filesystem, relative to the bundle or absolute.
        machine, kernel: ``uname -m``; major and minor of the kernel: the seccomp profile depends on them.
        hostname: host name of the container's UTS namespace.
        user: the definition's User and GroupAdd, resolved in the image.
        network_namespace: path to join; empty for a new one; "host" for none.
        files: host paths of the files that every container gets (/etc/hosts, ...), by target.
        volumes: host paths of the definition's volumes and mounted images, by mount target.
        file_binds: targets of the binds whose source is not a directory; no mount is made below them.
        devices: the definition's devices; with Privileged, all of the host's; those of ``edits`` too.
        edits: edits of the definition's DeviceRequests; complete, and checked against the host; None for none.
        root_edit_hook: the hook that applies their edits of the root filesystem; None for none.
        console_size: rows and columns of the terminal; zeros if unknown.
        cgroups_path: "/pydock/ID"; empty if no control group can be made, and then there are no limits.
        swap_limit: this host can limit swap; otherwise only an explicit MemorySwap is written.
        device_filter: the device control group can be used.
        cgroup_mount: the container sees its control group.
        block_devices: major and minor of the devices with limits, by path.
        init_program: host path of the init of ``--init``, for an OCI runtime program; empty if the executor has one.
        rootless: in a user namespace: devices are bound, and there are no device rules.
        map_tty_group: group 5 is mapped, so that terminals can belong to it.
        user_namespace: path of the container's own user namespace, to join; empty for none.
        kept: its id maps; None for none.
        shared, shared_mounts: paths of another container's namespaces, and of the mounts of these, by kind: "ipc", "pid".
        owns_network: the network namespace is not another container's, which has another user namespace.
    """

    rootfs: str
    machine: str
    kernel: tuple[int, int]
    hostname: str = ""
    user: ResolvedUser = field(default_factory=ResolvedUser)
    network_namespace: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    file_binds: Collection[str] = frozenset()
    devices: Sequence[DeviceNode] = ()
    edits: ContainerEdits | None = None
    root_edit_hook: Mapping[str, Any] | None = None
    console_size: tuple[int, int] = (0, 0)
    cgroups_path: str = ""
    swap_limit: bool = True
    device_filter: bool = True
    cgroup_mount: bool = True
    init_program: str = ""
    block_devices: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    rootless: bool = False
    map_tty_group: bool = True
    user_namespace: str = ""
    kept: KeptIds | None = None
    owns_network: bool = True
    shared: Mapping[str, str] = field(default_factory=dict)
    shared_mounts: Mapping[str, str] = field(default_factory=dict)

    @property
    def can_mount_sysfs(self) -> bool:
        """Sysfs belongs to a network namespace, which must belong to the user namespace (sysfs(5))."""
        return self.owns_network and not (self.rootless and self.network_namespace == "host")


def build_spec(definition: Definition, facts: HostFacts) -> dict[str, Any]:
    """Build config.json.

    Args:
        definition: valid, and merged with the image's configuration.

    Returns:
        A document that the runtime specification's schema accepts.

    Raises:
        InvalidError: there is no command, or no such capability.
    """
    request, host = definition.request, definition.host
    capabilities = build_capabilities(
        host["CapAdd"] or (), host["CapDrop"] or (), privileged=host["Privileged"]
    )
    security = read_security(host["SecurityOpt"] or ())
    mounts = definition_mounts(definition)
    hooks = _build_hooks(facts)
    return {
        "ociVersion": defaults.OCI_VERSION,
        "process": _build_process(definition, facts, capabilities, security),
        "root": {"path": facts.rootfs, "readonly": host["ReadonlyRootfs"]},
        **_build_names(request, facts),
        "mounts": _build_mounts(host, facts, mounts),
        "annotations": {
            **request["Labels"],
            **host["Annotations"],
            **({defaults.INIT_ANNOTATION: "true"} if host["Init"] and not facts.init_program else {}),
        },
        "linux": _build_linux(host, facts, mounts, capabilities, security),
        **({"hooks": hooks} if hooks else {}),
    }


def _build_names(request: CreateRequest, facts: HostFacts) -> dict[str, str]:
    """The names of the UTS namespace; the host's namespace keeps its own."""
    if request["HostConfig"]["UTSMode"] == HOST:
        return {}
    domain = {"domainname": request["Domainname"]} if request["Domainname"] else {}
    return {"hostname": facts.hostname, **domain}


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
        args: the command and its arguments, not empty.
        env: NAME=VALUE.
        cwd: absolute path in the container.
        template: the container's own process object, whose confinement (capabilities, limits,
            no_new_privileges) the new process gets.
        user: an OCI user object; None is the container's own user.
        terminal: with a pseudo-terminal of ``console_size`` (rows, columns; zeros if unknown).
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
    process |= _build_console(terminal, console_size)
    held = (
        list(ALL_CAPABILITIES) if privileged else list(template.get("capabilities", {}).get("bounding", ()))
    )
    process["capabilities"] = _build_sets(held, process["user"]["uid"])
    return process


# -- process ---------------------------------------------------------------------------------------------


def build_capabilities(add: Sequence[str], drop: Sequence[str], *, privileged: bool = False) -> list[str]:
    """Return the capabilities of a container, in the kernel's order, as Docker computes them.

    ``ALL`` is allowed in both lists.  Adding takes precedence over dropping, except with ``--cap-add ALL``.

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


def _build_console(terminal: bool, size: tuple[int, int]) -> dict[str, Any]:
    return {"consoleSize": {"height": size[0], "width": size[1]}} if terminal and all(size) else {}


def _build_process(
    definition: Definition, facts: HostFacts, capabilities: Sequence[str], security: Security
) -> dict[str, Any]:
    request, host = definition.request, definition.host
    user: dict[str, Any] = {"uid": facts.user.uid, "gid": facts.user.gid}
    groups = dict.fromkeys(
        (*facts.user.additional_gids, *(facts.edits.additional_gids if facts.edits is not None else ()))
    )
    if groups:
        user["additionalGids"] = list(groups)
    environment = _build_environment(request, facts)
    process: dict[str, Any] = {
        "terminal": request["Tty"],
        "user": user,
        "args": _with_init(_check_args(definition.command_line), environment, facts.init_program),
        "env": environment,
        "cwd": _check_cwd(request["WorkingDir"] or "/"),
        "capabilities": _build_sets(capabilities, facts.user.uid),
        "noNewPrivileges": security.no_new_privileges,
        **_build_console(request["Tty"], facts.console_size),
    }
    if host["Ulimits"]:
        process["rlimits"] = [_build_rlimit(limit) for limit in host["Ulimits"]]
    if host["OomScoreAdj"]:
        process["oomScoreAdj"] = host["OomScoreAdj"]
    return process


def _with_init(words: list[str], environment: Sequence[str], init_program: str) -> list[str]:
    if not init_program:
        return words
    from pydock_core.runtime.reaper.image import build_words  # late: few containers have one

    path = next(entry for entry in (*environment, defaults.DEFAULT_PATH) if entry.startswith("PATH="))
    return build_words(words, path.removeprefix("PATH="))


def _build_environment(request: CreateRequest, facts: HostFacts) -> list[str]:
    """Docker's HOSTNAME, HOME and TERM, overridden by the image's and the user's variables."""
    own = [
        f"HOSTNAME={facts.hostname}",
        f"HOME={facts.user.home}",
        *(["TERM=xterm"] if request["Tty"] else []),
    ]
    of_devices = facts.edits.env if facts.edits is not None else ()
    return merge_environment(own, (*request["Env"], *of_devices))


def _build_rlimit(limit: Ulimit) -> dict[str, Any]:
    soft, hard = (_UNLIMITED if value < 0 else value for value in (limit["Soft"], limit["Hard"]))
    return {"type": f"RLIMIT_{limit['Name'].upper()}", "soft": soft, "hard": hard}


# -- mounts ----------------------------------------------------------------------------------------------


def _build_mounts(host: HostConfig, facts: HostFacts, mounts: Sequence[Mount]) -> list[dict[str, Any]]:
    """The default mounts, then the user's, parents before children as Docker sorts them."""
    devpts = dict(defaults.DEVPTS_MOUNT)
    if not facts.map_tty_group:
        devpts["options"] = [option for option in devpts["options"] if not option.startswith("gid=")]
    shm = {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": [*defaults.SHM_OPTIONS, f"size={host['ShmSize']}"],
    }
    system = [
        defaults.PROC_MOUNT,
        defaults.DEV_MOUNT,
        devpts,
        defaults.SYS_MOUNT if facts.can_mount_sysfs else defaults.SYS_BIND,
        defaults.MQUEUE_MOUNT,
        shm,
    ]
    if host["IpcMode"] == NONE:
        system.remove(shm)
    elif host["IpcMode"] == HOST or "ipc" in facts.shared:
        system[-1] = _bind_of_host("/dev/shm", facts.shared_mounts.get("ipc"))
        # The queues of an IPC namespace that the user namespace does not own cannot be mounted.
        if (facts.rootless and host["IpcMode"] == HOST) or facts.kept is not None:
            system.remove(defaults.MQUEUE_MOUNT)
    if (
        host["PidMode"] == HOST and facts.rootless
    ):  # proc of a PID namespace that the user namespace does not own
        system[0] = _bind_of_host("/proc")
    elif "pid" in facts.shared:
        system[0] = _bind_of_host("/proc", facts.shared_mounts["pid"])
    if facts.cgroup_mount and facts.can_mount_sysfs:
        system.append(defaults.CGROUP_MOUNT)
    if host["Privileged"]:
        system = [_without_read_only(mount) for mount in system]
    requested = [
        # crun 1.8 refuses a recursive read-only bind of a file.
        build_mount(
            mount._replace(is_recursive=False) if mount.target in facts.file_binds else mount, facts.volumes
        )
        for mount in mounts
    ]
    if facts.init_program:
        options = ("bind", "rprivate", "ro", "nosuid", "nodev")
        requested.append(
            {
                "destination": defaults.INIT_PLACE,
                "type": "bind",
                "source": facts.init_program,
                "options": options,
            }
        )
    if facts.rootless:
        requested += [_build_device_bind(device) for device in facts.devices]
    if facts.edits is not None:
        # A device's mount replaces another one at its target, as in CDI's reference implementation.
        own = [_build_device_mount(mount) for mount in facts.edits.mounts]
        targets = {mount["destination"] for mount in own}
        requested = [mount for mount in requested if mount["destination"] not in targets] + own
    taken = {mount["destination"] for mount in requested}
    kept = [mount for mount in system if mount["destination"] not in taken]
    if "/etc" not in taken:
        requested += build_files(facts.files, taken, read_only=host["ReadonlyRootfs"])
    # A sort is stable: mounts on one depth keep the user's order.
    requested.sort(key=lambda mount: mount["destination"].count("/"))
    return [{**mount, "options": list(mount["options"])} for mount in (*kept, *requested)]


def _bind_of_host(path: str, source: str | None = None) -> dict[str, Any]:
    options = ["rbind", "rprivate", "nosuid", "noexec", "nodev"]
    return {"destination": path, "type": "bind", "source": source or path, "options": options}


def build_files(files: Mapping[str, str], taken: Iterable[str], *, read_only: bool) -> list[dict[str, Any]]:
    """Build the OCI entries of the files that every container gets, except for targets in use."""
    options = ["bind", "rprivate", *(["ro"] if read_only else [])]
    return [
        {"destination": target, "type": "bind", "source": source, "options": options}
        for target, source in files.items()
        if target not in taken
    ]


def _without_read_only(mount: Mapping[str, Any]) -> dict[str, Any]:
    return {**mount, "options": [option for option in mount["options"] if option not in ("ro", "rro")]}


def build_mount(mount: Mount, volumes: Mapping[str, str]) -> dict[str, Any]:
    """Build the OCI entry of one mount.

    Args:
        volumes: host paths of volumes and images, by mount target.
    """
    read_only = ["ro"] if mount.read_only else []
    if mount.kind == "tmpfs":
        options = [*defaults.TMPFS_OPTIONS, *read_only, *mount.options]
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    if mount.kind == "bind":
        source = mount.source
        if mount.read_only and mount.is_recursive and mount.read_only_below != TOP_ONLY:
            read_only = ["rro"]
    else:
        source = volumes[mount.target]
    options = ["rbind" if mount.is_recursive else "bind", mount.propagation, *read_only]
    return {"destination": mount.target, "type": "bind", "source": source, "options": options}


def _build_device_bind(device: DeviceNode) -> dict[str, Any]:
    read_only = [] if "w" in device.access else ["ro"]
    options = ["bind", "rprivate", "nosuid", "noexec", *read_only]
    return {"destination": device.path, "type": "bind", "source": device.host_path, "options": options}


def _build_device_mount(mount: MountEdit) -> dict[str, Any]:
    kind = "bind" if mount.is_bind else mount.kind
    return {"destination": mount.target, "type": kind, "source": mount.source, "options": list(mount.options)}


def _build_hooks(facts: HostFacts) -> dict[str, list[dict[str, Any]]]:
    hooks: dict[str, list[dict[str, Any]]] = {}
    if facts.root_edit_hook is not None:
        hooks["createContainer"] = [dict(facts.root_edit_hook)]
    for hook in facts.edits.hooks if facts.edits is not None else ():
        entry: dict[str, Any] = {"path": hook.path}
        if hook.args:
            entry["args"] = list(hook.args)
        if hook.env:
            entry["env"] = list(hook.env)
        if hook.timeout_seconds is not None:
            entry["timeout"] = hook.timeout_seconds
        hooks.setdefault(hook.step, []).append(entry)
    return hooks


# -- linux -----------------------------------------------------------------------------------------------


def _build_linux(
    host: HostConfig,
    facts: HostFacts,
    mounts: Sequence[Mount],
    capabilities: Sequence[str],
    security: Security,
) -> dict[str, Any]:
    linux: dict[str, Any] = {"namespaces": _build_namespaces(host, facts)}
    if facts.kept is not None:
        linux["namespaces"].append({"type": "user", "path": facts.user_namespace})
        linux["uidMappings"] = list(facts.kept.uid_mappings)
        linux["gidMappings"] = list(facts.kept.gid_mappings)
    if facts.cgroups_path:
        linux["cgroupsPath"] = facts.cgroups_path
        resources = _build_resources(host, facts)
        if resources:
            linux["resources"] = resources
    if facts.devices and not facts.rootless:
        linux["devices"] = [_build_device(device) for device in facts.devices]
    is_shared = facts.network_namespace == "host" or host["NetworkMode"].startswith("container:")
    sysctls = {} if is_shared else defaults.NETWORK_SYSCTLS
    if sysctls or host["Sysctls"]:
        linux["sysctl"] = {**sysctls, **host["Sysctls"]}
    if not host["Privileged"]:
        linux["maskedPaths"] = list(defaults.MASKED_PATHS)
        linux["readonlyPaths"] = list(defaults.READ_ONLY_PATHS)
    if security.seccomp != UNCONFINED and not (host["Privileged"] and security.seccomp is None):
        profile = security.seccomp
        linux["seccomp"] = (
            _resolve_default(tuple(capabilities), facts.machine, facts.kernel)
            if profile is None or isinstance(profile, str)
            else resolve_profile(profile, capabilities, facts.machine, facts.kernel)
        )
    propagation = _build_propagation(mounts)
    if propagation:
        linux["rootfsPropagation"] = propagation
    return linux


@lru_cache(maxsize=16)
def _resolve_default(capabilities: tuple[str, ...], machine: str, kernel: tuple[int, int]) -> dict[str, Any]:
    """Resolve Docker's default profile; the object is shared, and must not be changed."""
    return resolve_profile(read_default_profile(), capabilities, machine, kernel)


def _build_namespaces(host: HostConfig, facts: HostFacts) -> list[dict[str, Any]]:
    network = facts.network_namespace
    modes = {
        "cgroup": host["CgroupnsMode"],
        "uts": host["UTSMode"],
        "ipc": host["IpcMode"],
        "pid": host["PidMode"],
    }
    namespaces: list[dict[str, Any]] = [{"type": "mount"}]
    for kind, mode in modes.items():
        if mode != HOST:
            path = {"path": facts.shared[kind]} if kind in facts.shared else {}
            namespaces.append({"type": kind, **path})
    if network == "":
        namespaces.append({"type": "network"})
    elif network != "host":
        namespaces.append({"type": "network", "path": network})
    return namespaces


def _build_propagation(mounts: Sequence[Mount]) -> str:
    """Mount events pass between host and container only through a root of the same propagation."""
    propagations = {mount.propagation for mount in mounts if mount.kind == "bind"}
    if propagations & {"shared", "rshared"}:
        return "shared"
    return "rslave" if propagations & {"slave", "rslave"} else ""


def _build_device(device: DeviceNode) -> dict[str, Any]:
    return {
        "path": device.path,
        "type": device.kind,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode & 0o777,
        "uid": device.uid,
        "gid": device.gid,
    }


def _build_resources(host: HostConfig, facts: HostFacts) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    if facts.device_filter and not facts.rootless:
        rules = _build_device_rules(facts.devices, privileged=host["Privileged"])
        resources["devices"] = [*rules, *build_device_rules(host)]
    resources |= build_limits(host, swap_limit=facts.swap_limit)
    for group, values in build_host_resources(host, facts.block_devices).items():
        resources[group] = {**resources.get(group, {}), **values}
    return resources


def build_limits(host: HostConfig, *, swap_limit: bool) -> dict[str, Any]:
    """Return the limits of a container that can change while it runs, in the form of ``linux.resources``.

    Args:
        swap_limit: whether the host can limit swap; a memory limit then also limits swap to the same size, as in Docker.
    """
    resources: dict[str, Any] = {}
    memory: dict[str, Any] = {}
    if host["Memory"]:
        memory["limit"] = host["Memory"]
        swap = host["MemorySwap"] or (2 * host["Memory"] if swap_limit else 0)
        if swap:
            memory["swap"] = swap
    if host["MemoryReservation"]:
        memory["reservation"] = host["MemoryReservation"]
    if memory:
        resources["memory"] = memory
    cpu: dict[str, Any] = {}
    if host["NanoCpus"]:
        cpu |= {"period": _CPU_PERIOD_US, "quota": round(host["NanoCpus"] * _CPU_PERIOD_US / 1e9)}
    if host["CpuShares"]:
        cpu["shares"] = host["CpuShares"]
    if host["CpuPeriod"]:
        cpu["period"] = host["CpuPeriod"]
    if host["CpuQuota"]:
        cpu["quota"] = host["CpuQuota"]
    if host["CpusetCpus"]:
        cpu["cpus"] = host["CpusetCpus"]
    if host["CpusetMems"]:
        cpu["mems"] = host["CpusetMems"]
    if cpu:
        resources["cpu"] = cpu
    if host["PidsLimit"] is not None and host["PidsLimit"] > 0:
        resources["pids"] = {"limit": host["PidsLimit"]}
    if host["BlkioWeight"]:
        resources["blockIO"] = {"weight": host["BlkioWeight"]}
    return resources


def _build_device_rules(devices: Sequence[DeviceNode], *, privileged: bool) -> list[dict[str, Any]]:
    if privileged:
        return [{"allow": True, "access": "rwm"}]
    own = [
        {
            "allow": True,
            "type": "c" if device.kind == "u" else device.kind,
            "major": device.major,
            "minor": device.minor,
            "access": device.access,
        }
        for device in devices
        if device.access and device.kind != "p"
    ]
    return [*(dict(rule) for rule in defaults.DEVICE_RULES), *own]
