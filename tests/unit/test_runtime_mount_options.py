"""Parsing of OCI mount entries."""

from __future__ import annotations

from typing import Any

import pytest

from pydock_core import syscalls
from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.runtime.mount_options import parse_mount


def parse(*options: str, kind: str = "tmpfs", **entry: Any) -> Any:
    return parse_mount({"destination": "/x", "type": kind, "options": list(options), **entry})


def test_attributes_and_data_are_told_apart() -> None:
    plan = parse("nosuid", "noexec", "size=64k", "mode=755", "newinstance", "sync")
    assert plan.attributes_set == syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC
    assert plan.data == (("size", "64k"), ("mode", "755"), ("newinstance", None), ("sync", None))


@pytest.mark.parametrize(
    ("options", "read_only"), [(("ro",), True), (("ro", "rw"), False), (("rw", "ro"), True)]
)
def test_the_last_of_contradicting_words_wins(options: tuple[str, ...], read_only: bool) -> None:
    plan = parse(*options)
    assert bool(plan.attributes_set & syscalls.MOUNT_ATTR_RDONLY) is read_only
    assert bool(plan.attributes_clear & syscalls.MOUNT_ATTR_RDONLY) is not read_only


def test_access_times_are_one_field_of_several_bits() -> None:
    plan = parse("noatime", "strictatime")
    assert plan.attributes_set == syscalls.MOUNT_ATTR_STRICTATIME
    assert plan.attributes_clear == syscalls.MOUNT_ATTR__ATIME


def test_recursive_words() -> None:
    plan = parse("rbind", "rro", "rnosuid", kind="none")
    assert (plan.kind, plan.recursive_bind) == ("bind", True)
    assert plan.tree_set == syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID
    assert plan.attributes_set == 0


def test_propagation() -> None:
    plan = parse("bind", "rslave", "shared", kind="none")
    assert plan.propagation == ((syscalls.MS_SLAVE, True), (syscalls.MS_SHARED, False))


@pytest.mark.parametrize("option", ["idmap", "ridmap", "tmpcopyup", "remount"])
def test_what_cannot_be_honoured_is_refused_by_name(option: str) -> None:
    with pytest.raises(UnsupportedError, match=option):
        parse(option)


def test_id_maps_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="/x"):
        parse(uidMappings=[{"containerID": 0, "hostID": 1, "size": 1}])


@pytest.mark.parametrize(
    "entry", [{"destination": "x", "type": "tmpfs"}, {"destination": "/x"}, {"type": "tmpfs"}]
)
def test_malformed_entries(entry: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        parse_mount(entry)


def test_a_bind_mount_has_no_parameters() -> None:
    with pytest.raises(InvalidError, match="size"):
        parse("bind", "size=5", kind="bind")
