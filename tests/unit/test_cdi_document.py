"""CDI files: what is read, and what is refused with the file's name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.cdi.document import parse_document
from pydock_core.cdi.edit import CdiSpec, ContainerEdits, DeviceNodeEdit, HookEdit, MountEdit, merge_edits
from pydock_core.cdi.name import QualifiedName, is_qualified_name, parse_qualified
from pydock_core.cdi.registry import Registry
from pydock_core.cdi.spec_directory import FoundSpecs, find_specs, list_directories, read_spec
from pydock_core.cdi.well_known_hook import read_hooks
from pydock_core.errors import ConflictError, DeniedError, InvalidError, NotFoundError, PyDockError

EDITS: dict[str, Any] = {
    "env": ["A=1"],
    "deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/null", "permissions": "rw", "uid": 5}],
    "mounts": [{"hostPath": "/srv", "containerPath": "/data", "options": ["ro", "rbind"]}],
    "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "x"], "timeout": 3}],
    "additionalGids": [0, 44],
}


def document(edits: dict[str, Any] | None = None, version: str = "1.1.0", **fields: Any) -> dict[str, Any]:
    return {
        "cdiVersion": version,
        "kind": "vendor.com/thing",
        "devices": [{"name": "a", "containerEdits": EDITS if edits is None else edits}],
        **fields,
    }


def test_every_edit_is_read() -> None:
    spec = parse_document(document(containerEdits={"env": ["B=2"]}), "/etc/cdi/x.json")
    assert spec.edits == ContainerEdits(env=("B=2",))
    assert spec.devices["a"] == ContainerEdits(
        env=("A=1",),
        device_nodes=(DeviceNodeEdit("/dev/x", "/dev/null", access="rw", uid=5),),
        mounts=(MountEdit("/srv", "/data", "", ("ro", "rbind")),),
        hooks=(HookEdit("createContainer", "/bin/hook", ("hook", "x"), (), 3),),
        additional_gids=(0, 44),
    )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ([], "not an object"),
        (document(cdiVersion="9.0.0"), "newer than 1.1.0"),
        (document(cdiVersion=None), "cdiVersion is missing"),
        (document(cdiVersion="1"), "cdiVersion is missing, or not a version"),
        (document(kind="thing"), "not vendor.com/class"),
        (document(kind="vendor.com/thing/x"), "not vendor.com/class"),
        (document(devices=[]), "devices is missing"),
        (document(devices=[{"containerEdits": {}}]), "devices[0].name is missing"),
        (document(devices=[{"name": "a"}, {"name": "a"}]), "two devices with the name a"),
        (document(devices=[{"name": "-a"}]), "not a device's name"),
        (document(frobnicate=1), "unknown field frobnicate"),
        (document({"frobnicate": 1}), "unknown field devices[0].containerEdits.frobnicate"),
        (document({"deviceNodes": [{"path": "/dev/x", "mode": 1}]}), "containerEdits.deviceNodes[0].mode"),
        (document({"deviceNodes": [{"path": "dev/x"}]}), "not an absolute path"),
        (document({"deviceNodes": [{"path": "/dev/x", "type": "z"}]}), "type is malformed"),
        (document({"deviceNodes": [{"path": "/dev/x", "permissions": "rx"}]}), "permissions is malformed"),
        (document({"env": ["A"]}), "not NAME=VALUE"),
        (document({"env": "A=1"}), "env is malformed"),
        (document({"mounts": [{"hostPath": "/a"}]}), "containerPath is missing"),
        (document({"hooks": [{"hookName": "never", "path": "/x"}]}), "hookName is malformed"),
        (document({"hooks": [{"hookName": "poststop", "path": "x"}]}), "not an absolute path"),
        (document({"hooks": [{"hookName": "poststop", "path": "/x", "timeout": 0}]}), "timeout is malformed"),
        (document({"intelRdt": {"enableCMT": True}}), "unknown field devices[0].containerEdits.intelRdt.enableCMT"),
        (document({"netDevices": [{"name": "eth0"}]}), "hostInterfaceName is missing"),
        # Fields that are newer than the file's version: SPEC.md, "Released versions".
        (document({"mounts": [{"hostPath": "/a", "containerPath": "/b", "type": "none"}]}, "0.3.0"), "needs cdiVersion 0.4.0"),
        (document({"deviceNodes": [{"path": "/a", "hostPath": "/b"}]}, "0.4.0"), "needs cdiVersion 0.5.0"),
        (document({}, "0.4.0", devices=[{"name": "0"}]), "needs cdiVersion 0.5.0"),
        (document({}, "0.5.0", annotations={"a": "b"}), "needs cdiVersion 0.6.0"),
        (document({}, "0.5.0", kind="vendor.com/a.b"), "needs cdiVersion 0.6.0"),
        (document({"additionalGids": [1]}, "0.6.0"), "needs cdiVersion 0.7.0"),
        (document({"intelRdt": {"closID": "x"}}, "0.6.0"), "needs cdiVersion 0.7.0"),
        (document({"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}, "1.0.0"), "needs cdiVersion 1.1.0"),
    ],
)  # fmt: skip
def test_a_malformed_document_is_refused_with_the_files_name(changed: Any, reason: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_document(changed, "/etc/cdi/x.json")
    assert caught.value.message.startswith("CDI file /etc/cdi/x.json: ")
    assert reason in caught.value.message
    assert caught.value.exit_code == 125


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["deviceNodes", "mounts", "hooks", "env", "additionalGids", "intelRdt", "netDevices", "x"]


@given(
    edits=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3),
    fields=st.dictionaries(st.text(max_size=4), JSON, max_size=2),
)
def test_any_json_is_a_specification_or_an_error(edits: dict[str, Any], fields: dict[str, Any]) -> None:
    try:
        parse_document(document(edits, **fields), "x.json")
    except PyDockError as error:
        assert error.hint


def test_names() -> None:
    for text in ("vendor.com/class=name", "nvidia.com/gpu=0", "nvidia.com/gpu=0:1", "a/b.c-d_e=GPU-8d2b"):
        assert is_qualified_name(text), text
    for text in (
        "/dev/null",
        "vendor.com/class",
        "vendor.com=name",
        "v/c=",
        "-v/c=n",
        "v/c/d=n",
        "v/c=-n",
        "1v/c=n",
        "v/c=n/x",
    ):
        assert not is_qualified_name(text), text
    assert parse_qualified("a.b/c=d") == QualifiedName("a.b/c", "d")


# -- directories -----------------------------------------------------------------------------------------


@pytest.fixture
def directories(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("etc", "run", "user")]
    for directory in made:
        directory.mkdir()
    return made


def write(path: Path, value: str, **fields: Any) -> None:
    text = json.dumps(document({"env": [f"FROM={value}"]}, **fields))
    path.write_text(text)  # JSON is YAML, too


def value_of(registry: Registry, name: str) -> str:
    return registry.choose([QualifiedName("vendor.com/thing", name)])[-1].edits.env[0]


def test_a_later_directory_wins_and_one_directory_may_not_contradict_itself(directories: list[Path]) -> None:
    etc, run, user = directories
    write(etc / "a.json", "etc")
    assert value_of(Registry(find_specs(directories), {}), "a") == "FROM=etc"
    write(run / "a.yaml", "run")
    assert value_of(Registry(find_specs(directories), {}), "a") == "FROM=run"
    write(run / "b.json", "again")
    with pytest.raises(ConflictError) as caught:
        value_of(Registry(find_specs(directories), {}), "a")
    assert str(run / "a.yaml") in caught.value.message
    assert str(run / "b.json") in caught.value.message
    write(user / "c.json", "user")
    write(user / "ignored.conf", "user")
    assert value_of(Registry(find_specs(directories), {}), "a") == "FROM=user"


def test_yaml_is_read_and_a_fault_in_it_is_one_line(directories: list[Path]) -> None:
    file = directories[0] / "x.yaml"
    file.write_text(
        "cdiVersion: 0.5.0\nkind: vendor.com/thing\ndevices:\n- name: a\n  containerEdits:\n    env:\n    - FROM=yaml\n"
    )
    assert value_of(Registry(find_specs(directories), {}), "a") == "FROM=yaml"
    for text in ("a: [", "a: !!python/object:os.system {}", "\0"):
        file.write_text(text)
        with pytest.raises(InvalidError) as caught:
            read_spec(file)
        assert "\n" not in caught.value.message
        assert str(file) in caught.value.message


def test_a_broken_file_matters_only_if_the_device_is_not_elsewhere(directories: list[Path]) -> None:
    write(directories[0] / "good.json", "etc")
    (directories[0] / "broken.json").write_text("{")
    registry = Registry(find_specs(directories), {})
    assert value_of(registry, "a") == "FROM=etc"
    with pytest.raises(NotFoundError, match=r"broken\.json"):
        registry.choose([QualifiedName("other.com/thing", "a")])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_file_that_others_can_write_is_refused(directories: list[Path]) -> None:
    file = directories[0] / "x.json"
    write(file, "etc")
    file.chmod(0o666)
    with pytest.raises(DeniedError, match="another user can change it"):
        read_spec(file)
    file.chmod(0o644)
    os.chown(file, 1234, 1234)
    with pytest.raises(DeniedError, match="another user can change it"):
        read_spec(file)
    os.chown(file, 0, 0)
    directories[0].chmod(0o777)
    (problem,) = find_specs(directories).problems
    assert "another user can change it" in problem.message


def test_a_fifo_in_the_directory_does_not_block(directories: list[Path]) -> None:
    os.mkfifo(directories[0] / "x.json")
    (problem,) = find_specs(directories).problems
    assert "not a regular file" in problem.message


def test_the_users_own_directory_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert list(map(str, list_directories())) == ["/etc/cdi", "/var/run/cdi", "/home/me/.config/cdi"]
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert str(list_directories()[-1]) == "/home/me/.config/cdi"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    assert str(list_directories()[-1]) == "/config/cdi"


# -- a file as NVIDIA's toolkit writes it ------------------------------------------------------------------

GENERATED = """
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidia-uvm
  - path: /dev/nvidiactl
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args: [nvidia-cdi-hook, create-symlinks, --link, "libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so"]
    env: [NVIDIA_CTK_DEBUG=false]
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  - args: [nvidia-cdi-hook, enable-cuda-compat, --host-driver-version=570.86.10]
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  - args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib/x86_64-linux-gnu]
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  - args: [nvidia-cdi-hook, disable-device-node-modification]
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/bin/nvidia-smi
    hostPath: /usr/bin/nvidia-smi
    options: [ro, nosuid, nodev, rbind, rprivate]
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/dri/card0
    hooks:
    - args: [nvidia-cdi-hook, create-symlinks, --link, "../card0::/dev/dri/by-path/pci-0000:01:00.0-card"]
      hookName: createContainer
      path: /usr/bin/nvidia-cdi-hook
    - args: [nvidia-cdi-hook, chmod, --mode, "755", --path, /dev/dri]
      hookName: createContainer
      path: /usr/bin/nvidia-cdi-hook
  name: "0"
kind: nvidia.com/gpu
"""


def test_a_generated_file_needs_no_program_of_the_toolkit(directories: list[Path]) -> None:
    (directories[0] / "nvidia.yaml").write_text(GENERATED)
    registry = Registry(find_specs(directories), {})
    edits = merge_edits(part.edits for part in registry.choose([QualifiedName("nvidia.com/gpu", "0")]))
    hooks = read_hooks(edits.hooks)
    assert hooks.others == []
    assert [link.path for link in hooks.links] == [
        "/usr/lib/x86_64-linux-gnu/libcuda.so",
        "/dev/dri/by-path/pci-0000:01:00.0-card",
    ]
    assert (hooks.host_driver, hooks.cover_params, len(hooks.modes)) == ("570.86.10", True, 1)
    assert [node.path for node in edits.device_nodes][-1] == "/dev/dri/card0"


# -- the registry ----------------------------------------------------------------------------------------


def test_a_file_describes_a_kind_alone_and_the_driver_answers_otherwise() -> None:
    derived = CdiSpec("v.com/gpu", {"0": ContainerEdits(env=("D=0",))}, ContainerEdits(env=("ALL=1",)))
    drivers = {"v.com/gpu": lambda: derived, "w.com/gpu": lambda: None}
    registry = Registry(FoundSpecs(()), drivers)
    assert registry.names("v.com/gpu") == ["0"]
    assert registry.names("w.com/gpu") == []
    assert registry.kinds == ["v.com/gpu"]
    file = CdiSpec("v.com/gpu", {"x": ContainerEdits()}, origin="/etc/cdi/v.json")
    registry = Registry(FoundSpecs(((0, file),)), drivers)
    assert registry.names("v.com/gpu") == ["x"]
    with pytest.raises(NotFoundError) as caught:
        registry.choose([QualifiedName("v.com/gpu", "0")])
    assert "there are x" in caught.value.hint


def test_the_edits_of_a_specification_come_once_and_first() -> None:
    spec = CdiSpec(
        "v.com/gpu",
        {"0": ContainerEdits(env=("D=0",)), "1": ContainerEdits(env=("D=1",))},
        ContainerEdits(env=("ALL=1",)),
    )
    registry = Registry(FoundSpecs(((0, spec),)), {})
    names = [QualifiedName("v.com/gpu", name) for name in ("1", "0", "1")]
    assert merge_edits(part.edits for part in registry.choose(names)).env == ("ALL=1", "D=1", "D=0")


def test_of_two_edits_of_one_path_the_later_stays() -> None:
    merged = merge_edits(
        (
            ContainerEdits(
                device_nodes=(DeviceNodeEdit("/dev/x", "/dev/a"),),
                mounts=(MountEdit("/a", "/x"),),
                additional_gids=(0, 5),
            ),
            ContainerEdits(
                device_nodes=(DeviceNodeEdit("/dev/x", "/dev/b"),),
                mounts=(MountEdit("/b", "/x"),),
                additional_gids=(5, 6),
            ),
        )
    )
    assert [node.host_path for node in merged.device_nodes] == ["/dev/b"]
    assert [mount.source for mount in merged.mounts] == ["/b"]
    assert merged.additional_gids == (5, 6)
