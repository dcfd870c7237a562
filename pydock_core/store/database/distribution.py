"""SQL for registries: digests of images, compressed layers, locations of blobs, and leases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydock_core.store.database import events
from pydock_core.store.database.connection import Database
from pydock_core.store.database.events import Event


@dataclass(frozen=True, slots=True)
class LayerForm:
    """The compressed form of a plain layer; compression is deterministic, so the form is known in advance.

    Attributes:
        media_type, digest: of the compressed blob.
        size_bytes: of the compressed blob.
    """

    media_type: str
    digest: str
    size_bytes: int


# -- digests of images in repositories -------------------------------------------------------------------


def add_repository_digest(
    database: Database, repository: str, digest: str, image_id: str, event: Event | None = None
) -> bool:
    """Record that ``repository`` (familiar form) has an image under a digest; return False if the image is gone.

    Args:
        event: the event of the pull or push.
    """
    with database.transaction() as connection:
        if not connection.execute(
            "INSERT OR REPLACE INTO repository_digest SELECT ?, ?, id FROM image WHERE id = ?",
            (repository, digest, image_id),
        ).rowcount:
            return False
        if event is not None:
            events.record(connection, event)
        return True


# -- compressed forms and places -------------------------------------------------------------------------


def layer_form(database: Database, diff_id: str, media_type: str) -> LayerForm | None:
    """Return a layer's last compressed form of ``media_type``."""
    row = database.query_one(
        "SELECT media_type, digest, size_bytes FROM layer_form WHERE diff_id = ? AND media_type = ?",
        (diff_id, media_type),
    )
    return LayerForm(*row) if row else None


def is_form(database: Database, diff_id: str, digest: str) -> bool:
    """Whether a layer was once compressed to a blob of this digest."""
    return bool(
        database.query_one("SELECT 1 FROM layer_form WHERE diff_id = ? AND digest = ?", (diff_id, digest))
    )


def set_layer_form(database: Database, diff_id: str, form: LayerForm) -> None:
    """Record a layer's compressed form."""
    with database.transaction(durable=False) as connection:
        connection.execute(
            "INSERT OR REPLACE INTO layer_form VALUES (?, ?, ?, ?)",
            (diff_id, form.media_type, form.digest, form.size_bytes),
        )


def blob_places(database: Database, digest: str, domain: str) -> list[str]:
    """Return the repository paths of a registry in which a blob was seen."""
    rows = database.query("SELECT path FROM blob_place WHERE digest = ? AND domain = ?", (digest, domain))
    return [row[0] for row in rows]


def add_blob_places(database: Database, digests: Iterable[str], domain: str, path: str) -> None:
    """Record that a repository has these blobs."""
    with database.transaction(durable=False) as connection:
        connection.executemany(
            "INSERT OR IGNORE INTO blob_place VALUES (?, ?, ?)",
            [(digest, domain, path) for digest in digests],
        )


def delete_blob_place(database: Database, digest: str, domain: str, path: str) -> None:
    """Delete the record that a repository has a blob, because the repository has denied it."""
    with database.transaction(durable=False) as connection:
        connection.execute(
            "DELETE FROM blob_place WHERE digest = ? AND domain = ? AND path = ?", (digest, domain, path)
        )


# -- leases ----------------------------------------------------------------------------------------------


def lease(database: Database, owner: str, digests: Sequence[str], expires_ns: int) -> None:
    """Protect blobs and layers from collectors until a time, since the epoch; a later lease replaces an earlier one.

    Args:
        owner: of the lease; other owners may lease the same digests.
    """
    with database.transaction() as connection:
        connection.executemany(
            "INSERT INTO lease VALUES (?, ?, ?) ON CONFLICT (owner, digest) DO UPDATE "
            "SET expires_ns = max(expires_ns, excluded.expires_ns)",
            [(owner, digest, expires_ns) for digest in digests],
        )


def leased(database: Database, now_ns: int, *, abandoned: str = "") -> set[str]:
    """Return the digests that are leased at a time, by any owner except ``abandoned``."""
    rows = database.query("SELECT digest FROM lease WHERE expires_ns > ? AND owner <> ?", (now_ns, abandoned))
    return {row[0] for row in rows}


def release(database: Database, owner: str) -> None:
    """End an owner's leases."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM lease WHERE owner = ?", (owner,))


def release_all(database: Database) -> None:
    """End every lease: the parts of interrupted pulls become garbage."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM lease")


def forget_unused(database: Database) -> None:
    """Delete the records of layers and blobs that no image has any more."""
    with database.transaction(durable=False) as connection:
        connection.execute("DELETE FROM layer_form WHERE diff_id NOT IN (SELECT diff_id FROM image_layer)")
        connection.execute(
            "DELETE FROM blob_place WHERE digest NOT IN (SELECT blob_digest FROM image_layer) "
            "AND digest NOT IN (SELECT digest FROM layer_form)"
        )
