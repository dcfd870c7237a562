"""The createContainer hook that applies a container's root edits, for an OCI runtime program (crun, runc).

The program is executed by its path: ``python -I -S root_edit_hook.py FILE``, with the container's state on standard input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> int:
    """Apply the edits; return the exit code."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from pydock_core.errors import PyDockError
    from pydock_core.runtime.root_edit import run_hook

    try:
        run_hook(sys.argv[1:], json.load(sys.stdin))
    except PyDockError as error:
        print(error.line, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
