"""The SQL of what is known about registries: digests of images there, compressed forms, places of blobs, leases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydock_core.store.database.connection import Database


@dataclass(frozen=True, slots=True)
class LayerForm:
    """What a plain layer becomes when it is compressed; compression is deterministic, so it can be known before.

    Attributes:
        media_type, digest: of the compressed blob.
        size_bytes: of the compressed blob.
    """

    media_type: str
    digest: str
    size_bytes: int


# -- digests of images in repositories -------------------------------------------------------------------


def add_repository_digest(database: Database, repository: str, digest: str, image_id: str) -> None:
    """Record that ``repository`` (familiar form) has an image under a digest; an image that has gone gets none."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO repository_digest SELECT ?, ?, id FROM image WHERE id = ?",
            (repository, digest, image_id),
        )


def repository_digests(database: Database) -> dict[str, list[str]]:
    """Return "REPOSITORY@DIGEST" of all images that have any, by image id."""
    found: dict[str, list[str]] = {}
    rows = database.query(
        "SELECT image_id, repository, digest FROM repository_digest ORDER BY repository, digest"
    )
    for image_id, repository, digest in rows:
        found.setdefault(image_id, []).append(f"{repository}@{digest}")
    return found


def repository_digests_of(database: Database, image_id: str) -> list[str]:
    """Return "REPOSITORY@DIGEST" of one image."""
    rows = database.query(
        "SELECT repository, digest FROM repository_digest WHERE image_id = ? ORDER BY repository, digest",
        (image_id,),
    )
    return [f"{repository}@{digest}" for repository, digest in rows]


def delete_repository_digests(database: Database, image_id: str, repository: str) -> list[str]:
    """Forget under what digests a repository has an image; return them as "REPOSITORY@DIGEST"."""
    with database.transaction() as connection:
        rows = connection.execute(
            "DELETE FROM repository_digest WHERE image_id = ? AND repository = ? RETURNING digest",
            (image_id, repository),
        ).fetchall()
    return [f"{repository}@{digest}" for (digest,) in rows]


# -- compressed forms and places -------------------------------------------------------------------------


def layer_form(database: Database, diff_id: str, media_type: str) -> LayerForm | None:
    """Return what a layer was when it was last compressed to ``media_type``."""
    row = database.query_one(
        "SELECT media_type, digest, size_bytes FROM layer_form WHERE diff_id = ? AND media_type = ?",
        (diff_id, media_type),
    )
    return LayerForm(*row) if row else None


def set_layer_form(database: Database, diff_id: str, form: LayerForm) -> None:
    """Record what a layer is when it is compressed."""
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
    """Forget that a repository has a blob: it was not there when it was asked for."""
    with database.transaction(durable=False) as connection:
        connection.execute(
            "DELETE FROM blob_place WHERE digest = ? AND domain = ? AND path = ?", (digest, domain, path)
        )


# -- leases ----------------------------------------------------------------------------------------------


def lease(database: Database, digests: Sequence[str], expires_ns: int) -> None:
    """Keep blobs and layers from collectors until a time, since the epoch; a later one replaces an earlier one."""
    with database.transaction() as connection:
        connection.executemany(
            "INSERT INTO lease VALUES (?, ?) ON CONFLICT (digest) DO UPDATE "
            "SET expires_ns = max(expires_ns, excluded.expires_ns)",
            [(digest, expires_ns) for digest in digests],
        )


def leased(database: Database, now_ns: int) -> set[str]:
    """Return the digests that are kept at a time."""
    return {row[0] for row in database.query("SELECT digest FROM lease WHERE expires_ns > ?", (now_ns,))}


def release(database: Database, digests: Sequence[str]) -> None:
    """End leases."""
    with database.transaction() as connection:
        connection.executemany("DELETE FROM lease WHERE digest = ?", [(digest,) for digest in digests])


def release_all(database: Database) -> None:
    """End every lease: what interrupted pulls have is garbage then."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM lease")


def forget_unused(database: Database) -> None:
    """Drop what is known of layers and blobs that no image has any more."""
    with database.transaction(durable=False) as connection:
        connection.execute("DELETE FROM layer_form WHERE diff_id NOT IN (SELECT diff_id FROM image_layer)")
        connection.execute(
            "DELETE FROM blob_place WHERE digest NOT IN (SELECT blob_digest FROM image_layer) "
            "AND digest NOT IN (SELECT digest FROM layer_form)"
        )
