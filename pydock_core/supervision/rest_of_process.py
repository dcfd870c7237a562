"""Runs a function as the rest of a forked process, which never returns into the frames that it has inherited."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


def run_and_exit(function: Callable[[], object]) -> NoReturn:
    """Call a function, then end the process: exit code 0, or 1 if it raised; the log (standard error) gets the traceback."""
    code = 1
    try:
        function()
        code = 0
    except BaseException:  # noqa: BLE001 - os._exit in "finally" would end the process without a word
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)
