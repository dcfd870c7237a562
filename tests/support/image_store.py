"""An image store on a directory of a test's own, and archives made from a few words."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydock_core.engine.images import Images
from pydock_core.images.image_store import ImageStore
from pydock_core.paths import StateRoot
from pydock_core.progress import Progress
from pydock_core.runtime.rootfs import mount_erofs
from pydock_core.store.blobs import BlobStore
from pydock_core.store.database.connection import Database
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.snapshots.directory import DirectorySnapshotter
from pydock_core.store.snapshots.erofs import ErofsSnapshotter
from pydock_core.store.snapshots.layers import Layers
from pydock_core.store.snapshots.probe import probe_erofs
from pydock_core.store.snapshots.protocol import Snapshotter
from pydock_core.store.trees import remove_tree
from pydock_core.store.worker import LocalWorker

ROOT = os.geteuid() == 0
NEEDS_ROOT = "needs root: layers have owners, and trusted. attributes want it"


@dataclass(frozen=True)
class Store:
    """The parts of an engine that images need."""

    root: StateRoot
    database: Database
    snapshotter: Snapshotter
    image_store: ImageStore
    images: Images
    _mount_fds: list[int] = field(default_factory=list)

    @property
    def blobs(self) -> BlobStore:
        return BlobStore(self.root.images)

    def contents(self) -> list[str]:
        """Every path of the state root but the database's and the locks': what a failure must leave as it was."""
        found = []
        for directory, directories, files in os.walk(self.root.data):
            for name in (*directories, *files):
                path = os.path.relpath(os.path.join(directory, name), self.root.data)
                if not path.startswith("pydock.db") and not name.endswith("lock"):
                    found.append(path)
        return sorted(found)

    def tree(self, diff_id: str) -> Path:
        """The directory of a layer; of an index, a mount that is attached to nothing."""
        *needed, seen = self.snapshotter.mounts([diff_id], None, None)
        if not needed:
            return Path(seen.source)
        self._mount_fds.append(mount_erofs(needed[0].source, needed[0].devices))
        return Path(f"/proc/self/fd/{self._mount_fds[-1]}")

    def empty_trash(self) -> None:
        """What the engine does when it starts."""
        for path in self.root.trash.iterdir():
            remove_tree(str(path))

    def close(self) -> None:
        for fd in self._mount_fds:
            os.close(fd)
        self._mount_fds.clear()
        self.database.close()


class Alternating(Layers):
    """Keeps every other layer by the other driver, so that all stacks are mixed."""

    _prefers_erofs = True

    def apply(self, diff_id: str, blob: LayerBlob, progress: Progress | None = None) -> int:
        size = super().apply(diff_id, blob, progress)
        self._prefers_erofs = not self._prefers_erofs
        return size


DRIVERS = ("directory", "erofs", "mixed")


def no_erofs(base: Path) -> str:
    """Why tests of the EROFS driver cannot run here, "" where they can."""
    root = StateRoot(base / "probe" / "data", base / "probe" / "run")
    root.ensure()
    reason = probe_erofs(root)
    return f"needs EROFS over files (Linux 6.12, root): {reason}" if reason else ""


def open_store(base: Path, driver: str = "directory") -> Store:
    """Make or open the store of a state root below ``base``; ``driver`` is one of DRIVERS."""
    root = StateRoot(base / "data", base / "run")
    root.ensure()
    worker = LocalWorker()
    database = Database(root.database)
    directory = DirectorySnapshotter(root, worker)
    snapshotter: Snapshotter
    if driver == "directory":
        snapshotter = Layers(root, directory, None, prefers_erofs=False)
    else:
        kind = Alternating if driver == "mixed" else Layers
        snapshotter = kind(root, directory, ErofsSnapshotter(root, worker), prefers_erofs=True)
    store = ImageStore(root, database, lambda: snapshotter, worker)
    return Store(root, database, snapshotter, store, Images(store))


def entry(name: str, kind: str = "file", data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One tar entry; ``kind`` is file, dir, link, hard, char, block or fifo; the fields are TarInfo's."""
    info = tarfile.TarInfo(name)
    info.type = {
        "file": tarfile.REGTYPE,
        "dir": tarfile.DIRTYPE,
        "link": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "char": tarfile.CHRTYPE,
        "block": tarfile.BLKTYPE,
        "fifo": tarfile.FIFOTYPE,
    }[kind]
    info.mode = 0o755 if kind == "dir" else 0o644
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def build_tar(
    entries: Iterable[tuple[tarfile.TarInfo, bytes]], tar_format: int = tarfile.PAX_FORMAT
) -> bytes:
    """A plain tar of entries, with its end marker."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tar_format, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def build_config(*diff_ids: str, **config: Any) -> bytes:
    """An image config of layers."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-06T07:08:09.5Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    return json.dumps(document).encode()


def build_docker_archive(
    *layers: bytes, tags: Iterable[str] = ("test:latest",), config: bytes | None = None, order: str = "last"
) -> bytes:
    """A docker-archive of one image; ``order`` says where manifest.json is."""
    config = config if config is not None else build_config(*(digest(layer) for layer in layers), Cmd=["sh"])
    name = digest(config)[7:] + ".json"
    manifest = [
        {"Config": name, "RepoTags": list(tags), "Layers": [f"{n}/layer.tar" for n in range(len(layers))]}
    ]
    files = [entry(f"{number}/layer.tar", data=layer) for number, layer in enumerate(layers)]
    files.append(entry(name, data=config))
    described = entry("manifest.json", data=json.dumps(manifest).encode())
    return build_tar([described, *files] if order == "first" else [*files, described])


def oci_members(
    layers: Iterable[tuple[bytes, str, str]], name: str = "test:oci", **config: Any
) -> dict[str, bytes]:
    """The files of an OCI layout of one image; layers are (blob, media type, diff id)."""
    blobs: dict[str, bytes] = {}

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        blobs["blobs/sha256/" + digest(data)[7:]] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    layers = list(layers)
    described = [put(blob, media_type) for blob, media_type, _ in layers]
    configured = put(
        build_config(*(diff_id for _, _, diff_id in layers), **config),
        "application/vnd.oci.image.config.v1+json",
    )
    manifest = put(
        json.dumps({"schemaVersion": 2, "config": configured, "layers": described}).encode(),
        "application/vnd.oci.image.manifest.v1+json",
    )
    manifest["annotations"] = {"org.opencontainers.image.ref.name": name}
    index = {"schemaVersion": 2, "manifests": [manifest]}
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **blobs,
    }


def tar_of(members: dict[str, bytes]) -> bytes:
    """A tar of plain files."""
    return build_tar(entry(name, data=data) for name, data in members.items())


def is_whiteout(path: Path) -> bool:
    """Whether overlayfs takes a path for a whiteout: a character device 0/0."""
    status = os.lstat(path)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
