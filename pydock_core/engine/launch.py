"""Prepares the start of a definition: the bundle, the files that are mounted into it, and the launch plan."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydock_core.engine import container_files, mount_points
from pydock_core.engine.attachments import HOST_NAMES, Attachments, check_way_out
from pydock_core.engine.bundle import collect_facts, find_host_name
from pydock_core.engine.host_support import check_host_support, lost_limits
from pydock_core.engine.root_files import RootFiles
from pydock_core.engine.volume_files import fill_volumes
from pydock_core.errors import InvalidError, NotFoundError, UnavailableError
from pydock_core.network.uplink_program import has_route, lack
from pydock_core.oci.mount_source import MountSource
from pydock_core.oci.root_mount import RootMount
from pydock_core.paths import ContainerPaths, StateRoot
from pydock_core.private_files import make_directories
from pydock_core.runtime.record_file import write_json
from pydock_core.runtime.signals import signal_number
from pydock_core.spec.builder import build_files, build_mount, build_spec
from pydock_core.spec.definition import CreateRequest, Definition, HostConfig
from pydock_core.spec.host_option import JOINED, is_keep_id
from pydock_core.spec.log_option import DEFAULT_OPTIONS, JOURNALD, parse_limits
from pydock_core.spec.mount import Mount, definition_mounts, read_mounts
from pydock_core.spec.port import LOOPBACK, publish_all, read_ports
from pydock_core.spec.users import ResolvedUser, resolve_user
from pydock_core.spec.validation import HOST_GATEWAY
from pydock_core.spec.volume import check_volume
from pydock_core.store.database import Database
from pydock_core.store.database.containers import ContainerRow
from pydock_core.supervision.client import Zygote
from pydock_core.supervision.plan import EMBEDDED, LaunchPlan, NetworkAttachment

if TYPE_CHECKING:
    from pydock_core.cdi.injection import Injection
    from pydock_core.engine.images import Images
    from pydock_core.spec.keep_id import KeptIds
    from pydock_core.store.snapshots.protocol import Snapshotter

DEFAULT_STOP_SECONDS = 10.0
NVIDIA_RUNTIME = "nvidia"
"""Docker's runtime for NVIDIA GPUs: the embedded executor, with the devices that a container's environment selects.

This name never calls NVIDIA's own program, even if it is installed: the program needs root and runc, and executes the
container's ldconfig.  Its path can be given instead.
"""


def build_plan(
    definition: Definition,
    container_id: str,
    paths: ContainerPaths,
    *,
    executor: str,
    root_mounts: tuple[RootMount, ...],
    sources: tuple[MountSource, ...] = (),
    network: NetworkAttachment,
    network_socket: Path,
    size: tuple[int, int],
    port_address: str = LOOPBACK,
) -> LaunchPlan:
    """Return the part of a start that the OCI configuration does not cover.  Pure.

    Args:
        executor: "embedded", or the path of an OCI runtime program.
        sources: volumes and images to mount first.
        network_socket: path of the network service's socket.
        size: rows and columns of the terminal, zeros if unknown.
        port_address: default address of published ports.
    """
    request, host = definition.request, definition.host
    limits = parse_limits(host["LogConfig"]["Type"], host["LogConfig"]["Config"])
    timeout = request["StopTimeout"]
    health = None
    if request["Healthcheck"] is not None:
        from pydock_core.spec.health import build_health_plan  # late: few containers have a check

        health = build_health_plan(request)
    return LaunchPlan(
        container_id=container_id,
        data_dir=str(paths.data),
        run_dir=str(paths.run),
        executor=executor,
        root_mounts=root_mounts,
        sources=sources,
        network=network,
        ports=read_ports(
            publish_all(host["PortBindings"], request["ExposedPorts"] if host["PublishAllPorts"] else ()),
            port_address,
        ),
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
        health=health.to_json() if health is not None else None,
        restart_policy=host["RestartPolicy"]["Name"],
        restart_most=host["RestartPolicy"]["MaximumRetryCount"],
    )


class Launcher:
    """Prepares containers of one state root for their supervisors."""

    def __init__(self, root: StateRoot, database: Database, images: Images, snapshotter: Snapshotter) -> None:
        self._root = root
        self._database = database
        self._images = images
        self._snapshotter = snapshotter
        self._database = database
        self._attachments = Attachments(root, database)
        self._zygote = Zygote(root)
        self._rootless = os.geteuid() != 0
        self._image_files: dict[tuple[tuple[str, ...], str], bytes | None] = {}

    @property
    def driver_name(self) -> str:
        """The snapshot driver's name."""
        return self._snapshotter.name

    @property
    def default_network(self) -> str:
        """The default network mode: a bridge, unless this host provides none, or has no way out, for an ordinary user."""
        return "none" if self._rootless and (lack() or not has_route()) else "bridge"

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
        is_bridge = mode not in ("none", "host", "container")
        if is_bridge:
            check_way_out(mode)
        if mode == "container":
            from pydock_core.engine.shared_namespaces import shared_names  # late: few containers join any

            other = find(other)
            host = {**host, "NetworkMode": f"container:{other}"}
            request = {**request, **shared_names(self._database, other, host)}
        endpoints = request["NetworkingConfig"]["EndpointsConfig"]
        if is_bridge and [*endpoints] != ["bridge"]:
            endpoints = self._attachments.check(endpoints)
            host = {**host, "NetworkMode": next(iter(endpoints))}
            request = {**request, "NetworkingConfig": {"EndpointsConfig": endpoints}}
        if host["IpcMode"].startswith(JOINED) or host["PidMode"].startswith(JOINED):
            from pydock_core.engine.shared_namespaces import resolve_joined  # late: few containers join any

            host = resolve_joined(host, find)
        self._executor(host["Runtime"])
        if host["LogConfig"]["Type"] == JOURNALD:
            _check_journal()
        check_host_support(request["HostConfig"], rootless=self._rootless)  # with the names as requested
        if host["Init"]:
            from pydock_core.runtime.reaper.image import build_image  # late: few containers have one

            build_image(os.uname().machine)  # refuses an unsupported machine
        mounts = read_mounts(request, {})
        injection = self._inject({**request, "HostConfig": host}, mounts, is_start=False)
        for mount in mounts:
            if mount.kind == "volume" and mount.volume_options:
                check_volume(mount.source, "", dict(mount.volume_options), rootless=self._rootless)
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
        lost, warnings = lost_limits(host, rootless=self._rootless)
        warnings += injection.warnings if injection is not None else ()
        if is_bridge and (weakness := self._attachments.weakness()):
            warnings.append(
                f"containers on a bridge can impersonate each other and its gateway: {weakness} (dock doctor)"
            )
        return {**request, "HostConfig": cast("HostConfig", {**host, **lost})}, warnings

    @staticmethod
    def _executor(runtime: str) -> str:
        """Return the plan's executor: "embedded", or the path of an OCI runtime program."""
        if runtime in (EMBEDDED, NVIDIA_RUNTIME):
            return EMBEDDED
        program = shutil.which(runtime)
        if program is not None:
            return program
        raise UnavailableError(
            f"runtime {runtime} is not on this host", "install it, or leave --runtime out", exit_code=125
        )

    @staticmethod
    def _inject(request: CreateRequest, mounts: Sequence[Mount], *, is_start: bool) -> Injection | None:
        """Return the devices of a container; None if it requests none."""
        host = request["HostConfig"]
        if not host["DeviceRequests"] and host["Runtime"] != NVIDIA_RUNTIME:
            return None
        from pydock_core.engine.injection import inject  # late: few containers have devices

        return inject(request, mounts, nvidia_runtime=host["Runtime"] == NVIDIA_RUNTIME, is_start=is_start)

    # -- at start --------------------------------------------------------------------------------------

    def prepare(self, row: ContainerRow, definition: Definition, size: tuple[int, int]) -> Path:
        """Write the files of a start, and return the launch plan's path.

        Everything is generated from the definition; the files of an earlier start are replaced, except the writable layer
        and the log.
        """
        paths = self._root.container(row.id)
        host = definition.host
        mounts = definition_mounts(definition)
        injection = self._inject(definition.request, mounts, is_start=True)
        kept = self.kept_ids(definition)
        if host["AutoRemove"] and paths.work.exists():
            # A volatile overlay leaves a mark there, which prevents its next mount.
            Zygote(self._root).call("pydock_core.store.trees:remove_tree", {"path": str(paths.work)})
        for directory in (paths.rootfs, paths.upper, paths.work, paths.run):
            make_directories(directory)
        with suppress(PermissionError):  # with keep-id, a subordinate id owns it since the first start
            paths.upper.chmod(0o755)  # the mode of the container's root directory
        diff_ids = self._images.layers(row.image_id)
        volumes, sources = self._prepare_volumes(paths, mounts, diff_ids)  # may take long
        network = self._network(row, definition)
        further: dict[str, Any] = self._write_edits(paths, injection) if injection is not None else {}
        if kept is not None:
            from pydock_core.engine.kept_ids import prepare_files

            read, home = self._files(row, paths).read, definition.request["WorkingDir"] or "/"
            further |= {"kept": kept, "kept_files": prepare_files(paths, read, kept, home, self._zygote)}
        shared = self._shared(host)
        facts = collect_facts(
            self._root,
            row.id,
            definition,
            mounts,
            volumes,
            self._resolve(self._reader(row, definition, paths), definition, definition.request["User"]),
            size,
            rootless=self._rootless,
            single_mapping=self._rootless and self._zygote.ping()["mapping"] == "single",
            shared=shared,
            **further,
        )
        if host["Init"] and host["Runtime"] != EMBEDDED:
            facts = replace(facts, init_program=_write_init(paths))
        write_json(paths.config_file, build_spec(definition, facts))
        plan = build_plan(
            definition,
            row.id,
            paths,
            executor=self._executor(host["Runtime"]),
            root_mounts=self._writable_root(diff_ids, paths, kept, is_transient=host["AutoRemove"]),
            sources=tuple(sources),
            network=network,
            network_socket=self._root.network_socket(),
            size=size,
            port_address=self._attachments.port_address(host["NetworkMode"]) or LOOPBACK,
        )
        if (
            host["LogConfig"]["Type"] == JOURNALD
            or not DEFAULT_OPTIONS.keys() >= host["LogConfig"]["Config"].keys()
        ):
            from pydock_core.engine.log_plan import build_log_fields  # late: few logs have such options

            plan = replace(plan, **build_log_fields(definition, row))
        if shared:
            plan = replace(plan, shared=shared)
        if kept is not None:
            plan = replace(plan, uid_mappings=kept.uid_mappings, gid_mappings=kept.gid_mappings)
        write_json(paths.plan_file, plan.to_json())
        return paths.plan_file

    def _prepare_volumes(
        self, paths: ContainerPaths, mounts: Sequence[Mount], diff_ids: Sequence[str]
    ) -> tuple[dict[str, str], list[MountSource]]:
        """Make and fill a container's volumes; return the result of :func:`build_sources`."""
        if not any(mount.kind in ("volume", "image") for mount in mounts):
            return {}, []
        from pydock_core.engine.mount_sources import build_sources  # late: most containers have no volume
        from pydock_core.store.database import volumes as table

        options = {
            mount.source: table.find(self._database, mount.source).options
            for mount in mounts
            if mount.kind == "volume"
        }
        plain = [mount for mount in mounts if mount.kind == "volume" and not options[mount.source]]
        fill_volumes(
            self._root,
            self._database,
            plain,
            lambda: self._snapshotter.mounts(diff_ids, None, None),
            is_first_start=not paths.config_file.exists(),
        )
        return build_sources(
            self._root,
            paths,
            mounts,
            options.__getitem__,
            lambda image_id: self._snapshotter.mounts(self._images.layers(image_id), None, None),
        )

    def _shared(self, host: HostConfig) -> dict[str, str]:
        """Return the plan's ``shared``: the other containers whose namespaces are joined."""
        if not (host["IpcMode"].startswith(JOINED) or host["PidMode"].startswith(JOINED)):
            return {}
        from pydock_core.engine.shared_namespaces import find_shared  # late: few containers join any

        return find_shared(self._root, self._database, host)

    def kept_ids(self, definition: Definition) -> KeptIds | None:
        """Return the user namespace of a container with ``--userns keep-id``; None for another one."""
        if not is_keep_id(definition.host["UsernsMode"]):
            return None
        from pydock_core.engine.kept_ids import find_kept_ids  # late: few containers have one

        return find_kept_ids(definition.host["UsernsMode"], self._zygote)

    def root_mounts(
        self, diff_ids: Sequence[str], paths: ContainerPaths, kept: KeptIds | None
    ) -> tuple[RootMount, ...]:
        """Return the snapshotter's mounts, with the layer of mount points below all others.

        Args:
            kept: the container's own user namespace, for which the image is copied at its first use.
        """
        *others, overlay = self._snapshotter.mounts(diff_ids, paths.upper, paths.work)
        if overlay.kind != "overlay":
            return (*others, overlay)
        bottom = str(mount_points.make_layer(self._root))
        if kept is not None and kept.root is not None and diff_ids:
            return (replace(overlay, lower=(self._snapshotter.owned(diff_ids, kept.root, bottom),)),)
        return (*others, replace(overlay, lower=(*overlay.lower, bottom)))

    def _writable_root(
        self,
        diff_ids: Sequence[str],
        paths: ContainerPaths,
        kept: KeptIds | None,
        *,
        is_transient: bool,
    ) -> tuple[RootMount, ...]:
        """Return the mounts of a container's root.

        Args:
            is_transient: the writable layer does not outlive the run, so it is never synced ("volatile", Linux 5.10).
        """
        *others, last = self.root_mounts(diff_ids, paths, kept)
        if is_transient and last.kind == "overlay":
            last = replace(last, options=(*last.options, "volatile"))
        return (*others, last)

    def view(self, row: ContainerRow, definition: Definition, paths: ContainerPaths) -> dict[str, Any]:
        """Return the arguments of :class:`pydock_core.store.container_view.ContainerView` for a container.

        The container is held or running.  Afterwards its directories and its volumes exist.
        """
        for directory in (paths.rootfs, paths.upper, paths.work):
            make_directories(directory)
        if not paths.config_file.exists():
            with suppress(PermissionError):  # see prepare
                paths.upper.chmod(0o755)
        kept = self.kept_ids(definition)
        if kept is not None:
            from pydock_core.engine.kept_ids import give_upper

            give_upper(paths, kept, self._zygote)
        diff_ids = self._images.layers(row.image_id)
        mounts = definition_mounts(definition)
        volumes, sources = self._prepare_volumes(paths, mounts, diff_ids)
        files = {
            target: str(paths.data / name)
            for target, name in mount_points.OWN_FILES.items()
            if (paths.data / name).exists()
        }
        host = definition.host
        entries = [build_mount(mount, volumes) for mount in mounts if mount.kind != "tmpfs"]
        taken = {entry["destination"] for entry in entries}
        if "/etc" not in taken:
            entries += build_files(files, taken, read_only=host["ReadonlyRootfs"])
        entries.sort(key=lambda entry: entry["destination"].count("/"))
        return {
            "rootfs": str(paths.rootfs),
            "root_mounts": [
                mount.to_json() for mount in self._writable_root(diff_ids, paths, kept, is_transient=False)
            ],
            "sources": [source.to_json() for source in sources],
            "mounts": entries,
            "read_only": host["ReadonlyRootfs"],
            **self.id_maps(kept),
        }

    def user(self, row: ContainerRow, definition: Definition, user: str) -> dict[str, Any]:
        """Resolve a user for an exec; return the OCI user object."""
        read = self._reader(row, definition, self._root.container(row.id))
        resolved = self._resolve(read, definition, user)
        return {"uid": resolved.uid, "gid": resolved.gid, "additionalGids": list(resolved.additional_gids)}

    def _network(self, row: ContainerRow, definition: Definition) -> NetworkAttachment:
        """Attach the container to its networks, and write the files with its addresses and its name servers."""
        host = definition.host
        mode, _, other = host["NetworkMode"].partition(":")
        if mode == "container":
            network = self._attachments.join(other, self._name(other))
            theirs = self._root.container(other).data
            texts = {name: container_files.read_text(theirs / name) for name in ("hosts", "resolv.conf")}
            self._write_files(
                row.id, {"hostname": f"{find_host_name(definition, row.id)}\n".encode(), **texts}
            )
            return network
        is_bridge = mode not in ("none", "host")
        text = (
            container_files.read_bridge_resolv_conf()
            if is_bridge
            else container_files.read_host_resolv_conf()
        )
        resolv = container_files.build_resolv_conf(text, keep_loopback=mode == "host", settings=host)
        network = NetworkAttachment(mode=mode)
        if is_bridge:
            extra = host["ExtraHosts"] or ()
            network = self._attachments.attach(
                row.id,
                row.name,
                definition,
                resolvers=container_files.name_servers(resolv),
                servers=lambda: container_files.upstream_servers(host),
                to_gateway=any(line.endswith(f":{HOST_GATEWAY}") for line in extra),
            )
        if network.name_service is not None:
            resolv = container_files.build_own_resolv_conf(text, host)
        self._write_files(
            row.id,
            {
                "hostname": f"{find_host_name(definition, row.id)}\n".encode(),
                "hosts": self._build_hosts(row, definition, network).encode(),
                "resolv.conf": resolv.encode(),
            },
        )
        return network

    def _name(self, container_id: str) -> str:
        from pydock_core.store.database import containers as table

        return table.find(self._database, container_id).name

    def _build_hosts(self, row: ContainerRow, definition: Definition, network: NetworkAttachment) -> str:
        extra = list(definition.host["ExtraHosts"] or ())
        gateway = next((item.gateway for item in network.interfaces if item.gateway), "")
        if gateway:
            known = {line.partition(":")[0] for line in extra}
            extra += [f"{name}:{gateway}" for name in HOST_NAMES if name not in known]
        addresses = [
            text.partition("/")[0]
            for item in network.interfaces
            for text in (item.address, item.address6)
            if text
        ]
        # On another network a link is a name in the name server.
        has_links = definition.host["Links"] and definition.host["NetworkMode"] == "bridge"
        linked = self._attachments.linked(definition) if has_links else ()
        name = find_host_name(definition, row.id)
        names = definition.names(row.id) if name == definition.host_name(row.id) else name
        return container_files.build_hosts(names, addresses, gateway, extra, linked)

    def _write_files(self, container_id: str, contents: Mapping[str, bytes]) -> None:
        for name, content in contents.items():
            path = self._root.container(container_id).data / name
            path.write_bytes(content)
            path.chmod(0o644)

    @staticmethod
    def _write_edits(paths: ContainerPaths, injection: Injection) -> dict[str, Any]:
        """Write the devices' edits of the root filesystem into the bundle; return the facts of :func:`collect_facts`."""
        facts: dict[str, Any] = {"edits": injection.edits}
        if injection.root_edits is None:
            return facts
        from pydock_core.cdi.injection import with_cover
        from pydock_core.runtime.root_edit import build_hook

        edits = injection.root_edits
        if injection.params:
            params = paths.bundle / "nvidia-params"
            params.unlink(missing_ok=True)  # an earlier start's file is read-only
            params.write_text(injection.params)
            params.chmod(0o444)
            edits = with_cover(edits, str(params))
        file = paths.bundle / "root-edits.json"
        write_json(file, edits.to_json())
        return {**facts, "root_edit_hook": build_hook(sys.executable, str(file))}

    def _files(self, row: ContainerRow, paths: ContainerPaths) -> RootFiles:
        return RootFiles(self._snapshotter, self._images.layers(row.image_id), paths.upper, self._image_files)

    def _reader(
        self, row: ContainerRow, definition: Definition, paths: ContainerPaths
    ) -> Callable[[str], bytes | None]:
        """Return a reader of the container's passwd and group, as its processes see them."""
        read = self._files(row, paths).read
        kept = self.kept_ids(definition)
        if kept is None:
            return read
        from pydock_core.engine.kept_ids import with_entries

        return with_entries(read, kept, definition.request["WorkingDir"] or "/")

    @staticmethod
    def id_maps(kept: KeptIds | None) -> dict[str, Any]:
        """Return the arguments of a worker that shows a container's own ids."""
        if kept is None or kept.root is None:
            return {}
        return {"uid_mappings": list(kept.uid_mappings), "gid_mappings": list(kept.gid_mappings)}

    @staticmethod
    def _resolve(read: Callable[[str], bytes | None], definition: Definition, user: str) -> ResolvedUser:
        resolved = resolve_user(user, read)
        group_names = definition.host["GroupAdd"]
        if not group_names:
            return resolved
        groups = [int(group) if group.isdigit() else _group_id(group, read) for group in group_names]
        return replace(resolved, additional_gids=tuple(dict.fromkeys((*resolved.additional_gids, *groups))))


def _check_journal() -> None:
    from pydock_core.supervision.journal import SOCKET, has_journal  # late: few containers log there

    if not has_journal():
        raise UnavailableError(
            f"--log-driver journald: no journal of systemd listens on this host ({SOCKET})",
            "use --log-driver json-file or local",
            exit_code=125,
        )


def _write_init(paths: ContainerPaths) -> str:
    """Write the init of ``--init`` for an OCI runtime program, which mounts it; return its path."""
    from pydock_core.runtime.reaper.image import build_image  # late: few containers have one

    path = paths.data / "init"
    path.unlink(missing_ok=True)  # an earlier start's file may be mounted or of another version
    path.write_bytes(build_image(os.uname().machine))
    path.chmod(0o555)
    return str(path)


def _group_id(name: str, read: Callable[[str], bytes | None]) -> int:
    for line in (read("/etc/group") or b"").decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] == name and fields[2].isdigit():
            return int(fields[2])
    raise InvalidError(f"--group-add {name}: the image has no such group", "give its number", exit_code=125)
