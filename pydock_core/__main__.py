"""``python -m pydock_core`` is the program ``dock``."""

import sys

from pydock_core.commands.program import main

if __name__ == "__main__":
    sys.exit(main())
