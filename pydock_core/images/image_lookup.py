"""Looks up images in the store by name, id or id prefix, as Docker does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydock_core.errors import ConflictError, InvalidError, NotFoundError
from pydock_core.images.image_store import ImageStore
from pydock_core.oci.digest import is_digest
from pydock_core.oci.reference import Reference, parse_reference, parse_tagged
from pydock_core.store.database import images as sql
from pydock_core.store.database.connection import Database
from pydock_core.store.database.images import ImageRow

if TYPE_CHECKING:
    from pydock_core.images.archive_writer import ImageToSave

_ID_PREFIX = re.compile(r"[0-9a-f]{1,64}")


def find_image(database: Database, reference: str) -> ImageRow:
    """Return the image with a name, a full id or a unique id prefix.

    Raises:
        NotFoundError: there is none.
        ConflictError: the prefix matches several images.
        InvalidError: the reference is neither an id nor a name.
    """
    row = _by_id(database, reference) or _by_name(database, reference)
    if row is None:
        others = _other_tags(database, reference)
        raise NotFoundError(
            f"no such image: {reference}",
            f"there is {', '.join(others)}; dock images lists all"
            if others
            else "dock images lists the images; dock pull, dock load and dock image capture get more",
        )
    return row


def _other_tags(database: Database, text: str) -> list[str]:
    """Return a few of the names of images in the repository of a name."""
    try:
        repository = parse_reference(text).repository
    except InvalidError:
        return []
    tags = [tag.reference for tag in sql.all_tags(database) if tag.repository == repository]
    return [parse_tagged(name).familiar for name in tags[:3]]


def _by_name(database: Database, text: str) -> ImageRow | None:
    if text.startswith("sha256:"):
        return None
    try:
        reference = parse_reference(text).with_default_tag()
    except InvalidError:
        if _ID_PREFIX.fullmatch(text):
            return None  # 64 digits: an id, not a name
        raise
    if reference.digest:
        return sql.by_digest(database, reference.repository, reference.digest)
    return sql.by_tag(database, reference.repository, reference.tag)


def _by_id(database: Database, text: str) -> ImageRow | None:
    if is_digest(text):
        return sql.by_id(database, text)
    hexadecimal = text.removeprefix("sha256:")
    if not _ID_PREFIX.fullmatch(hexadecimal):
        return None
    if hexadecimal == text and (row := _by_name(database, text)) is not None:
        return row  # as in Docker: a name takes precedence over an id prefix
    rows = sql.by_id_prefix(database, hexadecimal)
    if len(rows) > 1:
        raise ConflictError(f"image id prefix {text} matches several images", "give more of its digits")
    return rows[0] if rows else None


def find_to_save(store: ImageStore, references: Sequence[str], platform: str | None) -> Sequence[ImageToSave]:
    """Return the images to save, each with its names in the archive; inside :meth:`ImageStore.reading`.

    Args:
        references: see :meth:`pydock_core.engine.images.Images.save`.
        platform: "os[/arch[/variant]]" that each image must be for; any if None.

    Raises:
        PyDockError: as in :func:`find_image`; NotFoundError also for another platform.
    """
    from pydock_core.images.archive_writer import ImageToSave  # late: most lookups are not for an archive

    names: dict[str, dict[Reference, None]] = {}
    for text in references:
        for row, reference in _find_named(store.database, text):
            if platform:
                store.require_platform(row.id, reference.familiar if reference else text, platform)
            names.setdefault(row.id, {}).update({reference: None} if reference else {})
    found = []
    for image_id, references_in_archive in names.items():
        row, layers = store.whole(image_id)
        found.append(
            ImageToSave(
                row.id, row.manifest_digest, row.manifest_type, tuple(layers), tuple(references_in_archive)
            )
        )
    return found


def _find_named(database: Database, text: str) -> Sequence[tuple[ImageRow, Reference | None]]:
    """Return the images of an argument of ``save``, each with its name in the archive."""
    try:
        # "sha256:..." would be a repository of that name.
        reference = None if text.startswith("sha256:") else parse_reference(text)
    except InvalidError:
        reference = None
    if reference is None:
        return [(find_image(database, text), None)]
    if not reference.tag and not reference.digest:
        tags = [tag for tag in sql.all_tags(database) if tag.repository == reference.repository]
        if tags:
            return [(find_image(database, tag.reference), parse_tagged(tag.reference)) for tag in tags]
    row = find_image(database, text)
    is_named = bool(reference.tag) and not reference.digest
    return [(row, reference if is_named else None)]
