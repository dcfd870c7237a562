"""The seam between front ends and an engine: the requests that a front end may make.

Vocabulary, as Docker's: an *image* is named by a reference or an id; a *container* by its id, a unique prefix of it, or
its name; documents are dictionaries in the shapes of the Docker Engine API 1.51.  Every method raises
:class:`~pydock_core.errors.PyDockError` only; NotFoundError if nothing has the name, ConflictError if a prefix matches
several containers.  The classes named in the protocols document each method.  A front end runs a container like this::

    container_id, warnings = engine.containers.create(request, name="web")
    with engine.containers.start(container_id, attach=Streams()) as session:
        ...
        exit_code = session.wait().exit_code
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from pydock_core.engine.consistency.finding import Finding
    from pydock_core.engine.execution import ExecRequest
    from pydock_core.engine.image_shapes import SeenImage
    from pydock_core.engine.images import CaptureResult
    from pydock_core.errors import PyDockError
    from pydock_core.host import Check
    from pydock_core.images.image_store import OnTaken
    from pydock_core.images.pull import Pulled
    from pydock_core.images.push import Pushed
    from pydock_core.oci.platform import Platform
    from pydock_core.progress import Progress
    from pydock_core.spec.definition import CreateRequest
    from pydock_core.store.database.images import ImageRow
    from pydock_core.supervision.client import Streams
    from pydock_core.supervision.logs import LogEntry

# Defined here, because a class with a method "list" cannot name the type list.
Document = dict[str, Any]
Documents = list[dict[str, Any]]
Names = list[str]
Sizes = list[int | None]
Changes = list[dict[str, str]]
Filters = Mapping[str, Sequence[str]]
"""Of a listing or a prune: the values of each key; values of one key are alternatives, keys must all match."""


Output = tuple[str, bytes]
"""A piece of output: "stdout" or "stderr", and the bytes."""


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """A process's end.

    Attributes:
        exit_code: 0 to 255; 128+n if signal n ended it.
        oom_killed: the kernel killed a process of the container because memory ran out.
    """

    exit_code: int
    oom_killed: bool = False


class OutputStream(Protocol):
    """An output of a process.  Several streams may be one, as with a terminal."""

    def fileno(self) -> int:
        """Return a descriptor to wait for with poll(2)."""
        ...

    def read(self) -> Sequence[Output] | None:
        """Return the available output without waiting: nothing at the end, None if there is none yet."""
        ...


class InputStream(Protocol):
    """The standard input of a process."""

    def fileno(self) -> int:
        """Return a descriptor to wait for with poll(2)."""
        ...

    def write(self, data: bytes) -> int:
        """Write without waiting; return the number of bytes written, or all if the process has ended."""
        ...

    def close(self) -> None:
        """End the process's input."""
        ...


class SessionProtocol(Protocol):
    """A container, or an exec'd process in one, with the requested streams.

    A front end waits for the descriptors of the streams and of the session, reads and writes the streams, and calls
    :meth:`wait` when the session's descriptor is readable or the outputs have ended.  Closing a session does not affect
    the process.  Signals and sizes that come too late are ignored.
    """

    terminal: bool
    stdin: InputStream | None
    outputs: Sequence[OutputStream]

    def fileno(self) -> int:
        """Return a descriptor that is readable when the process has ended; -1 if only its outputs show the end."""
        ...

    def signal(self, number: int) -> None: ...

    def resize(self, rows: int, columns: int) -> None: ...

    def wait(self) -> SessionEnd:
        """Wait for the end; afterwards a container can be started again or removed."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> SessionProtocol: ...

    def __exit__(self, *_: object) -> None: ...


class ContainersProtocol(Protocol):
    """See :class:`pydock_core.engine.containers.Containers`."""

    def create(
        self, request: Mapping[str, Any], name: str | None = None, *, any_platform: bool = False
    ) -> tuple[str, Names]: ...

    def unlink(self, link: str) -> None: ...

    def rename(self, reference: str, name: str) -> None: ...

    def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None: ...

    def start(
        self, reference: str, *, attach: Streams | None = None, size: tuple[int, int] = (0, 0)
    ) -> SessionProtocol: ...

    def stop(
        self, reference: str, timeout_seconds: float | None = None, signal: str | None = None
    ) -> None: ...

    def restart(
        self, reference: str, timeout_seconds: float | None = None, signal: str | None = None
    ) -> None: ...

    def kill(self, reference: str, signal: str = "KILL") -> None: ...

    def update(
        self, reference: str, changes: Mapping[str, Any], names: Mapping[str, str] | None = None
    ) -> None: ...

    def pause(self, reference: str) -> None: ...

    def unpause(self, reference: str) -> None: ...

    def wait(self, reference: str, condition: str = "not-running") -> int: ...

    def resolve(self, reference: str) -> str: ...

    def name(self, reference: str) -> str: ...

    def definition(self, reference: str) -> CreateRequest: ...

    def is_running(self, reference: str) -> bool: ...

    def list(
        self,
        all: bool = False,
        filters: Filters | None = None,
        limit: int | None = None,
        size: bool = False,
    ) -> Documents: ...

    def inspect(self, reference: str, size: bool = False) -> Document: ...

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
    ) -> Iterator[LogEntry]: ...

    def attach(self, reference: str, streams: Streams | None = None) -> SessionProtocol: ...

    def exec(
        self, reference: str, request: ExecRequest, *, stdin: bool = False, detach: bool = False
    ) -> SessionProtocol: ...

    def dial(self, reference: str, port: int) -> socket.socket: ...


class ImagesProtocol(Protocol):
    """See :class:`pydock_core.engine.images.Images`."""

    def resolve(self, reference: str) -> ImageRow: ...

    def layers(self, image_id: str) -> Names: ...

    def layer_sizes(self, image_id: str) -> Sizes: ...

    def config(self, image_id: str) -> Document: ...

    def list(self, filters: Filters | None = None, all: bool = False) -> Documents: ...

    def see(self, row: ImageRow) -> SeenImage: ...

    def inspect(self, reference: str) -> Document: ...

    def platform(self, reference: str) -> Platform: ...

    def platform_warnings(self, image_id: str) -> Names: ...

    def require_platform(self, reference: str, platform: str) -> None: ...

    def content_bytes(self, reference: str) -> int: ...

    def history(self, reference: str) -> Documents: ...

    def load(
        self,
        stream: BinaryIO,
        progress: Progress | None = None,
        platform: str | None = None,
        on_taken: OnTaken | None = None,
    ) -> Names: ...

    def import_(
        self,
        stream: BinaryIO,
        reference: str | None = None,
        changes: Sequence[str] = (),
        message: str | None = None,
        progress: Progress | None = None,
        platform: str | None = None,
    ) -> str: ...

    def save(
        self,
        references: Sequence[str],
        stream: BinaryIO,
        progress: Progress | None = None,
        platform: str | None = None,
    ) -> None: ...

    def capture(
        self,
        reference: str | None,
        prefix: Path,
        paths: Sequence[Path] = (),
        progress: Progress | None = None,
    ) -> CaptureResult: ...

    def tag(self, source: str, target: str) -> None: ...

    def remove(self, reference: str, force: bool = False) -> Changes: ...


class NetworksProtocol(Protocol):
    """See :class:`pydock_core.engine.networks.Networks`."""

    def create(self, request: Mapping[str, Any]) -> tuple[str, Names]: ...

    def list(self, filters: Filters | None = None) -> Documents: ...

    def inspect(self, reference: str) -> Document: ...

    def name(self, reference: str) -> str: ...

    def remove(self, reference: str, *, force: bool = False) -> bool: ...

    def prune(self, filters: Filters | None = None) -> Document: ...

    def connect(self, reference: str, container: str, settings: Mapping[str, Any] | None = None) -> None: ...

    def disconnect(self, reference: str, container: str, *, force: bool = False) -> None: ...


class RegistriesProtocol(Protocol):
    """See :class:`pydock_core.engine.registries.Registries`."""

    def pull(
        self,
        reference: str,
        *,
        all_tags: bool = False,
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> list[Pulled]: ...

    def push(
        self,
        reference: str,
        *,
        all_tags: bool = False,
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> list[Pushed]: ...

    def search(self, term: str, *, limit: int = 25, filters: Filters | None = None) -> Documents: ...

    def tags(self, reference: str) -> Names: ...

    def login(self, server: str, username: str, password: str) -> str: ...

    def relogin(self, server: str) -> str | None: ...

    def plain_file(self, server: str) -> Path | None: ...

    def logout(self, server: str) -> bool: ...

    def credentials(self, server: str) -> str | None: ...


class FilesystemsProtocol(Protocol):
    """See :class:`pydock_core.engine.filesystems.Filesystems`."""

    def commit(
        self,
        container: str,
        reference: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        progress: Progress | None = None,
    ) -> str: ...

    def diff(self, container: str) -> Documents: ...

    def file_sizes(self, container: str, paths: Sequence[str]) -> dict[str, int]: ...

    def export(self, container: str, stream: BinaryIO) -> None: ...


@dataclass(frozen=True, slots=True)
class CopyResult:
    """The result of a copy.

    Attributes:
        size_bytes: size of the copied files' content, or of the archive.
        notes: skipped entries, one line each.
    """

    size_bytes: int
    notes: tuple[str, ...] = ()


class CopiesProtocol(Protocol):
    """See :class:`pydock_core.engine.copies.Copies`."""

    def stat(self, container: str, path: str) -> Document: ...

    def copy_out(
        self, container: str, path: str, target: str, *, follow: bool = False, keep_owners: bool = False
    ) -> CopyResult: ...

    def copy_in(
        self, source: str, container: str, path: str, *, follow: bool = False, as_user: bool = False
    ) -> CopyResult: ...

    def read_archive(self, container: str, path: str, stream: BinaryIO) -> CopyResult: ...

    def write_archive(
        self,
        container: str,
        path: str,
        stream: BinaryIO,
        *,
        as_user: bool = False,
        may_replace: bool = True,
    ) -> CopyResult: ...


class ProcessesProtocol(Protocol):
    """See :class:`pydock_core.engine.processes.Processes`."""

    def top(self, reference: str, options: Sequence[str] = ()) -> Document: ...

    def stats(self, reference: str) -> Document: ...


class UsageProtocol(Protocol):
    """See :class:`pydock_core.engine.usage.Usage`."""

    def df(self) -> Document: ...

    def prune_images(
        self, *, all: bool = False, filters: Filters | None = None, progress: Progress | None = None
    ) -> Document: ...

    def prune_containers(
        self, filters: Filters | None = None, progress: Progress | None = None
    ) -> Document: ...


class VolumesProtocol(Protocol):
    """See :class:`pydock_core.engine.volumes.Volumes`."""

    def create(
        self,
        name: str | None = None,
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Document: ...

    def list(self, filters: Filters | None = None) -> Documents: ...

    def inspect(self, name: str) -> Document: ...

    def exists(self, name: str) -> bool: ...

    def remove(self, name: str, *, force: bool = False) -> None: ...

    def prune(self, filters: Filters | None = None) -> Document: ...


class SystemProtocol(Protocol):
    """See :class:`pydock_core.engine.system.System`."""

    def version(self) -> Document: ...

    def info(self) -> Document: ...

    def examine(self) -> list[Check]: ...

    def check(self, *, repair: bool = False) -> list[Finding]: ...

    def start_by_policy(self) -> Iterator[tuple[str, PyDockError | None]]: ...

    def install_restart(self, *, remove: bool = False) -> str: ...


class EventStreamProtocol(Protocol):
    """See :class:`pydock_core.engine.events.EventStream`."""

    def __iter__(self) -> Iterator[Document]: ...

    def close(self) -> None: ...


class ChangesProtocol(Protocol):
    """See :class:`pydock_core.change_watch.ChangeWatch`."""

    def wait(self, timeout_seconds: float | None = None) -> bool: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class EventsProtocol(Protocol):
    """See :class:`pydock_core.engine.events.Events`."""

    def stream(
        self,
        since_ns: int | None = None,
        until_ns: int | None = None,
        filters: Filters | None = None,
    ) -> EventStreamProtocol: ...

    def changes(self) -> ChangesProtocol: ...


class EngineProtocol(Protocol):
    """An engine's images and containers, on this host or another.  Safe to use from several threads."""

    @property
    def containers(self) -> ContainersProtocol: ...

    @property
    def images(self) -> ImagesProtocol: ...

    @property
    def networks(self) -> NetworksProtocol: ...

    @property
    def registries(self) -> RegistriesProtocol: ...

    @property
    def copies(self) -> CopiesProtocol: ...

    @property
    def filesystems(self) -> FilesystemsProtocol: ...

    @property
    def processes(self) -> ProcessesProtocol: ...

    @property
    def events(self) -> EventsProtocol: ...

    @property
    def usage(self) -> UsageProtocol: ...

    @property
    def system(self) -> SystemProtocol: ...

    @property
    def volumes(self) -> VolumesProtocol: ...

    def close(self) -> None:
        """Release this thread's resources; the engine can still be used."""
        ...

    def warm(self) -> None:
        """Prepare for the first container, in the background; never fails."""
        ...
