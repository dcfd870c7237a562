"""The use cases of containers: create, start, stop, remove, list, inspect, logs, exec and dial."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydock_core.engine import shapes
from pydock_core.engine.execution import ExecRequest, build_exec_process
from pydock_core.engine.filters import ContainerFilter
from pydock_core.engine.names import check_name, random_id, random_name
from pydock_core.engine.session import ContainerSession, begin_execution
from pydock_core.engine.shapes import Seen
from pydock_core.engine.volumes import name_volumes
from pydock_core.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    PyDockError,
    UnsupportedError,
)
from pydock_core.paths import ContainerPaths
from pydock_core.runtime.signals import signal_number
from pydock_core.spec.definition import CreateRequest, decode, encode
from pydock_core.spec.log_option import NONE
from pydock_core.store.database import containers as table
from pydock_core.store.database.containers import ContainerRow
from pydock_core.store.database.images import all_images
from pydock_core.store.database.networks import address_of
from pydock_core.supervision.client import (
    Streams,
    SupervisorClient,
    Zygote,
    follow_log,
    wait_for_exit,
)
from pydock_core.supervision.container_status import derive_status
from pydock_core.supervision.logs import LogEntry, read_log

if TYPE_CHECKING:
    from pydock_core.engine.protocol import SessionProtocol
    from pydock_core.engine.state import State

_NAME_ATTEMPTS = 20


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
        image_id = self._state.images.resolve(checked["Image"]).id
        image_config = self._state.images.config(image_id).get("config") or {}
        launcher = self._state.launcher
        merged, warnings = launcher.check(
            merge(checked, image_config, launcher.default_network), self.resolve
        )
        if not any_platform:
            warnings += self._state.images.platform_warnings(image_id)
        wanted = check_name(name) if name else None
        container_id = random_id()
        definition, used = name_volumes(merged)
        for attempt in range(_NAME_ATTEMPTS):
            row = ContainerRow(
                container_id,
                wanted
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
                if wanted:
                    raise
        return container_id, warnings

    def rename(self, reference: str, name: str) -> None:
        """Give a container another name; ConflictError if the name is taken."""
        row = self._row(reference)
        table.rename(self._database, row.id, check_name(name))

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
        if derive_status(paths).status in ("running", "starting"):
            if not force:
                raise ConflictError(
                    f"container {reference} is running",
                    f"stop it first (dock stop {reference}), or remove it with -f",
                )
            self._stop(paths, signal_number("KILL"), 0.0)
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
        definition = decode(row.definition)
        launch = self._zygote.supervise(
            lambda: self._state.launcher.prepare(row, definition, size), attach=attach
        )
        return ContainerSession(
            self._root.container(row.id),
            launch.attachment,
            terminal=definition.request["Tty"],
            launch=launch,
        )

    def stop(self, reference: str, timeout_seconds: float | None = None, signal: str | None = None) -> None:
        """Send a container its stop signal, and SIGKILL after the timeout; ignore a stopped container."""
        row = self._row(reference)
        number = signal_number(signal) if signal else None
        self._stop(self._root.container(row.id), number, timeout_seconds)

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

    def kill(self, reference: str, signal: str = "KILL") -> None:
        """Send a signal to a running container's first process; with SIGKILL, return after the container's end.

        Raises:
            ConflictError: it is not running.
            InvalidError: there is no such signal.
        """
        number = signal_number(signal)
        row = self._row(reference)
        paths = self._root.container(row.id)
        if not derive_status(paths).is_running:
            raise ConflictError(
                f"container {reference} is not running", "dock ps lists the running containers"
            )
        if number == signal_number("KILL"):
            self._stop(paths, number, None)
        else:
            SupervisorClient(paths, reference).signal(number)

    def wait(self, reference: str) -> int:
        """Wait until a container is not running; return its exit code."""
        return wait_for_exit(self._root.container(self.resolve(reference))).exit_code

    @staticmethod
    def _stop(paths: ContainerPaths, number: int | None, timeout_seconds: float | None) -> None:
        try:
            SupervisorClient(paths).stop(number, timeout_seconds)
        except PyDockError:
            # It was not running, or its supervisor ended: the requested state, unless the container is still alive.
            if derive_status(paths).is_running:
                raise
        wait_for_exit(paths)

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
            if all or limit or condition.names_a_status or seen.status.is_running:
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
    ) -> Iterator[LogEntry]:
        """Yield a container's output.

        Args:
            follow: continue until it ends.
            tail: begin with this number of last entries.
            timestamps: put the time before each line of ``data``, as ``docker logs -t`` does.
            since_ns, until_ns: Unix nanoseconds.
        """
        row = self._row(reference)
        if decode(row.definition).host["LogConfig"]["Type"] == NONE:
            raise UnsupportedError(
                f"container {reference} has no log: it was created with --log-driver none",
                f"dock attach {reference} shows its output from now on",
            )
        paths = self._root.container(row.id)
        if follow:
            entries = follow_log(paths, tail=tail, since_ns=since_ns, until_ns=until_ns)
        else:
            entries = read_log(paths.log_file, tail=tail, since_ns=since_ns, until_ns=until_ns)
        wanted = {name for name, chosen in (("stdout", stdout), ("stderr", stderr)) if chosen}
        for entry in entries:
            if entry.stream in wanted:
                yield (
                    LogEntry(entry.stream, entry.time_ns, entry.time.encode() + b" " + entry.data)
                    if timestamps
                    else entry
                )

    # -- reaching into a running one -------------------------------------------------------------------

    def attach(self, reference: str, streams: Streams | None = None) -> SessionProtocol:
        """Attach to a running container's streams; ConflictError if it is not running."""
        row = self._row(reference)
        paths = self._root.container(row.id)
        terminal = decode(row.definition).request["Tty"]
        return ContainerSession.attach(SupervisorClient(paths, reference), paths, streams, terminal)

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
        if not derive_status(paths).is_running:
            raise ConflictError(
                f"container {reference} is not running", f"start it: dock start {reference}", exit_code=1
            )
        definition = decode(row.definition)
        base = json.loads(paths.config_file.read_bytes())["process"]
        user = None if request.user is None else self._state.launcher.user(row, definition, request.user)
        process = build_exec_process(base, request, user)
        return begin_execution(SupervisorClient(paths, reference), process, stdin=stdin, detach=detach)

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
        network = definition.host["NetworkMode"]
        address = "" if network in ("none", "host") else address_of(self._database, network, row.id)
        return Seen(row, definition, status, address)
