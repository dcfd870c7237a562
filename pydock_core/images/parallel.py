"""Runs work on several layers at once; the first failure cancels the rest and is raised."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from pydock_core.progress import Event, Progress

_LOOK_SECONDS = 0.2
"""A signal that comes while a thread is about to wait for a lock does not wake it (CPython, acquire_timed): it looks again."""

Item = TypeVar("Item")
Result = TypeVar("Result")


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
        """Raise CancelledTransfer if it is set."""
        if self._event.is_set():
            raise CancelledTransfer


def run_all(
    pool: ThreadPoolExecutor,
    work: Callable[[Item], Result],
    items: Sequence[Item],
    give_up: Callable[[BaseException], None],
) -> list[Result]:
    """Do the same work for all items side by side, until all is done or one has failed.

    Args:
        pool: whose threads do it; after a failure it is shut down, and nothing runs in it any more.
        work: called with each item.
        items: in the order of the results.
        give_up: on a failure or an interrupt, called with it once what has not begun is cancelled; makes the others end.

    Raises:
        what failed first, and did not only follow from another failure.
    """
    tasks: list[Future[Result]] = []
    try:
        # An interrupt may come while tasks are still being submitted: those that run by then have to end too.
        for item in items:
            tasks.append(pool.submit(work, item))
        pending: Collection[Future[Result]] = tasks
        while pending:
            done, pending = wait(tasks, _LOOK_SECONDS, return_when=FIRST_EXCEPTION)
            _raise_cause(done)
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        give_up(error)
        pool.shutdown()
        if isinstance(error, CancelledTransfer):
            _raise_cause([task for task in tasks if not task.cancelled()])
        raise
    return [task.result() for task in tasks]


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

    def report(event: Event) -> None:
        with lock:
            progress(event)

    return report
