"""Reads a CDI specification's document strictly: unknown fields, versions and types are errors.  Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydock_core.cdi.edit import CdiSpec, ContainerEdits, DeviceNodeEdit, HookEdit, MountEdit
from pydock_core.cdi.name import is_device_name, is_kind
from pydock_core.errors import InvalidError

NEWEST = (1, 1, 0)
"""The newest supported version."""
HOOK_STEPS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})")
_NODE_KINDS = ("", "b", "c", "u", "p")
_UNSUPPORTED = ("intelRdt", "netDevices")

Version = tuple[int, int, int]
_Check = Callable[[Any], bool]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_id(value: Any) -> bool:
    return _is_integer(value) and 0 <= value < 1 << 32


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_annotations(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, (*value, *value.values())))


_FIRST: Version = (0, 1, 0)
_Fields = Mapping[str, tuple[_Check, Version]]
_SPEC: _Fields = {
    "cdiVersion": (_is_text, _FIRST),
    "kind": (_is_text, _FIRST),
    "annotations": (_is_annotations, (0, 6, 0)),
    "devices": (_is_objects, _FIRST),
    "containerEdits": (lambda value: isinstance(value, dict), _FIRST),
}
_DEVICE: _Fields = {
    "name": (_is_text, _FIRST),
    "annotations": (_is_annotations, (0, 6, 0)),
    "containerEdits": (lambda value: isinstance(value, dict), _FIRST),
}
_EDITS: _Fields = {
    "env": (_is_texts, _FIRST),
    "deviceNodes": (_is_objects, _FIRST),
    "mounts": (_is_objects, _FIRST),
    "hooks": (_is_objects, _FIRST),
    "additionalGids": (lambda value: isinstance(value, list) and all(map(_is_id, value)), (0, 7, 0)),
    "additionalGIDs": (lambda value: isinstance(value, list) and all(map(_is_id, value)), (0, 7, 0)),
    "intelRdt": (lambda value: isinstance(value, dict), (0, 7, 0)),
    "netDevices": (_is_objects, (1, 1, 0)),
}
_NODE: _Fields = {
    "path": (_is_text, _FIRST),
    "hostPath": (_is_text, (0, 5, 0)),
    "type": (lambda value: value in _NODE_KINDS, _FIRST),
    "major": (_is_integer, _FIRST),
    "minor": (_is_integer, _FIRST),
    "fileMode": (_is_integer, _FIRST),
    "permissions": (
        lambda value: _is_text(value) and (value == "none" or set(value) <= set("rwm")),
        _FIRST,
    ),
    "uid": (_is_id, _FIRST),
    "gid": (_is_id, _FIRST),
}
_MOUNT: _Fields = {
    "hostPath": (_is_text, _FIRST),
    "containerPath": (_is_text, _FIRST),
    "options": (_is_texts, _FIRST),
    "type": (_is_text, (0, 4, 0)),
}
_HOOK: _Fields = {
    "hookName": (lambda value: value in HOOK_STEPS, _FIRST),
    "path": (_is_text, _FIRST),
    "args": (_is_texts, _FIRST),
    "env": (_is_texts, _FIRST),
    "timeout": (lambda value: _is_integer(value) and value > 0, _FIRST),
}
_INTEL_RDT: _Fields = {
    "closID": (_is_text, (0, 7, 0)),
    "l3CacheSchema": (_is_text, (0, 7, 0)),
    "memBwSchema": (_is_text, (0, 7, 0)),
    "schemata": (_is_texts, (1, 1, 0)),
    "enableMonitoring": (lambda value: isinstance(value, bool), (1, 1, 0)),
}
_NET_DEVICE: _Fields = {"hostInterfaceName": (_is_text, (1, 1, 0)), "name": (_is_text, (1, 1, 0))}


def parse_document(document: Any, origin: str) -> CdiSpec:
    """Read a specification.

    Args:
        document: the parsed JSON or YAML.
        origin: path of the file, for errors and for the specification.

    Raises:
        InvalidError: an unknown or missing field, a wrong type, an unknown version, or a field that is newer than the
            specification's version; exit code 125.
    """
    return _Reader(origin).read(document)


class _Reader:
    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._version: Version = NEWEST

    def read(self, document: Any) -> CdiSpec:
        if not isinstance(document, dict):
            raise self._bad("it is not an object")
        self._version = self._read_version(document.get("cdiVersion"))
        fields = self._fields(document, "", _SPEC, ("cdiVersion", "kind", "devices"))
        kind = fields["kind"]
        if not is_kind(kind):
            raise self._bad(f"kind {kind!r} is not vendor.com/class")
        if "." in kind.partition("/")[2]:
            self._require((0, 6, 0), "a dot in the class")
        devices: dict[str, ContainerEdits] = {}
        for index, entry in enumerate(fields["devices"]):
            place = f"devices[{index}]"
            device = self._fields(entry, place, _DEVICE, ("name",))
            name = device["name"]
            if not is_device_name(name):
                raise self._bad(f"{place}: {name!r} is not a device's name")
            if name[0].isdigit():
                self._require((0, 5, 0), f"the name {name}, which begins with a digit,")
            if name in devices:
                raise self._bad(f"it has two devices with the name {name}")
            devices[name] = self._edits(device.get("containerEdits", {}), f"{place}.containerEdits")
        if not devices:
            raise self._bad("it has no devices")
        return CdiSpec(
            kind, devices, self._edits(fields.get("containerEdits", {}), "containerEdits"), self._origin
        )

    def _read_version(self, value: Any) -> Version:
        match = _VERSION.fullmatch(value) if isinstance(value, str) else None
        if not match:
            raise self._bad("cdiVersion is missing, or not a version")
        version = (int(match[1]), int(match[2]), int(match[3]))
        if version > NEWEST:
            raise self._bad(f"its cdiVersion {value} is newer than {_shown(NEWEST)}")
        return version

    def _fields(
        self, document: Any, place: str, fields: _Fields, required: tuple[str, ...]
    ) -> dict[str, Any]:
        """Check an object's fields; null counts as absent."""
        given = {name: value for name, value in document.items() if value is not None}
        for name, value in given.items():
            full_name = f"{place}.{name}" if place else str(name)
            if name not in fields:
                raise self._bad(f"unknown field {full_name}")
            check, since = fields[name]
            self._require(since, f"the field {full_name}")
            if not check(value):
                raise self._bad(f"{full_name} is malformed")
        for name in required:
            if not given.get(name):
                raise self._bad(f"{place + '.' if place else ''}{name} is missing")
        return given

    def _require(self, since: Version, what: str) -> None:
        if self._version < since:
            raise self._bad(f"{what} needs cdiVersion {_shown(since)}, it has {_shown(self._version)}")

    def _edits(self, document: dict[str, Any], place: str) -> ContainerEdits:
        fields = self._fields(document, place, _EDITS, ())
        for entry in fields.get("env", ()):
            if not entry.partition("=")[0] or "=" not in entry:
                raise self._bad(f"{place}.env: {entry!r} is not NAME=VALUE")
        self._fields(fields.get("intelRdt", {}), f"{place}.intelRdt", _INTEL_RDT, ())
        for index, entry in enumerate(fields.get("netDevices", ())):
            self._fields(entry, f"{place}.netDevices[{index}]", _NET_DEVICE, ("hostInterfaceName", "name"))
        return ContainerEdits(
            env=tuple(fields.get("env", ())),
            device_nodes=tuple(
                self._node(entry, f"{place}.deviceNodes[{index}]")
                for index, entry in enumerate(fields.get("deviceNodes", ()))
            ),
            mounts=tuple(
                self._mount(entry, f"{place}.mounts[{index}]")
                for index, entry in enumerate(fields.get("mounts", ()))
            ),
            hooks=tuple(
                self._hook(entry, f"{place}.hooks[{index}]")
                for index, entry in enumerate(fields.get("hooks", ()))
            ),
            additional_gids=(*fields.get("additionalGids", ()), *fields.get("additionalGIDs", ())),
            unsupported=tuple(name for name in _UNSUPPORTED if fields.get(name)),
        )

    def _node(self, document: dict[str, Any], place: str) -> DeviceNodeEdit:
        fields = self._fields(document, place, _NODE, ("path",))
        access = fields.get("permissions") or "rwm"
        return DeviceNodeEdit(
            path=self._path(fields["path"], f"{place}.path"),
            host_path=self._path(fields.get("hostPath") or fields["path"], f"{place}.hostPath"),
            kind=fields.get("type", ""),
            major=fields.get("major", 0),
            minor=fields.get("minor", 0),
            mode=fields.get("fileMode"),
            access="" if access == "none" else access,
            uid=fields.get("uid"),
            gid=fields.get("gid"),
        )

    def _mount(self, document: dict[str, Any], place: str) -> MountEdit:
        fields = self._fields(document, place, _MOUNT, ("hostPath", "containerPath"))
        mount = MountEdit(
            fields["hostPath"],
            self._path(fields["containerPath"], f"{place}.containerPath"),
            fields.get("type", ""),
            tuple(fields.get("options", ())),
        )
        if mount.is_bind:
            self._path(mount.source, f"{place}.hostPath")
        return mount

    def _hook(self, document: dict[str, Any], place: str) -> HookEdit:
        fields = self._fields(document, place, _HOOK, ("hookName", "path"))
        return HookEdit(
            fields["hookName"],
            self._path(fields["path"], f"{place}.path"),
            tuple(fields.get("args", ())),
            tuple(fields.get("env", ())),
            fields.get("timeout"),
        )

    def _path(self, text: str, place: str) -> str:
        if not text.startswith("/"):
            raise self._bad(f"{place}: {text!r} is not an absolute path")
        return text

    def _bad(self, reason: str) -> InvalidError:
        return InvalidError(
            f"CDI file {self._origin}: {reason}", "have it made again by its vendor's tool", exit_code=125
        )


def _shown(version: Version) -> str:
    return ".".join(map(str, version))
