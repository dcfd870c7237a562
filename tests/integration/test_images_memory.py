"""Memory stays below 150 MB whatever the size of a layer: from an archive to a registry, and back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest

from pydock_core.store.snapshots.layers import VARIABLE
from tests.support.image_store import NEEDS_ROOT, ROOT, no_erofs
from tests.support.network_namespace import network_namespace
from tests.support.peak_memory import measured, peak_bytes
from tests.support.registry import registry

pytestmark = pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)

MB = 10**6
LARGE_MB, SMALL_FILES = 200, 20_000
DOCK = Path(sys.executable).with_name("dock")


class Repeated(io.RawIOBase):
    """A file without end, of one piece again and again."""

    def __init__(self, piece: bytes) -> None:
        self._piece = piece
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        data = self._piece[self._at : self._at + size]
        self._at = (self._at + len(data)) % len(self._piece)
        return data + self.read(size - len(data)) if len(data) < size else data


def write_layer(path: Path) -> None:
    """A layer of one large file that gzip can do little with, and many small ones."""
    piece = os.urandom(MB)
    with path.open("wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        large = tarfile.TarInfo("large")
        large.size = LARGE_MB * MB
        archive.addfile(large, Repeated(piece))
        for number in range(SMALL_FILES):
            archive.addfile(tarfile.TarInfo(f"d/{number // 500}/file-{number}"))


def write_archive(path: Path, layer: Path) -> None:
    with layer.open("rb") as file:
        diff_id = hashlib.file_digest(file, "sha256").hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["large:1"], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        archive.add(layer, "layer.tar")
        for name, document in (("config.json", config), ("manifest.json", manifest)):
            data = json.dumps(document).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_a_large_layer_takes_no_memory(tmp_path: Path) -> None:
    write_layer(tmp_path / "layer.tar")
    write_archive(tmp_path / "large.tar", tmp_path / "layer.tar")
    (tmp_path / "layer.tar").unlink()
    peaks = {}
    with network_namespace() as inside, registry(inside, tmp_path / "registry", 5000) as there:
        name = f"{there.host}/large:1"
        for driver in ("directory",) if no_erofs(tmp_path) else ("erofs", "directory"):
            environment = {"PYDOCK_ROOT": str(tmp_path / driver), VARIABLE: driver}
            for words in (
                ("load", "-q", "-i", tmp_path / "large.tar"),
                ("tag", "large:1", name),
                ("push", "-q", name),
                ("save", "-o", tmp_path / "saved.tar", name),
                ("rmi", "large:1", name),
                ("pull", "-q", name),
            ):
                done = inside.run(*measured(DOCK, *words), environment=environment, timeout=120)
                peaks[driver, words[0]] = peak_bytes(done.stdout)
    assert {action: peak // MB for action, peak in peaks.items() if peak >= 150 * MB} == {}
    assert min(peaks.values()) > 10 * MB  # it was measured
