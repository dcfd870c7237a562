"""The program ``dock``, and ``python -m pydock_core``.

Nothing is imported here before the module search path is in order.
"""

import os
import sys


def main() -> int:
    """Run the program; see :func:`pydock_core.commands.program.main`."""
    _put_callers_paths_last(os.environ.get("PYTHONPATH", "").split(os.pathsep))
    from pydock_core.commands.program import main as run

    return run()


def _put_callers_paths_last(callers: list[str]) -> None:
    """Put the directories of PYTHONPATH behind those of this installation.

    Python searches them before its own library: a json.py there would run as whoever runs ``dock``.  Behind all others
    they still give packages that are installed in this way.
    """
    try:
        found = {os.path.abspath(entry) for entry in callers if entry}
    except FileNotFoundError:  # an entry is relative, and the current directory has been removed
        found = set()
    last = [path for path in sys.path if path in found]
    sys.path[:] = [path for path in sys.path if path not in found] + last


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current directory, which "python -m" searches first
    sys.exit(main())
