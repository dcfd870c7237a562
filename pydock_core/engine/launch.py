"""Prepares the start of a definition: the bundle, the files that are mounted into it, and the launch plan."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydock_core.engine import container_files, mount_points
from pydock_core.engine.bundle import collect_facts
from pydock_core.engine.networks import Networks
from pydock_core.engine.root_files import RootFiles
from pydock_core.engine.volumes import fill_new_volumes
from pydock_core.errors import InvalidError, NotFoundError, UnavailableError, UnsupportedError
from pydock_core.oci.root_mount import RootMount
from pydock_core.paths import ContainerPaths, StateRoot
from pydock_core.private_files import make_directories
from pydock_core.runtime.cgroups import probe_cgroups
from pydock_core.runtime.record_file import write_json
from pydock_core.runtime.signals import signal_number
from pydock_core.spec.builder import build_spec
from pydock_core.spec.definition import HOST_CONFIG, SHORT_ID_DIGITS, CreateRequest, Definition, HostConfig
from pydock_core.spec.log_option import parse_limits
from pydock_core.spec.mount import read_mounts
from pydock_core.spec.port import read_ports
from pydock_core.spec.users import ResolvedUser, resolve_user
from pydock_core.spec.validation import HOST_GATEWAY
from pydock_core.store.database import Database
from pydock_core.store.database.containers import ContainerRow
from pydock_core.supervision.client import Zygote
from pydock_core.supervision.plan import EMBEDDED, LaunchPlan, NetworkAttachment

if TYPE_CHECKING:
    from pydock_core.engine.images import Images
    from pydock_core.store.snapshots.protocol import Snapshotter

DEFAULT_STOP_SECONDS = 10.0
RUNTIME_PROGRAMS = {"nvidia": "nvidia-container-runtime"}
"""Programs of Docker's runtimes that have another name than the runtime."""


def build_plan(
    definition: Definition,
    container_id: str,
    paths: ContainerPaths,
    *,
    executor: str,
    root_mounts: tuple[RootMount, ...],
    network: NetworkAttachment,
    network_socket: Path,
    size: tuple[int, int],
) -> LaunchPlan:
    """Return the part of a start that the OCI configuration does not cover.  Pure.

    Args:
        executor: "embedded", or the path of an OCI runtime program.
        network_socket: of the network service.
        size: rows and columns of the terminal, zeros if unknown.
    """
    request, host = definition.request, definition.host
    limits = parse_limits(host["LogConfig"]["Type"], host["LogConfig"]["Config"])
    timeout = request["StopTimeout"]
    return LaunchPlan(
        container_id=container_id,
        data_dir=str(paths.data),
        run_dir=str(paths.run),
        executor=executor,
        root_mounts=root_mounts,
        network=network,
        ports=read_ports(host["PortBindings"]),
        network_socket=str(network_socket) if network.mode == "bridge" else "",
        terminal=request["Tty"],
        open_stdin=request["OpenStdin"],
        stdin_once=request["StdinOnce"],
        stop_signal=signal_number(request["StopSignal"] or "TERM"),
        stop_timeout_seconds=DEFAULT_STOP_SECONDS if timeout is None else timeout,
        log_path=str(paths.log_file) if limits else "",
        log_file_bytes=limits.file_bytes if limits else 0,
        log_files=limits.files if limits else 1,
        auto_remove=host["AutoRemove"],
        tty_rows=size[0],
        tty_columns=size[1],
    )


class Launcher:
    """Prepares containers of one state root for their supervisors."""

    def __init__(self, root: StateRoot, database: Database, images: Images, snapshotter: Snapshotter) -> None:
        self._root = root
        self._images = images
        self._snapshotter = snapshotter
        self._networks = Networks(root, database)
        self._zygote = Zygote(root)
        self._rootless = os.geteuid() != 0
        self._image_files: dict[tuple[tuple[str, ...], str], bytes | None] = {}

    @property
    def driver_name(self) -> str:
        """The snapshot driver's name."""
        return self._snapshotter.name

    @property
    def default_network(self) -> str:
        """The network mode of a request without one: a bridge needs root."""
        return "none" if self._rootless else "bridge"

    # -- at create -------------------------------------------------------------------------------------

    def check(self, request: CreateRequest, find: Callable[[str], str]) -> tuple[CreateRequest, list[str]]:
        """Refuse settings that this host does not support, and drop limits that it cannot enforce.

        Args:
            request: merged with the image's configuration.
            find: returns the full id of a container, for the network mode container:NAME.

        Returns:
            The request to store, and warnings.
        """
        host = request["HostConfig"]
        mode, _, other = host["NetworkMode"].partition(":")
        if mode == "bridge" and self._rootless:
            raise UnsupportedError(
                "--network bridge needs root on this host",
                "use --network none: the proxy and -p reach its ports all the same; or host, to reach other hosts",
                exit_code=125,
            )
        if mode == "container":
            host = {**host, "NetworkMode": f"container:{find(other)}"}
        self._executor(host["Runtime"])
        for mount in read_mounts(request, {}):
            if mount.kind == "bind" and not mount.create_source and not os.path.exists(mount.source):
                raise NotFoundError(
                    f"bind source {mount.source} does not exist",
                    "create it first, or use -v, which creates a missing directory",
                    exit_code=125,
                )
        for device in host["Devices"]:
            if not os.path.exists(device["PathOnHost"]):
                raise NotFoundError(
                    f"device {device['PathOnHost']} does not exist",
                    "name a device of this host",
                    exit_code=125,
                )
        lost, warnings = self._lost_limits(host)
        if mode == "bridge" and (weakness := self._networks.weakness()):
            warnings.append(
                f"containers on the bridge can impersonate each other and its gateway: {weakness} (dock doctor)"
            )
        return {**request, "HostConfig": cast("HostConfig", {**host, **lost})}, warnings

    def _lost_limits(self, host: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the defaults of the limits that cannot be enforced, and a warning that names them."""
        support = probe_cgroups()
        limits = {
            "Memory": ("-m", support.memory),
            "MemorySwap": ("--memory-swap", support.swap),
            "NanoCpus": ("--cpus", support.cpu),
            "CpuShares": ("--cpu-shares", support.cpu),
            "CpusetCpus": ("--cpuset-cpus", support.cpuset),
            "PidsLimit": ("--pids-limit", support.pids),
        }
        lost = [name for name, (_, can) in limits.items() if host[name] and not can]
        if not lost:
            return {}, []
        options = ", ".join(limits[name][0] for name in lost)
        reason = support.reason or "its cgroup controller is not there"
        return {name: cast("Mapping[str, Any]", HOST_CONFIG)[name] for name in lost}, [
            f"cannot enforce {options} here: {reason} (dock doctor)"
        ]

    @staticmethod
    def _executor(runtime: str) -> str:
        """Return the plan's executor: "embedded", or the path of an OCI runtime program."""
        if runtime == EMBEDDED:
            return EMBEDDED
        program = shutil.which(RUNTIME_PROGRAMS.get(runtime, runtime))
        if program is not None:
            return program
        if runtime == "nvidia":
            hint = "install the NVIDIA container toolkit on a host with an NVIDIA GPU, or leave --runtime out (dock doctor)"
        else:
            hint = "install it, or leave --runtime out"
        raise UnavailableError(f"runtime {runtime} is not on this host", hint, exit_code=125)

    # -- at start --------------------------------------------------------------------------------------

    def prepare(self, row: ContainerRow, definition: Definition, size: tuple[int, int]) -> Path:
        """Write the files of a start, and return the launch plan's path.

        Everything is generated from the definition; the files of an earlier start are replaced, except the writable layer
        and the log.
        """
        paths = self._root.container(row.id)
        host = definition.host
        if host["AutoRemove"] and paths.work.exists():
            # A volatile overlay leaves a mark there, which prevents its next mount.
            Zygote(self._root).call("pydock_core.store.trees:remove_tree", {"path": str(paths.work)})
        for directory in (paths.rootfs, paths.upper, paths.work, paths.run):
            make_directories(directory)
        paths.upper.chmod(0o755)  # the mode of the container's root directory
        diff_ids = self._images.layers(row.image_id)
        resolv = container_files.build_resolv_conf(
            container_files.read_host_resolv_conf(), keep_loopback=host["NetworkMode"] == "host"
        )
        network = self._attachment(row.id, definition, resolv)
        self._write_files(row.id, definition, network, resolv)
        mounts = read_mounts(definition.request, definition.volumes)
        fill_new_volumes(self._root, mounts, lambda: self._snapshotter.mounts(diff_ids, None, None))
        facts = collect_facts(
            self._root,
            row.id,
            definition,
            mounts,
            self._resolve(self._files(row, paths), definition, definition.request["User"]),
            size,
            rootless=self._rootless,
            single_mapping=self._rootless and self._zygote.ping()["mapping"] == "single",
        )
        write_json(paths.config_file, build_spec(definition, facts))
        plan = build_plan(
            definition,
            row.id,
            paths,
            executor=self._executor(host["Runtime"]),
            root_mounts=self._writable_root(diff_ids, paths, is_transient=host["AutoRemove"]),
            network=network,
            network_socket=self._root.network_socket(),
            size=size,
        )
        write_json(paths.plan_file, plan.to_json())
        return paths.plan_file

    def _writable_root(
        self, diff_ids: Sequence[str], paths: ContainerPaths, *, is_transient: bool
    ) -> tuple[RootMount, ...]:
        """Return the snapshotter's mounts, with the layer of mount points below all others.

        Args:
            is_transient: the writable layer does not outlive the run, so it is never synced ("volatile", Linux 5.10).
        """
        *others, overlay = self._snapshotter.mounts(diff_ids, paths.upper, paths.work)
        if overlay.kind != "overlay":
            return (*others, overlay)
        options = (*overlay.options, "volatile") if is_transient else overlay.options
        return (
            *others,
            replace(
                overlay, lower=(*overlay.lower, str(mount_points.make_layer(self._root))), options=options
            ),
        )

    def user(self, row: ContainerRow, definition: Definition, user: str) -> dict[str, Any]:
        """Resolve a user for an exec; return the OCI user object."""
        resolved = self._resolve(self._files(row, self._root.container(row.id)), definition, user)
        return {"uid": resolved.uid, "gid": resolved.gid, "additionalGids": list(resolved.additional_gids)}

    def _attachment(self, container_id: str, definition: Definition, resolv: str) -> NetworkAttachment:
        mode, _, other = definition.host["NetworkMode"].partition(":")
        if mode == "bridge":
            hosts = definition.host["ExtraHosts"] or ()
            return self._networks.attach(
                container_id,
                resolvers=container_files.name_servers(resolv),
                to_gateway=any(line.endswith(f":{HOST_GATEWAY}") for line in hosts),
            )
        if mode == "container":
            return self._networks.join(other, other[:SHORT_ID_DIGITS])
        return NetworkAttachment(mode=mode)

    def _write_files(
        self, container_id: str, definition: Definition, network: NetworkAttachment, resolv: str
    ) -> None:
        name = definition.host_name(container_id)
        address, gateway = (text.partition("/")[0] for text in (network.address, network.gateway))
        hosts = container_files.build_hosts(name, address, gateway, definition.host["ExtraHosts"] or ())
        for file, text in (("hostname", f"{name}\n"), ("hosts", hosts), ("resolv.conf", resolv)):
            path = self._root.container(container_id).data / file
            path.write_text(text)
            path.chmod(0o644)

    def _files(self, row: ContainerRow, paths: ContainerPaths) -> RootFiles:
        return RootFiles(self._snapshotter, self._images.layers(row.image_id), paths.upper, self._image_files)

    @staticmethod
    def _resolve(files: RootFiles, definition: Definition, user: str) -> ResolvedUser:
        resolved = resolve_user(user, files.read)
        asked = definition.host["GroupAdd"]
        if not asked:
            return resolved
        groups = [int(group) if group.isdigit() else _group_id(group, files) for group in asked]
        return replace(resolved, additional_gids=tuple(dict.fromkeys((*resolved.additional_gids, *groups))))


def _group_id(name: str, files: RootFiles) -> int:
    for line in (files.read("/etc/group") or b"").decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] == name and fields[2].isdigit():
            return int(fields[2])
    raise InvalidError(f"--group-add {name}: the image has no such group", "give its number", exit_code=125)
