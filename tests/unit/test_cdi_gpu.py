"""GPU requests, NVIDIA's variables, and the specifications that are derived from drivers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pydock_core.cdi import drm_driver, nvidia_driver
from pydock_core.cdi.edit import CdiSpec, HookEdit
from pydock_core.cdi.gpu_request import Selection, no_gpu, select
from pydock_core.cdi.host_tree import HostTree
from pydock_core.cdi.well_known_hook import read_hooks
from pydock_core.errors import InvalidError, NotFoundError, PyDockError, UnavailableError
from pydock_core.loader_cache import CacheEntry, merge_cache
from pydock_core.runtime.root_edit import Link, Mode
from pydock_core.spec.definition import DEVICE_REQUEST

NVIDIA = ("0", "1", "GPU-aa", "0:0", "all")
ONLY_NVIDIA = {"nvidia.com/gpu": NVIDIA}
DEFAULT = frozenset({"compute", "utility"})
EVERY = frozenset(nvidia_driver.CAPABILITIES)


def chosen(
    *requests: Mapping[str, Any],
    env: Sequence[str] = (),
    there: Mapping[str, Sequence[str]] = ONLY_NVIDIA,
    runtime: bool = False,
) -> Selection:
    whole = [{**DEVICE_REQUEST, "Capabilities": [["gpu"]], **request} for request in requests]
    return select(whole, env, lambda kind: there.get(kind, ()), nvidia_runtime=runtime)


def names(selection: Selection) -> list[str]:
    return [str(name) for name in selection.names]


@pytest.mark.parametrize(
    ("request_fields", "expected", "visible"),
    [
        ({"Count": -1}, ["nvidia.com/gpu=all"], "all"),
        ({"Count": -7}, ["nvidia.com/gpu=all"], "all"),
        ({"Count": 1}, ["nvidia.com/gpu=0"], "0"),
        ({"Count": 2}, ["nvidia.com/gpu=0", "nvidia.com/gpu=1"], "0,1"),
        ({"Count": 0}, [], "void"),
        ({"DeviceIDs": ["1", "GPU-aa"]}, ["nvidia.com/gpu=1", "nvidia.com/gpu=GPU-aa"], "1,GPU-aa"),
        ({"DeviceIDs": ["0:0"]}, ["nvidia.com/gpu=0:0"], "0:0"),
    ],
)  # fmt: skip
def test_requests(request_fields: dict[str, Any], expected: list[str], visible: str) -> None:
    selection = chosen(request_fields)
    assert names(selection) == expected
    assert selection.env == (f"NVIDIA_VISIBLE_DEVICES={visible}",)
    assert selection.capabilities == DEFAULT


def test_capabilities_of_a_request_beat_those_of_the_environment() -> None:
    wanted = {"Count": 1, "Capabilities": [["tpu"], ["video", "gpu"]]}
    selection = chosen(wanted, env=["NVIDIA_DRIVER_CAPABILITIES=all"])
    assert selection.capabilities == {"video"}
    assert "NVIDIA_DRIVER_CAPABILITIES=video" in selection.env
    assert chosen({"Count": 1}, env=["NVIDIA_DRIVER_CAPABILITIES=all"]).capabilities == EVERY


def test_the_first_driver_that_has_a_device_is_chosen() -> None:
    amd = {"amd.com/gpu": ("0", "all")}
    assert names(chosen({"Count": -1}, there=amd)) == ["amd.com/gpu=all"]
    assert chosen({"Count": -1}, there=amd).env == ()
    both = {**amd, **ONLY_NVIDIA}
    assert names(chosen({"Count": 1}, there=both)) == ["nvidia.com/gpu=0"]
    assert names(chosen({"Count": 1, "Driver": "amd"}, there=both)) == ["amd.com/gpu=0"]
    file = {"nvidia.com/gpu": ("1", "0", "GPU-aa")}
    assert names(chosen({"Count": -1}, there=file)) == ["nvidia.com/gpu=1", "nvidia.com/gpu=0"]


@pytest.mark.parametrize(
    ("request_fields", "there", "kind", "text"),
    [
        ({"Count": -1}, {}, UnavailableError, "--gpus: this host has no GPU"),
        ({"Count": 1, "Driver": "intel"}, ONLY_NVIDIA, UnavailableError, "no Intel GPU"),
        ({"Count": 3}, ONLY_NVIDIA, NotFoundError, "this host has 2 GPUs"),
        ({"DeviceIDs": ["5"]}, ONLY_NVIDIA, NotFoundError, "GPU 5: nvidia.com/gpu has no such device"),
        ({"DeviceIDs": ["MIG-aa"]}, ONLY_NVIDIA, NotFoundError, "GPU MIG-aa"),
        ({"Count": 1, "Driver": "tpu"}, ONLY_NVIDIA, InvalidError, "no such device driver"),
        ({"Count": 1, "Capabilities": [["tpu"]]}, ONLY_NVIDIA, InvalidError, "capabilities=tpu"),
        ({"Count": 1, "Capabilities": None}, ONLY_NVIDIA, InvalidError, "capabilities=(none)"),
        ({"Driver": "cdi", "DeviceIDs": ["x"]}, ONLY_NVIDIA, InvalidError, "not a qualified name"),
    ],
)
def test_what_cannot_be_had_is_refused(
    request_fields: dict[str, Any], there: Mapping[str, Sequence[str]], kind: type[PyDockError], text: str
) -> None:
    with pytest.raises(kind) as caught:
        chosen(request_fields, there=there)
    assert text in caught.value.message
    assert caught.value.exit_code == 125
    assert caught.value.hint


@pytest.mark.parametrize(
    ("env", "expected", "capabilities", "driver_only"),
    [
        ([], [], DEFAULT, False),
        (["NVIDIA_VISIBLE_DEVICES="], [], DEFAULT, False),
        (["NVIDIA_VISIBLE_DEVICES=void"], [], DEFAULT, False),
        (["NVIDIA_VISIBLE_DEVICES=none"], [], DEFAULT, True),
        (["NVIDIA_VISIBLE_DEVICES=all"], ["nvidia.com/gpu=all"], DEFAULT, False),
        (["NVIDIA_VISIBLE_DEVICES=0,0:0"], ["nvidia.com/gpu=0", "nvidia.com/gpu=0:0"], DEFAULT, False),
        (["NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=1"], ["nvidia.com/gpu=1"], DEFAULT, False),
        (["CUDA_VERSION=9"], ["nvidia.com/gpu=all"], EVERY, False),
        (["CUDA_VERSION=9", "NVIDIA_REQUIRE_CUDA=cuda>=9"], [], DEFAULT, False),
        (["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES="], ["nvidia.com/gpu=all"], DEFAULT, False),
        (["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=video,ngx"], ["nvidia.com/gpu=all"], {"video", "ngx"}, False),
    ],
)  # fmt: skip
def test_nvidias_variables_count_with_its_runtime_only(
    env: list[str], expected: list[str], capabilities: set[str], driver_only: bool
) -> None:
    selection = chosen(env=env, runtime=True)
    assert (names(selection), selection.capabilities, selection.driver_only) == (
        expected,
        capabilities,
        driver_only,
    )
    without = chosen(env=env)
    assert (names(without), without.driver_only) == ([], False)


def test_a_request_replaces_the_variables_devices() -> None:
    selection = chosen({"Count": 1}, env=["NVIDIA_VISIBLE_DEVICES=all"], runtime=True)
    assert names(selection) == ["nvidia.com/gpu=0"]
    with pytest.raises(InvalidError, match="has no capability cuda"):
        chosen(env=["NVIDIA_DRIVER_CAPABILITIES=cuda"], runtime=True)


def test_variables_that_have_no_effect_are_told() -> None:
    env = ["NVIDIA_MIG_CONFIG_DEVICES=all", "NVIDIA_MIG_MONITOR_DEVICES=void", "NVIDIA_IMEX_CHANNELS="]
    assert chosen(env=env, runtime=True).ignored == ("NVIDIA_MIG_CONFIG_DEVICES",)
    assert chosen(env=env).ignored == ()


# -- hooks of NVIDIA's toolkit ---------------------------------------------------------------------------


def hook(*words: str, step: str = "createContainer", path: str = "/usr/bin/nvidia-ctk") -> HookEdit:
    return HookEdit(step, path, (path.rpartition("/")[2], *words))


def test_the_well_known_hooks_are_read_in_both_spellings() -> None:
    found = read_hooks(
        [
            hook("hook", "create-symlinks", "--link", "libcuda.so.1::/usr/lib/libcuda.so", "--link=a::b"),
            hook("update-ldcache", "--folder", "/usr/lib64,/opt/lib", path="/usr/local/bin/nvidia-cdi-hook"),
            hook("hook", "update-ldcache", "--ldconfig-path", "@/sbin/ldconfig", "--folder", "/x/../y"),
            hook("hook", "chmod", "--mode", "755", "--path", "/dev/dri"),
            hook("hook", "enable-cuda-compat", "--host-driver-version=535.1"),
            hook("hook", "disable-device-node-modification"),
        ]
    )
    assert found.links == [Link("libcuda.so.1", "/usr/lib/libcuda.so"), Link("a", "/b")]
    assert found.folders == ["/usr/lib64", "/opt/lib", "/y"]
    assert found.modes == [Mode("/dev/dri", 0o755)]
    assert (found.host_driver, found.cover_params, found.others) == ("535.1", True, [])


@pytest.mark.parametrize(
    "other",
    [
        hook("hook", "frobnicate"),
        hook("hook", "chmod", "--mode", "u+x", "--path", "/dev/dri"),
        hook("hook", "create-symlinks", "--link", "nothing"),
        hook("hook", "create-symlinks", "--frob", "a::b"),
        hook("hook", "create-symlinks", "--link"),
        hook("hook", "disable-device-node-modification", step="poststart"),
        hook("hook", "chmod", path="/usr/bin/other"),
        hook(),
    ],
)
def test_a_hook_that_is_not_understood_is_run(other: HookEdit) -> None:
    found = read_hooks([other])
    assert found.others == [other]
    assert not found.is_needed


# -- NVIDIA's driver -------------------------------------------------------------------------------------

VERSION = "560.35.03"
LIBRARY_DIRECTORY = "/usr/lib/x86_64-linux-gnu"


class Host:
    """A tree that looks like a host."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: list[CacheEntry] = []

    @property
    def tree(self) -> HostTree:
        return HostTree(str(self.root))

    def put(self, path: str, text: str = "") -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def link(self, path: str, target: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(target)

    def library(self, name: str, soname: str, flags: int = 0x303, version: str = VERSION) -> None:
        file = f"{name}.so.{version}"
        self.put(f"{LIBRARY_DIRECTORY}/{file}")
        if soname != file:
            self.link(f"{LIBRARY_DIRECTORY}/{soname}", file)
        self.entries.append(CacheEntry(soname, f"{LIBRARY_DIRECTORY}/{soname}", flags))
        cache = self.root / "etc" / "ld.so.cache"
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_bytes(merge_cache(b"", self.entries))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.put(
        "/proc/driver/nvidia/version",
        f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {VERSION}  Release Build\n",
    )
    for minor, bus in ((1, "0000:3b:00.0"), (0, "0000:af:00.0")):
        host.put(
            f"/proc/driver/nvidia/gpus/{bus}/information",
            f"Model: \t NVIDIA H100\nGPU UUID: \t GPU-{minor}{minor}{minor}\nBus Location: \t {bus}\nDevice Minor: \t {minor}\n",
        )
        host.put(f"/dev/nvidia{minor}")
        host.put(f"/sys/bus/pci/devices/{bus}/drm/renderD{128 + minor}/x")
        host.put(f"/dev/dri/renderD{128 + minor}")
    for node in ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"):
        host.put(f"/dev/{node}")
    host.library("libcuda", "libcuda.so.1")
    host.library("libnvidia-ml", "libnvidia-ml.so.1")
    host.library("libnvidia-encode", "libnvidia-encode.so.1")
    host.library("libGLX_nvidia", "libGLX_nvidia.so.0")
    host.library("libnvidia-ngx", "libnvidia-ngx.so.1")
    host.library("libc", "libc.so.6", version="6")
    host.library("libnvidia-opencl", "libnvidia-opencl.so.1", version="470.1.1")  # of another driver
    return host


def derive(host: Host, *capabilities: str) -> CdiSpec:
    spec = nvidia_driver.derive(host.tree, capabilities or ("compute", "utility"), "x86_64")
    assert spec is not None
    return spec


def targets(spec: CdiSpec) -> list[str]:
    return sorted(mount.target.rpartition("/")[2] for mount in spec.edits.mounts)


def paths(edits: Any) -> list[str]:
    return [node.path for node in edits.device_nodes]


def test_devices_are_counted_by_their_pci_address(host: Host) -> None:
    spec = derive(host)
    assert set(spec.devices) == {"0", "1", "GPU-111", "GPU-000", "all"}
    assert paths(spec.devices["0"]) == paths(spec.devices["GPU-111"]) == ["/dev/nvidia1"]
    assert paths(spec.devices["all"]) == ["/dev/nvidia1", "/dev/nvidia0"]
    assert paths(spec.edits) == ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
    (host.root / "dev" / "nvidia1").unlink()  # as in a container that has one of the two
    assert paths(derive(host).devices["0"]) == ["/dev/nvidia0"]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (["compute"], [f"libcuda.so.{VERSION}"]),
        (["utility"], [f"libnvidia-ml.so.{VERSION}"]),
        (["video"], [f"libnvidia-encode.so.{VERSION}"]),
        (["graphics"], [f"libGLX_nvidia.so.{VERSION}"]),
        (["display"], [f"libGLX_nvidia.so.{VERSION}"]),
        (["ngx"], [f"libnvidia-ngx.so.{VERSION}"]),
        (["compute", "utility"], [f"libcuda.so.{VERSION}", f"libnvidia-ml.so.{VERSION}"]),
    ],
)
def test_capabilities_choose_the_libraries_of_the_drivers_version(
    host: Host, capabilities: list[str], expected: list[str]
) -> None:
    assert targets(derive(host, *capabilities)) == expected


def test_graphics_has_more_nodes_and_links(host: Host) -> None:
    spec = derive(host, "graphics")
    assert "/dev/nvidia-modeset" in paths(spec.edits)
    assert paths(spec.devices["0"]) == ["/dev/nvidia1", "/dev/dri/renderD129"]
    links = read_hooks(spec.edits.hooks).links
    assert Link(f"libGLX_nvidia.so.{VERSION}", f"{LIBRARY_DIRECTORY}/libGLX_indirect.so.0") in links


def test_32_bit_libraries_come_with_compat32(host: Host) -> None:
    host.put(f"/usr/lib/i386-linux-gnu/libcuda.so.{VERSION}")
    host.link("/usr/lib/i386-linux-gnu/libcuda.so.1", f"libcuda.so.{VERSION}")
    host.entries.append(CacheEntry("libcuda.so.1", "/usr/lib/i386-linux-gnu/libcuda.so.1", 0x3))
    (host.root / "etc" / "ld.so.cache").write_bytes(merge_cache(b"", host.entries))
    assert len(targets(derive(host, "compute"))) == 1
    assert len(targets(derive(host, "compute", "compat32"))) == 2


def test_programs_firmware_and_sockets(host: Host) -> None:
    host.put("/usr/lib/nvidia/current/nvidia-smi")
    host.link("/usr/bin/nvidia-smi", "../lib/nvidia/current/nvidia-smi")
    host.put("/usr/bin/nvidia-cuda-mps-control")
    host.put(f"/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin")
    host.put("/run/nvidia-persistenced/socket")
    mounts = {mount.target: mount.source for mount in derive(host).edits.mounts}
    assert mounts["/usr/bin/nvidia-smi"] == "/usr/lib/nvidia/current/nvidia-smi"
    assert {"/usr/bin/nvidia-cuda-mps-control", f"/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin"} <= set(
        mounts
    )
    assert "/run/nvidia-persistenced/socket" in mounts
    assert "/usr/bin/nvidia-smi" not in {mount.target for mount in derive(host, "compute").edits.mounts}
    assert all(
        "ro" in mount.options for mount in derive(host).edits.mounts if not mount.target.endswith("socket")
    )
    hooks = read_hooks(derive(host).edits.hooks)
    assert (hooks.folders, hooks.host_driver, hooks.cover_params) == ([LIBRARY_DIRECTORY], VERSION, True)
    assert Link("libcuda.so.1", f"{LIBRARY_DIRECTORY}/libcuda.so") in hooks.links
    assert hooks.others == []


def test_mig_devices_have_the_capabilities_of_their_instances(host: Host) -> None:
    base = "/proc/driver/nvidia/capabilities/gpu1/mig"
    for instance, minor in ((1, 12), (10, 93), (2, 21)):
        for path, own in ((f"gi{instance}/access", minor), (f"gi{instance}/ci0/access", minor + 1)):
            host.put(f"{base}/{path}", f"DeviceFileMinor: {own}\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
    devices = derive(host).devices
    assert paths(devices["0:0"]) == [
        "/dev/nvidia1",
        "/dev/nvidia-caps/nvidia-cap12",
        "/dev/nvidia-caps/nvidia-cap13",
    ]
    assert paths(devices["0:2"])[1:] == ["/dev/nvidia-caps/nvidia-cap93", "/dev/nvidia-caps/nvidia-cap94"]
    assert len(paths(devices["all"])) == 8
    assert "1:0" not in devices


def test_a_host_without_a_driver_or_without_its_libraries(host: Host) -> None:
    (host.root / "etc" / "ld.so.cache").write_bytes(b"")
    with pytest.raises(
        UnavailableError, match=r"libraries of driver 560\.35\.03 are not in /etc/ld\.so\.cache"
    ):
        derive(host)
    (host.root / "proc" / "driver" / "nvidia" / "version").unlink()
    assert nvidia_driver.derive(host.tree, (), "x86_64") is None


# -- AMD and Intel ---------------------------------------------------------------------------------------


def test_render_nodes_by_vendor(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for number, bus, vendor in (
        (128, "0000:00:02.0", "0x8086"),
        (129, "0000:03:00.0", "0x1002"),
        (130, "0000:04:00.0", "0x1002"),
    ):
        host.put(f"/sys/devices/pci/{bus}/vendor", f"{vendor}\n")
        host.put(f"/sys/devices/pci/{bus}/drm/card{number - 128}/x")
        host.put(f"/sys/devices/pci/{bus}/drm/renderD{number}/x")
        host.link(f"/sys/class/drm/renderD{number}/device", f"../../../devices/pci/{bus}")
        host.put(f"/dev/dri/renderD{number}")
        host.put(f"/dev/dri/card{number - 128}")
    host.put("/dev/kfd")
    amd, intel = (drm_driver.derive(host.tree, kind) for kind in (drm_driver.AMD, drm_driver.INTEL))
    assert amd is not None
    assert intel is not None
    assert paths(amd.edits) == ["/dev/kfd"]
    assert (
        paths(amd.devices["1"])
        == paths(amd.devices["0000:04:00.0"])
        == ["/dev/dri/renderD130", "/dev/dri/card2"]
    )
    assert len(paths(amd.devices["all"])) == 4
    assert paths(intel.edits) == []
    assert paths(intel.devices["all"]) == ["/dev/dri/renderD128", "/dev/dri/card0"]
    (tmp_path / "dev" / "dri" / "renderD128").unlink()
    assert drm_driver.derive(host.tree, drm_driver.INTEL) is None


@pytest.mark.parametrize(
    ("driver", "programs"),
    [("nvidia", "nvidia-smi"), ("amd", "rocminfo"), ("", "nvidia-smi, rocminfo or clinfo")],
)
def test_a_hint_names_the_driver_s_own_program(driver: str, programs: str) -> None:
    hint = no_gpu("--gpus", driver).hint
    assert (
        hint
        == f"load the GPU's driver ({programs} must work on the host), or leave --gpus out; see dock doctor"
    )
