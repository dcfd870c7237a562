"""Images to measure with, made by the tools that people make them with: each writes headers of its own form.

========================  ==============================================================================
mmdebstrap, podman save   ustar; a pax header where a name or a target is long
docker build, save        ustar, as Go's archive/tar writes it
podman build, save        a pax header with an extended attribute on every file
tar --format=gnu          GNU long names, for one file in five
tar --format=posix        a pax header with times on every entry, as BuildKit writes them
========================  ==============================================================================
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.image_peers import ImagePeer
from tests.bench.peer import Skipped
from tests.bench.samples import busybox_archive, sample_tree

_SUITE = "bookworm"
_PACKAGES = "build-essential,git,python3-numpy,python3-matplotlib"
"""With these a Debian has some 30,000 files."""
_DEBIAN_SECONDS = 600
_LONG = (
    "a name that GNU tar has to write into an entry of its own, as the header has room for a hundred bytes; "
)


@dataclass(frozen=True, slots=True)
class Produced:
    """An image in an archive.

    Attributes:
        who: the tools that made it.
        archive: the archive's path.
        name: of the image.
    """

    who: str
    archive: Path
    name: str


def debian_root(path: Path, *, quick: bool) -> Path:
    """Make the tar of a Debian's root file system; this needs the network.

    Raises:
        Skipped: mmdebstrap is not there, or cannot reach a mirror.
    """
    if not shutil.which("mmdebstrap") or os.geteuid() != 0:
        raise Skipped("mmdebstrap", "not on this machine, or not root")
    words = ["mmdebstrap", "--quiet", "--variant=minbase", *([] if quick else [f"--include={_PACKAGES}"])]
    try:
        subprocess.run([*words, _SUITE, path], check=True, timeout=_DEBIAN_SECONDS, capture_output=True)
    except subprocess.SubprocessError as error:
        raise Skipped("mmdebstrap", "no Debian could be made; is there a network?") from error
    return path


def produce(
    base: Path, peers: Mapping[str, ImagePeer], debian: Path | None, *, files: int, total_bytes: int
) -> tuple[list[Produced], dict[str, str]]:
    """Make an image with each tool that is here; return them, and why there is none of the others.

    Args:
        base: an empty directory.
        peers: by their names.
        debian: the tar of a root file system.
        files, total_bytes: of each image but Debian's.
    """
    tree = sample_tree(base / "context" / "data", files=files, total_bytes=total_bytes)
    for number, file in enumerate(sorted(tree.rglob("*"))):
        if file.is_file():
            os.utime(file, ns=(0, 1_700_000_000_000_000_000 + number * 1_000_003))
            if number % 5 == 0:
                file.rename(file.with_name(f"{_LONG}{file.name}"))
    (tree.parent / "Dockerfile").write_text("FROM busybox\nCOPY data /data\n")
    makers: dict[str, Callable[[str], Produced]] = {
        "mmdebstrap, podman save": lambda who: _imported(who, _peer(peers, "podman"), _root(debian)),
        "docker build, save": lambda who: _built(who, _peer(peers, "docker"), tree.parent),
        "tar --format=gnu": lambda who: _packed(who, _peer(peers, "podman"), tree, "gnu"),
        "tar --format=posix": lambda who: _packed(who, _peer(peers, "podman"), tree, "posix"),
        # The last one: it gives the files attributes.
        "podman build, save": lambda who: _built_with_attributes(who, _peer(peers, "podman"), tree.parent),
    }
    made, skipped = [], {}
    for who, maker in makers.items():
        try:
            made.append(maker(who))
        except Skipped as reason:
            skipped[who] = str(reason)
    return made, skipped


def _peer(peers: Mapping[str, ImagePeer], name: str) -> ImagePeer:
    if name not in peers:
        raise Skipped(name, f"{name} is not on this machine")
    return peers[name]


def _root(debian: Path | None) -> Path:
    if debian is None:
        raise Skipped("mmdebstrap", "there is no Debian")
    return debian


def _saved(who: str, peer: ImagePeer, name: str, archive: Path) -> Produced:
    peer.command("save", "-o", archive, name)
    peer.forget(name)
    return Produced(who, archive, name)


def _imported(who: str, podman: ImagePeer, tar: Path) -> Produced:
    name = f"localhost/{tar.stem}:latest"
    podman.command("import", "--quiet", "--change", "CMD=true", tar, name)
    produced = _saved(who, podman, name, tar.with_suffix(".saved"))
    tar.unlink()
    return produced


def _packed(who: str, podman: ImagePeer, tree: Path, form: str) -> Produced:
    tar = tree.parent.parent / f"{form}.tar"
    subprocess.run(["tar", f"--format={form}", "-C", tree.parent, "-cf", tar, tree.name], check=True)
    return _imported(who, podman, tar)


def _built(who: str, peer: ImagePeer, context: Path, *words: str) -> Produced:
    peer.command("load", "-i", busybox_archive(context.parent / f"{peer.name}.tar"))
    name = f"localhost/by-{peer.name}:latest"
    peer.command("build", *words, "-t", name, context)
    produced = _saved(who, peer, name, context.parent / f"by-{peer.name}.tar")
    peer.forget("busybox", "localhost/busybox")
    return produced


def _built_with_attributes(who: str, podman: ImagePeer, context: Path) -> Produced:
    for file in (context / "data").rglob("*"):
        os.setxattr(file, "user.origin", b"tests.bench")
    return _built(who, podman, context, "--isolation", "chroot", "--layers=false")
