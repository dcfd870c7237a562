"""GPUs without NVIDIA's toolkit: ``--gpus``, ``--runtime nvidia`` and CDI devices, as root and as an ordinary user.

The host is simulated in namespaces of the test's own (tests/support/gpu_host.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pydock_core.paths import StateRoot
from tests.bench.samples import BUSYBOX
from tests.integration.conftest import Dock, end_servers, wait_until
from tests.integration.test_terminal import terminal
from tests.integration.user import SEEN_AT, OrdinaryUser, ordinary_user
from tests.support.gpu_host import (
    UUIDS,
    VERSION,
    GpuHost,
    cuda_tree,
    environment_of,
    gpu_host,
    lacking_for_gpu_host,
    python_words,
)
from tests.support.image_store import build_config, build_docker_archive, build_tar, digest, entry

pytestmark = pytest.mark.skipif(
    bool(lacking_for_gpu_host()) or not shutil.which("newuidmap"),
    reason=lacking_for_gpu_host() or "needs uidmap",
)

TENSORFLOW = "tensorflow/tensorflow:latest-gpu-py3"
EXECUTOR = ("--network", "none")


@dataclass(frozen=True)
class GpuDock(Dock):
    """``dock`` on a host with GPUs, as root or as an ordinary user."""

    host: GpuHost
    user: OrdinaryUser | None = None

    @property
    def home(self) -> Path:
        """The caller's home directory."""
        return self.user.home if self.user is not None else self.host.base

    def environment(self) -> dict[str, str]:
        return dict(environment_of(self.base, self.home))

    def python(self) -> list[str]:
        name = self.user.name if self.user is not None else ""
        become = ["setpriv", "--reuid", name, "--regid", name, "--init-groups"] if name else []
        return self.host.words(*become, *python_words())

    @property
    def checkout(self) -> Path:
        return SEEN_AT


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image tensorflow/tensorflow:latest-gpu-py3 with what the test needs of it: glibc, bash, NVIDIA's variables."""
    directory = tmp_path_factory.mktemp("image")
    tree = cuda_tree(directory / "tree")
    subprocess.run(["tar", "-C", tree, "-cf", directory / "layer.tar", "."], check=True)
    layer = (directory / "layer.tar").read_bytes()
    variables = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "CUDA_VERSION=10.1.243",
        "NVIDIA_REQUIRE_CUDA=cuda>=10.1",
        "NVIDIA_VISIBLE_DEVICES=all",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    ]
    config = build_config(digest(layer), Env=variables, Cmd=["/bin/bash"])
    file = directory / "image.tar"
    file.write_bytes(build_docker_archive(layer, tags=[TENSORFLOW, "plain"], config=config))
    return file


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpuHost]:
    base = Path("/tmp") / f"pydock-gpu-{os.getpid()}"
    base.mkdir(mode=0o755)
    try:
        with gpu_host(base) as made:
            yield made
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module", params=["root", "user"])
def dock(
    request: pytest.FixtureRequest, host: GpuHost, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GpuDock]:
    """``dock`` with the image loaded."""
    if request.param == "root":
        program = GpuDock(tmp_path_factory.mktemp("state"), host, has_server=True)
        yield from _loaded(program, archive)
        return
    with ordinary_user("pydock-gpu") as user:
        yield from _loaded(GpuDock(user.home / "state", host, user, has_server=True), archive)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[GpuDock]:
    """``dock`` on a host without a GPU."""
    base = Path("/tmp") / f"pydock-no-gpu-{os.getpid()}"
    base.mkdir(mode=0o755)
    try:
        with gpu_host(base, with_gpu=False) as made:
            yield from _loaded(GpuDock(tmp_path_factory.mktemp("bare"), made, has_server=True), archive)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _loaded(program: GpuDock, archive: Path) -> Iterator[GpuDock]:
    program("load", "-q", stdin=archive.read_bytes())
    yield program
    names = program.out("ps", "-aq").split()
    if names:
        program("rm", "-f", *names)
    if program.user is None:
        end_servers(StateRoot(program.base / "data", program.base / "run"))


def run(dock: GpuDock, *words: object, code: int = 0) -> str:
    """Run a container of the image; return what it wrote."""
    return dock("run", "--rm", *EXECUTOR, *words, code=code).stdout.strip()


def nodes(dock: GpuDock, *words: object) -> list[str]:
    """The GPU's device nodes of a container."""
    listing = run(dock, *words, TENSORFLOW, "sh", "-c", "cd /dev; echo nvidia*")
    return [] if listing == "nvidia*" else listing.split()


def test_gpus_all_gives_devices_libraries_and_programs(dock: GpuDock) -> None:
    script = (
        "dl libcuda.so.1 libcuda.so libnvidia-ml.so.1; nvidia-smi; head -c 3 /dev/nvidia0 | wc -c; "
        "head -c 3 /dev/nvidia1 | wc -c; echo $NVIDIA_VISIBLE_DEVICES"
    )
    assert run(dock, "--gpus", "all", TENSORFLOW, "sh", "-c", script).splitlines() == [
        f"libcuda {VERSION}",
        f"libcuda {VERSION}",
        f"libnvidia-ml {VERSION}",
        "NVIDIA-SMI of the host",
        "3",
        "3",
        "all",
    ]
    assert nodes(dock, "--gpus", "all") == [
        "nvidia-uvm",
        "nvidia-uvm-tools",
        "nvidia0",
        "nvidia1",
        "nvidiactl",
    ]


def test_the_choice_of_devices(dock: GpuDock) -> None:
    common = ["nvidia-uvm", "nvidia-uvm-tools"]
    assert nodes(dock, "--gpus", "1") == [*common, "nvidia0", "nvidiactl"]
    assert nodes(dock, "--gpus", "device=1") == [*common, "nvidia1", "nvidiactl"]
    assert nodes(dock, "--gpus", '"device=0,1"') == [*common, "nvidia0", "nvidia1", "nvidiactl"]
    assert nodes(dock, "--gpus", f"device={UUIDS[1]}") == [*common, "nvidia1", "nvidiactl"]
    assert nodes(dock, "--device", "nvidia.com/gpu=1") == [*common, "nvidia1", "nvidiactl"]
    assert nodes(dock, "--runtime", "nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=1") == [
        *common,
        "nvidia1",
        "nvidiactl",
    ]
    assert nodes(dock, "--runtime", "nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=none") == [*common, "nvidiactl"]
    assert nodes(dock, "--runtime", "nvidia", "-e", "NVIDIA_VISIBLE_DEVICES=void") == []
    # Without the runtime, the image's variables mean nothing.
    assert nodes(dock) == []


def test_driver_capabilities_choose_libraries(dock: GpuDock) -> None:
    look = (TENSORFLOW, "dl", "libcuda.so.1", "libnvidia-ml.so.1", f"libnvidia-glcore.so.{VERSION}")
    cuda, ml, gl = (f"{name} {VERSION}" for name in ("libcuda", "libnvidia-ml", "libnvidia-glcore"))
    assert run(dock, "--gpus", "all", *look).splitlines() == [cuda, ml, "not found"]
    assert run(dock, "--gpus", "all,capabilities=utility", *look).splitlines() == [
        "not found",
        ml,
        "not found",
    ]
    variables = ("--runtime", "nvidia", "-e", "NVIDIA_DRIVER_CAPABILITIES=compute,graphics")
    assert run(dock, *variables, *look).splitlines() == [cuda, "not found", gl]


WRONG = (
    (("--gpus", "3"), "this host has 2 GPUs of nvidia.com/gpu"),
    (("--gpus", "device=7"), "GPU 7: nvidia.com/gpu has no such device"),
    (("--gpus", "device=0,1"), "a count and devices cannot be given together"),
    (("--gpus", "all,capabilities=tpu"), "no device driver has these capabilities"),
    (("--gpus", "all,driver=tpu"), "driver=tpu: no such device driver"),
    (("--gpus", "all,driver=amd"), "this host has no AMD GPU"),
    (
        ("--device", "vendor.com/thing=x"),
        "no CDI file and no driver of this host has the kind vendor.com/thing",
    ),
    (("--device", "nvidia.com/gpu=9"), "nvidia.com/gpu has no device 9"),
    (("--runtime", "nvidia", "-e", "NVIDIA_DRIVER_CAPABILITIES=cuda"), "has no capability cuda"),
)


def refused(dock: GpuDock, *words: object) -> str:
    """Run a container that is refused before it is made; return the two lines of the error."""
    text = dock("run", "--rm", *EXECUTOR, *words, TENSORFLOW, "true", code=125).stderr
    assert [line.partition(": ")[0] for line in text.splitlines()] == ["error", "hint"], text
    assert dock.out("ps", "-aq") == ""
    return text


def test_a_wrong_wish_is_refused_in_one_line(dock: GpuDock) -> None:
    for words, message in WRONG:
        assert message in refused(dock, *words)


def test_the_tutorial_as_typed(dock: GpuDock) -> None:
    """``dock run --runtime nvidia -it -p ... -v $(pwd)/Tensorflow:... --name tf IMAGE bash``, then ``dock start -i tf``."""
    words = (
        "run --runtime nvidia -it -p 8888:8888 -p 6006:6006 "
        f"-v {dock.home}/Tensorflow:/home/Tensorflow --name tf {TENSORFLOW} bash"
    )
    with terminal(dock, *words.split()) as person:
        person.expect("#")
        person.type("dl libcuda.so.1; nvidia-smi\r")
        person.expect(f"\nlibcuda {VERSION}")
        person.expect("\nNVIDIA-SMI of the host")
        person.type("echo kept > /home/Tensorflow/file; echo $((40+2))\r")
        person.expect("\n42")
        assert dock.out("exec", "tf", "sh", "-c", "dl libnvidia-ml.so.1; echo $CUDA_VERSION") == (
            f"libnvidia-ml {VERSION}\n10.1.243"
        )
        ports = dock.out("port", "tf")
        assert "8888/tcp -> 127.0.0.1:8888" in ports
        assert "6006/tcp -> 127.0.0.1:6006" in ports
        person.type("exit 3\r")
        assert person.end() == 3
    assert (dock.home / "Tensorflow" / "file").read_text() == "kept\n"
    with terminal(dock, "start", "-i", "tf") as person:
        person.expect("#")
        person.type("cat /home/Tensorflow/file; dl libcuda.so.1\r")
        person.expect("\nkept")
        person.expect(f"\nlibcuda {VERSION}")
        person.type("exit\r")
        assert person.end() == 0
    shown = json.loads(dock.out("inspect", "tf"))[0]["HostConfig"]
    assert (shown["Runtime"], shown["DeviceRequests"]) == ("nvidia", None)
    (params,) = (dock.base / "data" / "containers").glob("*/bundle/nvidia-params")
    assert "ModifyDeviceFiles: 0\n" in params.read_text()
    dock("rm", "tf")


def test_a_read_only_container_and_another_user(dock: GpuDock) -> None:
    look = ("sh", "-c", "dl libcuda.so.1; head -c 1 /dev/nvidia1 | wc -c")
    for option in (("--read-only",), ("-u", "guest"), ("--cap-drop", "ALL"), ("--privileged",)):
        assert run(dock, "--gpus", "all", *option, TENSORFLOW, *look).splitlines() == [
            f"libcuda {VERSION}",
            "1",
        ]


@pytest.mark.parametrize("name", ["crun", "runc"])
def test_other_runtimes_get_the_same(dock: GpuDock, name: str) -> None:
    if not shutil.which(name):
        pytest.skip(f"needs {name}")
    look = (TENSORFLOW, "sh", "-c", "dl libcuda.so.1; head -c 1 /dev/nvidia1 | wc -c; nvidia-smi")
    assert run(dock, "--runtime", name, "--gpus", "all", *look).splitlines() == [
        f"libcuda {VERSION}",
        "1",
        "NVIDIA-SMI of the host",
    ]


# -- CDI files -------------------------------------------------------------------------------------------


@pytest.fixture
def cdi(dock: GpuDock) -> Iterator[Path]:
    """The caller's own directory of CDI files."""
    directory = dock.home / ".config" / "cdi"
    directory.mkdir(parents=True)
    _give(dock, dock.home / ".config")
    yield directory
    shutil.rmtree(dock.home / ".config")


def _give(dock: GpuDock, path: Path) -> None:
    if dock.user is not None:
        subprocess.run(["chown", "-R", dock.user.name, path], check=True)


def write_cdi(dock: GpuDock, file: Path, edits: dict[str, Any], **fields: Any) -> None:
    document = {
        "cdiVersion": "1.1.0",
        "kind": "vendor.com/thing",
        "devices": [{"name": "a", "containerEdits": edits}],
        **fields,
    }
    text = json.dumps(document) if file.suffix == ".json" else yaml.safe_dump(document)
    file.write_text(text)
    _give(dock, file)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_every_edit_of_a_cdi_file(dock: GpuDock, cdi: Path, suffix: str) -> None:
    data = dock.home / "data"
    data.mkdir(exist_ok=True)
    (data / "file").write_text("mounted\n")
    hook = data / "hook"
    hook.write_text(f"#!/bin/sh\ncat >{data}/state; echo $1 $WORD >{data}/ran\n")
    hook.chmod(0o755)
    _give(dock, data)
    edits = {
        "env": ["FROM=cdi"],
        "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/full"}],
        "mounts": [
            {"hostPath": str(data), "containerPath": "/data", "options": ["ro", "nosuid", "nodev", "bind"]}
        ],
        "hooks": [
            {
                "hookName": "createContainer",
                "path": "/usr/bin/nvidia-cdi-hook",  # is not there, and is not needed
                "args": ["nvidia-cdi-hook", "create-symlinks", "--link", "/data/file::/usr/share/link"],
            },
            {
                "hookName": "createContainer",
                "path": "/usr/bin/nvidia-ctk",
                "args": ["nvidia-ctk", "hook", "chmod", "--mode", "711", "--path", "/usr/share"],
            },
            {"hookName": "poststop", "path": str(hook), "args": ["hook", "word"], "env": ["WORD=env"]},
        ],
        "additionalGids": [0, 44],
    }
    write_cdi(dock, cdi / f"x.{suffix}", edits)
    script = "echo $FROM; head -c 2 /dev/thing | wc -c; cat /usr/share/link; stat -c %a /usr/share; id -G; : > /data/x"
    result = dock(
        "run", "--rm", *EXECUTOR, "--device", "vendor.com/thing=a", "plain", "sh", "-c", script, code=None
    )
    assert result.stdout.splitlines() == ["cdi", "2", "mounted", "711", "0 44"]
    assert "Read-only file system" in result.stderr
    wait_until(lambda: (data / "ran").exists(), "the hook has run")
    wait_until(lambda: (data / "ran").read_text() == "word env\n", "the hook has written")
    assert json.loads((data / "state").read_text())["status"] == "stopped"
    shutil.rmtree(data)


def test_a_file_describes_nvidias_gpus_in_the_drivers_place(dock: GpuDock, cdi: Path) -> None:
    node = {"path": "/dev/nvidia-own", "hostPath": "/dev/nvidia0"}
    devices = [{"name": name, "containerEdits": {"env": [f"GPU={name}"]}} for name in ("0", "all")]
    write_cdi(
        dock,
        cdi / "n.json",
        {},
        kind="nvidia.com/gpu",
        devices=devices,
        containerEdits={"deviceNodes": [node]},
    )
    assert nodes(dock, "--gpus", "all") == ["nvidia-own"]
    assert run(dock, "--gpus", "1", "plain", "sh", "-c", "echo $GPU $NVIDIA_VISIBLE_DEVICES") == "0 0"
    assert (
        "GPU 1: nvidia.com/gpu has no such device"
        in dock("run", "--rm", "--gpus", "device=1", "plain", "true", code=125).stderr
    )


USELESS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"mounts": [{"hostPath": "/none/lib", "containerPath": "/x"}]}, "is stale: /none/lib is not there"),
    ({"deviceNodes": [{"path": "/dev/nonexistent"}]}, "is stale: /dev/nonexistent is not there"),
    ({"deviceNodes": [{"path": "/dev/x", "hostPath": "/etc/passwd"}]}, "/etc/passwd is not a device"),
    ({"hooks": [{"hookName": "poststop", "path": "/nonexistent"}]}, "is stale: /nonexistent is not there"),
    ({"intelRdt": {"closID": "x"}}, "intelRdt is not supported"),
    ({"netDevices": [{"hostInterfaceName": "eth0", "name": "eth0"}]}, "netDevices is not supported"),
    ({"frobnicate": 1}, "unknown field devices[0].containerEdits.frobnicate"),
)


def test_a_cdi_file_that_cannot_be_followed_is_named(dock: GpuDock, cdi: Path) -> None:
    for edits, message in USELESS:
        write_cdi(dock, cdi / "x.json", edits)
        text = refused(dock, "--device", "vendor.com/thing=a")
        assert message in text
        assert str(cdi / "x.json") in text
    assert "unknown field" in dock.out("doctor")
    assert json.loads(dock.out("info", "--format", "{{json .CDISpecDirs}}"))[-1] == str(cdi)
    assert f"CDI spec directories:\n  /etc/cdi\n  /var/run/cdi\n  {cdi}\n" in dock.out("info")


def test_the_doctor_tells_the_gpus(dock: GpuDock) -> None:
    line = next(line for line in dock.out("doctor").splitlines() if line.startswith("GPU"))
    assert line.split(maxsplit=2)[1:] == [
        "ok",
        f"nvidia.com/gpu 0, 1, {UUIDS[0]}, {UUIDS[1]} (driver {VERSION})",
    ]


# -- hostile images --------------------------------------------------------------------------------------


def test_an_image_does_not_lead_the_loaders_cache_into_a_volume(dock: GpuDock) -> None:
    """The image's /etc is a link to what the user mounts: were it followed, the host would load an image's libraries."""
    target = dock.home / "precious"
    target.mkdir()
    (target / "ld.so.cache").write_bytes(b"the host's")
    _give(dock, target)
    layer = build_tar(
        [
            entry("bin", "dir"),
            entry("bin/sh", data=BUSYBOX.read_bytes(), mode=0o755),
            entry("etc", "link", linkname="/precious"),
        ]
    )
    config = build_config(digest(layer), Cmd=["/bin/sh"])
    dock("load", "-q", stdin=build_docker_archive(layer, tags=["evil"], config=config))
    words = ("--gpus", "all", "--network", "none", "-v", f"{target}:/precious")
    text = dock("run", "--rm", *words, "evil", "-c", "true", code=125).stderr
    assert "would be written to a mount of the container" in text
    assert (target / "ld.so.cache").read_bytes() == b"the host's"
    assert not (target / "ld.so.conf.d").exists()
    dock("rmi", "evil")
    shutil.rmtree(target)


# -- a host without a GPU --------------------------------------------------------------------------------


def test_a_host_without_a_gpu_says_so(bare: GpuDock) -> None:
    for words, message in (
        (("--gpus", "all"), "--gpus: this host has no GPU"),
        (("--gpus", "all,driver=nvidia"), "--gpus: this host has no NVIDIA GPU"),
        (("--runtime", "nvidia"), "--runtime nvidia: this host has no NVIDIA GPU"),
        (("--device", "nvidia.com/gpu=all"), "no driver of this host has the kind nvidia.com/gpu"),
    ):
        assert message in refused(bare, *words)
    assert "none on this host" in next(
        line for line in bare.out("doctor").splitlines() if line.startswith("GPU")
    )


_AMD = r"""
set -e
mount -t tmpfs tmpfs /sys/class
mkdir -p /sys/class/drm/renderD128/device/drm/card0 /dev/dri
echo 0x1002 > /sys/class/drm/renderD128/device/vendor
mknod /dev/kfd c 1 5
mknod /dev/dri/renderD128 c 1 7
mknod /dev/dri/card0 c 1 7
"""


def test_an_amd_gpu_is_given_without_any_toolkit(bare: GpuDock) -> None:
    bare.host.run("sh", "-c", _AMD)
    try:
        script = "cd /dev; echo kfd dri/*; head -c 2 dri/renderD128 | wc -c"
        for words in (("--gpus", "all"), ("--device", "amd.com/gpu=0"), ("--gpus", "1,driver=amd")):
            assert run(bare, *words, "plain", "sh", "-c", script) == "kfd dri/card0 dri/renderD128\n2"
        assert "no NVIDIA GPU" in refused(bare, "--runtime", "nvidia")
        assert "amd.com/gpu 0" in bare.out("doctor")
    finally:
        bare.host.run("sh", "-c", "umount /sys/class; rm -r /dev/dri /dev/kfd")
