"""The use cases of containers: create, start, stop, remove, list, inspect, logs, exec and dial."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core.engine import shapes
from pydock_core.engine.execution import ExecRequest, build_exec_process
from pydock_core.engine.filters import ContainerFilter
from pydock_core.engine.names import check_name, random_id, random_name
from pydock_core.engine.recorder import last_run
from pydock_core.engine.session import ContainerSession, begin_execution
from pydock_core.engine.shapes import Seen
from pydock_core.engine.volume_files import name_volumes
from pydock_core.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from pydock_core.runtime.signals import signal_number
from pydock_core.spec.definition import CreateRequest, Definition, decode, encode
from pydock_core.spec.host_option import is_keep_id
from pydock_core.spec.log_option import JOURNALD, NONE
from pydock_core.spec.mount import Mount, definition_mounts
from pydock_core.store.database import containers as table
from pydock_core.store.database.containers import ContainerRow, Run, build_event, build_mount_event
from pydock_core.store.database.images import all_images
from pydock_core.store.database.networks import endpoints_of_container
from pydock_core.supervision.client import (
    Streams,
    SupervisorClient,
    Zygote,
    follow_log,
    wait_for_exit,
)
from pydock_core.supervision.container_status import derive_status
from pydock_core.supervision.logs import LogEntry, read_log
from pydock_core.supervision.reaper import mark_stopped, reap_killed

if TYPE_CHECKING:
    from pydock_core.engine.protocol import SessionProtocol
    from pydock_core.engine.state import State
    from pydock_core.supervision.health_plan import Health

Documents = list[dict[str, Any]]
_NAME_ATTEMPTS = 20
_STOP_PATIENCE_SECONDS = 5.0
_STOP_INTERVAL_SECONDS = 0.01


def stop_signal_of(definition: Definition) -> int:
    """Return the number of the signal that stops a container."""
    return signal_number(definition.request["StopSignal"] or "TERM")


class Containers:
    """Containers of one state root.

    A container is named by its id, a unique prefix of it, or its name; NotFoundError if there is none,
    ConflictError if a prefix matches several.  Safe to use from several threads and processes at once.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._root = state.root
        self._database = state.database
        self._zygote = Zygote(state.root)

    # -- definition ------------------------------------------------------------------------------------

    def create(
        self, request: Mapping[str, Any], name: str | None = None, *, any_platform: bool = False
    ) -> tuple[str, list[str]]:
        """Define a container.

        Args:
            request: the body of ``POST /containers/create``; see :mod:`pydock_core.spec.definition`.
            name: a random one by default.
            any_platform: the image's platform was chosen explicitly: do not warn if the host has another one.

        Returns:
            Its full id, and warnings (the requested limits that this host cannot enforce).

        Raises:
            NotFoundError: no such image.
            ConflictError: the name is taken.
            InvalidError: the request contradicts itself.
            UnsupportedError: this host does not support a setting.

        Postcondition: the container is listed; on an error nothing has changed.
        """
        from pydock_core.spec.merge import merge  # late: listing and inspecting need neither
        from pydock_core.spec.validation import check_request

        self._state.sweep_once()
        checked = check_request(request)
        if is_keep_id(checked["HostConfig"]["UsernsMode"]):
            from pydock_core.engine.kept_ids import check_keep_id, with_default_user  # late: few containers

            check_keep_id(rootless=os.geteuid() != 0)
            checked = with_default_user(checked)
        image_id = self._state.images.resolve(checked["Image"]).id
        image_config = self._state.images.config(image_id).get("config") or {}
        launcher = self._state.launcher
        merged, warnings = launcher.check(
            merge(checked, image_config, checked["HostConfig"]["NetworkMode"] or launcher.default_network),
            self.resolve,
        )
        if not any_platform:
            warnings += self._state.images.platform_warnings(image_id)
        chosen_name = check_name(name) if name else None
        container_id = random_id()
        definition, used = name_volumes(merged, self._inherited(merged), self._mounted_image)
        for attempt in range(_NAME_ATTEMPTS):
            row = ContainerRow(
                container_id,
                chosen_name
                or (random_name() if attempt < _NAME_ATTEMPTS - 1 else f"{random_name()}_{container_id[:6]}"),
                image_id,
                time.time_ns(),
                encode(definition),
            )
            try:
                # A crash of the machine ends a --rm container in any case, so its record need not survive one.
                table.insert(self._database, row, used, durable=not definition.host["AutoRemove"])
                break
            except ConflictError:
                if chosen_name:
                    raise
        return container_id, warnings

    def unlink(self, link: str) -> None:
        """Remove a link, named PARENT/ALIAS; see :func:`pydock_core.engine.update.remove_link`."""
        from pydock_core.engine.update import remove_link  # late: few commands change a container

        remove_link(self._state, link)

    def rename(self, reference: str, name: str) -> None:
        """Give a container another name; ConflictError if the name is taken."""
        row = self._row(reference)
        table.rename(self._database, row.id, check_name(name))
        self._rename_on_networks(row, name)

    def _rename_on_networks(self, row: ContainerRow, name: str) -> None:
        """Publish a running container's new name on its networks."""
        definition = decode(row.definition)
        endpoints = definition.request["NetworkingConfig"]["EndpointsConfig"]
        if set(endpoints) <= {"none", "host", "bridge"}:
            return
        from pydock_core.engine.attachments import own_names  # late: few containers are on other networks

        names = {
            place.network_id: own_names(row.id, name, definition, endpoints[network])
            for network, (_, place) in endpoints_of_container(self._database, row.id).items()
            if network in endpoints
        }
        with suppress(ConflictError):  # it does not run
            SupervisorClient(self._root.container(row.id), name).rename(names)

    def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container, its writable layer and its log.

        Args:
            force: kill it first if it is running.
            volumes: remove the anonymous volumes that only it uses.

        Raises:
            ConflictError: it is running, and ``force`` is not set.
        """
        self._state.sweep_once()
        row = self._row(reference)
        paths = self._root.container(row.id)
        status = derive_status(paths)
        if status.is_active:
            if not force:
                state = "restarting" if status.status == "restarting" else "running"
                raise ConflictError(
                    f"container {reference} is {'paused' if status.is_paused else state}",
                    f"stop it first (dock stop {reference}), or remove it with -f",
                )
            self._stop(row, signal_number("KILL"), 0.0)
        elif has_restart_policy(row):  # it may have ended just now, and its keeper may not know yet
            self._stop(row, None, 0.0)
        is_transient = decode(row.definition).host["AutoRemove"]
        self._state.remover.remove(row.id, volumes=volumes or is_transient, durable=not is_transient)

    # -- life ------------------------------------------------------------------------------------------

    def start(
        self, reference: str, *, attach: Streams | None = None, size: tuple[int, int] = (0, 0)
    ) -> SessionProtocol:
        """Start a container; return when its process runs.

        Args:
            attach: streams to attach before it starts, so that no output is missed.
            size: rows and columns of its terminal.

        Returns:
            The session: wait for the container's end with it, or close it; the container then keeps running.

        Raises:
            ConflictError: it is already running (only with ``attach``), or a published port is in use.
            PyDockError: it did not start; exit_code 125, 126 or 127.
        """
        self._state.sweep_once()
        row = self._row(reference)
        paths = self._root.container(row.id)
        definition = decode(row.definition)
        if paths.state_file.exists():
            status = derive_status(paths)
            if status.is_paused:
                raise ConflictError(
                    f"container {reference} is paused", f"let it go on: dock unpause {reference}"
                )
            if status.status == "restarting":
                raise ConflictError(
                    f"container {reference} is restarting",
                    f"wait until it runs, or begin anew: dock restart {reference}",
                )
            if status.is_running and attach is None:  # the requested state
                return ContainerSession(paths, None, terminal=definition.request["Tty"])
        began_ns = time.time_ns()
        if paths.exit_file.exists():  # the start removes it: the last chance to record an unrecorded end
            self._state.recorder.run(row, last_run(reap_killed(paths)))
        launch = self._zygote.supervise(lambda: self._prepare(row, definition, size), attach=attach)
        attached = [] if attach is None else [build_event(row, "attach", time_ns=began_ns)]
        mounted = [
            build_mount_event(row.id, mount.source, mount.target, not mount.read_only, launch.started_at_ns)
            for mount in definition_mounts(definition)
            if mount.kind == "volume"
        ]
        self._state.recorder.run(row, Run(launch.started_at_ns), *attached, *mounted)
        return ContainerSession(
            paths,
            launch.attachment,
            terminal=definition.request["Tty"],
            launch=launch,
            on_end=self._on_end(row, definition),
        )

    def _prepare(self, row: ContainerRow, definition: Definition, size: tuple[int, int]) -> Path:
        """Write the container's bundle and launch plan; return the plan's path."""
        try:
            return self._state.launcher.prepare(row, definition, size)
        except FileNotFoundError as error:
            # Another process removes the directories: only after it has removed the row.
            try:
                table.find(self._database, row.id)
            except NotFoundError:
                raise NotFoundError(
                    f"container {row.name} was removed while it was being started",
                    "create it again: dock run",
                    exit_code=125,
                ) from error
            raise

    def stop(self, reference: str, timeout_seconds: float | None = None, signal: str | None = None) -> None:
        """Send a container its stop signal, and SIGKILL after the timeout; ignore a stopped container."""
        row = self._row(reference)
        if self._stop(row, signal_number(signal) if signal else None, timeout_seconds):
            self._state.recorder.container(row, "stop")

    def restart(
        self, reference: str, timeout_seconds: float | None = None, signal: str | None = None
    ) -> None:
        """Stop a container if it is running, and start it.

        Raises:
            ConflictError: it was run with ``--rm``, so stopping would remove it.
        """
        if self.definition(reference)["HostConfig"]["AutoRemove"]:
            raise ConflictError(
                f"cannot restart container {reference}: it was run with --rm, so stopping removes it",
                "stop it, and run the image again",
            )
        self.stop(reference, timeout_seconds, signal)
        self.start(reference).close()
        self._state.recorder.container(self._row(reference), "restart")

    def kill(self, reference: str, signal: str = "KILL") -> None:
        """Send a signal to a running container's first process; with SIGKILL, return after the container's end.

        Raises:
            ConflictError: it is not running.
            InvalidError: there is no such signal.
        """
        number = signal_number(signal)
        row = self._row(reference)
        paths = self._root.container(row.id)
        if derive_status(paths).status not in ("running", "restarting"):
            raise ConflictError(f"container {reference} is not running", "dock ps lists those that run")
        if number == signal_number("KILL"):
            self._stop(row, number, None)
        else:
            # As in Docker, only the stop signal thaws a paused container; other signals stay pending.
            is_last = number == stop_signal_of(decode(row.definition))
            SupervisorClient(paths, reference).signal(number, unpause=is_last)
            self._state.recorder.container(row, "kill", signal=str(number))

    def update(
        self, reference: str, changes: Mapping[str, Any], names: Mapping[str, str] | None = None
    ) -> None:
        """Change limits and the restart policy; see :func:`pydock_core.engine.update.update_container`."""
        from pydock_core.engine.update import update_container  # late: few commands change a container

        update_container(self._state, reference, changes, names)

    def pause(self, reference: str) -> None:
        """Freeze all processes of a running container, until it is unpaused or stopped.

        Raises:
            ConflictError: it is not running, or already paused.
            UnsupportedError: it has no control group with a freezer (an ordinary user on cgroup version 1).
        """
        self._freeze(reference, "pause", lambda client: client.pause())

    def unpause(self, reference: str) -> None:
        """Thaw a paused container; ConflictError if it is not paused."""
        self._freeze(reference, "unpause", lambda client: client.unpause())

    def _freeze(self, reference: str, action: str, request: Callable[[SupervisorClient], None]) -> None:
        row = self._row(reference)
        paths = self._root.container(row.id)
        status = derive_status(paths)
        if not status.is_running:
            raise ConflictError(f"container {reference} is not running", "dock ps lists those that run")
        if status.is_paused and action == "pause":
            raise ConflictError(
                f"container {reference} is already paused", f"dock unpause {reference} lets it go on"
            )
        if not status.is_paused and action == "unpause":
            raise ConflictError(
                f"container {reference} is not paused", "dock ps -f status=paused lists those that are"
            )
        request(SupervisorClient(paths, reference))
        self._state.recorder.container(row, action)

    def wait(self, reference: str, condition: str = "not-running") -> int:
        """Wait for a container; return its exit code.

        Args:
            condition: "not-running", "next-exit" (the end of this run or the next one) or "removed".

        Raises:
            InvalidError: there is no such condition.
        """
        row = self._row(reference)
        if condition != "not-running":
            from pydock_core.engine.waiting import NEXT_EXIT, check_condition, wait_for_event

            check_condition(condition)
            status = derive_status(self._root.container(row.id))
            if condition != NEXT_EXIT or not status.is_running:
                return wait_for_event(self._state, row, condition)
        status = wait_for_exit(self._root.container(row.id))
        self._state.recorder.run(row, last_run(status))
        return status.exit_code

    def _on_end(self, row: ContainerRow, definition: Definition) -> Callable[[], None]:
        """Return the function that records the end of a container for a session."""
        if definition.host["AutoRemove"]:
            return lambda: None  # the removal records it
        paths = self._root.container(row.id)
        return lambda: self._state.recorder.run(row, last_run(derive_status(paths)))

    def _stop(self, row: ContainerRow, number: int | None, timeout_seconds: float | None) -> bool:
        """Stop a container and record its end; return whether it was running."""
        paths = self._root.container(row.id)
        was_running = derive_status(paths).is_running
        if was_running:
            sent = number or stop_signal_of(decode(row.definition))
            self._state.recorder.container(row, "kill", signal=str(sent))
        has_policy = has_restart_policy(row)
        deadline = time.monotonic() + _STOP_PATIENCE_SECONDS
        while True:
            try:
                SupervisorClient(paths).stop(number, timeout_seconds)
            except (ConflictError, UnavailableError):
                # It was not running, or its supervisor is gone: the requested state, unless it is still alive.
                if derive_status(paths).is_running and time.monotonic() > deadline:
                    raise
            # Between two runs of a restart policy, no process may have received the request.
            status = reap_killed(paths)
            if not status.is_active and (not has_policy or mark_stopped(paths)):
                break
            time.sleep(_STOP_INTERVAL_SECONDS)
        self._state.recorder.run(row, last_run(status))
        return was_running

    # -- looking ---------------------------------------------------------------------------------------

    def resolve(self, reference: str) -> str:
        """Return the full id of a reference."""
        return self._row(reference).id

    def name(self, reference: str) -> str:
        """Return a container's name."""
        return self._row(reference).name

    def definition(self, reference: str) -> CreateRequest:
        """Return a container's definition, merged with its image's configuration."""
        return decode(self._row(reference).definition).request

    def is_running(self, reference: str) -> bool:
        """Whether a container is running."""
        return derive_status(self._root.container(self.resolve(reference))).is_running

    def list(
        self,
        all: bool = False,
        filters: Mapping[str, Sequence[str]] | None = None,
        limit: int | None = None,
        size: bool = False,
    ) -> list[dict[str, Any]]:
        """Return containers, the newest first, as ContainerSummary of the Engine API.

        Args:
            all: include stopped containers; a status filter or a limit implies it, as in Docker.
            filters: id, name, label, status, exited, ancestor, before, since, volume, network, publish, expose.
            limit: the number of newest containers to return.
            size: measure the writable layers: SizeRw and SizeRootFs, in bytes.
        """
        condition = ContainerFilter.parse(filters or {}, self._row, self._image_id)
        chosen = []
        for row in table.all_rows(self._database):
            seen = self._see(row)
            if seen is None or not condition.matches(seen):
                continue
            is_shown = seen.status.status in ("running", "restarting")
            if all or limit or condition.names_a_status or is_shown:
                chosen.append(shapes.build_summary(seen))
            if limit and len(chosen) == limit:
                break
        if size:
            self._measure(chosen)
        return chosen

    def inspect(self, reference: str, size: bool = False) -> dict[str, Any]:
        """Return a container's details, as ContainerInspectResponse of the Engine API.

        Args:
            size: measure the writable layer: SizeRw and SizeRootFs, in bytes.
        """
        row = self._row(reference)
        seen = self._see(row)
        if seen is None:
            raise NotFoundError(f"no such container: {reference}", "dock ps -a lists them")
        document = shapes.build_inspect(seen, self._root.container(row.id), self._state.launcher.driver_name)
        if size:
            self._measure([document])
        return document

    def _measure(self, documents: Sequence[dict[str, Any]]) -> None:
        """Add the sizes of writable layers, alone and with their images, to summaries or inspections."""
        uppers = [str(self._root.container(document["Id"]).upper) for document in documents]
        sizes = self._state.worker.call("pydock_core.store.trees:tree_sizes", {"paths": uppers})
        images = {row.id: row.size_bytes for row in all_images(self._database)}
        for document, size in zip(documents, sizes, strict=True):
            image_id = document.get("ImageID") or document["Image"]
            document.update({"SizeRw": size, "SizeRootFs": images.get(image_id, 0) + size})

    def logs(
        self,
        reference: str,
        follow: bool = False,
        tail: int | None = None,
        timestamps: bool = False,
        since_ns: int | None = None,
        until_ns: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
        details: bool = False,
    ) -> Iterator[LogEntry]:
        """Yield a container's output.

        Args:
            follow: continue until it ends.
            tail: begin with this number of last entries.
            timestamps: prefix each line of ``data`` with the time, as ``docker logs -t`` does.
            since_ns, until_ns: Unix nanoseconds.
            details: prefix each line with the labels, variables and tag of the log's options, as ``docker logs --details``.
        """
        row = self._row(reference)
        driver = decode(row.definition).host["LogConfig"]["Type"]
        if driver == JOURNALD:
            raise UnsupportedError(
                f"container {reference} logs to the journal of systemd, which PyDock does not read",
                f"journalctl CONTAINER_ID={row.id[:12]}",
            )
        if driver == NONE:
            raise UnsupportedError(
                f"container {reference} has no log: it was created with --log-driver none",
                f"dock attach {reference} shows its output from now on",
            )
        paths = self._root.container(row.id)
        if follow:
            entries = follow_log(paths, tail=tail, since_ns=since_ns, until_ns=until_ns)
        else:
            entries = read_log(paths.log_file, tail=tail, since_ns=since_ns, until_ns=until_ns)
        streams = {name for name, chosen in (("stdout", stdout), ("stderr", stderr)) if chosen}
        for entry in entries:
            if entry.stream in streams:
                front = entry.time.encode() + b" " if timestamps else b""
                if details:
                    front += _spell_attributes(entry.attributes or {}) + b" "
                yield LogEntry(entry.stream, entry.time_ns, front + entry.data) if front else entry

    # -- reaching into a running one -------------------------------------------------------------------

    def attach(self, reference: str, streams: Streams | None = None) -> SessionProtocol:
        """Attach to a running container's streams; ConflictError if it is not running."""
        row = self._row(reference)
        paths = self._root.container(row.id)
        if derive_status(paths).is_paused:
            raise ConflictError(f"container {reference} is paused", f"let it go on: dock unpause {reference}")
        definition = decode(row.definition)
        session = ContainerSession.attach(
            SupervisorClient(paths, reference),
            paths,
            streams,
            definition.request["Tty"],
            self._on_end(row, definition),
        )
        self._state.recorder.container(row, "attach")
        return session

    def exec(
        self, reference: str, request: ExecRequest, *, stdin: bool = False, detach: bool = False
    ) -> SessionProtocol:
        """Run an additional process in a running container.

        Raises:
            ConflictError: it is not running.
            PyDockError: the command cannot be executed (exit_code 126) or was not found (127).
        """
        row = self._row(reference)
        paths = self._root.container(row.id)
        status = derive_status(paths)
        if status.status == "restarting":
            raise ConflictError(
                f"container {reference} is restarting", "wait until it runs (dock ps)", exit_code=1
            )
        if not status.is_running:
            raise ConflictError(
                f"container {reference} is not running", f"start it: dock start {reference}", exit_code=1
            )
        if status.is_paused:
            raise ConflictError(
                f"container {reference} is paused", f"let it go on: dock unpause {reference}", exit_code=1
            )
        definition = decode(row.definition)
        base = json.loads(paths.config_file.read_bytes())["process"]
        user = None if request.user is None else self._state.launcher.user(row, definition, request.user)
        process = build_exec_process(base, request, user)
        exec_id = random_id()
        words = " ".join(process["args"])
        # Recorded before, as in Docker: afterwards, its end might come first.
        self._state.recorder.note(
            build_event(row, f"exec_create: {words}", execID=exec_id),
            build_event(row, f"exec_start: {words}", execID=exec_id),
        )
        return begin_execution(
            SupervisorClient(paths, reference),
            process,
            exec_id=exec_id,
            stdin=stdin,
            detach=detach,
            on_end=lambda code: self._state.recorder.container(
                row, "exec_die", execID=exec_id, exitCode=str(code)
            ),
        )

    def dial(self, reference: str, port: int) -> socket.socket:
        """Connect to a TCP port inside a running container; the port need not be published.

        Returns:
            A connected, non-blocking socket, made in the container's network namespace.

        Raises:
            ConflictError: it is not running.
            UnavailableError: nothing listens there.
        """
        if not 1 <= port <= 65535:
            raise InvalidError(f"port {port} is out of range", "a port is a number from 1 to 65535")
        return SupervisorClient(self._root.container(self.resolve(reference)), reference).dial(port)

    # -- parts -----------------------------------------------------------------------------------------

    def _inherited(self, request: CreateRequest) -> Documents:
        """Return the mounts of VolumesFrom."""
        sources = request["HostConfig"]["VolumesFrom"]
        if not sources:
            return []
        from pydock_core.spec.mount import inherit_mounts

        def mounts_of(name: str) -> Sequence[Mount]:
            try:
                return definition_mounts(decode(self._row(name).definition))
            except NotFoundError as error:
                error.exit_code = 125
                raise

        return inherit_mounts(sources, mounts_of)

    def _mounted_image(self, reference: str) -> str:
        try:
            return self._state.images.resolve(reference).id
        except NotFoundError as error:
            error.exit_code = 125
            raise

    def _image_id(self, reference: str) -> str:
        """Return the id of an image; empty if there is none."""
        try:
            return self._state.images.resolve(reference).id
        except NotFoundError:
            return ""

    def _row(self, reference: str) -> ContainerRow:
        return table.find(self._database, reference)

    def _see(self, row: ContainerRow) -> Seen | None:
        """Return a container's state; None if it ended, has AutoRemove, and its remover was killed."""
        definition = decode(row.definition)
        status = derive_status(self._root.container(row.id))
        if definition.host["AutoRemove"] and status.status == "exited":
            return None
        is_alone = definition.host["NetworkMode"] in ("none", "host")
        places = {} if is_alone or not status.is_running else endpoints_of_container(self._database, row.id)
        health = None
        if definition.request["Healthcheck"] is not None:
            health = self._look_at_health(row, definition)
        return Seen(row, definition, status, places, health)

    def _look_at_health(self, row: ContainerRow, definition: Definition) -> Health | None:
        from pydock_core.spec.health import has_probe
        from pydock_core.supervision.health_plan import Health

        if not has_probe(definition.request["Healthcheck"]):
            return None
        return Health.read(self._root.container(row.id).health_file)


def has_restart_policy(row: ContainerRow) -> bool:
    """Whether a container is started again after its end."""
    return bool(decode(row.definition).host["RestartPolicy"]["Name"] != "no")


def _spell_attributes(attributes: Mapping[str, str]) -> bytes:
    """Return NAME=VALUE,... in the order of names, as Docker escapes them (url.QueryEscape)."""
    from urllib.parse import quote_plus  # late: few logs are read with details

    return ",".join(
        f"{quote_plus(name)}={quote_plus(attributes[name])}" for name in sorted(attributes)
    ).encode()
