"""The built JupyterLab extension that is committed comes from the sources beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "labextension"
BUILT = ROOT / "pydock_jupyter" / "labextension"


def source_digest() -> str:
    """Compute what labextension/scripts/fingerprint.mjs writes; its comment defines it."""
    files = [p for directory in ("src", "style") for p in (SOURCES / directory).rglob("*") if p.is_file()]
    files += [SOURCES / name for name in ("package.json", "tsconfig.json", "webpack.config.js", "yarn.lock")]
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda p: p.relative_to(SOURCES).as_posix()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(SOURCES).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def test_built_extension_comes_from_these_sources() -> None:
    recorded = (BUILT / "source.sha256").read_text().strip()
    assert recorded == source_digest(), (
        "labextension/ has changed: run `jlpm build:prod` there and commit the result"
    )


def test_built_extension_is_whole() -> None:
    build = json.loads((BUILT / "package.json").read_text())["jupyterlab"]["_build"]
    assert (BUILT / build["load"]).is_file()


def test_lock_file_names_no_registry() -> None:
    lock = (SOURCES / "yarn.lock").read_text()
    assert "://" not in lock
