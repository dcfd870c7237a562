"""The removal of images and of their names, by Docker's rules."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydock_core.errors import ConflictError, InvalidError
from pydock_core.images.image_store import ImageStore
from pydock_core.oci.digest import short_id
from pydock_core.oci.reference import parse_reference
from pydock_core.store.database import images as sql
from pydock_core.store.database.containers import names_of
from pydock_core.store.database.events import Event
from pydock_core.store.database.images import DigestRow, ImageRow, TagRow

Changes = list[dict[str, str]]
"""{"Untagged": NAME} and {"Deleted": DIGEST} in order (Engine API, ImageDeleteResponseItem)."""
NameRow = TagRow | DigestRow


def remove_image(store: ImageStore, row: ImageRow, reference: str, *, force: bool) -> Changes:
    """Remove a name; with the last one, or by id, remove the image with the parts that no other image needs.

    An image that a container uses keeps its last name unless ``force`` is set, and is itself kept as long as the container
    exists.  An image with several names is removed by id only with ``force``, and never while a running container uses it.

    Args:
        row: the image.
        reference: its name or id, as given.

    Raises:
        ConflictError: a container uses the image, or it has several names.
    """
    store.sweep()
    database = store.database
    tags = sql.tags_of(database, row.id)
    digests = sql.digests_of(database, row.id)
    named = _find_name(reference, tags, digests)
    going_tags, going_digests = _names_to_remove(named, tags, digests)
    names: tuple[NameRow, ...] = (*tags, *digests)
    used_by = sql.containers_of(database, row.id)
    if named is not None and (len(going_tags) < len(tags) or len(going_digests) < len(digests)):
        return _untag(store, row, going_tags, going_digests)
    running = named is None and next((user for user in used_by if _is_running(store, user)), "")
    if running:
        (name,) = names_of(database, [running])
        raise ConflictError(
            f"cannot remove image {short_id(row.id)}: container {name} runs from it",
            f"stop the container first: dock stop {name}",
        )
    if used_by and not (force and names):
        subject = f"image {short_id(row.id)}" if named is None else f"name {reference}"
        users = names_of(database, used_by)
        raise ConflictError(
            f"cannot remove {subject}: container {users[0]} uses image {short_id(row.id)}",
            f"remove its containers first: dock rm -f {' '.join(users)}"
            + ("" if named is None else "; or use rmi -f, which removes only the name"),
        )
    if named is None and not force and len({name.repository for name in names}) > 1:
        raise ConflictError(
            f"image {short_id(row.id)} has names in several repositories",
            "remove it by its names, or with -f: " + ", ".join(name.reference for name in names),
        )
    if used_by:
        return _untag(store, row, going_tags, going_digests)
    changes = discard_image(store, row, going_tags, going_digests)
    store.collect()
    return changes


def discard_image(
    store: ImageStore, row: ImageRow, tags: Sequence[TagRow], digests: Sequence[DigestRow]
) -> Changes:
    """Remove the last names of an image, and its row; its parts are removed by the next collecting.

    Raises:
        ConflictError: a container was made from the image just now, or it got another name.
    """
    layers = sql.layers_of(store.database, row.id)
    events = [*_untag_events(row, tags), sql.build_event("delete", row.id, json.loads(row.labels or "{}"))]
    if not sql.delete_unused(store.database, row.id, tags, digests, events):
        raise ConflictError(f"image {short_id(row.id)} was used or named just now", "try again")
    store.refresh_index()
    kept = sql.referred_layers(store.database)
    gone = [layer.diff_id for layer in reversed(layers) if layer.diff_id not in kept]
    return [
        *_untagged(tags, digests),
        {"Deleted": row.id},
        *({"Deleted": diff_id} for diff_id in dict.fromkeys(gone)),
    ]


def _find_name(reference: str, tags: Sequence[TagRow], digests: Sequence[DigestRow]) -> NameRow | None:
    """Return the name in ``reference``; None if it is an id."""
    try:
        name = parse_reference(reference).with_default_tag()
    except InvalidError:
        return None
    rows: Sequence[NameRow] = digests if name.digest else tags
    return next(
        (
            row
            for row in rows
            if row.repository == name.repository
            and (row.digest if isinstance(row, DigestRow) else row.tag) == (name.digest or name.tag)
        ),
        None,
    )


def _names_to_remove(
    named: NameRow | None, tags: Sequence[TagRow], digests: Sequence[DigestRow]
) -> tuple[Sequence[TagRow], Sequence[DigestRow]]:
    """Return the names to remove: with a repository's last tag, its digests too; by id, all."""
    if named is None:
        return tags, digests
    if isinstance(named, DigestRow):
        return (), (named,)
    if any(tag != named and tag.repository == named.repository for tag in tags):
        return (named,), ()
    return (named,), [digest for digest in digests if digest.repository == named.repository]


def _untag(store: ImageStore, row: ImageRow, tags: Sequence[TagRow], digests: Sequence[DigestRow]) -> Changes:
    sql.delete_names(store.database, tags, digests, _untag_events(row, tags))
    store.refresh_index()
    return _untagged(tags, digests)


def _untag_events(row: ImageRow, tags: Sequence[TagRow]) -> list[Event]:
    return [
        sql.build_event("untag", row.id, json.loads(row.labels or "{}"), name=tag.reference) for tag in tags
    ]


def _untagged(tags: Sequence[TagRow], digests: Sequence[DigestRow]) -> Changes:
    names: tuple[NameRow, ...] = (*tags, *digests)
    return [{"Untagged": name.reference} for name in names]


def _is_running(store: ImageStore, container_id: str) -> bool:
    from pydock_core.supervision.container_status import derive_status  # late: for a removal only

    return derive_status(store.root.container(container_id)).is_active
