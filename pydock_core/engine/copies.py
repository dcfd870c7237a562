"""The use cases of copying between the host and containers."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, BinaryIO

from pydock_core.engine.protocol import CopyResult
from pydock_core.engine.stillness import keep_still
from pydock_core.errors import ConflictError, DeniedError, FailedError, InvalidError, NotFoundError
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.spec.definition import Definition, decode
from pydock_core.store.copy_rules import CONTENT, CopyEnd, absolute, names_directory, split_entry
from pydock_core.store.database import containers as table
from pydock_core.store.database.containers import ContainerRow
from pydock_core.store.pipe import stream_end, writing_end
from pydock_core.supervision.client import Zygote
from pydock_core.supervision.logs import format_time

if TYPE_CHECKING:
    from pydock_core.engine.state import State

_MODULE = "pydock_core.store.container_copy"
_MAXIMUM_LINKS = 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Copies:
    """Copies files between the host and containers, running or not; a container is named as in
    :class:`pydock_core.engine.containers.Containers`.

    The rules of paths are Docker's (:mod:`pydock_core.store.copy_rules`).  Paths of a container are resolved within its root
    by a worker that sees its volumes and binds.  Instead of /proc, /sys, /dev and file systems in memory it sees the empty
    directories below them.  Paths of the host are resolved here, with the caller's permissions.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._root = state.root

    def stat(self, container: str, path: str) -> dict[str, Any]:
        """Describe the entry at a path: ContainerPathStat of the Engine API (name, size, mode, mtime, linkTarget).

        Raises:
            NotFoundError: the container or the path does not exist.
        """
        row = table.find(self._state.database, container)
        with self._view(row, container) as (view, _):
            found = self._call("stat_path", {"view": view, "path": _checked(path)})
        return {
            "name": found["name"],
            "size": found["size"],
            "mode": found["mode"],
            "mtime": format_time(found["mtime_ns"]),
            "linkTarget": found["linkTarget"],
        }

    def read_archive(self, container: str, path: str, stream: BinaryIO) -> CopyResult:
        """Write an entry, with all below it, to a stream as a tar archive; the entry has the path's last component as its name.

        Raises:
            NotFoundError: the path does not exist.
            FailedError: the stream's reader has gone.
        """
        row = table.find(self._state.database, container)
        with self._view(row, container) as (view, _), writing_end(stream) as output_fd:
            result = self._call("read_archive", {"view": view, "path": _checked(path)}, output_fd)
        self._record(row, "archive-path", path)
        return _result(result)

    def write_archive(
        self,
        container: str,
        path: str,
        stream: BinaryIO,
        *,
        as_user: bool = False,
        may_replace: bool = True,
    ) -> CopyResult:
        """Extract a tar archive, compressed or not, into a directory of a container.

        Args:
            as_user: the container's user owns the entries; otherwise the owners are those in the archive.
            may_replace: a directory may be replaced by another kind of file, and the reverse.

        Raises:
            NotFoundError: there is no such directory.
            InvalidError: the path is not a directory, or an entry leads out of it.
            CorruptError: the archive is damaged.
            ConflictError: the file system is read-only there.
        """
        row = table.find(self._state.database, container)
        with self._view(row, container) as (view, definition), stream_end(stream) as input_fd:
            arguments = {
                "view": view,
                "path": _checked(path),
                "owner": self._user(row, definition, as_user=as_user),
                "may_replace": may_replace,
            }
            result = self._call("write_archive", arguments, input_fd)
        self._record(row, "extract-to-dir", path)
        return _result(result)

    def copy_out(
        self, container: str, path: str, target: str, *, follow: bool = False, keep_owners: bool = False
    ) -> CopyResult:
        """Copy an entry, with all below it, to the host.

        Args:
            path: path in the container.
            target: path on the host.
            follow: follow a link that is the last component of ``path``.
            keep_owners: keep the owners of the container; otherwise the caller owns the files.

        Raises:
            NotFoundError: the path, or the target's directory, does not exist.
            InvalidError: a directory would replace a file.
        """
        row = table.find(self._state.database, container)
        end, directory_fd = _open_target(target)
        try:
            with self._view(row, container) as (view, _):
                arguments = {
                    "view": view,
                    "path": _checked(path),
                    "follow": follow,
                    "target": asdict(end),
                    "keep_owners": keep_owners,
                }
                result = self._call("copy_out", arguments, directory_fd)
        finally:
            os.close(directory_fd)
        self._record(row, "archive-path", path)
        return _result(result)

    def copy_in(
        self, source: str, container: str, path: str, *, follow: bool = False, as_user: bool = False
    ) -> CopyResult:
        """Copy an entry of the host, with all below it, into a container.

        Args:
            source: path on the host.
            path: path in the container.
            follow: follow a link that is the last component of ``source``.
            as_user: the container's user owns the entries; otherwise the owners are those on the host.

        Raises:
            NotFoundError: the source does not exist, or there is no directory for the target.
            InvalidError: a directory would replace a file.
            ConflictError: the file system is read-only there, or the target is a mount point.
        """
        row = table.find(self._state.database, container)
        end, directory_fd, name = _open_source(source, follow=follow)
        try:
            with self._view(row, container) as (view, definition):
                arguments = {
                    "view": view,
                    "path": _checked(path),
                    "source": asdict(end),
                    "source_name": name,
                    "owner": self._user(row, definition, as_user=as_user),
                }
                result = self._call("copy_in", arguments, directory_fd)
        finally:
            os.close(directory_fd)
        self._record(row, "extract-to-dir", path)
        return _result(result)

    # -- parts -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _view(self, row: ContainerRow, name: str) -> Iterator[tuple[dict[str, Any], Definition]]:
        """Yield a worker's arguments for a view of a container's file system, and the definition."""
        self._state.sweep_once()
        paths = self._root.container(row.id)
        definition = decode(row.definition)
        with keep_still(paths, name, pause=False, hold_unstarted=True) as status:
            view = self._state.launcher.view(row, definition, paths)
            supervisor = None
            if status.is_running:
                try:
                    supervisor = ProcessIdentity.of(status.supervisor_pid).to_json()
                except ProcessLookupError:
                    raise ConflictError(f"container {name} has ended meanwhile", "try again") from None
            yield {"name": name, "supervisor": supervisor, **view}, definition

    def _user(self, row: ContainerRow, definition: Definition, *, as_user: bool) -> list[int] | None:
        if not as_user or not definition.request["User"]:
            return None
        user = self._state.launcher.user(row, definition, definition.request["User"])
        return [user["uid"], user["gid"]]

    def _call(self, function: str, arguments: Mapping[str, Any], *fds: int) -> Any:
        """Call a worker function, for root too: only a separate process may make a mount namespace."""
        return Zygote(self._root).call(f"{_MODULE}:{function}", arguments, fds)

    def _record(self, row: ContainerRow, action: str, path: str) -> None:
        self._state.recorder.container(row, action, path=path)


def _result(document: Mapping[str, Any]) -> CopyResult:
    return CopyResult(int(document["size_bytes"]), tuple(document["notes"]))


def _checked(path: str) -> str:
    if not path:
        raise InvalidError("the path in the container is empty", "write CONTAINER:PATH")
    if "\0" in path:
        raise InvalidError("a path cannot hold a zero byte", "leave it out")
    return path


# -- the host's side -------------------------------------------------------------------------------------


def _open_target(path: str) -> tuple[CopyEnd, int]:
    """Resolve a target on the host; return it and the open directory that receives the copy."""
    given = absolute(path, os.getcwd())
    status: os.stat_result | None = None
    try:
        for _ in range(_MAXIMUM_LINKS):
            status = os.lstat(given)
            if not stat.S_ISLNK(status.st_mode):
                break
            given = absolute(os.readlink(given), split_entry(given)[0])
        else:
            raise InvalidError(f"{path}: there are too many symbolic links", "name another target")
    except FileNotFoundError:
        status = None
    except OSError as error:
        raise _mapped(path, error) from error
    is_dir = status is not None and stat.S_ISDIR(status.st_mode)
    if status is not None and not is_dir and not stat.S_ISREG(status.st_mode):
        raise InvalidError(f"{path} is neither a directory nor a regular file", "name another target")
    directory = given if is_dir else split_entry(given)[0]
    try:
        directory_fd = os.open(directory, _DIRECTORY)
    except FileNotFoundError as error:
        raise NotFoundError(f"directory {directory} does not exist", "make it first") from error
    except OSError as error:
        raise _mapped(directory, error) from error
    return CopyEnd(given, status is not None, is_dir), directory_fd


def _open_source(path: str, *, follow: bool) -> tuple[CopyEnd, int, str]:
    """Resolve a source on the host; return it, its open directory, and its name there."""
    given = absolute(path, os.getcwd())
    renamed = ""
    try:
        if follow:
            real = os.path.realpath(given, strict=True)
            renamed = split_entry(given)[1]
            if names_directory(given):
                real = f"{real}/{CONTENT}" if renamed == CONTENT else f"{real}/"
            given = real
        # Links on the way are followed; the last component's only if the path's spelling means a directory.
        directory, name = (given, CONTENT) if names_directory(given) else split_entry(given)
        directory_fd = os.open(directory, _DIRECTORY)
        try:
            status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        except BaseException:
            os.close(directory_fd)
            raise
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file or directory", "name one that exists") from error
    except OSError as error:
        raise _mapped(path, error) from error
    return CopyEnd(given, True, stat.S_ISDIR(status.st_mode), renamed), directory_fd, name


def _mapped(path: str, error: OSError) -> InvalidError | DeniedError | FailedError:
    if isinstance(error, NotADirectoryError):
        return InvalidError(f"{path}: not a directory", "name another path")
    if isinstance(error, PermissionError):
        return DeniedError(f"{path}: permission denied", "name one that you may read and write")
    return FailedError(f"{path}: {error.strerror}", "name another path")
