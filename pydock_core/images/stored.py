"""An image whose blobs are in the store but which is not yet recorded; every source of images returns one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydock_core.oci.digest import digest_of
from pydock_core.oci.documents import OCI_CONFIG, Descriptor, ImageConfig, Manifest, encode
from pydock_core.oci.reference import Reference
from pydock_core.store.blobs import BlobStore
from pydock_core.store.database.images import LayerRow


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in the blob store.

    Attributes:
        id: digest of the config.
        manifest_digest, manifest_type: of the manifest; the type is a media type.
        config: parsed.
        layers: bottom first; each blob is in the store, and its diff id is the config's (which is compared when the layer
            is applied).
        references: the image's names, each with a tag.
    """

    id: str
    manifest_digest: str
    manifest_type: str
    config: ImageConfig
    layers: tuple[LayerRow, ...]
    references: tuple[Reference, ...] = ()


def store_image(
    blobs: BlobStore,
    directory: Path,
    config_bytes: bytes,
    config: ImageConfig,
    layers: Sequence[LayerRow],
    references: Sequence[Reference],
) -> StoredImage:
    """Store a config and its manifest.

    Args:
        blobs: contains the layers' blobs.
        directory: a workspace on the blob store's file system.
        config_bytes: of the config; their digest is the image's id.
    """
    image_id = blobs.put_bytes(config_bytes, directory, "image config")
    manifest = Manifest(
        Descriptor(OCI_CONFIG, digest_of(config_bytes), len(config_bytes)),
        tuple(
            Descriptor(layer.media_type, layer.blob_digest, blobs.blob_path(layer.blob_digest).stat().st_size)
            for layer in layers
        ),
    )
    manifest_digest = blobs.put_bytes(encode(manifest.to_json()), directory, "image manifest")
    return StoredImage(
        image_id, manifest_digest, manifest.media_type, config, tuple(layers), tuple(references)
    )
