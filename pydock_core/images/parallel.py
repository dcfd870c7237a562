"""Work on several layers at once: the first failure ends all of it, and is what the caller gets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any

from pydock_core.store.worker import Progress


class CancelledTransfer(Exception):
    """Another layer has failed, or the user has interrupted: this one gives up, and is not the cause."""


class Cancellation:
    """A flag that threads look at between two steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Ask all threads to give up."""
        self._event.set()

    def check(self) -> None:
        """Raise CancelledTransfer where it is set."""
        if self._event.is_set():
            raise CancelledTransfer


def wait_for_all(tasks: Sequence[Future[Any]], give_up: Callable[[BaseException], None]) -> None:
    """Wait until all tasks are done, or one has failed.

    Args:
        tasks: submitted already.
        give_up: on a failure or an interrupt, called with it once what has not begun is cancelled; makes the others end.

    Raises:
        what failed first, and did not only follow from another failure.
    """
    try:
        done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
        _raise_cause(done)
    except BaseException as error:
        for task in tasks:
            task.cancel()
        give_up(error)
        wait(tasks)
        if isinstance(error, CancelledTransfer):
            _raise_cause([task for task in tasks if not task.cancelled()])
        raise


def _raise_cause(tasks: Sequence[Future[Any]] | set[Future[Any]]) -> None:
    errors = [error for task in tasks if (error := task.exception()) is not None]
    causes = [error for error in errors if not isinstance(error, CancelledTransfer)]
    if causes or errors:
        raise (causes or errors)[0]


def serialised(progress: Progress | None) -> Progress:
    """Return a progress callback that several threads may call; one that does nothing for None."""
    if progress is None:
        return lambda event: None
    lock = threading.Lock()

    def report(event: dict[str, Any]) -> None:
        with lock:
            progress(event)

    return report
