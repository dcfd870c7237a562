"""Recognizes the hooks of NVIDIA's toolkit that PyDock implements itself (:mod:`pydock_core.runtime.root_edit`).  Pure.

A hook is ``nvidia-ctk hook NAME ...`` or ``nvidia-cdi-hook NAME ...``.  A hook with an unknown name or
option is executed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydock_core.cdi.edit import HookEdit
from pydock_core.runtime.root_edit import Link, Mode

_PROGRAMS = ("nvidia-ctk", "nvidia-cdi-hook")
_OPTIONS = {
    "create-symlinks": ("link",),
    "update-ldcache": ("folder", "ldconfig-path"),
    "enable-cuda-compat": ("host-driver-version", "host-cuda-version", "cuda-compat-mode"),
    "chmod": ("path", "mode"),
    "disable-device-node-modification": (),
}
_IGNORED = ("container-spec",)
"""The option with the path of the container's state, which replaces standard input."""


@dataclass
class NativeHooks:
    """The requests of a container's well-known hooks.

    Attributes:
        folders: directories for the loader's cache; None to leave it unchanged.
        host_driver: version from enable-cuda-compat; empty for the driver of this host, None without that hook.
        cover_params: whether the driver must be kept from making device nodes.
        others: hooks to execute.
    """

    links: list[Link] = field(default_factory=list)
    modes: list[Mode] = field(default_factory=list)
    folders: list[str] | None = None
    host_driver: str | None = None
    cover_params: bool = False
    others: list[HookEdit] = field(default_factory=list)

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.links or self.modes or self.folders is not None or self.cover_params)


def read_hooks(hooks: Iterable[HookEdit]) -> NativeHooks:
    """Divide hooks into well-known ones and hooks to execute."""
    found = NativeHooks()
    for hook in hooks:
        if not _read(hook, found):
            found.others.append(hook)
    return found


def _read(hook: HookEdit, found: NativeHooks) -> bool:
    """Add one hook's request; return whether it is well-known."""
    if hook.step != "createContainer" or posixpath.basename(hook.path) not in _PROGRAMS:
        return False
    words = list(hook.args[1:])
    if words[:1] == ["hook"]:
        del words[0]
    if not words or words[0] not in _OPTIONS:
        return False
    name = words[0]
    options = _options(words[1:], (*_OPTIONS[name], *_IGNORED))
    if options is None:
        return False
    if name == "create-symlinks":
        links = [text.partition("::") for text in options.get("link", ())]
        if not all(separator and target and path for target, separator, path in links):
            return False
        found.links += [Link(target, _absolute(path)) for target, _, path in links]
    elif name == "chmod":
        modes = options.get("mode", ())
        if len(modes) != 1 or not modes[0] or set(modes[0]) - set("01234567"):
            return False
        found.modes += [Mode(_absolute(path), int(modes[0], 8) & 0o7777) for path in options.get("path", ())]
    elif name == "update-ldcache":
        found.folders = [*(found.folders or ()), *map(_absolute, options.get("folder", ()))]
    elif name == "enable-cuda-compat":
        found.host_driver = next(iter(options.get("host-driver-version", ())), "")
    else:
        found.cover_params = True
    return True


def _options(words: Sequence[str], known: Sequence[str]) -> dict[str, list[str]] | None:
    """Parse ``--name value`` and ``--name=value``; a value may be a list with commas.  Return None for other words."""
    options: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name not in known:
            return None
        if not equals:
            if not rest:
                return None
            value = rest.pop(0)
        options.setdefault(name, []).extend(value.split(","))
    return options


def _absolute(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))
