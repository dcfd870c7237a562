"""The edits of devices, completed and checked against the host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pydock_core.cdi import injection, nvidia_driver
from pydock_core.cdi.edit import CdiSpec, ContainerEdits, DeviceNodeEdit, HookEdit, MountEdit
from pydock_core.cdi.elf_library import Library
from pydock_core.cdi.gpu_request import Selection
from pydock_core.cdi.injection import Injection, build_injection, with_cover
from pydock_core.cdi.name import QualifiedName
from pydock_core.cdi.registry import Registry
from pydock_core.cdi.spec_directory import FoundSpecs
from pydock_core.errors import InvalidError, NotFoundError, UnavailableError, UnsupportedError
from pydock_core.runtime.root_edit import Cover, Link

NAME = QualifiedName("v.com/gpu", "0")


def inject(
    edits: ContainerEdits, *, origin: str = "/etc/cdi/x.json", is_start: bool = True, **selection: Any
) -> Injection:
    spec = CdiSpec("v.com/gpu", {"0": edits}, origin=origin)
    registry = Registry(FoundSpecs(((0, spec),)), {})
    chosen = Selection(**{"names": (NAME,), **selection})
    return build_injection(chosen, registry, own_dev=True, is_start=is_start)


def hook(*words: str) -> HookEdit:
    return HookEdit("createContainer", "/usr/bin/nvidia-cdi-hook", ("nvidia-cdi-hook", *words))


def test_a_node_takes_what_it_leaves_open_from_the_host() -> None:
    nodes = (
        DeviceNodeEdit("/dev/a", "/dev/null"),
        DeviceNodeEdit("/dev/b", "/dev/null", mode=0o4600, uid=5),
        *([DeviceNodeEdit("/dev/c", "/nowhere", "c", 195, 7)] if os.geteuid() == 0 else []),
    )
    found = inject(ContainerEdits(device_nodes=nodes)).edits.device_nodes
    assert [(node.kind, node.major, node.minor) for node in found[:2]] == [("c", 1, 3)] * 2
    assert (found[0].mode, found[1].mode, found[1].uid) == (0o666, 0o600, 5)
    if os.geteuid() == 0:
        assert (found[2].major, found[2].minor, found[2].mode) == (195, 7, 0o666)


@pytest.mark.parametrize(
    ("edits", "kind", "text"),
    [
        (ContainerEdits(device_nodes=(DeviceNodeEdit("/dev/x", "/dev/null", "b"),)), InvalidError, "not a device of type b"),
        (ContainerEdits(device_nodes=(DeviceNodeEdit("/dev/x", "/nowhere"),)), NotFoundError, "is stale: /nowhere"),
        (ContainerEdits(mounts=(MountEdit("/nowhere", "/x"),)), NotFoundError, "is stale: /nowhere"),
        (ContainerEdits(unsupported=("netDevices",)), UnsupportedError, "netDevices is not supported"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_files_name(edits: ContainerEdits, kind: type, text: str) -> None:
    with pytest.raises(kind) as caught:
        inject(edits, is_start=False)
    assert "/etc/cdi/x.json" in caught.value.message
    assert text in caught.value.message
    assert caught.value.exit_code == 125


def test_a_mount_that_is_not_a_bind_needs_no_source() -> None:
    (mount,) = inject(ContainerEdits(mounts=(MountEdit("tmpfs", "/x", "tmpfs"),))).edits.mounts
    assert mount.options == ()
    (mount,) = inject(ContainerEdits(mounts=(MountEdit("/etc", "/x"),))).edits.mounts
    assert mount.options == ("rbind",)


def test_libraries_are_found_by_their_sonames_and_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single files, and a directory; the host's loader knows none of them."""
    sonames: Mapping[str, Library] = {
        "libcuda.so.9.1": Library("libcuda.so.1", 0x303),
        "libbare.so.9.1": Library("", 0x303),
        "libdeep.so.2": Library("libdeep.so.2", 0x3),
    }
    monkeypatch.setattr(injection, "read_library", lambda path: sonames.get(os.path.basename(path)))
    (tmp_path / "more" / "deep").mkdir(parents=True)
    for name in ("libcuda.so.9.1", "libbare.so.9.1", "more/deep/libdeep.so.2", "more/deep/README"):
        (tmp_path / name).touch()
    mounts = (
        MountEdit(str(tmp_path / "libcuda.so.9.1"), "/lib/x/libcuda.so.9.1"),
        MountEdit(str(tmp_path / "libbare.so.9.1"), "/lib/x/libbare.so.9.1"),
        MountEdit(str(tmp_path / "libcuda.so.9.1"), "/elsewhere/libcuda.so.9.1"),
        MountEdit(str(tmp_path / "more"), "/opt"),
    )
    hooks = (
        hook("create-symlinks", "--link", "libcuda.so.1::/lib/x/libcuda.so", "--link", "a::/other/b"),
        hook("update-ldcache", "--folder", "/lib/x", "--folder", "/opt/deep"),
    )
    edits = inject(ContainerEdits(mounts=mounts, hooks=hooks)).root_edits
    assert edits is not None
    assert set(edits.libraries) == {
        ("libcuda.so.9.1", "/lib/x/libcuda.so.9.1", 0x303),
        ("libcuda.so.1", "/lib/x/libcuda.so.1", 0x303),
        ("libcuda.so", "/lib/x/libcuda.so", 0x303),
        ("libbare.so.9.1", "/lib/x/libbare.so.9.1", 0x303),
        ("libdeep.so.2", "/opt/deep/libdeep.so.2", 0x3),
    }
    assert set(edits.links) == {
        Link("libcuda.so.1", "/lib/x/libcuda.so"),
        Link("a", "/other/b"),
        Link("libcuda.so.9.1", "/lib/x/libcuda.so.1"),
    }
    assert (edits.folders, edits.update_cache) == (("/lib/x", "/opt/deep"), True)


def test_a_library_of_the_hosts_cache_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    library = next(Path("/lib").glob("*-linux-gnu/libz.so.1"), None)
    if library is None:
        pytest.skip("needs libz.so.1")

    def fail(path: str) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(injection, "read_library", fail)
    source = os.path.realpath(library)
    mounts = (MountEdit(source, f"/lib/x/{os.path.basename(source)}"),)
    edits = inject(
        ContainerEdits(mounts=mounts, hooks=(hook("update-ldcache", "--folder", "/lib/x"),))
    ).root_edits
    assert edits is not None
    assert ("libz.so.1", "/lib/x/libz.so.1") in {(soname, path) for soname, path, _ in edits.libraries}


def test_other_hooks_stay_and_a_look_at_create_reads_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(injection, "read_library", None)
    other = HookEdit("startContainer", "/in/the/container")
    hooks = (other, hook("update-ldcache", "--folder", "/etc"))
    found = inject(ContainerEdits(hooks=hooks, mounts=(MountEdit("/etc/passwd", "/etc/x"),)), is_start=False)
    assert found.edits.hooks == (other,)
    assert found.root_edits is None
    assert inject(ContainerEdits(hooks=(other,))).root_edits is None


def test_the_drivers_parameters_are_covered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = tmp_path / "params"
    params.write_text("ResmanDebugLevel: 1\nModifyDeviceFiles: 1\nDeviceFileUID: 0\n")
    monkeypatch.setattr(injection, "PARAMS", str(params))
    found = inject(ContainerEdits(hooks=(hook("disable-device-node-modification"),)))
    assert found.params == "ResmanDebugLevel: 1\nModifyDeviceFiles: 0\nDeviceFileUID: 0\n"
    assert found.root_edits is not None
    assert with_cover(found.root_edits, "/bundle/file").covers == (Cover("/bundle/file", str(params)),)


def test_cuda_without_its_memory_device_is_warned_of() -> None:
    control = ContainerEdits(device_nodes=(DeviceNodeEdit(nvidia_driver.CONTROL_DEVICE, "/dev/null"),))
    (warning,) = inject(control, capabilities=frozenset({"compute"})).warnings
    assert "sudo nvidia-modprobe -u -c 0" in warning
    assert inject(control, capabilities=frozenset({"utility"})).warnings == ()


def test_a_variable_without_effect_is_warned_of() -> None:
    (warning,) = inject(ContainerEdits(), ignored=("NVIDIA_IMEX_CHANNELS",)).warnings
    assert warning.startswith("NVIDIA_IMEX_CHANNELS has no effect")


def test_a_device_that_only_a_group_may_open_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /dev/kfd is: in a user namespace, the group is gone."""
    edits = ContainerEdits(device_nodes=(DeviceNodeEdit("/dev/kfd", "/dev/null"),))
    real = os.stat

    def stat(path: Any, *args: Any, **keywords: Any) -> os.stat_result:
        status = real(path, *args, **keywords)
        if path != "/dev/null":
            return status
        values = list(status)
        values[0] = status.st_mode & ~0o006
        values[5] = 44
        return os.stat_result(values, {"st_rdev": status.st_rdev})

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: [44])
    (warning,) = inject(edits).warnings
    assert "group 44 only" in warning
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "access", lambda *_: False)
    (warning,) = inject(edits).warnings
    assert "cannot be opened by this user" in warning


def test_the_driver_alone_needs_a_driver() -> None:
    registry = Registry(FoundSpecs(()), {nvidia_driver.KIND: lambda: None})
    with pytest.raises(UnavailableError, match="no NVIDIA GPU"):
        build_injection(Selection(driver_only=True), registry, own_dev=True, is_start=True)


def test_a_container_without_devices_pays_nothing_for_them() -> None:
    """The modules of devices are not loaded by what a plain run loads, nor YAML by a host without a YAML file."""
    code = (
        "import sys; import pydock_core.engine.launch, pydock_core.spec.merge, pydock_core.spec.validation; "
        "import pydock_core.commands.run, pydock_core.commands.create_words, pydock_core.runtime.embedded; "
        "a = [name for name in sys.modules if name.startswith('pydock_core.cdi')]; "
        "import pydock_core.engine.injection; "
        "print(a, 'yaml' in sys.modules, 'elftools' in sys.modules, 'pydock_core.loader_cache' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] False False True\n"
