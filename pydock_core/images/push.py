"""Pushes one image: plain layers are compressed on all cores and sent while they are compressed.

Compression is deterministic, so what a layer became is remembered: the next push asks the registry for that digest
first, and compresses only what is not there.  The compressed bytes go through a file of the workspace, so that a
broken upload is resumed from where the registry has it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core.errors import CorruptError
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
from pydock_core.store.blobs import BlobStore, mapped
from pydock_core.store.compression import ANEW
from pydock_core.store.database.distribution import LayerForm
from pydock_core.store.layer_blob import BUFFER_BYTES, Arrival
from pydock_core.store.worker import Progress

if TYPE_CHECKING:
    from pydock_core.images.registry.client import RegistryClient

_UPLOADS = 5
"""Layers that are uploaded at once, as Docker does."""
_GZIP_LEVEL = 2
_REPORT_BYTES = 1 << 20


@dataclass(slots=True)
class Knowledge:
    """What is remembered of layers and of one registry between pushes; threads add to it.

    Attributes:
        forms: what plain layers became when they were last compressed to gzip, by diff id.
        places: the repositories of the registry in which blobs were seen, by digest.
        lost: (digest, repository) of places that turned out to be none.
    """

    forms: dict[str, LayerForm] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    lost: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sent:
    """What was pushed.

    Attributes:
        digest, size_bytes: of the manifest.
        blobs: digests of what the repository has now.
    """

    digest: str
    size_bytes: int
    blobs: tuple[str, ...]


def push_image(
    client: RegistryClient,
    reference: Reference,
    manifest_digest: str,
    blobs: BlobStore,
    directory: Path,
    knowledge: Knowledge,
    progress: Progress | None = None,
) -> Sent:
    """Send one image to a registry, under one tag.

    Args:
        client: of the reference's domain.
        reference: with a tag.
        manifest_digest: of the image's manifest in the store.
        blobs: the blob store; the caller holds its lock, shared.
        directory: a workspace.
        knowledge: see :class:`Knowledge`.
        progress: gets events, from one thread at a time.

    Raises:
        DeniedError: the registry wants (other) credentials.
        UnavailableError: it cannot be reached.
        CorruptError: a blob in the store is damaged.
    """
    report = serialised(progress)
    subject = f"manifest of {reference.familiar}"
    data = blobs.read(manifest_digest, subject)
    manifest = Manifest.from_json(decode(data, subject), subject)
    layers = list(dict.fromkeys(layer.digest for layer in manifest.layers))
    described = {layer.digest: layer for layer in manifest.layers}
    config = ImageConfig.from_json(decode(blobs.read(manifest.config.digest, subject), subject), subject)
    # A layer is called by its diff id, which stays the same however it is stored.
    names = {
        layer.digest: short_id(diff_id)
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    }
    pusher = _Pusher(client, reference, blobs, directory, knowledge, report, names)
    sent = pusher.send([described[digest] for digest in layers])
    pusher.send_document(manifest.config)
    final = tuple(sent[layer.digest] for layer in manifest.layers)
    if final != manifest.layers:
        manifest = replace(manifest, layers=final)
        data = encode(manifest.to_json())
    digest = client.put_manifest(reference.path, reference.tag, manifest.media_type, data)
    places = [manifest.config.digest, *(layer.digest for layer in final if not is_foreign(layer.media_type))]
    return Sent(digest, len(data), tuple(dict.fromkeys(places)))


class _Pusher:
    """Sends the blobs of one image."""

    def __init__(
        self,
        client: RegistryClient,
        reference: Reference,
        blobs: BlobStore,
        directory: Path,
        knowledge: Knowledge,
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
        # One layer at a time is compressed, on all cores; the others are being sent meanwhile.
        self._compressing = threading.Lock()

    def send(self, layers: Sequence[Descriptor]) -> Mapping[str, Descriptor]:
        """Send layers; return what the manifest is to say of each, by the digest that it has in the store."""
        for layer in layers:
            self._say(layer, "Preparing", total=layer.size_bytes)
        for layer in layers[_UPLOADS:]:
            self._say(layer, "Waiting")
        with ThreadPoolExecutor(_UPLOADS, "push") as pool:
            forms = run_all(pool, self._send_layer, layers, self._give_up)
        return {layer.digest: form for layer, form in zip(layers, forms, strict=True)}

    def _give_up(self, error: BaseException) -> None:
        self._cancellation.set()
        self._client.close()  # ends writes that wait

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
        media_type = compressed_type(layer.media_type)
        known = self._knowledge.forms.get(layer.digest)
        if known is not None and known.media_type == media_type and self._is_there(layer, known.digest):
            return Descriptor(media_type, known.digest, known.size_bytes, layer.annotations)
        form = self._compress_and_upload(layer, media_type)
        self._knowledge.forms[layer.digest] = form
        return Descriptor(media_type, form.digest, form.size_bytes, layer.annotations)

    def _is_there(self, layer: Descriptor, digest: str) -> bool:
        """Whether the repository has a blob, or got it from another repository of the registry."""
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
        """Compress in this thread, and send what there is of it from another one."""
        path = self._directory / f"compressed-{short_id(layer.digest)}"
        with ThreadPoolExecutor(1, "push-send") as sender:
            with self._compressing, Compressed(path) as compressed:
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
            sending.result()  # meanwhile the next layer is compressed
        os.unlink(path)
        return LayerForm(media_type, compressed.digest, compressed.size_bytes)

    def _check_going(self, sending: Future[None]) -> None:
        self._cancellation.check()
        if sending.done():
            raise CancelledTransfer  # it has failed: nothing ends it before the file is whole

    def _say(self, layer: Descriptor, status: str, current: int | None = None, total: int = 0) -> None:
        """Report a layer's state, with what is sent of how much: without ``current``, how much there is to send."""
        event: dict[str, Any] = {"status": status, "id": self._names[layer.digest]}
        if current is not None:
            event["current"] = current
        if total or current is not None:
            event["total"] = total
        self._report(event)


def compressed_type(media_type: str) -> str:
    """Return the media type that a plain layer has once it is compressed with gzip."""
    return f"{DOCKER_LAYER}.gzip" if media_type == DOCKER_LAYER else layer_media_type("gzip")


class Compressed:
    """A gzip file that grows; the bytes depend on nothing but the content.

    Args:
        path: the file, not existing.

    Attributes:
        arrival: for who reads behind.
        digest, size_bytes: once it is filled.
    """

    def __init__(self, path: Path) -> None:
        self.arrival = Arrival()
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        self._subject = "the compressed layer"
        with mapped(self._subject):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()

    def fill(self, source: Path, digest: str, check: Callable[[], None]) -> None:
        """Compress a whole file, and verify it on the way.

        Args:
            source: a plain layer.
            digest: what its digest must be.
            check: called for every megabyte; what it raises ends it.

        Raises:
            CorruptError: the source does not have the digest.
            UnavailableError: the disk is full.
        """
        from isal import igzip_threaded

        plain = hashlib.sha256()
        threads = os.cpu_count() or 1
        with (
            open(source, "rb", buffering=0) as file,
            igzip_threaded.open(
                _Sink(self), "wb", compresslevel=_GZIP_LEVEL, threads=max(threads, 2)
            ) as stream,
        ):
            while data := file.read(BUFFER_BYTES):
                check()
                stream.write(data)
                plain.update(data)
        if plain.hexdigest() != digest.partition(":")[2]:
            raise CorruptError(f"layer {short_id(digest)} is damaged in the store", ANEW)
        self.arrival.finish()

    def append(self, data: bytes) -> None:
        """Take compressed bytes."""
        view = memoryview(data)
        with mapped(self._subject):
            while view:
                view = view[os.write(self._fd, view) :]
        self._hash.update(data)
        self.size_bytes += len(data)
        self.arrival.advance(len(data))

    def __enter__(self) -> Compressed:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        os.close(self._fd)


class _Sink:
    """What the compressor takes for a file."""

    def __init__(self, compressed: Compressed) -> None:
        self._compressed = compressed

    def write(self, data: bytes) -> int:
        self._compressed.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """There is no buffer."""

    def close(self) -> None:
        """The file is closed by its owner."""
