"""Images and bundles to measure with: a busybox, and a large one of many files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from pydock_core.spec.builder import HostFacts, build_spec
from pydock_core.spec.definition import Definition, complete
from pydock_core.spec.seccomp_profile import parse_kernel_release

BUSYBOX = Path("/bin/busybox")
APPLETS = (
    "sh true false sleep cat echo ls id hostname mount ps env head tail touch wc nc ip readlink grep mknod sort tr stty tty "
    "rm mkdir chmod cut ping httpd wget umount dd find pwd kill vi date stat"
).split()


def busybox_tree(directory: Path) -> Path:
    """Make a root file system out of the static busybox of Debian's busybox-static."""
    (directory / "bin").mkdir(parents=True)
    shutil.copy2(BUSYBOX, directory / "bin" / "busybox")
    for name in APPLETS:
        (directory / "bin" / name).symlink_to("busybox")
    for name in ("etc", "proc", "sys", "dev", "tmp", "root"):
        (directory / name).mkdir()
    (directory / "etc" / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/tmp:/bin/sh\n"
    )
    (directory / "etc" / "group").write_text("root:x:0:\nguest:x:1000:\n")
    return directory


def docker_archive(path: Path, layers: list[bytes], name: str, command: list[str]) -> Path:
    """Write a docker-archive as ``docker save`` does."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
        },
        "history": [{"created": "2026-01-01T00:00:00Z"} for _ in layers],
        "created": "2026-01-01T00:00:00Z",
    }
    body = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(body).hexdigest()}.json"
    names = [f"{hashlib.sha256(layer).hexdigest()}/layer.tar" for layer in layers]
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": names}]).encode()
    with tarfile.open(path, "w") as archive:
        for member, data in [
            (config_name, body),
            *zip(names, layers, strict=True),
            ("manifest.json", manifest),
        ]:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tar_of(directory: Path) -> bytes:
    """A tar of a tree, owned by root."""
    buffer = io.BytesIO()

    def owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = "root"
        return info

    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry in sorted(directory.iterdir()):
            archive.add(entry, entry.name, filter=owned)
    return buffer.getvalue()


def busybox_archive(path: Path, name: str = "busybox:latest") -> Path:
    """A docker-archive of busybox."""
    tree = busybox_tree(path.with_suffix(".tree"))
    return docker_archive(path, [tar_of(tree)], name, ["sh"])


def default_bundle(directory: Path) -> Path:
    """An OCI bundle of the container that ``dock run --network none busybox true`` makes, with a cgroup of its own."""
    busybox_tree(directory / "rootfs")
    request = complete({"Cmd": ["true"], "Env": ["PATH=/bin"]})
    facts = HostFacts(
        rootfs="rootfs",
        machine=os.uname().machine,
        kernel=parse_kernel_release(os.uname().release),
        hostname="bench",
        cgroups_path="/pydock-bench",
    )
    (directory / "config.json").write_text(json.dumps(build_spec(Definition(request, {}), facts)))
    return directory


def spec_bundle(directory: Path) -> Path:
    """An OCI bundle of the configuration that ``crun spec`` writes: no seccomp filter, no user, no network."""
    busybox_tree(directory / "rootfs")
    subprocess.run(["crun", "spec"], cwd=directory, check=True)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"args": ["true"], "terminal": False, "env": ["PATH=/bin"]}
    path.write_text(json.dumps(config))
    return directory


def large_archive(path: Path, *, files: int, total_bytes: int) -> Path:
    """A docker-archive of two layers of ``files`` files each, of ``total_bytes`` together; the same bytes every time.

    A sixth of the data is random, the rest are words: gzip makes some four tenths of it, as of a Python environment.
    """
    layers = []
    for number in range(2):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in sample_files(number, files, total_bytes // 2):
                info = tarfile.TarInfo(f"data/{number}/{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        layers.append(buffer.getvalue())
    return docker_archive(path, layers, "large:latest", ["true"])


def many_files(path: Path, name: str, files: int) -> Path:
    """A docker-archive of one layer of small files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(files):
            info = tarfile.TarInfo(f"data/{number // 500}/module_{number}.py")
            info.size = number % 2
            archive.addfile(info, io.BytesIO(b"x"))
    return docker_archive(path, [buffer.getvalue()], name, ["true"])


def sample_files(seed: int, files: int, total_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield names in some hundred directories, and contents."""
    chance = random.Random(seed)
    words = [chance.randbytes(chance.randrange(2, 9)).hex() for _ in range(300)]
    text = " ".join(chance.choices(words, k=1 << 15)).encode()
    noise = chance.randbytes(1 << 18)
    size = total_bytes // files
    for index in range(files):
        block = noise if index % 6 == 0 else text
        start, wanted = chance.randrange(len(block)), max(1, int(size * chance.uniform(0.2, 1.8)))
        yield f"{index % 97}/{index}", (block[start:] + block * (wanted // len(block) + 1))[:wanted]


def sample_tree(directory: Path, *, files: int, total_bytes: int) -> Path:
    """A directory of such files."""
    for name, data in sample_files(3, files, total_bytes):
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return directory


def many_layers(path: Path, name: str, count: int) -> Path:
    """A docker-archive of busybox and ``count`` - 1 small layers on top of it."""
    layers = [tar_of(busybox_tree(path.with_suffix(".tree")))]
    for number in range(1, count):
        small = path.with_suffix(f".{number}")
        small.mkdir()
        (small / f"layer-{number}").write_text(str(number))
        layers.append(tar_of(small))
    return docker_archive(path, layers, name, ["true"])
