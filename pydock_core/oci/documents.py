"""Manifests, indexes and image configs of the OCI image specification 1.1, with a JSON round trip.

Docker's own media types (image manifest version 2, schema 2) are read as their OCI counterparts.  A document that is
only passed on keeps unknown fields, because its bytes are kept: the digest of its bytes identifies a document, and
:func:`encode` makes the bytes of a new one.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydock_core.errors import CorruptError, UnsupportedError
from pydock_core.oci.digest import is_digest, is_other_digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})

_SIZE_LIMIT = 1 << 63
"""Sizes are signed 64-bit integers (descriptor.md)."""

REF_NAME = "org.opencontainers.image.ref.name"
"""Annotation of an index entry: the name within the layout (annotations.md)."""
CONTAINERD_NAME = "io.containerd.image.name"
"""Annotation of containerd and Docker: an image's full reference."""

# Layer media types -> compression.  The "nondistributable" and "foreign" ones name the same content.
_LAYER_TYPES = {
    OCI_LAYER: "",
    OCI_LAYER + "+gzip": "gzip",
    OCI_LAYER + "+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    DOCKER_LAYER: "",
    DOCKER_LAYER + ".gzip": "gzip",
    DOCKER_LAYER + ".zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}


def layer_compression(media_type: str) -> str | None:
    """Return "", "gzip" or "zstd" for a layer's media type, None for any other type."""
    return _LAYER_TYPES.get(media_type)


def is_foreign(media_type: str) -> bool:
    """Whether a layer may not be pushed (image specification, layer.md, "Non-Distributable Layers")."""
    return ".nondistributable." in media_type or ".foreign." in media_type


def layer_media_type(compression: str) -> str:
    """Return the OCI media type of a layer with ``compression`` "", "gzip" or "zstd"."""
    return f"{OCI_LAYER}+{compression}" if compression else OCI_LAYER


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Names a blob (descriptor.md).

    Attributes:
        media_type, digest: as specified; the digest is always SHA-256.
        size_bytes: the size of the stored blob.
        annotations: free.
        platform: {"os": ..., "architecture": ..., "variant": ...}; empty if absent.
        urls: other addresses of the blob, from "foreign" layers.
    """

    media_type: str
    digest: str
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, Any] = field(default_factory=dict)
    urls: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size_bytes,
        }
        if self.platform:
            document["platform"] = dict(self.platform)
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.urls:
            document["urls"] = list(self.urls)
        return document

    @classmethod
    def from_json(cls, document: Any, subject: str = "descriptor") -> Descriptor:
        """Read a descriptor; ``subject`` names the document that holds it, for the message."""
        checked = _mapping(document, subject)
        digest, size = checked.get("digest"), checked.get("size")
        if isinstance(digest, str) and is_other_digest(digest):
            raise UnsupportedError(
                f"{subject} has a digest of the algorithm {digest.partition(':')[0]}, which is not supported",
                "use an image with SHA-256 digests",
            )
        if not isinstance(digest, str) or not is_digest(digest):
            raise CorruptError(f"{subject}: {reprlib.repr(digest)} is not a SHA-256 digest", _ANEW)
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _SIZE_LIMIT:
            raise CorruptError(f"{subject}: {reprlib.repr(size)} is not a size", _ANEW)
        return cls(
            _text(checked, "mediaType", subject),
            digest,
            size,
            _strings(checked.get("annotations"), subject),
            _mapping(checked.get("platform") or {}, subject),
            _texts(checked.get("urls"), subject),
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest (manifest.md): one config, and the layers from the bottom up."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = OCI_MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document

    @classmethod
    def from_json(cls, document: Any, subject: str = "image manifest") -> Manifest:
        checked = _mapping(document, subject)
        if checked.get("schemaVersion") != 2:
            version = reprlib.repr(checked.get("schemaVersion"))
            raise CorruptError(f"{subject} has schema version {version}, not 2", _ANEW)
        _check_kind(checked, subject, INDEX_TYPES, ("manifests",))
        return cls(
            Descriptor.from_json(checked.get("config"), f"{subject}, config"),
            tuple(
                Descriptor.from_json(layer, f"{subject}, layer {number}")
                for number, layer in enumerate(_sequence(checked.get("layers"), subject))
            ),
            _text(checked, "mediaType", subject, OCI_MANIFEST),
            _strings(checked.get("annotations"), subject),
        )


@dataclass(frozen=True, slots=True)
class Index:
    """An image index (image-index.md), also the index.json of an image layout.

    Entries with a digest of an algorithm other than SHA-256 are skipped: they are of no use, and the others are usable
    without them.
    """

    manifests: tuple[Descriptor, ...]
    media_type: str = OCI_INDEX
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_json() for manifest in self.manifests],
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document

    @classmethod
    def from_json(cls, document: Any, subject: str = "image index") -> Index:
        checked = _mapping(document, subject)
        _check_kind(checked, subject, MANIFEST_TYPES, ("layers", "config"))
        return cls(
            tuple(
                Descriptor.from_json(entry, f"{subject}, entry {number}")
                for number, entry in enumerate(_sequence(checked.get("manifests"), subject))
                if not (isinstance(entry, Mapping) and is_other_digest(str(entry.get("digest"))))
            ),
            _text(checked, "mediaType", subject, OCI_INDEX),
            _strings(checked.get("annotations"), subject),
        )


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image config (config.md); Docker's image JSON is a superset.

    Attributes:
        architecture, os, variant: the platform, in Go's terms ("amd64", "linux").
        config: the execution parameters, keys as specified: User, ExposedPorts, Env, Entrypoint, Cmd,
            Volumes, WorkingDir, Labels, StopSignal, and Docker's Healthcheck, Shell, OnBuild.
        diff_ids: digests of the uncompressed layers, bottom first.
        history: one mapping per step, as specified.
        created: RFC 3339 time, empty if absent.
        author, comment: free text; ``comment`` is Docker's.
    """

    architecture: str
    os: str
    diff_ids: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    created: str = ""
    author: str = ""
    comment: str = ""
    variant: str = ""

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"architecture": self.architecture, "os": self.os}
        for key in ("variant", "created", "author", "comment"):
            if getattr(self, key):
                document[key] = getattr(self, key)
        document["config"] = dict(self.config)
        document["rootfs"] = {"type": "layers", "diff_ids": list(self.diff_ids)}
        if self.history:
            document["history"] = [dict(step) for step in self.history]
        return document

    @classmethod
    def from_json(cls, document: Any, subject: str = "image config") -> ImageConfig:
        checked = _mapping(document, subject)
        rootfs = _mapping(checked.get("rootfs"), f"{subject}, rootfs")
        diff_ids = tuple(_sequence(rootfs.get("diff_ids"), f"{subject}, diff_ids"))
        for diff_id in diff_ids:
            if not isinstance(diff_id, str) or not is_digest(diff_id):
                raise CorruptError(
                    f"{subject}: diff id {reprlib.repr(diff_id)} is not a SHA-256 digest", _ANEW
                )
        return cls(
            architecture=_text(checked, "architecture", subject),
            os=_text(checked, "os", subject),
            diff_ids=diff_ids,
            config=_mapping(checked.get("config") or {}, f"{subject}, config"),
            history=tuple(_mapping(step, subject) for step in _sequence(checked.get("history"), subject)),
            created=_text(checked, "created", subject),
            author=_text(checked, "author", subject),
            comment=_text(checked, "comment", subject),
            variant=_text(checked, "variant", subject),
        )


_ANEW = "get the image again; it is damaged, or was written by a broken tool"


def encode(document: Mapping[str, Any]) -> bytes:
    """Return the bytes of a new document: UTF-8, no spaces, keys in the order given."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def decode(data: bytes, subject: str) -> Any:
    """Parse the bytes of a document; ``subject`` names it in errors.

    Raises:
        CorruptError: it is not valid JSON in UTF-8.
    """
    try:
        # Decoded first: from bytes, json accepts UTF-16 and a byte order mark too, unlike other tools.
        return json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{subject} is not valid JSON: {error}", _ANEW) from error


def _check_kind(
    document: Mapping[str, Any], subject: str, other_types: frozenset[str], other_keys: Sequence[str]
) -> None:
    """Refuse a document that another reader may interpret as another kind (CVE-2021-41190)."""
    if _text(document, "mediaType", subject) in other_types or any(key in document for key in other_keys):
        raise CorruptError(
            f"{subject} can be read as an index and as a manifest", "the image is hostile; tell its owner"
        )


def _mapping(value: Any, subject: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise CorruptError(f"{subject} is not a JSON object", _ANEW)
    return dict(value)


def _sequence(value: Any, subject: str) -> Sequence[Any]:
    if value is None:  # Go writes an empty slice as null
        return ()
    if not isinstance(value, list):
        raise CorruptError(f"{subject} is not a JSON array", _ANEW)
    return value


def _text(document: Mapping[str, Any], key: str, subject: str, default: str = "") -> str:
    value = document.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise CorruptError(f"{subject}: {key} is not a string", _ANEW)
    return value


def _texts(value: Any, subject: str) -> tuple[str, ...]:
    texts = _sequence(value, f"{subject}, urls")
    if not all(isinstance(text, str) for text in texts):
        raise CorruptError(f"{subject}: an address is not a string", _ANEW)
    return tuple(texts)


def _strings(value: Any, subject: str) -> dict[str, str]:
    strings = _mapping(value or {}, f"{subject}, annotations")
    if not all(isinstance(text, str) for text in strings.values()):
        raise CorruptError(f"{subject}: an annotation is not a string", _ANEW)
    return strings
