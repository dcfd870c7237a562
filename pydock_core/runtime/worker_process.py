"""Runs one storage job in a process of its own: the zygote's half of
:class:`pydock_core.runtime.client.ZygoteWorker`."""

from __future__ import annotations

import contextlib
import signal
import socket
import traceback
from collections.abc import Mapping
from typing import Any

from pydock_core.errors import FailedError, PyDockError
from pydock_core.runtime import messages


def run(document: Mapping[str, Any], fds: list[int]) -> None:
    """Perform the job of a "work" request; its first descriptor is the status socket, the others are the
    job's.

    A client that goes away does not end the job: what it began, it finishes (jobs are atomic either way).
    """
    from pydock_core.store.worker import perform  # late: only workers need the store

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = socket.socket(fileno=fds.pop(0))

    def tell(message: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            messages.send(status, message)

    try:
        result = perform(
            str(document["function"]),
            document["arguments"],
            fds,
            lambda progress: tell({"event": "progress", "progress": progress}),
        )
        tell({"event": "done", "result": result})
    except PyDockError as error:
        tell({"event": "failed", "error": error.to_json()})
    except Exception as error:  # noqa: BLE001 - the seam: whatever a job raises reaches its caller as our error
        traceback.print_exc()
        wrapped = FailedError(f"{document['function']} failed: {type(error).__name__}: {error}")
        tell({"event": "failed", "error": wrapped.to_json()})
