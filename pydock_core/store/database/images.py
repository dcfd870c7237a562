"""The SQL of images, their layers and their tags."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pydock_core.store.database import events as event_sql
from pydock_core.store.database.connection import Database
from pydock_core.store.database.events import Event


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of an image.

    Attributes:
        diff_id: digest of the plain tar.
        blob_digest: of the tar as it is stored; the same if it is not compressed.
        media_type: of the blob.
    """

    diff_id: str
    blob_digest: str
    media_type: str


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image.

    Attributes:
        id: digest of the image config.
        manifest_digest, manifest_type: of its manifest; the type is a media type.
        created_ns: of the config, since the epoch.
        size_bytes: contents of all layers.
        labels: the config's Labels, as the JSON text of an object.
        tagged_ns: the time of its last naming on this host, since the epoch; 0 if it never was.
    """

    id: str
    manifest_digest: str
    manifest_type: str
    created_ns: int
    size_bytes: int
    labels: str = "{}"
    tagged_ns: int = 0


@dataclass(frozen=True, slots=True)
class TagRow:
    """A name of an image: ``repository`` is in familiar form."""

    repository: str
    tag: str
    image_id: str

    @property
    def reference(self) -> str:
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class DigestRow:
    """A digest under which a repository (familiar form) has an image."""

    repository: str
    digest: str
    image_id: str

    @property
    def reference(self) -> str:
        return f"{self.repository}@{self.digest}"


def build_event(action: str, image_id: str, labels: object, *, actor: str = "", name: str = "") -> Event:
    """Return an event of an image, with its labels and a name among the attributes, as in Docker.

    Args:
        labels: labels of the image's configuration, which may be of any type.
        actor: Docker's name of the object: the id, or for pull and push the reference.
        name: the image's name; empty for its id.
    """
    texts = {key: str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}
    return Event("image", action, actor or image_id, {**event_sql.bounded(texts), "name": name or image_id})


_COLUMNS = "id, manifest_digest, manifest_type, created_ns, size_bytes, labels, tagged_ns"


def insert(
    database: Database,
    image: ImageRow,
    layers: Sequence[LayerRow],
    tags: Sequence[tuple[str, str]],
    *,
    replace: bool = False,
    event: Event | None = None,
) -> list[TagRow]:
    """Record an image and give it names, taking them from other images.

    Args:
        event: recorded with it.
        replace: replace the manifest and blobs of an existing image; otherwise they are kept.

    Returns:
        The names taken from other images, in their earlier form.
    """
    with database.transaction() as connection:
        if replace:
            connection.execute("DELETE FROM image_layer WHERE image_id = ?", (image.id,))
            connection.execute(
                "UPDATE image SET manifest_digest = ?, manifest_type = ? WHERE id = ?",
                (image.manifest_digest, image.manifest_type, image.id),
            )
        added = connection.execute(
            f"INSERT OR IGNORE INTO image ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                image.id,
                image.manifest_digest,
                image.manifest_type,
                image.created_ns,
                image.size_bytes,
                image.labels,
                image.tagged_ns,
            ),
        ).rowcount
        if added or replace:
            connection.executemany(
                "INSERT INTO image_layer VALUES (?, ?, ?, ?, ?)",
                [
                    (image.id, position, layer.diff_id, layer.blob_digest, layer.media_type)
                    for position, layer in enumerate(layers)
                ],
            )
        taken = []
        for repository, tag in tags:
            had = connection.execute(
                "SELECT repository, tag, image_id FROM tag WHERE repository = ? AND tag = ? AND image_id != ?",
                (repository, tag, image.id),
            ).fetchone()
            if had is not None:
                taken.append(TagRow(*had))
            _set_tag(connection, repository, tag, image.id)
        if event is not None:
            event_sql.record(connection, event)
        return taken


def has_layer(database: Database, diff_id: str, blob_digest: str) -> bool:
    """Whether an image has a layer with this blob."""
    return bool(
        database.query_one(
            "SELECT 1 FROM image_layer WHERE diff_id = ? AND blob_digest = ?", (diff_id, blob_digest)
        )
    )


def with_layers(database: Database, diff_ids: Sequence[str]) -> list[str]:
    """Return the ids of the images with exactly these layers (at least one), bottom first."""
    rows = database.query(
        "SELECT image_id, diff_id FROM image_layer WHERE image_id IN "
        "(SELECT image_id FROM image_layer WHERE diff_id = ? AND position = ?) ORDER BY image_id, position",
        (diff_ids[-1], len(diff_ids) - 1),
    )
    found: dict[str, list[str]] = {}
    for image_id, diff_id in rows:
        found.setdefault(image_id, []).append(diff_id)
    return [image_id for image_id, layers in found.items() if layers == list(diff_ids)]


def without_labels(database: Database) -> list[str]:
    """Return the ids of images without recorded labels, from an earlier version."""
    return [row[0] for row in database.query("SELECT id FROM image WHERE labels = ''")]


def set_labels(database: Database, image_id: str, labels: str) -> None:
    """Record an image's labels, the JSON text of an object."""
    with database.transaction() as connection:
        connection.execute("UPDATE image SET labels = ? WHERE id = ?", (labels, image_id))


def set_tag(database: Database, repository: str, tag: str, image_id: str, event: Event | None = None) -> bool:
    """Give an image a name, taking it from another image; return False if the image is gone.

    Args:
        event: recorded with it.
    """
    with database.transaction() as connection:
        if connection.execute("SELECT 1 FROM image WHERE id = ?", (image_id,)).fetchone() is None:
            return False
        _set_tag(connection, repository, tag, image_id)
        if event is not None:
            event_sql.record(connection, event)
        return True


def _set_tag(connection: sqlite3.Connection, repository: str, tag: str, image_id: str) -> None:
    connection.execute(
        "INSERT INTO tag VALUES (?, ?, ?) "
        "ON CONFLICT (repository, tag) DO UPDATE SET image_id = excluded.image_id",
        (repository, tag, image_id),
    )
    connection.execute("UPDATE image SET tagged_ns = ? WHERE id = ?", (time.time_ns(), image_id))


def all_images(database: Database) -> list[ImageRow]:
    """Return every image, the newest first."""
    rows = database.query(f"SELECT {_COLUMNS} FROM image ORDER BY created_ns DESC, rowid DESC")
    return [ImageRow(*row) for row in rows]


def all_tags(database: Database) -> list[TagRow]:
    """Return every tag, by name."""
    rows = database.query("SELECT repository, tag, image_id FROM tag ORDER BY repository, tag")
    return [TagRow(*row) for row in rows]


def tags_by_image(database: Database) -> dict[str, list[TagRow]]:
    """Return the names of all images that have any, by image id."""
    found: dict[str, list[TagRow]] = {}
    for tag in all_tags(database):
        found.setdefault(tag.image_id, []).append(tag)
    return found


def tags_of(database: Database, image_id: str) -> list[TagRow]:
    """Return the names of an image."""
    rows = database.query(
        "SELECT repository, tag, image_id FROM tag WHERE image_id = ? ORDER BY repository, tag", (image_id,)
    )
    return [TagRow(*row) for row in rows]


def digests_by_image(database: Database) -> dict[str, list[DigestRow]]:
    """Return the repository digests of all images that have any, by image id."""
    found: dict[str, list[DigestRow]] = {}
    rows = database.query(
        "SELECT repository, digest, image_id FROM repository_digest ORDER BY repository, digest"
    )
    for row in rows:
        digest = DigestRow(*row)
        found.setdefault(digest.image_id, []).append(digest)
    return found


def digests_of(database: Database, image_id: str) -> list[DigestRow]:
    """Return the repository digests of an image."""
    rows = database.query(
        "SELECT repository, digest, image_id FROM repository_digest WHERE image_id = ? "
        "ORDER BY repository, digest",
        (image_id,),
    )
    return [DigestRow(*row) for row in rows]


def by_id(database: Database, image_id: str) -> ImageRow | None:
    """Return the image with this full id."""
    row = database.query_one(f"SELECT {_COLUMNS} FROM image WHERE id = ?", (image_id,))
    return ImageRow(*row) if row else None


def by_id_prefix(database: Database, hexadecimal: str) -> list[ImageRow]:
    """Return at most two images whose id begins with these hexadecimal digits, which the caller has checked."""
    rows = database.query(
        f"SELECT {_COLUMNS} FROM image WHERE id >= ? AND id < ? LIMIT 2",
        (f"sha256:{hexadecimal}", f"sha256:{hexadecimal}g"),
    )
    return [ImageRow(*row) for row in rows]


def by_tag(database: Database, repository: str, tag: str) -> ImageRow | None:
    """Return the image that has a name."""
    row = database.query_one(
        f"SELECT {_COLUMNS} FROM image "
        "WHERE id = (SELECT image_id FROM tag WHERE repository = ? AND tag = ?)",
        (repository, tag),
    )
    return ImageRow(*row) if row else None


def by_digest(database: Database, repository: str, digest: str) -> ImageRow | None:
    """Return the image with a digest in a repository, or with this manifest and a name in the repository."""
    row = database.query_one(
        f"SELECT {_COLUMNS} FROM image "
        "WHERE id = (SELECT image_id FROM repository_digest WHERE repository = ? AND digest = ?)",
        (repository, digest),
    ) or database.query_one(
        f"SELECT {_COLUMNS} FROM image WHERE manifest_digest = ? "
        "AND id IN (SELECT image_id FROM tag WHERE repository = ?)",
        (digest, repository),
    )
    return ImageRow(*row) if row else None


def layers_of(database: Database, image_id: str) -> list[LayerRow]:
    """Return an image's layers, bottom first."""
    rows = database.query(
        "SELECT diff_id, blob_digest, media_type FROM image_layer WHERE image_id = ? ORDER BY position",
        (image_id,),
    )
    return [LayerRow(*row) for row in rows]


def layers_by_image(database: Database) -> dict[str, list[LayerRow]]:
    """Return the layers of all images, bottom first, by image id."""
    found: dict[str, list[LayerRow]] = {}
    rows = database.query(
        "SELECT image_id, diff_id, blob_digest, media_type FROM image_layer ORDER BY image_id, position"
    )
    for image_id, *layer in rows:
        found.setdefault(image_id, []).append(LayerRow(*layer))
    return found


def containers_of(database: Database, image_id: str) -> list[str]:
    """Return the full ids of the containers made from an image, and of those that mount it."""
    rows = database.query(
        "SELECT id FROM container WHERE image_id = ?1 "
        "UNION SELECT container_id FROM mounted_image WHERE image_id = ?1",
        (image_id,),
    )
    return [row[0] for row in rows]


def container_counts(database: Database) -> dict[str, int]:
    """Return the number of containers of each image that has any."""
    return dict(database.query("SELECT image_id, count(*) FROM container GROUP BY image_id"))


def delete_names(
    database: Database,
    tags: Sequence[TagRow],
    digests: Sequence[DigestRow] = (),
    events: Sequence[Event] = (),
) -> None:
    """Remove names and repository digests that still belong to the same image; record events with it."""
    with database.transaction() as connection:
        _delete_names(connection, tags, digests)
        event_sql.record(connection, *events)


def delete_unused(
    database: Database,
    image_id: str,
    tags: Sequence[TagRow],
    digests: Sequence[DigestRow] = (),
    events: Sequence[Event] = (),
) -> bool:
    """Delete names, and the image if it then has no other name or digest and no container.

    A container is recorded in a transaction that checks for its image (containers.py), so one of the two comes first:
    either the image of a new container stays, or the container is not created.

    Args:
        events: recorded with it.

    Returns:
        whether the image was deleted; if not, nothing was changed.
    """
    with database.transaction() as connection:
        uses = (
            "SELECT 1 FROM container WHERE image_id = ?1 "
            "UNION SELECT 1 FROM mounted_image WHERE image_id = ?1"
        )
        if connection.execute(uses, (image_id,)).fetchone():
            return False
        going = {(tag.repository, tag.tag) for tag in tags}
        going |= {(row.repository, row.digest) for row in digests}
        names = connection.execute(
            "SELECT repository, tag FROM tag WHERE image_id = ?1 "
            "UNION ALL SELECT repository, digest FROM repository_digest WHERE image_id = ?1",
            (image_id,),
        )
        if any(tuple(name) not in going for name in names.fetchall()):
            return False
        _delete_names(connection, tags, digests)
        if not connection.execute("DELETE FROM image WHERE id = ?", (image_id,)).rowcount:
            return False
        event_sql.record(connection, *events)
        return True


def _delete_names(
    connection: sqlite3.Connection, tags: Sequence[TagRow], digests: Sequence[DigestRow]
) -> None:
    connection.executemany(
        "DELETE FROM tag WHERE repository = ? AND tag = ? AND image_id = ?",
        [(tag.repository, tag.tag, tag.image_id) for tag in tags],
    )
    connection.executemany(
        "DELETE FROM repository_digest WHERE repository = ? AND digest = ? AND image_id = ?",
        [(row.repository, row.digest, row.image_id) for row in digests],
    )


def referred_blobs(database: Database) -> set[str]:
    """Return the digests of all blobs that an image needs: configs, manifests and layers."""
    rows = database.query(
        "SELECT id FROM image UNION SELECT manifest_digest FROM image "
        "UNION SELECT blob_digest FROM image_layer"
    )
    return {row[0] for row in rows}


def referred_layers(database: Database) -> set[str]:
    """Return the diff ids that an image needs."""
    return {row[0] for row in database.query("SELECT DISTINCT diff_id FROM image_layer")}
