"""Puts the program ``dock`` on the PATH of Jupyter's terminals and of ``!dock`` in a kernel.

``/path/venv/bin/jupyter lab`` may run without an activated environment, so that its PATH lacks the environment's
programs, while PyDock's messages name commands to type in a terminal.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import MutableMapping
from pathlib import Path

PROGRAM = "dock"
FUNCTION = f"BASH_FUNC_{PROGRAM}%%"
"""The environment variable in which bash exports a function (bash(1), FUNCTIONS, "export -f")."""

LOGIN_SHELL_FILE = Path(__file__).with_name("login_shell.sh")


def find_program() -> Path | None:
    """Return the program of this Python environment or of the user's; None if neither has it."""
    places = [Path(sys.executable).parent, *map(Path, _script_directories())]
    return next((path for place in places if os.access(path := place / PROGRAM, os.X_OK)), None)


def _script_directories() -> list[str]:
    return [
        sysconfig.get_path("scripts"),
        sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")),
    ]


def put_on_path(environ: MutableMapping[str, str], program: Path | None) -> None:
    """Append the program's directory to the PATH, unless the PATH already leads to a ``dock``.

    It goes last, so that the directory's other programs (python) hide no program of the same name.
    """
    path = environ.get("PATH", os.defpath)
    if program is not None and shutil.which(PROGRAM, path=path) is None:
        environ["PATH"] = os.pathsep.join((path, str(program.parent)))


def export_to_login_shells(environ: MutableMapping[str, str], program: Path | None) -> None:
    """Define ``dock`` in the login shells of terminals, whose profile resets the PATH.

    A Jupyter server without a controlling terminal starts login shells (jupyter_server_terminals): $SHELL, or sh if
    a service manager or JupyterHub does not set it.  Debian's /etc/profile resets their PATH.  bash inherits an
    exported function; an interactive sh (dash, ash, ksh) reads the file that ENV names.  An existing function or ENV
    is kept.
    """
    if program is None:
        return
    environ.setdefault(
        FUNCTION,
        f'() {{  if type -P {PROGRAM} >/dev/null; then command {PROGRAM} "$@"; '
        f'else {shlex.quote(str(program))} "$@"; fi\n}}',
    )
    if "ENV" not in environ:
        environ["ENV"] = str(LOGIN_SHELL_FILE)
        environ["PYDOCK_PROGRAM"] = str(program)
