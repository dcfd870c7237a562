"""Reads archives of images: docker-archive, its layout before Docker 1.10, and OCI layouts in a tar.

Formats: the image specification's image-layout.md; Docker's "Image Specification v1.2" (manifest.json) and
"v1.0" (repositories, one json per layer).  Docker 25 and newer write a tar in both formats; its manifest.json takes
precedence, because it has the full names.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pydock_core.errors import CorruptError, InvalidError, PyDockError, UnsupportedError
from pydock_core.images.spool import Member, Spool
from pydock_core.images.stored import StoredImage, store_image
from pydock_core.oci.documents import (
    CONFIG_TYPES,
    CONTAINERD_NAME,
    INDEX_TYPES,
    MANIFEST_TYPES,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    decode,
    encode,
    layer_compression,
    layer_media_type,
)
from pydock_core.oci.platform import (
    Platform,
    choose_manifest,
    host_architecture,
    host_platform,
    is_attestation,
    platform_of,
    runnable,
)
from pydock_core.oci.reference import Reference, parse_tagged
from pydock_core.progress import Progress
from pydock_core.store.blobs import BlobStore, check_content
from pydock_core.store.compression import ANEW, detect_compression
from pydock_core.store.database.images import LayerRow
from pydock_core.store.layer_rules import HOSTILE

_HEX_JSON = re.compile(r"([0-9a-f]{64})(?:\.json)?")
_INDEX_DEPTH = 4
_LAYERS_LIMIT = 1000
_IMAGES_LIMIT = 10_000


def load_archive(
    stream: BinaryIO,
    blobs: BlobStore,
    directory: Path,
    subject: str,
    progress: Progress | None = None,
    platform: Platform | None = None,
) -> list[StoredImage]:
    """Put the images of an archive into the blob store; digests and sizes are verified before content is
    used.

    Args:
        stream: plain or compressed; need not be seekable.
        blobs: the blob store; the caller holds its lock, shared.
        directory: a workspace on the blob store's file system.
        subject: names the archive in errors: "archive x.tar".
        progress: receives events.
        platform: the required platform of the images; with None, this host's platform chooses from an index, and an image
            without an index may have any.

    Returns:
        the images in the archive's order, not recorded and their layers not applied.

    Raises:
        CorruptError: the archive is damaged, truncated, or lacks a file that it names.
        InvalidError: it is not an archive of images, or an image's name is malformed.
        UnsupportedError: it has no image for this host, or for the platform.
        UnavailableError: the disk is full.
    """
    spool = Spool(blobs, directory, subject, progress)
    spool.read(stream)
    if spool.has("manifest.json"):
        return _for_platform(_load_docker(spool), platform, subject)
    if spool.has("index.json"):
        return _for_platform(_load_oci(spool, platform or host_platform()), platform, subject)
    if spool.has("repositories"):
        return _for_platform(_load_legacy(spool), platform, subject)
    raise InvalidError(
        f"{subject} contains no images: it has neither manifest.json nor index.json",
        "the tar of a root file system becomes an image by: dock import",
    )


def _for_platform(images: list[StoredImage], platform: Platform | None, subject: str) -> list[StoredImage]:
    """Leave out images that the platform does not run; refuse an archive without others."""
    if platform is None:
        return images
    fitting = runnable(platform)
    chosen = [image for image in images if platform_of(image.config) in fitting]
    if not chosen:
        raise _no_image_for(subject, platform)
    return chosen


def _check_count(count: int, subject: str) -> None:
    if count > _IMAGES_LIMIT:
        raise CorruptError(f"{subject} names {count:,} images, which is too many", HOSTILE)


def _no_images(spool: Spool, document: str) -> InvalidError:
    return InvalidError(f"{spool.subject} contains no images: its {document} is empty", ANEW)


def _no_image_for(subject: str, platform: Platform) -> UnsupportedError:
    return UnsupportedError(f"{subject} has no image for {platform}", "save the image for that platform")


# -- docker-archive --------------------------------------------------------------------------------------


def _load_docker(spool: Spool) -> list[StoredImage]:
    subject = f"{spool.subject}: manifest.json"
    items = spool.document("manifest.json")
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise CorruptError(f"{subject} is not a list of images", ANEW)
    if not items:
        raise _no_images(spool, "manifest.json")
    _check_count(len(items), subject)
    images = []
    for item in items:
        config_name, layer_names = item.get("Config"), _names(item, "Layers", subject)
        if not isinstance(config_name, str):
            raise CorruptError(f"{subject} names no config", ANEW)
        data = spool.bytes_of(config_name)
        match = _HEX_JSON.fullmatch(posixpath.basename(config_name))
        if match:
            actual = spool.member(config_name).digest
            check_content(
                actual, len(data), f"sha256:{match[1]}", None, f"{spool.subject}: config {config_name}"
            )
        config = ImageConfig.from_json(
            decode(data, f"{spool.subject}: {config_name}"), f"{spool.subject}: {config_name}"
        )
        if len(layer_names) != len(config.diff_ids):
            raise CorruptError(
                f"{subject} names {len(layer_names)} layers, the image's config {len(config.diff_ids)}", ANEW
            )
        layers = [
            _keep_layer(spool, name, diff_id)
            for name, diff_id in zip(layer_names, config.diff_ids, strict=True)
        ]
        references = [parse_tagged(name) for name in _names(item, "RepoTags", subject)]
        images.append(store_image(spool.blobs, spool.directory, data, config, layers, references))
    return images


def _names(item: Mapping[str, Any], key: str, subject: str) -> Sequence[str]:
    names = item.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CorruptError(f"{subject}: {key} is not a list of names", ANEW)
    if len(names) > _LAYERS_LIMIT:
        raise CorruptError(f"{subject}: an image has {len(names)} {key}, which is too many", ANEW)
    return names


def _keep_layer(spool: Spool, name: str, diff_id: str) -> LayerRow:
    member = spool.member(name)
    compression = _compression(member)
    if compression in ("", "gzip", "zstd"):
        if not compression:
            check_content(member.digest, member.size_bytes, diff_id, None, f"{spool.subject}: layer {name}")
        kept = spool.keep(name)
        return LayerRow(diff_id, kept.digest, layer_media_type(compression))
    kept = spool.keep_plain(name, compression, diff_id)
    return LayerRow(diff_id, kept.digest, layer_media_type(""))


def _compression(member: Member) -> str:
    with open(member.path, "rb") as file:
        return detect_compression(file.read(8))


# -- before Docker 1.10 ----------------------------------------------------------------------------------


def _load_legacy(spool: Spool) -> list[StoredImage]:
    names: dict[str, list[Reference]] = {}
    for repository, tags in spool.mapping("repositories").items():
        if not isinstance(tags, Mapping):
            raise CorruptError(f"{spool.subject}: repositories is malformed", ANEW)
        for tag, layer_id in tags.items():
            names.setdefault(str(layer_id), []).append(parse_tagged(f"{repository}:{tag}"))
    if not names:
        raise _no_images(spool, "repositories")
    return [_load_legacy_image(spool, layer_id, references) for layer_id, references in names.items()]


def _load_legacy_image(spool: Spool, top_id: str, references: Sequence[Reference]) -> StoredImage:
    chain: list[tuple[str, Mapping[str, Any]]] = []
    current = top_id
    while current:
        if len(chain) >= _LAYERS_LIMIT:
            raise CorruptError(f"{spool.subject}: the layers of {top_id[:12]} form a cycle", ANEW)
        document = spool.mapping(f"{current}/json")
        chain.append((current, document))
        current = str(document.get("parent") or "")
    chain.reverse()
    layers, history = [], []
    for layer_id, document in chain:
        name = f"{layer_id}/layer.tar"
        # This layout has no digests: the content's digest is the diff id.
        layers.append(_keep_layer(spool, name, spool.member(name).digest))
        step = document.get("container_config") or {}
        command = step.get("Cmd") if isinstance(step, Mapping) else None
        created_by = " ".join(map(str, command)) if isinstance(command, list) else ""
        history.append({"created": document.get("created", ""), "created_by": created_by})
    top = chain[-1][1]
    config = ImageConfig.from_json(
        {
            **{key: top[key] for key in ("created", "author", "comment", "config") if top.get(key)},
            "architecture": top.get("architecture") or host_architecture()[0],
            "os": top.get("os") or "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": history,
        },
        f"{spool.subject}: {top_id}/json",
    )
    return store_image(spool.blobs, spool.directory, encode(config.to_json()), config, layers, references)


# -- OCI layout ------------------------------------------------------------------------------------------


def _load_oci(spool: Spool, platform: Platform) -> list[StoredImage]:
    index = Index.from_json(spool.document("index.json"), f"{spool.subject}: index.json")
    _check_count(len(index.manifests), f"{spool.subject}: index.json")
    found: dict[str, tuple[Descriptor, list[Reference]]] = {}
    refused: PyDockError | None = None
    for entry in index.manifests:
        if is_attestation(entry):
            continue
        try:
            chosen = _choose(spool, entry, platform, _INDEX_DEPTH)
        except UnsupportedError as error:
            refused = error
            continue
        found.setdefault(chosen.digest, (chosen, []))[1].extend(_references(entry))
    if not found:
        raise refused or _no_images(spool, "index.json")
    return [_load_manifest(spool, descriptor, references) for descriptor, references in found.values()]


def _references(entry: Descriptor) -> list[Reference]:
    """Return the names of an index entry, without a bare tag, which some tools write and which names no repository."""
    name = entry.annotations.get(CONTAINERD_NAME) or entry.annotations.get(REF_NAME, "")
    return [parse_tagged(name)] if any(mark in name for mark in ":/") else []


def _blob_name(descriptor: Descriptor) -> str:
    return "blobs/" + descriptor.digest.replace(":", "/")


def _document(spool: Spool, descriptor: Descriptor) -> Any:
    return decode(_verified_bytes(spool, descriptor), f"{spool.subject}: blob {descriptor.digest}")


def _verified_bytes(spool: Spool, descriptor: Descriptor) -> bytes:
    name = _blob_name(descriptor)
    data = spool.bytes_of(name)
    _verify(spool, descriptor, spool.member(name))
    return data


def _verify(spool: Spool, descriptor: Descriptor, member: Member) -> None:
    subject = f"{spool.subject}: blob {descriptor.digest}"
    check_content(member.digest, member.size_bytes, descriptor.digest, descriptor.size_bytes, subject)


def _choose(spool: Spool, entry: Descriptor, platform: Platform, depth: int) -> Descriptor:
    """Follow indexes down to the manifest for a platform."""
    if entry.media_type in MANIFEST_TYPES:
        return entry
    if entry.media_type not in INDEX_TYPES or depth == 0:
        raise UnsupportedError(
            f"{spool.subject}: {entry.digest} is of type {entry.media_type!r}, which is not an image",
            "save an image, not another kind of artifact",
        )
    index = Index.from_json(_document(spool, entry), f"{spool.subject}: index {entry.digest}")
    # An archive may lack images of platforms that its index lists.
    present = [manifest for manifest in index.manifests if spool.has(_blob_name(manifest))]
    chosen = choose_manifest(present, platform)
    if chosen is None:
        raise _no_image_for(spool.subject, platform)
    return _choose(spool, chosen, platform, depth - 1)


def _load_manifest(spool: Spool, descriptor: Descriptor, references: Sequence[Reference]) -> StoredImage:
    subject = f"{spool.subject}: manifest {descriptor.digest}"
    manifest = Manifest.from_json(_document(spool, descriptor), subject)
    if manifest.config.media_type not in CONFIG_TYPES:
        raise UnsupportedError(
            f"{subject} is an artifact of type {manifest.config.media_type!r}, not an image", ANEW
        )
    config = ImageConfig.from_json(_document(spool, manifest.config), f"{spool.subject}: config")
    if len(manifest.layers) != len(config.diff_ids):
        raise CorruptError(
            f"{subject} names {len(manifest.layers)} layers, the image's config {len(config.diff_ids)}", ANEW
        )
    layers = []
    for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
        if layer_compression(layer.media_type) is None:
            raise UnsupportedError(f"{subject} has a layer of type {layer.media_type!r}", ANEW)
        name = _blob_name(layer)
        _verify(spool, layer, spool.member(name))
        layers.append(LayerRow(diff_id, spool.keep(name).digest, layer.media_type))
    spool.keep(_blob_name(manifest.config))
    spool.keep(_blob_name(descriptor))
    return StoredImage(
        manifest.config.digest,
        descriptor.digest,
        descriptor.media_type,
        config,
        tuple(layers),
        tuple(references),
    )
