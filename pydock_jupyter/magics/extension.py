"""Loads the magics into an IPython shell, and unloads them."""

from __future__ import annotations

import os
from typing import Any

from pydock_jupyter.magics.completion import EngineSource, build_matcher
from pydock_jupyter.magics.dock import DockMagics
from pydock_jupyter.program import find_program, put_on_path

_REGISTERED = "_pydock_registered"


def load(shell: Any) -> None:
    """Register ``%dock`` and its completion, and warm up the engine.  Idempotent.

    Adds the program to the kernel's PATH, for ``!dock``.
    """
    unload(shell)
    put_on_path(os.environ, find_program())
    magics = DockMagics(shell)
    shell.register_magics(magics)
    matcher = build_matcher(EngineSource(magics.engine))
    shell.Completer.custom_matchers.append(matcher)
    setattr(shell, _REGISTERED, matcher)
    # Starts the zygote in a thread; the first command reports a failure.
    magics.engine().warm()


def unload(shell: Any) -> None:
    """Undo :func:`load`; without effect if it has not run."""
    matcher = getattr(shell, _REGISTERED, None)
    if matcher is None:
        return
    delattr(shell, _REGISTERED)
    shell.Completer.custom_matchers.remove(matcher)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("dock", None)
    magics = shell.magics_manager.registry.pop(DockMagics.__name__, None)
    if magics in shell.configurables:  # the list of %config
        shell.configurables.remove(magics)
