"""Watches an engine's containers and images for any number of views, in one thread.

A *look* lists everything once and yields a :class:`Snapshot`.  The thread looks when the engine's revision changes
(:meth:`~pydock_core.engine.protocol.SystemProtocol.revision`), when a view asks, and once a second: "Up 5 seconds" ages
without a change, and a killed supervisor leaves no trace.  It ends with the last view::

    watcher = Watcher(Engine)
    watcher.add(view.show)
    ...
    watcher.remove(view.show)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydock_core.errors import PyDockError

if TYPE_CHECKING:
    from pydock_core.engine.protocol import Document, EngineProtocol

INTERVAL_SECONDS = 1.0
MAX_INTERVAL_SECONDS = 30.0
REVISION_SECONDS = 0.1
"""The time between two reads of the revision, each less than 100 microseconds for 30 containers."""


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
        self._wake.set()

    def remove(self, listener: Listener) -> None:
        """Stop calling ``listener``; the thread ends after the last one."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)
        self._wake.set()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the thread to end; return False on timeout."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_seconds)
        return thread is None or not thread.is_alive()

    def look(self) -> Snapshot:
        """Return a snapshot of the current moment."""
        return self._look(Snapshot(), None)[0]

    def _run(self) -> None:
        snapshot, revision = Snapshot(), None
        pause_seconds = self._interval_seconds
        while True:
            self._wake.clear()
            with self._lock:
                listeners = tuple(self._listeners)
                if not listeners:
                    self._thread = None
                    break
            snapshot, revision = self._look(snapshot, revision)
            for listener in listeners:
                listener(snapshot)
            is_failure = snapshot.problem is not None
            pause_seconds = (
                min(pause_seconds * 2, MAX_INTERVAL_SECONDS) if is_failure else self._interval_seconds
            )
            self._pause(pause_seconds, revision)
        if snapshot.containers is not None:
            self._get_engine().close()

    def _look(self, before: Snapshot, known: Hashable) -> tuple[Snapshot, Hashable]:
        """Return a snapshot, ``before`` itself if it still holds, and the revision, None after a failure."""
        try:
            engine = self._get_engine()
            # Read first: a change during the listing leads to another look.
            revision = engine.system.revision()
            containers = tuple(engine.containers.list(all=True))
            images = before.images if revision == known else tuple(engine.images.list())
            snapshot = Snapshot(containers, images)
        except PyDockError as error:
            snapshot, revision = replace(before, problem=Problem(error.message, error.hint)), None
        except Exception as error:  # noqa: BLE001  # the views show it; without its thread they would stand still
            snapshot, revision = replace(before, problem=Problem(f"{type(error).__name__}: {error}")), None
        return before if snapshot == before else snapshot, revision

    def _pause(self, seconds: float, revision: Hashable) -> None:
        """Wait until :meth:`wake`, a change of the revision (None: unknown), or the timeout."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._wake.wait(left if revision is None else min(left, REVISION_SECONDS)):
                return
            if revision is not None and self._is_changed(revision):
                return

    def _is_changed(self, revision: Hashable) -> bool:
        try:
            return self._get_engine().system.revision() != revision
        except Exception:  # noqa: BLE001  # the next look reports it
            return True
