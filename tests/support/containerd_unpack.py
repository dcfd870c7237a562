"""containerd unpacks an image with its native snapshotter, which applies each layer over a copy of those below it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 30.0
_CONFIGURATION = """version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
"""


def missing() -> str:
    """Why there can be no containerd here; empty where there can."""
    if os.geteuid() != 0:
        return "containerd needs root"
    absent = [name for name in ("containerd", "ctr") if not shutil.which(name)]
    return f"needs {', '.join(absent)} (Debian: containerd)" if absent else ""


@dataclass(frozen=True)
class Containerd:
    """A daemon of the tests' own.

    Attributes:
        base: its directory.
    """

    base: Path

    def _ctr(self, *words: object) -> str:
        result = subprocess.run(
            ["ctr", "--address", str(self.base / "socket"), "--namespace", "test", *(str(w) for w in words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, f"ctr {words}: {result.stderr.decode()}"
        return result.stdout.decode()

    def unpack(self, archive: bytes, chain_id: str) -> Path:
        """Import a docker-archive; return the root file system of its layers up to one.

        The archive's tag must be its own: what an image leaves that loses its tag is collected at any moment.
        """
        path = self.base / "image.tar"
        path.write_bytes(archive)
        self._ctr("images", "import", "--snapshotter", "native", path)
        key = f"view-{chain_id[-12:]}"
        mount = self._ctr(
            "snapshots", "--snapshotter", "native", "view", "--target", "/nowhere", key, chain_id
        )
        words = mount.split()
        return Path(words[words.index("bind") + 1])


@contextmanager
def containerd() -> Iterator[Containerd]:
    """Start a daemon with everything in one directory, without a network, and end it."""
    base = Path(tempfile.mkdtemp(prefix="containerd-"))
    (base / "config.toml").write_text(_CONFIGURATION)
    words: Sequence[object] = (
        *("unshare", "--mount", "--net", "containerd", "--config", base / "config.toml"),
        *("--root", base / "root", "--state", base / "state", "--address", base / "socket"),
    )
    with (base / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    client = Containerd(base)
    try:
        deadline = time.monotonic() + _SECONDS
        while subprocess.run(
            ["ctr", "--address", str(base / "socket"), "version"], capture_output=True, check=False
        ).returncode:
            assert daemon.poll() is None, (base / "log").read_text()[-1000:]
            assert time.monotonic() < deadline, "containerd does not answer"
            time.sleep(0.05)
        yield client
    finally:
        daemon.terminate()
        daemon.wait(_SECONDS)
        shutil.rmtree(base, ignore_errors=True)
