"""A host with NVIDIA GPUs that are not there: device nodes, driver, libraries and loader cache in namespaces of its own.

The nodes are those of harmless devices, /proc/driver/nvidia is a tmpfs, and the libraries are compiled here; a program in a
container finds and calls them as it would call CUDA's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydock_core.loader_cache import MACHINE_FLAGS, CacheEntry, merge_cache
from tests.bench.samples import busybox_tree
from tests.integration.user import REPOSITORY, SEEN_AT

VERSION = "535.104.05"
LIBRARIES = "/opt/driver/lib"
UUIDS = ("GPU-8d2b2f1e-0000-4000-8000-000000000000", "GPU-8d2b2f1e-1111-4000-8000-000000000001")
NODES = {"nvidiactl": 3, "nvidia-uvm": 3, "nvidia-uvm-tools": 3, "nvidia0": 5, "nvidia1": 7}
"""Minor numbers below major 1: null, zero and full.  Of these a container has no right to full (1:7) without a rule."""
SONAMES = {"libcuda": "libcuda.so.1", "libnvidia-ml": "libnvidia-ml.so.1", "libnvidia-glcore": ""}

_INFORMATION = """Model: \t\t NVIDIA Test
IRQ:   \t\t 16
GPU UUID: \t {uuid}
Bus Location: \t {bus}
Device Minor: \t {minor}
"""
_SETUP = r"""
set -e
base=$1
mount --make-rprivate /
ip link set lo up
mkdir -p $base/proc $base/dev
mount -t proc proc $base/proc  # a proc with nothing over it, which the kernel wants to see before a user namespace mounts one
mount --rbind /dev $base/dev
mount -t tmpfs tmpfs /dev
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 /dev/${node%:*} c 1 ${node#*:}; done
mknod -m 666 /dev/tty c 5 0
mknod -m 666 /dev/fuse c 10 229
mkdir /dev/pts /dev/shm /dev/net
mknod -m 666 /dev/net/tun c 10 200
mount --bind $base/dev/pts /dev/pts
mount --bind $base/dev/shm /dev/shm
ln -s pts/ptmx /dev/ptmx
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mount -t tmpfs tmpfs /opt
mount -t tmpfs tmpfs /usr/local/sbin
for own in /etc/cdi /var/run/cdi; do if [ -d $own ]; then mount -t tmpfs tmpfs $own; fi; done
mount -t tmpfs -o mode=755 tmpfs /proc/driver
mount --bind $2 $3
echo ready
exec cat > /dev/null
"""
_ACTIVATE = r"""
set -e
base=$1
cp -a $base/driver-proc/. /proc/driver/
cp -a $base/opt/. /opt/
cp -a $base/sbin/. /usr/local/sbin/
mount --bind $base/ld.so.cache /etc/ld.so.cache
shift
for node in "$@"; do mknod -m 666 /dev/${node%:*} c 1 ${node#*:}; done
"""


@dataclass(frozen=True)
class GpuHost:
    """Namespaces of mounts and network that a process holds.

    Attributes:
        base: a directory with the files of the driver.
        pid: of the holder.
    """

    base: Path
    pid: int

    def words(self, *words: object) -> list[str]:
        """The command that runs ``words`` inside."""
        return [str(shutil.which("nsenter")), "-t", str(self.pid), "-m", "-n", "--", *map(str, words)]

    def run(self, *words: object) -> str:
        """Run a command inside as root; return what it wrote."""
        done = subprocess.run(
            self.words(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout


def lacking_for_gpu_host() -> str:
    """What is missing, or ""."""
    if os.geteuid() != 0:
        return "needs root (namespaces and device nodes)"
    missing = [name for name in ("unshare", "nsenter", "gcc", "ldd", "ip") if not shutil.which(name)]
    return f"needs {', '.join(missing)}" if missing else ""


@contextmanager
def gpu_host(base: Path, *, with_gpu: bool = True) -> Iterator[GpuHost]:
    """Make the namespaces; they end with the last process in them.

    Args:
        base: an empty directory that every user can read.
        with_gpu: False for the same host without the driver.
    """
    holder = subprocess.Popen(
        ["unshare", "--mount", "--net", "sh", "-c", _SETUP, "sh", str(base), str(REPOSITORY), str(SEEN_AT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stderr is not None
    try:
        assert holder.stdout.readline() == b"ready\n", holder.stderr.read()
        host = GpuHost(base, holder.pid)
        if with_gpu:
            _make_driver(base)
            host.run("sh", "-c", _ACTIVATE, "sh", base, *(f"{name}:{minor}" for name, minor in NODES.items()))
        yield host
    finally:
        holder.stdin.close()
        holder.wait(timeout=10)
        holder.stdout.close()
        holder.stderr.close()


def _make_driver(base: Path) -> None:
    driver = base / "driver-proc" / "nvidia"
    driver.mkdir(parents=True)
    (driver / "version").write_text(
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {VERSION}  Sat Aug 19 01:15:15 UTC 2023\n"
        "GCC version:  gcc version 12.3.0\n"
    )
    (driver / "params").write_text(
        "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\nDeviceFileMode: 438\n"
    )
    for minor, uuid in enumerate(UUIDS):
        bus = f"0000:{minor + 1:02x}:00.0"
        directory = driver / "gpus" / bus
        directory.mkdir(parents=True)
        (directory / "information").write_text(_INFORMATION.format(uuid=uuid, bus=bus, minor=minor))
    libraries = base / "opt" / "driver" / "lib"
    libraries.mkdir(parents=True)
    entries = []
    for name, soname in SONAMES.items():
        file = libraries / f"{name}.so.{VERSION}"
        compile_library(
            file, soname or file.name, f'const char *gpu_text(void) {{ return "{name} {VERSION}"; }}'
        )
        if soname:
            (libraries / soname).symlink_to(file.name)
        entries.append(CacheEntry(soname or file.name, f"{LIBRARIES}/{soname or file.name}", machine_flags()))
    (base / "ld.so.cache").write_bytes(merge_cache(Path("/etc/ld.so.cache").read_bytes(), entries))
    (base / "sbin").mkdir()
    smi = base / "sbin" / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho NVIDIA-SMI of the host\n")
    smi.chmod(0o755)


def machine_flags() -> int:
    """The loader's flags of this machine's libraries."""
    return MACHINE_FLAGS[os.uname().machine]


def compile_library(file: Path, soname: str, source: str) -> None:
    """Compile a shared library."""
    words = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-x", "c", "-", "-o", str(file)]
    subprocess.run(words, input=source.encode(), check=True)


_PROGRAM = r"""
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **names) {
    for (int i = 1; i < count; i++) {
        void *library = dlopen(names[i], RTLD_NOW);
        const char *(*text)(void) = library ? (const char *(*)(void))dlsym(library, "gpu_text") : 0;
        printf("%s\n", text ? text() : "not found");
    }
}
"""


def cuda_tree(directory: Path) -> Path:
    """Make the root file system of an image with glibc, bash and ``dl NAME...``, which calls libraries by their sonames."""
    busybox_tree(directory)
    subprocess.run(
        ["gcc", "-x", "c", "-", "-o", str(directory / "bin" / "dl"), "-ldl"],
        input=_PROGRAM.encode(),
        check=True,
    )
    shutil.copy2(os.path.realpath("/bin/bash"), directory / "bin" / "bash")
    for program in ("bash", "dl"):
        listing = subprocess.run(
            ["ldd", str(directory / "bin" / program)], capture_output=True, text=True, check=True
        ).stdout
        for word in listing.split():
            target = directory / word.lstrip("/")
            if word.startswith("/") and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(os.path.realpath(word), target)
    (directory / "etc" / "ld.so.conf.d").mkdir()
    return directory


def environment_of(state: Path, home: Path) -> Mapping[str, str]:
    """The environment of ``dock``, whose state and configuration are the test's."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        "HOME": str(home),
        "PYDOCK_ROOT": str(state),
        "PYTHONPATH": str(SEEN_AT),
    }


def python_words() -> Sequence[str]:
    """The tests' interpreter, as it is seen inside."""
    return (str(SEEN_AT / Path(sys.executable).relative_to(REPOSITORY)),)
