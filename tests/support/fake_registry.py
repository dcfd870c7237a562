"""A registry in memory, with the methods of RegistryClient: for what is above it (pull and push)."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydock_core.errors import NotFoundError, UnavailableError
from pydock_core.images.registry.client import BlobSink, FetchedManifest
from pydock_core.oci.documents import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    encode,
    layer_media_type,
)
from pydock_core.store.growing_file import Arrival
from pydock_core.store.layer_blob import LayerBlob
from tests.support.image_store import build_config, digest


@dataclass
class FakeRegistry:
    """What a registry has, and what it is to do wrong.

    Attributes:
        blobs: by digest.
        links: which repository has which blobs.
        manifests: by (path, tag or digest): media type and bytes.
        break_after: of a blob, by digest: the download fails once after so many bytes.
        hold: of a blob, by digest: nothing more comes until the event is set.
        damage: of a blob, by digest: what comes instead.
        log: what was asked, in order: (verb, digest or tag).
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, set[str]] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    break_after: dict[str, int] = field(default_factory=dict)
    hold: dict[str, threading.Event] = field(default_factory=dict)
    damage: dict[str, bytes] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    closed: int = 0

    # -- filling ---------------------------------------------------------------------------------------------

    def add_blob(self, path: str, data: bytes, media_type: str) -> Descriptor:
        self.blobs[digest(data)] = data
        self.links.setdefault(path, set()).add(digest(data))
        return Descriptor(media_type, digest(data), len(data))

    def add_image(self, path: str, tag: str, *layers: bytes, compression: str = "gzip") -> Manifest:
        """Add an image of plain tars under a tag."""
        stored = [gzip.compress(layer, mtime=0) if compression else layer for layer in layers]
        config = self.add_blob(path, build_config(*map(digest, layers), Cmd=["true"]), OCI_CONFIG)
        manifest = Manifest(
            config, tuple(self.add_blob(path, blob, layer_media_type(compression)) for blob in stored)
        )
        self.add_manifest(path, tag, OCI_MANIFEST, encode(manifest.to_json()))
        return manifest

    def add_index(self, path: str, tag: str, **platforms: bytes) -> str:
        """Add an index of images with one layer each, by architecture; return its digest."""
        entries = []
        for architecture, layer in platforms.items():
            config = json.loads(build_config(digest(layer))) | {"architecture": architecture}
            descriptor = self.add_blob(path, json.dumps(config).encode(), OCI_CONFIG)
            manifest = Manifest(descriptor, (self.add_blob(path, layer, layer_media_type("")),))
            data = encode(manifest.to_json())
            self.add_manifest(path, digest(data), OCI_MANIFEST, data)
            platform = {"os": "linux", "architecture": architecture}
            entries.append(Descriptor(OCI_MANIFEST, digest(data), len(data), platform=platform))
        data = encode(Index(tuple(entries)).to_json())
        self.add_manifest(path, tag, OCI_INDEX, data)
        return digest(data)

    def add_manifest(self, path: str, reference: str, media_type: str, data: bytes) -> None:
        self.manifests[path, reference] = self.manifests[path, digest(data)] = (media_type, data)

    def asked(self, verb: str) -> list[str]:
        return [subject for name, subject in self.log if name == verb]

    # -- RegistryClient --------------------------------------------------------------------------------------

    def __enter__(self) -> FakeRegistry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed += 1
        for event in self.hold.values():
            event.set()

    def manifest(self, path: str, reference: str) -> FetchedManifest:
        self.log.append(("manifest", reference))
        if (path, reference) not in self.manifests:
            raise NotFoundError(f"manifest {path}:{reference} unknown")
        media_type, data = self.manifests[path, reference]
        return FetchedManifest(media_type, digest(data), data)

    def tags(self, path: str) -> Iterator[str]:
        return iter(sorted(tag for (name, tag) in self.manifests if name == path and ":" not in tag))

    def fetch_blob(self, path: str, descriptor: Descriptor, sink: BlobSink) -> None:
        self.log.append(("fetch", descriptor.digest))
        data = self.damage.get(descriptor.digest, self.blobs[descriptor.digest])
        limit = self.break_after.pop(descriptor.digest, None)
        while sink.position < len(data):
            if limit is not None and sink.position >= limit:
                if descriptor.digest not in self.hold:
                    raise UnavailableError("the connection broke")
                self.hold[descriptor.digest].wait(30)
                limit = None
            sink.write(data[sink.position : sink.position + 4096])

    def has_blob(self, path: str, digest: str) -> bool:
        self.log.append(("head", digest))
        return digest in self.links.get(path, ())

    def mount_blob(self, path: str, digest: str, from_path: str) -> bool:
        self.log.append(("mount", digest))
        if digest not in self.links.get(from_path, ()):
            return False
        self.links.setdefault(path, set()).add(digest)
        return True

    def upload_blob(
        self,
        path: str,
        file: Path,
        arrival: Arrival | None,
        digest: Callable[[], str],
        report: Callable[[int], None] | None = None,
    ) -> None:
        with LayerBlob(file, "", arrival=arrival).open() as stream:
            data = b""
            while chunk := stream.read(1 << 16):
                data += chunk
                if report is not None:
                    report(len(data))
        self.log.append(("upload", digest()))
        self.blobs[digest()] = data
        self.links.setdefault(path, set()).add(digest())

    def put_manifest(self, path: str, reference: str, media_type: str, data: bytes) -> str:
        document: Any = json.loads(data)
        needed = [document["config"]["digest"], *(layer["digest"] for layer in document["layers"])]
        missing = [name for name in needed if name not in self.links.get(path, ())]
        assert not missing, f"a real registry refuses a manifest whose blobs it lacks: {missing}"
        self.add_manifest(path, reference, media_type, data)
        return digest(data)
