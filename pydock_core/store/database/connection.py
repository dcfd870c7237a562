"""Opens the database, keeps its schema current, and runs transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydock_core.errors import CorruptError, FailedError, NoSpaceError, UnavailableError

SCHEMA_VERSION = 3

_SCHEMA = """
CREATE TABLE image (            -- one row per image config, the id is the config blob's digest
    id TEXT PRIMARY KEY,        -- "sha256:..."
    manifest_digest TEXT NOT NULL,
    manifest_type TEXT NOT NULL, -- its media type
    created_ns INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, -- contents of all layers
    labels TEXT NOT NULL        -- JSON object: the config's, so that a listing reads no config
) STRICT;
CREATE TABLE image_layer (
    image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,  -- 0 is the bottom
    diff_id TEXT NOT NULL,
    blob_digest TEXT NOT NULL,  -- as stored, maybe compressed
    media_type TEXT NOT NULL,
    PRIMARY KEY (image_id, position)
) STRICT;
CREATE INDEX image_layer_diff ON image_layer(diff_id);
CREATE TABLE tag (
    repository TEXT NOT NULL,   -- familiar form: "busybox", "ghcr.io/a/b"
    tag TEXT NOT NULL,
    image_id TEXT NOT NULL REFERENCES image(id),
    PRIMARY KEY (repository, tag)
) STRICT;
CREATE INDEX tag_image ON tag(image_id);
CREATE TABLE repository_digest ( -- under what digest a repository has an image: after a pull or a push
    repository TEXT NOT NULL,   -- familiar form
    digest TEXT NOT NULL,       -- of the manifest, or of the index that it was chosen from
    image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
    PRIMARY KEY (repository, digest)
) STRICT;
CREATE INDEX repository_digest_image ON repository_digest(image_id);
CREATE TABLE layer_form (       -- what a plain layer becomes when it is compressed for a push
    diff_id TEXT NOT NULL,
    media_type TEXT NOT NULL,
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (diff_id, media_type)
) STRICT;
CREATE TABLE blob_place (       -- where a blob was seen, for mounting it across repositories
    digest TEXT NOT NULL,
    domain TEXT NOT NULL,
    path TEXT NOT NULL,
    PRIMARY KEY (digest, domain, path)
) STRICT;
CREATE TABLE lease (            -- what an interrupted pull has, kept so that it can go on
    digest TEXT PRIMARY KEY,    -- of a blob, or a diff id
    expires_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE container (
    id TEXT PRIMARY KEY,        -- 64 hexadecimal digits
    name TEXT NOT NULL UNIQUE,
    image_id TEXT NOT NULL,     -- kept while the container is there
    created_ns INTEGER NOT NULL,
    config TEXT NOT NULL        -- JSON of ContainerConfig
) STRICT;
CREATE INDEX container_image ON container(image_id);
CREATE TABLE network (          -- bridge networks; what lives of them is on the host
    name TEXT PRIMARY KEY,
    bridge TEXT NOT NULL,       -- the host's device
    subnet TEXT NOT NULL        -- "172.30.0.0/16"; the first address is the bridge's
) STRICT;
CREATE TABLE address (          -- addresses on bridge networks, given out at start
    network TEXT NOT NULL,
    address TEXT NOT NULL,
    container_id TEXT NOT NULL,
    PRIMARY KEY (network, address)
) STRICT;
CREATE TABLE volume (
    name TEXT PRIMARY KEY,
    created_ns INTEGER NOT NULL,
    anonymous INTEGER NOT NULL  -- 1: made for one container, and removed with it by rm -v or --rm
) STRICT;
CREATE TABLE container_volume (
    container_id TEXT NOT NULL REFERENCES container(id) ON DELETE CASCADE,
    volume TEXT NOT NULL,
    PRIMARY KEY (container_id, volume)
) STRICT;
"""


class Database:
    """A SQLite database in WAL mode with synchronous=FULL, shared by any number of threads and processes.

    Args:
        path: the database file; its directory exists.

    Raises:
        UnavailableError: the disk is full, or the file cannot be opened.
        CorruptError: the file is not a database, or one of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection (of this process: a forked child opens its own)."""
        opened: tuple[int, sqlite3.Connection] | None = getattr(self._local, "opened", None)
        if opened is None or opened[0] != os.getpid():
            opened = (os.getpid(), self._open())
            self._local.opened = opened
        return opened[1]

    def _open(self) -> sqlite3.Connection:
        with _mapped(self._path):
            connection = sqlite3.connect(
                self._path, timeout=30.0, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._create(connection)
            elif version != SCHEMA_VERSION:
                raise CorruptError(
                    f"state database {self._path} has schema version {version}, this PyDock knows {SCHEMA_VERSION}",
                    "use the PyDock that wrote it, or another PYDOCK_ROOT",
                )
            return connection

    @staticmethod
    def _create(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _statements(_SCHEMA):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def query(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a SELECT, outside any transaction."""
        with _mapped(self._path):
            return self.connection.execute(statement, parameters).fetchall()

    def query_one(self, statement: str, parameters: Sequence[object] = ()) -> Any:
        """Return the first row of a SELECT, None where there is none."""
        rows = self.query(statement, parameters)
        return rows[0] if rows else None

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Run a block as one write transaction; an exception rolls it back.  No slow work inside.

        Args:
            durable: on disk when it returns.  Otherwise a crash of the machine (not of a process) may undo it, and
                what comes before it stays whole: pragma.html#pragma_synchronous, NORMAL in WAL mode.
        """
        with _mapped(self._path):
            connection = self.connection
            # Said each time: this connection's earlier transaction may have been of the other kind.
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close this thread's connection."""
        opened = getattr(self._local, "opened", None)
        if opened is not None and opened[0] == os.getpid():
            opened[1].close()
        self._local.opened = None


def _statements(script: str) -> Iterator[str]:
    """Split a script; executescript would commit the transaction that it is to be part of."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    """Turn SQLite's own failures into ours; constraint violations pass through to the caller that expects them."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            raise NoSpaceError(
                f"no space left on the disk for the state database {path}",
                "free some space: dock system df, dock rmi",
            ) from error
        raise UnavailableError(
            f"state database {path}: {error}",
            "check the directory's permissions and free space (dock doctor)",
        ) from error
    except sqlite3.DatabaseError as error:
        raise CorruptError(
            f"state database {path}: {error}", "restore it, or use another PYDOCK_ROOT"
        ) from error
    except OSError as error:
        raise FailedError(f"state database {path}: {error.strerror}", "check the directory") from error
