"""Pulls one image: its manifest and config, then its layers (:mod:`pydock_core.images.layer_download`), then its row."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core.errors import ConflictError, CorruptError, UnsupportedError
from pydock_core.images.image_store import ImageStore
from pydock_core.images.layer_download import LayerDownload
from pydock_core.images.parallel import serialised
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
    host_platform,
    is_of_unknown_kind,
    platform_of,
    runnable,
)
from pydock_core.oci.reference import Reference
from pydock_core.progress import Progress
from pydock_core.store.blobs import DOCUMENT_LIMIT, check_content
from pydock_core.store.database import distribution
from pydock_core.store.database import images as sql
from pydock_core.store.database.images import LayerRow

if TYPE_CHECKING:
    from pydock_core.images.registry.client import FetchedManifest, RegistryClient

_INDEX_DEPTH = 4
_LAYERS_LIMIT = 1000
_BROKEN = "the image is broken or hostile; tell its owner"


@dataclass(frozen=True, slots=True)
class Pulled:
    """One pulled image.

    Attributes:
        reference: its local name: "busybox:latest", "busybox@sha256:...".
        image_id: full.
        digest: of the registry's manifest or index under that name.
        is_new: the image is new in the store, or the name belonged to another image.
    """

    reference: str
    image_id: str
    digest: str
    is_new: bool


def pull_image(
    store: ImageStore,
    client: RegistryClient,
    reference: Reference,
    platform: Platform | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Pull one image from a registry, and record it.

    Args:
        store: receives the image.
        client: of the reference's domain.
        reference: with a tag or a digest; if it has both, only the digest counts, and nothing is tagged.
        platform: selects from the manifests of an index, and is required of an image without an index; by default this
            host's platform selects, and an image without an index may have any.
        progress: receives events, from one thread at a time.

    Raises:
        NotFoundError: the registry has no such image.
        DeniedError: the registry requires (other) credentials.
        CorruptError: the content does not match the manifest; nothing of it was kept.
        InvalidError: a layer would leave its root, or is a decompression bomb; nothing of it was kept.
        UnsupportedError: there is no image for the platform, or the manifest is not an image's.
        UnavailableError: the registry cannot be reached; the received parts are kept for the next pull.
        NoSpaceError: the disk is full; nothing was kept.
    """
    report = serialised(progress)
    owner = reference.canonical
    with store.adding("pull", owner) as directory:
        image, digest, is_whole = _fetch(store, client, reference, platform, directory, report)
        tagged = sql.by_tag(store.database, reference.repository, reference.tag)
        is_new = not store.has(image.id) or (
            not reference.digest and (tagged is None or tagged.id != image.id)
        )
        if is_whole:
            store.name(image)
        else:
            store.record([image], progress, are_applied=True)
        _record_place(store, reference, image, digest)
        distribution.release(store.database, owner)
    report({"status": f"Digest: {digest}"})
    state = "Downloaded newer image" if is_new else "Image is up to date"
    report({"status": f"Status: {state} for {reference.familiar}"})
    return Pulled(reference.familiar, image.id, digest, is_new)


def _record_place(store: ImageStore, reference: Reference, image: StoredImage, digest: str) -> None:
    """Record the digest and the blobs of an image in its repository."""
    labels = image.config.config.get("Labels")
    event = sql.build_event("pull", image.id, labels, actor=reference.familiar, name=reference.repository)
    if not distribution.add_repository_digest(store.database, reference.repository, digest, image.id, event):
        raise ConflictError(f"image {short_id(image.id)} was removed just now", "pull it again")
    distribution.add_blob_places(
        store.database,
        [image.id, *(layer.blob_digest for layer in image.layers)],
        reference.domain,
        reference.path,
    )


def _fetch(
    store: ImageStore,
    client: RegistryClient,
    reference: Reference,
    platform: Platform | None,
    directory: Path,
    report: Progress,
) -> tuple[StoredImage, str, bool]:
    """Fetch the documents and layers of an image.

    Returns:
        the image; the digest of the referenced manifest or index; and whether the image is recorded already, perhaps
        with other blobs of the same layers (it was pushed from this store); then the new blobs were not fetched.
    """
    named = client.manifest(reference.path, reference.digest or reference.tag)
    report({"status": f"Pulling from {reference.path}", "id": reference.tag or reference.digest})
    fetched = _choose(client, reference, named, platform or host_platform(), _INDEX_DEPTH)
    subject = f"manifest of {reference.familiar}"
    manifest = Manifest.from_json(decode(fetched.data, subject), subject)
    _check_manifest(manifest, reference)
    digests = [fetched.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)]
    store.lease(reference.canonical, digests)
    store.blobs.put_bytes(fetched.data, directory, subject)
    config = _fetch_config(store, client, reference, manifest.config, directory)
    if platform is not None:
        _check_platform(config, platform, reference)
    if len(manifest.layers) != len(config.diff_ids):
        raise CorruptError(
            f"{subject} names {len(manifest.layers)} layers, the image's config {len(config.diff_ids)}",
            _BROKEN,
        )
    store.lease(reference.canonical, list(dict.fromkeys(config.diff_ids)))
    pairs = _pair(manifest, config, reference)
    layers = LayerDownload(store, client, reference, report)
    is_whole = store.has(manifest.config.digest) and all(
        store.is_pair(diff_id, layer.digest) for layer, diff_id in pairs.values()
    )
    if is_whole:
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
    return image, named.digest, is_whole


# -- documents -------------------------------------------------------------------------------------------


def _choose(
    client: RegistryClient, reference: Reference, fetched: FetchedManifest, platform: Platform, depth: int
) -> FetchedManifest:
    """Follow indexes down to the manifest for the platform."""
    if fetched.media_type not in INDEX_TYPES:
        return fetched
    subject = f"index of {reference.familiar}"
    if depth == 0:
        raise CorruptError(f"{subject} is nested too deeply", _BROKEN)
    entries = Index.from_json(decode(fetched.data, subject), subject).manifests
    chosen = choose_manifest(entries, platform)
    if chosen is None:
        platforms = dict.fromkeys(
            text
            for entry in entries
            if not is_of_unknown_kind(entry) and (text := _platform_text(entry.platform))
        )
        raise UnsupportedError(
            f"{reference.familiar} has no image for {platform}",
            f"there is one for {', '.join(platforms)}; choose with --platform"
            if platforms
            else "its index names no image at all; check the name",
        )
    found = client.manifest(reference.path, chosen.digest)
    if len(found.data) != chosen.size_bytes:
        raise CorruptError(
            f"manifest {short_id(chosen.digest)} of {reference.familiar} has {len(found.data)} bytes, "
            f"not the {chosen.size_bytes} of its index",
            _BROKEN,
        )
    return _choose(client, reference, found, platform, depth - 1)


def _platform_text(fields: Mapping[str, Any]) -> str:
    words = [str(fields.get(key, "")) for key in ("os", "architecture", "variant")]
    return "" if "unknown" in words else "/".join(word for word in words if word)


def _check_manifest(manifest: Manifest, reference: Reference) -> None:
    if manifest.config.media_type not in CONFIG_TYPES:
        raise UnsupportedError(
            f"{reference.familiar} is an artifact of type {reprlib.repr(manifest.config.media_type)}, not an image",
            "use the tool of that type",
        )
    if manifest.config.size_bytes > DOCUMENT_LIMIT or len(manifest.layers) > _LAYERS_LIMIT:
        raise CorruptError(f"manifest of {reference.familiar} is larger than an image's may be", _BROKEN)
    for layer in manifest.layers:
        if layer_compression(layer.media_type) is None:
            raise UnsupportedError(
                f"{reference.familiar} has a layer of type {reprlib.repr(layer.media_type)}",
                "a layer is a tar archive, plain or compressed with gzip or zstd",
            )


def _check_platform(config: ImageConfig, platform: Platform, reference: Reference) -> None:
    actual = platform_of(config)
    if config.architecture and actual not in runnable(platform):
        raise UnsupportedError(
            f"{reference.familiar} is an image for {actual}, not for {platform}",
            f"pull it with --platform {actual}",
        )


def _fetch_config(
    store: ImageStore,
    client: RegistryClient,
    reference: Reference,
    descriptor: Descriptor,
    directory: Path,
) -> ImageConfig:
    subject = f"config of {reference.familiar}"
    blobs = store.blobs
    if not blobs.has(descriptor.digest):
        sink = _Memory()
        client.fetch_blob(reference.path, descriptor, sink)
        data = bytes(sink.data)
        with blobs.writer(directory, f"config-{short_id(descriptor.digest)}", subject) as writer:
            writer.write(data)
            blobs.put(writer, digest=descriptor.digest, size_bytes=descriptor.size_bytes, subject=subject)
    data = blobs.read(descriptor.digest, subject)
    check_content(descriptor.digest, len(data), descriptor.digest, descriptor.size_bytes, subject)
    return ImageConfig.from_json(decode(data, subject), subject)


def _pair(manifest: Manifest, config: ImageConfig, reference: Reference) -> dict[str, tuple[Descriptor, str]]:
    """Return each distinct layer with its diff id, by its blob's digest."""
    pairs: dict[str, tuple[Descriptor, str]] = {}
    for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
        known = pairs.setdefault(layer.digest, (layer, diff_id))
        if known != (layer, diff_id):
            raise CorruptError(
                f"{reference.familiar} describes its layer {short_id(layer.digest)} in two ways", _BROKEN
            )
    return pairs


class _Memory:
    """A ``BlobSink`` in memory for a small blob."""

    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def position(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data

    def restart(self) -> None:
        self.data.clear()
