"""Puts the magics into an IPython shell, and takes them out again."""

from __future__ import annotations

import os
from typing import Any

from pydock_jupyter.magics.completion import EngineSource, build_matcher
from pydock_jupyter.magics.dock import DockMagics
from pydock_jupyter.program import find_program, put_on_path

_REGISTERED = "_pydock_registered"


def load(shell: Any) -> None:
    """Register ``%dock`` and its completion, and start warming up the engine; loading twice is once.

    ``!dock`` works too: the program is put on the kernel's PATH.
    """
    unload(shell)
    put_on_path(os.environ, find_program())
    magics = DockMagics(shell)
    shell.register_magics(magics)
    matcher = build_matcher(EngineSource(magics.engine))
    shell.Completer.custom_matchers.append(matcher)
    setattr(shell, _REGISTERED, matcher)
    # The zygote is started in a thread of the engine's; what is wrong with it the first command says.
    magics.engine().warm()


def unload(shell: Any) -> None:
    """Take out what :func:`load` put in; nothing happens where it was not loaded."""
    matcher = getattr(shell, _REGISTERED, None)
    if matcher is None:
        return
    delattr(shell, _REGISTERED)
    shell.Completer.custom_matchers.remove(matcher)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("dock", None)
    magics = shell.magics_manager.registry.pop(DockMagics.__name__, None)
    if magics in shell.configurables:  # where %config looks
        shell.configurables.remove(magics)
