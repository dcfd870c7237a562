"""Watches an engine's containers and images for any number of views, in one thread.

A *look* lists everything once and yields a :class:`Snapshot`.  The thread looks after each change
(:meth:`~pydock_core.engine.events.Events.changes`), when a view asks, and once a second, because "Up 5 seconds" ages
without a change, and a killed supervisor causes none.  It ends with the last view::

    watcher = Watcher(Engine)
    watcher.add(view.show)
    ...
    watcher.remove(view.show)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydock_core.errors import PyDockError

if TYPE_CHECKING:
    from pydock_core.engine.protocol import ChangesProtocol, Document, EngineProtocol

INTERVAL_SECONDS = 1.0
MAX_INTERVAL_SECONDS = 30.0
REST_SECONDS = 0.1
"""The minimum time between two looks because of changes, so that a hundred starts do not cause a hundred looks."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The error of a failed look: one line, and a hint that may be empty."""

    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The containers and images at one moment, newest first.

    Attributes:
        containers: ContainerSummary documents of the Engine API; None before the first successful look.
        images: ImageSummary documents, likewise.
        problem: the error of the latest look, if it failed; the lists are those of the last successful one.
    """

    containers: tuple[Document, ...] | None = None
    images: tuple[Document, ...] | None = None
    problem: Problem | None = None


Listener = Callable[[Snapshot], None]
"""Receives the snapshot of each look, in the watcher's thread; the same object while nothing changes."""


class Watcher:
    """Looks at an engine while there are listeners; backs off while looks fail.

    Args:
        get_engine: returns the engine; called in the watcher's thread.
        interval_seconds: the longest time between two looks; doubled after each failure, up to 30 seconds.
    """

    def __init__(
        self, get_engine: Callable[[], EngineProtocol], interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._get_engine = get_engine
        self._interval_seconds = interval_seconds
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._listeners: list[Listener] = []
        self._thread: threading.Thread | None = None
        self._changes: ChangesProtocol | None = None

    @property
    def engine(self) -> EngineProtocol:
        return self._get_engine()

    def add(self, listener: Listener) -> None:
        """Call ``listener`` after each look; the first look begins now.  Adding it twice has no effect."""
        with self._lock:
            if listener not in self._listeners:
                self._listeners.append(listener)
            if self._thread is None:
                # A daemon: a process that ends does not wait for it.
                self._thread = threading.Thread(target=self._run, name="pydock-watch", daemon=True)
                self._thread.start()
        self.wake()

    def remove(self, listener: Listener) -> None:
        """Stop calling ``listener``; the thread ends after the last one."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)
        self.wake()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()
        changes = self._changes
        if changes is not None:
            changes.interrupt()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the thread to end; return False on timeout."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_seconds)
        return thread is None or not thread.is_alive()

    def look(self) -> Snapshot:
        """Return a current snapshot."""
        return self._look(Snapshot(), is_changed=True)

    def _run(self) -> None:
        snapshot, is_changed = Snapshot(), True
        pause_seconds = self._interval_seconds
        while True:
            self._wake.clear()
            with self._lock:
                listeners = tuple(self._listeners)
                if not listeners:
                    self._thread = None
                    break
            looked_at = time.monotonic()
            is_watched = self._watch()  # before the look: a change during it leads to another
            snapshot = self._look(snapshot, is_changed=is_changed or not is_watched)
            for listener in listeners:
                listener(snapshot)
            is_failure = snapshot.problem is not None
            pause_seconds = (
                min(pause_seconds * 2, MAX_INTERVAL_SECONDS) if is_failure else self._interval_seconds
            )
            is_changed = self._pause(pause_seconds) or is_failure
            if is_changed:
                self._wake.wait(max(looked_at + REST_SECONDS - time.monotonic(), 0))
        changes, self._changes = self._changes, None
        if changes is not None:
            changes.close()
        if snapshot.containers is not None:
            self._get_engine().close()

    def _watch(self) -> bool:
        """Begin to watch for changes; return False on a failure, which the next look reports."""
        if self._changes is None:
            try:
                self._changes = self._get_engine().events.changes()
            except Exception:  # noqa: BLE001 - whatever it is, the look that follows meets it and reports it
                return False
        return True

    def _look(self, before: Snapshot, *, is_changed: bool) -> Snapshot:
        """Return a snapshot, ``before`` itself if it still holds; images change only with a change."""
        try:
            engine = self._get_engine()
            containers = tuple(engine.containers.list(all=True))
            images = tuple(engine.images.list()) if is_changed or before.images is None else before.images
            snapshot = Snapshot(containers, images)
        except PyDockError as error:
            snapshot = replace(before, problem=Problem(error.message, error.hint))
        except Exception as error:  # noqa: BLE001  # the views show it; without its thread they would stand still
            snapshot = replace(before, problem=Problem(f"{type(error).__name__}: {error}"))
        return before if snapshot == before else snapshot

    def _pause(self, seconds: float) -> bool:
        """Wait until :meth:`wake`, a change, or the timeout; return whether there may be a change."""
        if self._changes is None:
            self._wake.wait(seconds)
            return True
        # A wake from before the watch began has not interrupted it.
        return self._changes.wait(0 if self._wake.is_set() else seconds)
