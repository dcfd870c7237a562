"""Pulls one image: layers are downloaded side by side, and inflated and applied while they arrive.

A layer's application begins when its download has, and reads behind it; so an application waits for nothing but a
download that is going on, here or in another process, and downloads wait for applications of such layers only.  A blob
goes into the store when its layer has been applied; what broke off is continued by the next pull
(:mod:`pydock_core.store.partial`).
"""

from __future__ import annotations

import contextlib
import os
import reprlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core.errors import CorruptError, NoSpaceError, UnsupportedError
from pydock_core.images.parallel import Cancellation, CancelledTransfer, run_all, serialised
from pydock_core.images.stored import StoredImage
from pydock_core.oci.digest import short_id
from pydock_core.oci.documents import (
    CONFIG_TYPES,
    INDEX_TYPES,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    decode,
    layer_compression,
)
from pydock_core.oci.platform import (
    Platform,
    choose_manifest,
    is_of_unknown_kind,
    platform_of,
    runnable,
)
from pydock_core.oci.reference import Reference
from pydock_core.store.blobs import DOCUMENT_LIMIT, BlobStore, check_content
from pydock_core.store.database.images import LayerRow
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.partial import PartialBlob, PartialBlobs
from pydock_core.store.snapshots.protocol import Snapshotter
from pydock_core.store.worker import Progress

if TYPE_CHECKING:
    from pydock_core.images.registry.client import FetchedManifest, RegistryClient

_DOWNLOADS = 3
"""Layers that are downloaded at once, as Docker does."""
_THREADS = 64
_INDEX_DEPTH = 4
_LAYERS_LIMIT = 1000
_REPORT_BYTES = 1 << 20
_BROKEN = "the image is broken or hostile; tell its owner"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where what is pulled goes.

    Attributes:
        blobs: the blob store; the caller holds its lock, shared.
        snapshotter: keeps the layers.
        directory: a workspace on the blob store's file system.
        lease: keeps digests (of blobs, and diff ids) from collectors until the image is recorded.
        is_pair: whether a blob (second) is known to be the layer (first), inflated.
        is_here: whether an image is recorded, by its id.
    """

    blobs: BlobStore
    snapshotter: Snapshotter
    directory: Path
    lease: Callable[[Sequence[str]], None]
    is_pair: Callable[[str, str], bool]
    is_here: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image whose layers are in the store.

    Attributes:
        image: what to record, where its blobs are there too.
        digest: of what the reference named: the manifest, or the index that it was chosen from.
        is_here: it was recorded before, with other blobs of the same layers (it was pushed from here); these were not
            fetched.
    """

    image: StoredImage
    digest: str
    is_here: bool


def pull_image(
    client: RegistryClient,
    reference: Reference,
    platform: Platform,
    destination: Destination,
    progress: Progress | None = None,
    *,
    any_platform: bool = False,
) -> PulledImage:
    """Get one image from a registry.

    Args:
        client: of the reference's domain.
        reference: with a tag or a digest; where there are both the digest alone counts, and the tag is given to nothing.
        platform: chooses among the manifests of an index.
        destination: where it goes.
        progress: gets events, from one thread at a time.
        any_platform: an image that is not in an index is taken, whatever its platform.

    Raises:
        NotFoundError: the registry has no such image.
        DeniedError: it wants (other) credentials.
        CorruptError: what came is not what the manifest says; nothing of it was kept.
        InvalidError: a layer would leave its root, or is a decompression bomb; nothing of it was kept.
        UnsupportedError: there is no image for the platform, or it is no image.
        UnavailableError: the registry cannot be reached, or the disk is full; what came is kept for the next pull.
    """
    report = serialised(progress)
    named = client.manifest(reference.path, reference.digest or reference.tag)
    report({"status": f"Pulling from {reference.path}", "id": reference.tag or reference.digest})
    fetched = _choose(client, reference, named, platform, _INDEX_DEPTH)
    subject = f"manifest of {reference.familiar}"
    manifest = Manifest.from_json(decode(fetched.data, subject), subject)
    _check_manifest(manifest, reference)
    digests = [fetched.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)]
    destination.lease(digests)
    blobs, directory = destination.blobs, destination.directory
    blobs.put_bytes(fetched.data, directory, subject)
    config = _fetch_config(client, reference, manifest.config, destination)
    if not any_platform:
        _check_platform(config, platform, reference)
    if len(manifest.layers) != len(config.diff_ids):
        raise CorruptError(
            f"{subject} names {len(manifest.layers)} layers, the image's config {len(config.diff_ids)}",
            _BROKEN,
        )
    diff_ids = list(dict.fromkeys(config.diff_ids))
    destination.lease(diff_ids)
    pairs = _pair(manifest, config, reference)
    layers = _Layers(client, reference, destination, report)
    is_here = destination.is_here(manifest.config.digest) and all(
        destination.is_pair(diff_id, layer.digest) for layer, diff_id in pairs.values()
    )
    if is_here:
        layers.skip(pairs)
    else:
        layers.transfer(pairs)
    rows = tuple(
        LayerRow(diff_id, layer.digest, layer.media_type)
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    )
    image = StoredImage(
        manifest.config.digest,
        fetched.digest,
        fetched.media_type,
        config,
        rows,
        () if reference.digest else (reference,),  # the tag beside a digest may be another image's by now
    )
    return PulledImage(image, named.digest, is_here)


# -- documents -------------------------------------------------------------------------------------------


def _choose(
    client: RegistryClient, reference: Reference, fetched: FetchedManifest, platform: Platform, depth: int
) -> FetchedManifest:
    """Go down through indexes to the manifest for the platform."""
    if fetched.media_type not in INDEX_TYPES:
        return fetched
    subject = f"index of {reference.familiar}"
    if depth == 0:
        raise CorruptError(f"{subject} is nested too deeply", _BROKEN)
    entries = Index.from_json(decode(fetched.data, subject), subject).manifests
    chosen = choose_manifest(entries, platform)
    if chosen is None:
        there = dict.fromkeys(
            text
            for entry in entries
            if not is_of_unknown_kind(entry) and (text := _platform_text(entry.platform))
        )
        raise UnsupportedError(
            f"{reference.familiar} has no image for {platform}",
            f"there is one for {', '.join(there)}; choose with --platform"
            if there
            else "its index names no image at all: is it the right name?",
        )
    found = client.manifest(reference.path, chosen.digest)
    if len(found.data) != chosen.size_bytes:
        raise CorruptError(
            f"manifest {short_id(chosen.digest)} of {reference.familiar} has {len(found.data)} bytes, "
            f"not the {chosen.size_bytes} of its index",
            _BROKEN,
        )
    return _choose(client, reference, found, platform, depth - 1)


def _platform_text(said: Mapping[str, Any]) -> str:
    words = [str(said.get(key, "")) for key in ("os", "architecture", "variant")]
    return "" if "unknown" in words else "/".join(word for word in words if word)


def _check_manifest(manifest: Manifest, reference: Reference) -> None:
    if manifest.config.media_type not in CONFIG_TYPES:
        raise UnsupportedError(
            f"{reference.familiar} is an artifact of type {reprlib.repr(manifest.config.media_type)}, no image",
            "get it with the tool that it was made for",
        )
    if manifest.config.size_bytes > DOCUMENT_LIMIT or len(manifest.layers) > _LAYERS_LIMIT:
        raise CorruptError(f"manifest of {reference.familiar} is larger than any image's", _BROKEN)
    for layer in manifest.layers:
        if layer_compression(layer.media_type) is None:
            raise UnsupportedError(
                f"{reference.familiar} has a layer of type {reprlib.repr(layer.media_type)}",
                "a layer is a tar archive, plain or compressed with gzip or zstd",
            )


def _check_platform(config: ImageConfig, wanted: Platform, reference: Reference) -> None:
    said = platform_of(config)
    if config.architecture and said not in runnable(wanted):
        raise UnsupportedError(
            f"{reference.familiar} is an image for {said}, not for {wanted}",
            f"pull it with --platform {said}",
        )


def _fetch_config(
    client: RegistryClient, reference: Reference, descriptor: Descriptor, destination: Destination
) -> ImageConfig:
    subject = f"config of {reference.familiar}"
    blobs = destination.blobs
    if not blobs.has(descriptor.digest):
        sink = _Memory()
        client.fetch_blob(reference.path, descriptor, sink)
        data = bytes(sink.data)
        with blobs.writer(destination.directory, f"config-{short_id(descriptor.digest)}", subject) as writer:
            writer.write(data)
            blobs.put(writer, digest=descriptor.digest, size_bytes=descriptor.size_bytes, subject=subject)
    data = blobs.read(descriptor.digest, subject)
    check_content(descriptor.digest, len(data), descriptor.digest, descriptor.size_bytes, subject)
    return ImageConfig.from_json(decode(data, subject), subject)


def _pair(manifest: Manifest, config: ImageConfig, reference: Reference) -> dict[str, tuple[Descriptor, str]]:
    """Return each different layer once, by the digest of its blob, with its diff id."""
    pairs: dict[str, tuple[Descriptor, str]] = {}
    for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
        known = pairs.setdefault(layer.digest, (layer, diff_id))
        if known != (layer, diff_id):
            raise CorruptError(
                f"{reference.familiar} describes its layer {short_id(layer.digest)} in two ways", _BROKEN
            )
    return pairs


class _Memory:
    """Takes a small blob into memory; see ``BlobSink``."""

    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def position(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data

    def restart(self) -> None:
        self.data.clear()


# -- layers ----------------------------------------------------------------------------------------------


class _Layer:
    """One layer on its way.

    Attributes:
        paired: its blob is known to be the layer.
        holding: keeps the partial file locked; closing it puts the blob into the store.
        failure: what went wrong with it.
    """

    def __init__(self, descriptor: Descriptor, diff_id: str, *, paired: bool) -> None:
        self.descriptor = descriptor
        self.diff_id = diff_id
        self.paired = paired
        self.name = short_id(descriptor.digest)
        self.holding = contextlib.ExitStack()
        self.failure: BaseException | None = None

    def abandon(self, error: BaseException) -> None:
        """Let go of the partial file: with the layer's own failure, as another's says nothing of what came of this one.

        Args:
            error: of the pull; a full disk is everybody's.
        """
        reason = error if isinstance(error, NoSpaceError) else self.failure or CancelledTransfer()
        holding = self.holding.pop_all()
        with contextlib.suppress(type(reason)):
            holding.__exit__(type(reason), reason, reason.__traceback__)


class _Layers:
    """Transfers the layers of one image."""

    def __init__(
        self, client: RegistryClient, reference: Reference, destination: Destination, report: Progress
    ) -> None:
        self._client = client
        self._reference = reference
        self._blobs = destination.blobs
        self._snapshotter = destination.snapshotter
        self._partials = PartialBlobs(destination.blobs)
        self._report = report
        self._is_pair = destination.is_pair
        self._cancellation = Cancellation()
        self._slots = threading.Semaphore(_DOWNLOADS)

    def skip(self, pairs: Mapping[str, tuple[Descriptor, str]]) -> None:
        """Say of all layers that they are here."""
        for descriptor, diff_id in pairs.values():
            self._say(_Layer(descriptor, diff_id, paired=True), "Already exists")

    def transfer(self, pairs: Mapping[str, tuple[Descriptor, str]]) -> None:
        """Get all layers into the store; the first failure ends it."""
        layers = []
        for descriptor, diff_id in pairs.values():
            layer = _Layer(descriptor, diff_id, paired=self._is_pair(diff_id, descriptor.digest))
            if layer.paired and self._blobs.has(descriptor.digest) and self._snapshotter.has(diff_id):
                self._say(layer, "Already exists")
            else:
                is_to_come = not self._blobs.has(descriptor.digest)
                self._say(layer, "Pulling fs layer", total=descriptor.size_bytes if is_to_come else None)
                layers.append(layer)
        if not layers:
            return
        for layer in layers[_DOWNLOADS:]:
            self._say(layer, "Waiting")
        with (
            ThreadPoolExecutor(os.cpu_count() or 1, "pull-apply") as applications,
            ThreadPoolExecutor(min(len(layers), _THREADS), "pull-layer") as threads,
        ):
            try:
                run_all(threads, lambda layer: self._transfer(layer, applications), layers, self._give_up)
            except BaseException as error:
                for layer in layers:
                    layer.abandon(error)
                raise

    def _give_up(self, error: BaseException) -> None:
        self._cancellation.set()
        self._client.close()  # ends reads that wait

    def _say(
        self, layer: _Layer, status: str, current: int | None = None, *, total: int | None = None
    ) -> None:
        """Report a layer's state, with what it has of how much: without ``current``, how much there is to come."""
        event: dict[str, Any] = {"status": status, "id": layer.name}
        if current is not None:
            event |= {"current": current, "total": layer.descriptor.size_bytes}
        elif total is not None:
            event["total"] = total
        self._report(event)

    def _transfer(self, layer: _Layer, applications: ThreadPoolExecutor) -> None:
        try:
            self._transfer_one(layer, applications)
        except BaseException as error:
            layer.failure = error
            raise

    def _transfer_one(self, layer: _Layer, applications: ThreadPoolExecutor) -> None:
        """Download one layer, while another thread applies it, and put its blob into the store."""
        descriptor = layer.descriptor
        with self._slots:
            self._cancellation.check()
            partial = self._open(layer)
            if partial is None:
                path = self._blobs.blob_path(descriptor.digest)
                blob = LayerBlob(path, descriptor.media_type, verified=True, paired=layer.paired)
                application = applications.submit(self._apply, layer, blob)
            else:
                blob = replace(partial.layer(), paired=layer.paired)
                application = applications.submit(self._apply, layer, blob)
                self._download(layer, partial, application)
        application.result()
        self._cancellation.check()
        layer.holding.close()
        self._say(layer, "Pull complete")

    def _open(self, layer: _Layer) -> PartialBlob | None:
        """Begin a download; None where the blob is in the store, or is by the time that another process is done."""
        if self._blobs.has(layer.descriptor.digest):
            return None
        partial = layer.holding.enter_context(
            self._partials.open(
                layer.descriptor,
                f"layer {layer.name} of {self._reference.familiar}",
                lambda size: self._say(layer, "Waiting", size),
                lambda: self._cancellation.is_set,
            )
        )
        self._cancellation.check()
        return partial

    def _download(self, layer: _Layer, partial: PartialBlob, application: Future[None]) -> None:
        def check() -> None:
            self._cancellation.check()
            if application.done():
                application.result()  # raises what it failed with; if it did not fail, the layer was there

        sink = _Reporting(partial, check, lambda position: self._say(layer, "Downloading", position))
        try:
            self._client.fetch_blob(self._reference.path, layer.descriptor, sink)
            self._say(layer, "Verifying Checksum")
            partial.finish()
        except BaseException as error:
            partial.arrival.fail(error)
            raise
        self._say(layer, "Download complete")

    def _apply(self, layer: _Layer, blob: LayerBlob) -> None:
        self._snapshotter.apply(layer.diff_id, blob, lambda event: self._extracting(layer, event))

    def _extracting(self, layer: _Layer, event: dict[str, Any]) -> None:
        self._cancellation.check()
        self._report({**event, "id": layer.name})


class _Reporting:
    """A partial blob as the client fills it (``BlobSink``), with reports every megabyte."""

    def __init__(
        self, partial: PartialBlob, check: Callable[[], None], report: Callable[[int], None]
    ) -> None:
        self._partial = partial
        self._check = check
        self._report = report
        self._reported = 0

    @property
    def position(self) -> int:
        return self._partial.position

    def write(self, data: bytes) -> None:
        self._check()
        self._partial.write(data)
        if self.position - self._reported >= _REPORT_BYTES:
            self._reported = self.position
            self._report(self.position)

    def restart(self) -> None:
        self._partial.restart()
        self._reported = 0
