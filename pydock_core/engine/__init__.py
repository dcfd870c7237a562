"""The engine: the only package that front ends (program, magics, widgets, HTTP) import.

:class:`~pydock_core.engine.protocol.EngineProtocol` declares a front end's requests; :class:`Engine` implements them for
this host.  Names are imported when they are first used, so a front end loads only the modules that it uses.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydock_core.cdi.name import is_qualified_name
    from pydock_core.engine.execution import ExecRequest
    from pydock_core.engine.image_shapes import SeenImage
    from pydock_core.engine.launch import DEFAULT_STOP_SECONDS
    from pydock_core.engine.local import Engine
    from pydock_core.engine.moment import parse_moment_ns
    from pydock_core.engine.protocol import EngineProtocol, InputStream, OutputStream, SessionProtocol
    from pydock_core.engine.watch import Snapshot, Watcher
    from pydock_core.oci.digest import short_id
    from pydock_core.oci.platform import parse_platform
    from pydock_core.oci.reference import parse_reference
    from pydock_core.runtime.signals import signal_name, signal_number
    from pydock_core.spec.definition import CONFIG, CreateRequest
    from pydock_core.spec.security import split_security_option
    from pydock_core.spec.validation import RANGES, check_request
    from pydock_core.supervision.client import Streams

_HOMES = {
    "pydock_core.cdi.name": ("is_qualified_name",),
    "pydock_core.engine.execution": ("ExecRequest",),
    "pydock_core.engine.image_shapes": ("SeenImage",),
    "pydock_core.engine.launch": ("DEFAULT_STOP_SECONDS",),
    "pydock_core.engine.local": ("Engine",),
    "pydock_core.engine.moment": ("parse_moment_ns",),
    "pydock_core.engine.protocol": ("EngineProtocol", "InputStream", "OutputStream", "SessionProtocol"),
    "pydock_core.engine.watch": ("Snapshot", "Watcher"),
    "pydock_core.oci.digest": ("short_id",),
    "pydock_core.oci.platform": ("parse_platform",),
    "pydock_core.oci.reference": ("parse_reference",),
    "pydock_core.runtime.signals": ("signal_name", "signal_number"),
    "pydock_core.spec.definition": ("CONFIG", "CreateRequest"),
    "pydock_core.spec.security": ("split_security_option",),
    "pydock_core.spec.validation": ("RANGES", "check_request"),
    "pydock_core.supervision.client": ("Streams",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CONFIG",
    "DEFAULT_STOP_SECONDS",
    "RANGES",
    "CreateRequest",
    "Engine",
    "EngineProtocol",
    "ExecRequest",
    "InputStream",
    "OutputStream",
    "SeenImage",
    "SessionProtocol",
    "Snapshot",
    "Streams",
    "Watcher",
    "check_request",
    "is_qualified_name",
    "parse_moment_ns",
    "parse_platform",
    "parse_reference",
    "short_id",
    "signal_name",
    "signal_number",
    "split_security_option",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value
