"""Makes a definition ready to start: the bundle, the files that are mounted into it, and the launch plan."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core.engine import container_files, mount_points
from pydock_core.engine.bundle import build_request
from pydock_core.engine.config import ContainerConfig
from pydock_core.engine.log_options import parse_limits
from pydock_core.engine.networks import Networks
from pydock_core.engine.root_files import RootFiles
from pydock_core.engine.shapes import host_name
from pydock_core.engine.volumes import fill_new_volumes
from pydock_core.errors import InvalidError, NotFoundError, UnavailableError, UnsupportedError
from pydock_core.oci.root_mount import RootMount
from pydock_core.paths import ContainerPaths, StateRoot
from pydock_core.private_files import make_directories
from pydock_core.runtime.cgroups import probe_cgroups
from pydock_core.runtime.record_file import write_json
from pydock_core.runtime.signals import signal_number
from pydock_core.spec.builder import build_spec
from pydock_core.spec.users import ResolvedUser, resolve_user
from pydock_core.store.database import Database
from pydock_core.store.database.containers import ContainerRow
from pydock_core.supervision.client import Zygote, ZygoteWorker
from pydock_core.supervision.plan import EMBEDDED, LaunchPlan, NetworkAttachment

if TYPE_CHECKING:
    from pydock_core.engine.images import Images
    from pydock_core.store.snapshots.protocol import Snapshotter

DEFAULT_STOP_SECONDS = 10.0
RUNTIME_PROGRAMS = {"nvidia": "nvidia-container-runtime"}
"""Docker's names of runtimes whose program is called otherwise."""


class Launcher:
    """Prepares containers of one state root for their supervisors."""

    def __init__(self, root: StateRoot, database: Database, images: Images, snapshotter: Snapshotter) -> None:
        self._root = root
        self._images = images
        self._snapshotter = snapshotter
        self._networks = Networks(root, database)
        self._zygote = Zygote(root)
        self._rootless = os.geteuid() != 0

    @property
    def driver_name(self) -> str:
        """The snapshot driver's name."""
        return self._snapshotter.name

    @property
    def default_network(self) -> str:
        """Where a container is connected that names no network: a bridge needs root."""
        return "none" if self._rootless else "bridge"

    # -- at create -------------------------------------------------------------------------------------

    def check(
        self, definition: ContainerConfig, find: Callable[[str], str]
    ) -> tuple[ContainerConfig, list[str]]:
        """Refuse what this host cannot do, and say of limits that they cannot be kept.

        Args:
            find: returns the full id of a container, for --network container:NAME.

        Returns:
            The definition as it will be kept, and warnings.
        """
        if definition.network == "bridge" and self._rootless:
            raise UnsupportedError(
                "--network bridge needs root on this host",
                "use --network none: the proxy and -p reach its ports all the same (dock doctor)",
                exit_code=125,
            )
        if definition.network and definition.network.startswith("container:"):
            definition = replace(
                definition, network=f"container:{find(definition.network.partition(':')[2])}"
            )
        self._executor(definition)
        for mount in definition.mounts:
            if mount.kind == "bind" and not mount.create_source and not os.path.exists(mount.source):
                raise NotFoundError(
                    f"bind source {mount.source} does not exist",
                    "create it first, or use -v, which creates a missing directory",
                    exit_code=125,
                )
        for device in definition.devices:
            if not os.path.exists(device.source):
                raise NotFoundError(
                    f"device {device.source} does not exist", "name a device of this host", exit_code=125
                )
        definition, warnings = self._without_lost_limits(definition)
        if definition.network == "bridge" and (weakness := self._networks.weakness()):
            warnings.append(
                f"containers on the bridge can impersonate each other and its gateway: {weakness} (dock doctor)"
            )
        return definition, warnings

    def _without_lost_limits(self, definition: ContainerConfig) -> tuple[ContainerConfig, list[str]]:
        support = probe_cgroups()
        asked = {
            "memory_bytes": ("-m", support.memory),
            "memory_swap_bytes": ("--memory-swap", support.swap),
            "cpus": ("--cpus", support.cpu),
            "cpu_shares": ("--cpu-shares", support.cpu),
            "cpuset_cpus": ("--cpuset-cpus", support.cpuset),
            "pids_limit": ("--pids-limit", support.pids),
        }
        lost = {
            name: option for name, (option, can) in asked.items() if getattr(definition, name) and not can
        }
        if not lost:
            return definition, []
        kept: dict[str, Any] = {name: "" if name == "cpuset_cpus" else None for name in lost}
        reason = support.reason or "its cgroup controller is not there"
        return replace(definition, **kept), [
            f"{', '.join(lost.values())} cannot be enforced here: {reason} (dock doctor)"
        ]

    @staticmethod
    def _executor(definition: ContainerConfig) -> str:
        """What the plan names: "embedded", or the path of an OCI runtime program."""
        if definition.runtime == EMBEDDED:
            return EMBEDDED
        program = shutil.which(RUNTIME_PROGRAMS.get(definition.runtime, definition.runtime))
        if program is not None:
            return program
        if definition.runtime == "nvidia":
            hint = "install the NVIDIA container toolkit on a host with an NVIDIA GPU, or leave --runtime out (dock doctor)"
        else:
            hint = "install it, or leave --runtime out"
        raise UnavailableError(f"runtime {definition.runtime} is not on this host", hint, exit_code=125)

    # -- at start --------------------------------------------------------------------------------------

    def prepare(self, row: ContainerRow, config: ContainerConfig, size: tuple[int, int]) -> Path:
        """Write all that a supervisor needs, and return the launch plan's path.

        Everything is made anew from the definition; what is there from an earlier start, but for the writable layer
        and the log, is replaced.
        """
        paths = self._root.container(row.id)
        if config.auto_remove and paths.work.exists():
            # A volatile overlay leaves a mark there, and does not start with it again.
            ZygoteWorker(self._root).call("pydock_core.store.trees:remove_tree", {"path": str(paths.work)})
        for directory in (paths.rootfs, paths.upper, paths.work, paths.run):
            make_directories(directory)
        paths.upper.chmod(0o755)  # what the container sees of its root directory
        diff_ids = self._images.layers(row.image_id)
        resolv = container_files.build_resolv_conf(
            container_files.read_host_resolv_conf(), keep_loopback=config.network == "host"
        )
        network = self._attachment(row.id, config, resolv)
        self._write_files(paths, row, config, network, resolv)
        fill_new_volumes(self._root, config, lambda: self._snapshotter.mounts(diff_ids, None, None))
        user = self._resolve(self._files(row, paths), config, config.user or "")
        request = build_request(
            self._root,
            paths,
            row.id,
            config,
            user,
            size,
            rootless=self._rootless,
            single_mapping=self._rootless and self._zygote.ping()["mapping"] == "single",
        )
        spec = build_spec(request)
        write_json(paths.config_file, spec)
        log_limits = parse_limits(config.log_driver, config.log_options)
        plan = LaunchPlan(
            container_id=row.id,
            data_dir=str(paths.data),
            run_dir=str(paths.run),
            executor=self._executor(config),
            root_mounts=self._writable_root(diff_ids, paths, is_transient=config.auto_remove),
            network=network,
            ports=config.ports,
            network_socket=str(self._root.network_socket()) if network.mode == "bridge" else "",
            terminal=config.terminal,
            open_stdin=config.open_stdin,
            stdin_once=config.stdin_once,
            stop_signal=signal_number(config.stop_signal or "TERM"),
            stop_timeout_seconds=DEFAULT_STOP_SECONDS
            if config.stop_timeout_seconds is None
            else config.stop_timeout_seconds,
            log_path=str(paths.log_file) if log_limits else "",
            log_file_bytes=log_limits.file_bytes if log_limits else 0,
            log_files=log_limits.files if log_limits else 1,
            auto_remove=config.auto_remove,
            tty_rows=size[0],
            tty_columns=size[1],
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

    def user(self, row: ContainerRow, config: ContainerConfig, user: str) -> dict[str, Any]:
        """Resolve a user for an exec; return the OCI user object."""
        resolved = self._resolve(self._files(row, self._root.container(row.id)), config, user)
        return {"uid": resolved.uid, "gid": resolved.gid, "additionalGids": list(resolved.additional_gids)}

    def _attachment(self, container_id: str, config: ContainerConfig, resolv: str) -> NetworkAttachment:
        mode, _, other = str(config.network).partition(":")
        if mode == "bridge":
            return self._networks.attach(
                container_id,
                resolvers=container_files.name_servers(resolv),
                to_gateway=any(map(container_files.names_gateway, config.hosts)),
            )
        if mode == "container":
            return self._networks.join(other, other[:12])
        return NetworkAttachment(mode=mode)

    def _write_files(
        self,
        paths: ContainerPaths,
        row: ContainerRow,
        config: ContainerConfig,
        network: NetworkAttachment,
        resolv: str,
    ) -> None:
        name = host_name(row.id, config)
        address, gateway = (text.partition("/")[0] for text in (network.address, network.gateway))
        hosts = container_files.build_hosts(name, address, gateway, config.hosts)
        for file, text in (("hostname", f"{name}\n"), ("hosts", hosts), ("resolv.conf", resolv)):
            path = paths.data / file
            path.write_text(text)
            path.chmod(0o644)

    def _files(self, row: ContainerRow, paths: ContainerPaths) -> RootFiles:
        return RootFiles(self._snapshotter, self._images.layers(row.image_id), paths.upper)

    @staticmethod
    def _resolve(files: RootFiles, config: ContainerConfig, user: str) -> ResolvedUser:
        resolved = resolve_user(user, files.read)
        if not config.groups:
            return resolved
        groups = [int(group) if group.isdigit() else _group_id(group, files) for group in config.groups]
        return replace(resolved, additional_gids=tuple(dict.fromkeys((*resolved.additional_gids, *groups))))


def _group_id(name: str, files: RootFiles) -> int:
    for line in (files.read("/etc/group") or b"").decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] == name and fields[2].isdigit():
            return int(fields[2])
    raise InvalidError(f"--group-add {name}: the image has no such group", "give its number", exit_code=125)
