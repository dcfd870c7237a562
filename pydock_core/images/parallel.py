"""Runs work on several layers at once; the first failure cancels the rest and is raised."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from pydock_core.progress import Event, Progress

_LOOK_SECONDS = 0.2
"""The interval of the wait: a signal just before a wait for a lock does not end it (CPython, acquire_timed)."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class CancelledTransfer(Exception):
    """This transfer was cancelled, because another layer failed or the user interrupted; it is not the cause."""


class Cancellation:
    """A flag that threads check between two steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Tell all threads to give up."""
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
    """Call ``work`` for all items in parallel, until all are done or one has failed; return the results in order.

    The first error is raised, unless it is only the consequence of a cancellation.

    Args:
        pool: provides the threads; after a failure it is shut down, and nothing runs in it any more.
        work: called with each item.
        items: the arguments of ``work``.
        give_up: called with the first failure or interrupt, after the remaining items have been cancelled; makes the
            running ones end.
    """
    tasks: list[Future[Result]] = []
    try:
        # An interrupt may come while tasks are still being submitted; the running ones have to end, too.
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
