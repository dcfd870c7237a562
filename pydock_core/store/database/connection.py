"""Opens the database, keeps its schema current, and runs transactions."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from pydock_core.errors import CorruptError, FailedError, NoSpaceError, UnavailableError
from pydock_core.store.database import schema
from pydock_core.store.reserve import RESERVE_BYTES, Reserve, is_short

_FULL_BYTES = 64 << 10
"""With less free space, SQLite may fail to create the files beside the database."""
_UNMADE = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
"""What it is called then."""


class Database:
    """A SQLite database in WAL mode with synchronous=FULL, shared by any number of threads and processes.

    Args:
        path: the database file; its directory exists.
        reserve: released on a full disk, so that verbs that free space succeed.
        signal: a file whose times are set after each committed transaction, which tells watchers of the change
            (inotify(7)).  None to signal no change.

    Raises:
        UnavailableError: the disk is full, or the file cannot be opened.
        CorruptError: the file is not a database, or has a newer version.
    """

    def __init__(self, path: Path, reserve: Reserve | None = None, signal: Path | None = None) -> None:
        self._path = path
        self._reserve = reserve
        self._signal = signal
        self._local = threading.local()

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection, in this process: a forked child opens its own."""
        if not self._is_open():
            try:
                self._keep(self._connect())
            except NoSpaceError:
                if self._reserve is None or not self._reserve.release():
                    raise
                self._local.opened = (os.getpid(), self._connect())
        connection: sqlite3.Connection = self._local.opened[1]
        return connection

    def _is_open(self) -> bool:
        opened: tuple[int, sqlite3.Connection] | None = getattr(self._local, "opened", None)
        return opened is not None and opened[0] == os.getpid()

    def _keep(self, connection: sqlite3.Connection) -> None:
        """Make this the thread's connection, and make a missing reserve, because there is room."""
        self._local.opened = (os.getpid(), connection)
        if self._reserve is not None:
            self._reserve.keep()

    def _connect(self) -> sqlite3.Connection:
        with _mapped(self._path):
            # SQLite would make it with the umask's mode, and makes its WAL with the database's.  Not by open(2):
            # closing a descriptor would give up the locks of this process's other connections (fcntl_locking(2)).
            with suppress(FileExistsError):
                os.mknod(self._path, stat.S_IFREG | 0o600)
            connection = sqlite3.connect(
                self._path, timeout=30.0, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute("PRAGMA foreign_keys=ON")
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version != 0 and version != schema.VERSION and version not in schema.UPGRADES:
                    raise CorruptError(
                        f"state database {self._path} has schema version {version}, this PyDock knows {schema.VERSION}",
                        "use the PyDock that wrote it, or another PYDOCK_ROOT",
                    )
                if version != schema.VERSION:
                    self._bring_up(connection)
            except BaseException:
                connection.close()  # now: its lock would exclude _query_alone
                raise
            return connection

    @staticmethod
    def _bring_up(connection: sqlite3.Connection) -> None:
        """Create or upgrade the schema; one of several processes does it."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version in schema.UPGRADES:
                from pydock_core.store.database.definition_upgrade import (
                    convert,
                )  # late: once in a database's life

                connection.create_function("convert_definition", 1, convert, deterministic=True)
            while version != schema.VERSION:
                for statement in _statements(schema.UPGRADES[version] if version else schema.CREATE):
                    connection.execute(statement)
                version = version + 1 if version else schema.VERSION
            connection.execute(f"PRAGMA user_version={schema.VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise

    def query(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a SELECT, outside any transaction; works on a full disk."""
        with _mapped(self._path):
            if not self._is_open():
                try:
                    self._keep(self._connect())
                except NoSpaceError:
                    # The reserve comes last: a container that is still writing would use it up before it is stopped.
                    with suppress(sqlite3.OperationalError, NoSpaceError):
                        return self._query_alone(statement, parameters)
            return self.connection.execute(statement, parameters).fetchall()

    def _query_alone(self, statement: str, parameters: Sequence[object]) -> list[Any]:
        """Read without the shared-memory file of 32 KiB that a connection needs.

        The locking mode EXCLUSIVE keeps the WAL's index in the heap (wal.html, "Use of WAL Without Shared-Memory").
        The lock is held only for this statement.
        """
        with closing(sqlite3.connect(self._path, timeout=30.0, isolation_level=None)) as connection:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != schema.VERSION:  # without space it cannot be created or upgraded
                raise _no_space(self._path)
            return connection.execute(statement, parameters).fetchall()

    def query_one(self, statement: str, parameters: Sequence[object] = ()) -> Any:
        """Return the first row of a SELECT, None if there is none."""
        rows = self.query(statement, parameters)
        return rows[0] if rows else None

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Run a block as one write transaction; an exception rolls it back.  Do no slow work inside.

        Args:
            durable: sync it to disk.  Otherwise a crash of the machine (not of a process) may undo it, but not earlier
                transactions: pragma.html#pragma_synchronous, NORMAL in WAL mode.
        """
        with _mapped(self._path):
            connection = self.connection
            if self._reserve is not None and is_short(self._path.parent, RESERVE_BYTES):
                self._reserve.release()
            # Set each time: this connection's earlier transaction may have used the other setting.
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise
            if self._signal is not None:
                _touch(self._signal)

    @property
    def has_room(self) -> bool:
        """Whether the disk has room for a transaction without the reserve."""
        return not is_short(self._path.parent, RESERVE_BYTES)

    def close(self) -> None:
        """Close this thread's connection."""
        if self._is_open():
            self._local.opened[1].close()
        self._local.opened = None


def _roll_back(connection: sqlite3.Connection) -> None:
    """Roll back a failed transaction; on a full disk SQLite may have done so already (lang_transaction.html)."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _touch(path: Path) -> None:
    """Set a file's times; make it if it is missing.  A failure is ignored, because the commit is done."""
    try:
        os.utime(path)
    except FileNotFoundError:
        with suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError:
        pass


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements; executescript would commit the surrounding transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _is_full(directory: Path) -> bool:
    try:
        return is_short(directory, _FULL_BYTES, 1)
    except OSError:  # it is not there
        return False


def _no_space(path: Path) -> NoSpaceError:
    return NoSpaceError(
        f"no space left on the disk for the state database {path}",
        "free some space: dock system df, dock rm, dock rmi",
    )


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    """Map SQLite's failures to PyDockError; constraint violations pass through to the caller, which expects them."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or (code in _UNMADE and _is_full(path.parent)):
            raise _no_space(path) from error
        raise UnavailableError(
            f"state database {path}: {error}",
            "check the directory's permissions and free space (dock doctor)",
        ) from error
    except sqlite3.DatabaseError as error:
        raise CorruptError(
            f"state database {path}: {error}", "restore it, or use another PYDOCK_ROOT"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(path) from error
        raise FailedError(f"state database {path}: {error.strerror}", "check the directory") from error
