"""Keeps a container's files unchanged while another process reads or writes them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from pydock_core.errors import ConflictError, UnavailableError
from pydock_core.paths import ContainerPaths
from pydock_core.private_files import make_directories
from pydock_core.supervision.client import SupervisorClient
from pydock_core.supervision.container_status import Status, take_lock
from pydock_core.supervision.reaper import reap_killed

_LOCK_PATIENCE_SECONDS = 30.0
_LOCK_INTERVAL_SECONDS = 0.002


@contextlib.contextmanager
def keep_still(
    paths: ContainerPaths, name: str, *, pause: bool, hold_unstarted: bool = False
) -> Iterator[Status]:
    """Keep a stopped container from starting; on request, freeze a running one.

    Args:
        paths: the container's paths.
        name: its name in errors.
        pause: freeze a running container.
        hold_unstarted: also hold a container that was never started; its directories are made.

    Yields:
        Its status: running, or not.

    Raises:
        ConflictError: its start or end takes too long.
    """
    with contextlib.ExitStack() as stack:
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while True:
            status = reap_killed(paths)
            if status.is_running:
                if not pause:
                    break
                with contextlib.suppress(ConflictError, UnavailableError):  # it has just ended: check again
                    stack.enter_context(SupervisorClient(paths, name).frozen())
                    break
            elif status.status == "created" and not paths.lock_file.exists() and not hold_unstarted:
                break  # it has never run, and has no layer
            elif status.status != "starting":
                if hold_unstarted:
                    make_directories(paths.run)
                lock_fd = take_lock(paths.lock_file)
                if lock_fd is not None:
                    stack.callback(os.close, lock_fd)  # a start waits for it
                    break
            # It is being started, or the supervisor of the last run is still unmounting.
            if time.monotonic() > deadline:
                raise ConflictError(f"container {name} is being started or stopped", "try again")
            time.sleep(_LOCK_INTERVAL_SECONDS)
        yield status
