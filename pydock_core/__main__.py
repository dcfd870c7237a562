"""The program ``dock`` as ``python -m pydock_core``.

Python's runpy imports some modules of the standard library, from the current directory too, before the first line
here; ``python -I -m pydock_core`` prevents that.  Nothing else is imported before the search path is in order.
"""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current directory, which "python -m" searches first
    callers = {path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path}
    sys.path.sort(key=lambda path: path in callers)  # the sort is stable: these directories go last

    from pydock_core.commands.program import main

    sys.exit(main())
