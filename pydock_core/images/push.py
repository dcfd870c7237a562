"""Pushes one image: plain layers are compressed on all cores and sent while they are compressed.

Compression is deterministic, so a layer's compressed form is recorded: the next push asks the registry for that digest
first, and compresses only missing layers.  The compressed bytes go through a file of the workspace, so that a broken
upload resumes at the registry's position.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydock_core.errors import NotFoundError
from pydock_core.images.compressed_layer import CompressedLayer
from pydock_core.images.image_store import ImageStore
from pydock_core.images.parallel import Cancellation, CancelledTransfer, run_all, serialised
from pydock_core.oci.digest import short_id
from pydock_core.oci.documents import (
    DOCKER_LAYER,
    Descriptor,
    ImageConfig,
    Manifest,
    decode,
    encode,
    is_foreign,
    layer_compression,
    layer_media_type,
)
from pydock_core.oci.reference import Reference
from pydock_core.progress import Event, Progress
from pydock_core.store.blobs import BlobStore
from pydock_core.store.database import distribution
from pydock_core.store.database import images as sql
from pydock_core.store.database.connection import Database
from pydock_core.store.database.distribution import LayerForm
from pydock_core.store.database.images import ImageRow
from pydock_core.store.growing_file import Arrival

if TYPE_CHECKING:
    from pydock_core.images.registry.client import RegistryClient

_UPLOADS = 5
"""The number of simultaneous uploads, as in Docker."""
_REPORT_BYTES = 1 << 20


@dataclass(slots=True)
class _Knowledge:
    """The results of earlier pushes to one registry; several threads add to it.

    Attributes:
        forms: the last gzip form of each plain layer, by diff id.
        places: the repositories of the registry in which each blob was seen, by digest.
        lost: (digest, repository) of repositories that no longer have the blob.
    """

    forms: dict[str, LayerForm] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    lost: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pushed:
    """One pushed name; ``digest`` and ``size_bytes`` are the manifest's."""

    reference: str
    digest: str
    size_bytes: int


def push_image(
    store: ImageStore, client: RegistryClient, reference: Reference, progress: Progress | None = None
) -> Pushed:
    """Send one image to a registry, under one tag.

    Args:
        store: contains the image.
        client: of the reference's domain.
        reference: with a tag.
        progress: receives events, from one thread at a time.

    Raises:
        NotFoundError: there is no image of that name.
        DeniedError: the registry requires (other) credentials.
        UnavailableError: the registry cannot be reached.
        CorruptError: a blob in the store is damaged.
    """
    report = serialised(progress)
    database = store.database
    with store.reading(), store.workspace("push") as directory:
        # Under the lock, so that no other process removes the image or replaces its manifest.
        row = find_tagged(database, reference)
        knowledge = _load_knowledge(database, row.id, reference.domain)
        try:
            pushed, digests = _send(
                store, client, reference, row.manifest_digest, directory, knowledge, report
            )
        finally:
            for diff_id, form in knowledge.forms.items():
                distribution.set_layer_form(database, diff_id, form)
            for digest, path in knowledge.lost:
                distribution.delete_blob_place(database, digest, reference.domain, path)
        distribution.add_blob_places(database, digests, reference.domain, reference.path)
        event = sql.build_event(
            "push", row.id, json.loads(row.labels), actor=reference.familiar, name=reference.repository
        )
        distribution.add_repository_digest(database, reference.repository, pushed.digest, row.id, event)
    report({"status": f"{reference.tag}: digest: {pushed.digest} size: {pushed.size_bytes}"})
    return pushed


def find_tagged(database: Database, reference: Reference) -> ImageRow:
    """Return the image with a name.

    Raises:
        NotFoundError: there is none.
    """
    row = sql.by_tag(database, reference.repository, reference.tag)
    if row is None:
        raise NotFoundError(
            f"no image is called {reference.familiar}",
            f"see: dock images; give one the name first: dock tag IMAGE {reference.familiar}",
        )
    return row


def _load_knowledge(database: Database, image_id: str, domain: str) -> _Knowledge:
    knowledge = _Knowledge()
    for layer in sql.layers_of(database, image_id):
        digest = layer.blob_digest
        if not layer_compression(layer.media_type):
            form = distribution.layer_form(database, layer.diff_id, _compressed_type(layer.media_type))
            if form is None:
                continue
            knowledge.forms[layer.diff_id] = form
            digest = form.digest
        knowledge.places[digest] = distribution.blob_places(database, digest, domain)
    return knowledge


def _send(
    store: ImageStore,
    client: RegistryClient,
    reference: Reference,
    manifest_digest: str,
    directory: Path,
    knowledge: _Knowledge,
    report: Progress,
) -> tuple[Pushed, Sequence[str]]:
    """Send blobs and manifest; return the result, and the digests of the repository's blobs."""
    subject = f"manifest of {reference.familiar}"
    blobs = store.blobs
    data = blobs.read(manifest_digest, subject)
    manifest = Manifest.from_json(decode(data, subject), subject)
    layers = {layer.digest: layer for layer in manifest.layers}
    config = ImageConfig.from_json(decode(blobs.read(manifest.config.digest, subject), subject), subject)
    # Displays name a layer by its diff id, which is the same in every storage form.
    names = {
        layer.digest: short_id(diff_id)
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    }
    pusher = _Pusher(client, reference, blobs, directory, knowledge, report, names)
    sent = pusher.send(list(layers.values()))
    pusher.send_document(manifest.config)
    final = tuple(sent[layer.digest] for layer in manifest.layers)
    if final != manifest.layers:
        manifest = replace(manifest, layers=final)
        data = encode(manifest.to_json())
    digest = client.put_manifest(reference.path, reference.tag, manifest.media_type, data)
    digests = [manifest.config.digest, *(layer.digest for layer in final if not is_foreign(layer.media_type))]
    return Pushed(reference.familiar, digest, len(data)), list(dict.fromkeys(digests))


class _Pusher:
    """The transfer of one image's blobs."""

    def __init__(
        self,
        client: RegistryClient,
        reference: Reference,
        blobs: BlobStore,
        directory: Path,
        knowledge: _Knowledge,
        report: Progress,
        names: Mapping[str, str],
    ) -> None:
        self._names = names
        self._client = client
        self._path = reference.path
        self._blobs = blobs
        self._directory = directory
        self._knowledge = knowledge
        self._report = report
        self._cancellation = Cancellation()
        # One layer at a time is compressed, on all cores, while the others are sent.
        self._compressing = threading.Lock()

    def send(self, layers: Sequence[Descriptor]) -> Mapping[str, Descriptor]:
        """Send layers; return their descriptors for the manifest, by their digests in the store."""
        for layer in layers:
            self._say(layer, "Preparing", total=layer.size_bytes)
        for layer in layers[_UPLOADS:]:
            self._say(layer, "Waiting")
        with ThreadPoolExecutor(_UPLOADS, "push") as pool:
            forms = run_all(pool, self._send_layer, layers, self._give_up)
        return {layer.digest: form for layer, form in zip(layers, forms, strict=True)}

    def _give_up(self, error: BaseException) -> None:
        self._cancellation.set()
        self._client.close()  # ends waiting writes

    def send_document(self, descriptor: Descriptor) -> None:
        """Send the image's config."""
        if not self._client.has_blob(self._path, descriptor.digest):
            path = self._blobs.blob_path(descriptor.digest)
            self._client.upload_blob(self._path, path, None, lambda: descriptor.digest)

    def _send_layer(self, layer: Descriptor) -> Descriptor:
        if is_foreign(layer.media_type) and layer.urls:
            self._say(layer, "Skipped foreign layer")
            return layer
        if layer_compression(layer.media_type):
            if not self._is_there(layer, layer.digest):
                self._upload(
                    layer, self._blobs.blob_path(layer.digest), None, lambda: layer.digest, layer.size_bytes
                )
            return layer
        media_type = _compressed_type(layer.media_type)
        known = self._knowledge.forms.get(layer.digest)
        if known is not None and known.media_type == media_type and self._is_there(layer, known.digest):
            return Descriptor(media_type, known.digest, known.size_bytes, layer.annotations)
        form = self._compress_and_upload(layer, media_type)
        self._knowledge.forms[layer.digest] = form
        return Descriptor(media_type, form.digest, form.size_bytes, layer.annotations)

    def _is_there(self, layer: Descriptor, digest: str) -> bool:
        """Whether the repository has a blob, possibly by mounting it from another repository of the registry."""
        self._cancellation.check()
        if self._client.has_blob(self._path, digest):
            self._say(layer, "Layer already exists")
            return True
        for place in self._knowledge.places.get(digest, ()):
            if place != self._path and self._client.mount_blob(self._path, digest, place):
                self._say(layer, f"Mounted from {place}")
                return True
            self._knowledge.lost.append((digest, place))
        return False

    def _upload(
        self, layer: Descriptor, path: Path, arrival: Arrival | None, digest: Callable[[], str], total: int
    ) -> None:
        reported = 0

        def advanced(position: int) -> None:
            nonlocal reported
            self._cancellation.check()
            if position - reported >= _REPORT_BYTES:
                reported = position
                self._say(layer, "Pushing", position, total)

        self._say(layer, "Pushing", 0, total)
        self._client.upload_blob(self._path, path, arrival, digest, advanced)
        self._say(layer, "Pushed")

    def _compress_and_upload(self, layer: Descriptor, media_type: str) -> LayerForm:
        """Compress in this thread, while another one sends the compressed bytes."""
        path = self._directory / f"compressed-{short_id(layer.digest)}"
        with ThreadPoolExecutor(1, "push-send") as sender:
            with self._compressing, CompressedLayer(path) as compressed:
                self._cancellation.check()
                sending = sender.submit(
                    self._upload, layer, path, compressed.arrival, lambda: compressed.digest, layer.size_bytes
                )
                try:
                    compressed.fill(
                        self._blobs.blob_path(layer.digest),
                        layer.digest,
                        lambda: self._check_going(sending),
                    )
                except BaseException as error:
                    compressed.arrival.fail(error)
                    if sending.done() and (reason := sending.exception()) is not None:
                        raise reason from error
                    raise
            sending.result()  # the next layer is compressed by now
        os.unlink(path)
        return LayerForm(media_type, compressed.digest, compressed.size_bytes)

    def _check_going(self, sending: Future[None]) -> None:
        self._cancellation.check()
        if sending.done():
            raise CancelledTransfer  # it has failed: otherwise it ends after the file does

    def _say(self, layer: Descriptor, status: str, current: int | None = None, total: int = 0) -> None:
        """Report a layer's status with its bytes; without ``current``, only with the total."""
        event: Event = {"status": status, "id": self._names[layer.digest]}
        if current is not None:
            event["current"] = current
        if total or current is not None:
            event["total"] = total
        self._report(event)


def _compressed_type(media_type: str) -> str:
    """Return the media type of a plain layer's gzip form."""
    return f"{DOCKER_LAYER}.gzip" if media_type == DOCKER_LAYER else layer_media_type("gzip")
