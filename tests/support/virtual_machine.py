"""A Linux guest that runs one Python script: Debian's kernel under QEMU's software emulation, on the host's files.

The guest sees the host's root file system over 9p, read-only, below an overlay in its own memory: whatever it does,
the host stays as it was.  It has its own kernel, though, and so control groups of version 2 wherever the tests run.
"""

from __future__ import annotations

import lzma
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
EMULATOR = "qemu-system-x86_64"
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
REPOSITORY = Path(__file__).parents[2]
_SYSTEM_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

_INIT = """#!/bin/busybox sh
# The root: what the host has (read-only), under what the guest writes.  Any failure panics the kernel at once.
set -e
export PATH=/bin
/bin/busybox --install -s /bin
mkdir -p /host /memory /root
for module in {modules}; do insmod "/modules/$module"; done
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose host /host
mount -t tmpfs memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /root
mount -t proc proc /root/proc
mount -t sysfs sysfs /root/sys
mount -t devtmpfs devtmpfs /root/dev
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
for name in $(cat /root/sys/fs/cgroup/cgroup.controllers); do
    echo "+$name" >/root/sys/fs/cgroup/cgroup.subtree_control
done
ip link set lo up
exec switch_root /root /bin/busybox sh -c {command}
"""


class NoGuestError(Exception):
    """No guest can be run here; the message says what is missing."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run: what the script wrote on its standard output, and all else (kernel, standard error)."""

    output: str
    console: str


@dataclass(frozen=True)
class Kernel:
    """A kernel image that can be read, and the version that its modules are filed under."""

    image: Path
    version: str


def find_kernel() -> Kernel:
    """Find the newest kernel of the host whose modules are there.

    Raises:
        NoGuestError: why no guest can be run here.
    """
    if platform.machine() != "x86_64":
        raise NoGuestError(f"the guest is an x86_64 one, and this host {platform.machine()}")
    if shutil.which(EMULATOR) is None:
        raise NoGuestError(f"{EMULATOR} is missing (apt install qemu-system-x86)")
    if not BUSYBOX.exists():
        raise NoGuestError(f"{BUSYBOX} is missing (apt install busybox-static)")
    if shutil.which("modprobe", path=_SYSTEM_PATH) is None:
        raise NoGuestError("modprobe is missing (apt install kmod)")
    images = sorted(
        Path("/boot").glob("vmlinuz-*-amd64"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for image in images:
        version = image.name.removeprefix("vmlinuz-")
        if os.access(image, os.R_OK) and Path("/lib/modules", version).is_dir():
            return Kernel(image, version)
    raise NoGuestError("there is no kernel in /boot that can be read (apt install linux-image-amd64)")


def list_modules(version: str, names: Sequence[str] = MODULES) -> list[Path]:
    """List the files of modules and of all that they need, in the order in which they can be inserted."""
    shown = subprocess.run(
        ["modprobe", "--set-version", version, "--show-depends", "--all", *names],
        env={**os.environ, "PATH": _SYSTEM_PATH},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # The other lines are "builtin NAME": nothing to insert.
    return list(
        dict.fromkeys(Path(line.split()[1]) for line in shown.splitlines() if line.startswith("insmod "))
    )


def build_cpio(files: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Build an initramfs of (path, mode with its type, content); cpio's "newc" format, as in
    driver-api/early-userspace/buffer-format.rst."""
    archive = bytearray()
    for number, (path, mode, content) in enumerate((*files, ("TRAILER!!!", 0, b"")), 1):
        name = path.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, four device numbers, length of the name, checksum
        header = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % value for value in header) + name
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def build_initramfs(kernel: Kernel, command: str) -> bytes:
    """Build the initramfs that makes the root and runs a shell command there as process 1."""
    modules = list_modules(kernel.version)
    files = [(name, 0o040755, b"") for name in ("bin", "dev", "modules")]
    files.append(("bin/busybox", 0o100755, BUSYBOX.read_bytes()))
    for path in modules:
        content = path.read_bytes()
        files.append(
            (f"modules/{path.stem}", 0o100644, lzma.decompress(content) if path.suffix == ".xz" else content)
        )
    script = _INIT.format(modules=" ".join(path.stem for path in modules), command=shlex.quote(command))
    return build_cpio([*files, ("init", 0o100755, script.encode())])


def run_script(
    script: Path, directory: Path, *, timeout_seconds: float, environment: Mapping[str, str] | None = None
) -> Outcome:
    """Boot a guest, run a Python script of this repository in it with this interpreter as root, and turn it off.

    Args:
        script: absolute; it finds the repository in PYTHONPATH.
        directory: an empty one of the host, for the initramfs and what the guest writes.
        timeout_seconds: for the whole of it; a guest that is not off by then is killed.

    Raises:
        NoGuestError: no guest can be run here.
        AssertionError: it took too long; with the end of its console.
    """
    kernel = find_kernel()
    variables = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        **(environment or {}),
    }
    assignments = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    # The second serial line carries the script's output alone, where no message of the kernel comes in between.
    command = (
        f"stty -F /dev/ttyS1 raw; cd /; env {assignments} {shlex.quote(sys.executable)} {shlex.quote(str(script))}"
        " >/dev/ttyS1; exec /bin/busybox poweroff -f"
    )
    initramfs, console, output = (directory / name for name in ("initramfs", "console", "output"))
    initramfs.write_bytes(build_initramfs(kernel, command))
    words = [
        *(EMULATOR, "-accel", "tcg", "-cpu", "max,la57=off", "-m", "512", "-nodefaults", "-display", "none"),
        *("-no-reboot", "-kernel", str(kernel.image), "-initrd", str(initramfs)),
        *("-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"),
        *("-serial", f"file:{console}", "-serial", f"file:{output}"),
        *("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
    ]
    with (directory / "emulator").open("wb") as errors:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
    try:
        process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        tail = "\n".join(_read(console).splitlines()[-30:])
        raise AssertionError(
            f"the guest was not off after {timeout_seconds} s; its console:\n{tail}"
        ) from None
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, (directory / "emulator").read_text(errors="replace")
    return Outcome(_read(output), _read(console))


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
