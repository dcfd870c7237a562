"""Watches the engine for panels: one thread for all of a kernel's panels, gone when the last one is closed.

A panel is told of what has changed, and only then.  The thread is a daemon, so that a kernel that ends does
not wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydock_core.errors import PyDockError

if TYPE_CHECKING:
    from pydock_core.engine import EngineProtocol

INTERVAL_SECONDS = 1.0
MAX_INTERVAL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Containers and images in Engine API shapes (ContainerSummary, ImageSummary), newest first.

    ``problem`` tells in a line why the lists could not be had; they are empty then.
    """

    containers: tuple[dict[str, Any], ...] = ()
    images: tuple[dict[str, Any], ...] = ()
    problem: str = ""


class Listener(Protocol):
    """What a panel offers; both are called in the watcher's thread."""

    def show(self, snapshot: Snapshot) -> None: ...
    def refresh_log(self) -> None: ...


class Watcher:
    """Asks the engine every second while anybody listens; after a failure it asks ever more rarely.

    Args:
        get_engine: makes the engine when it is first needed.
    """

    def __init__(
        self, get_engine: Callable[[], EngineProtocol], interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._get_engine = get_engine
        self._interval_seconds = interval_seconds
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._listeners: dict[Listener, Snapshot | None] = {}
        self._thread: threading.Thread | None = None

    @property
    def engine(self) -> EngineProtocol:
        return self._get_engine()

    def add(self, listener: Listener) -> None:
        """Tell ``listener`` of everything from now on, beginning with how things stand."""
        with self._lock:
            self._listeners.setdefault(listener, None)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pydock-panel", daemon=True)
                self._thread.start()
        self._wake.set()

    def remove(self, listener: Listener) -> None:
        """Stop telling ``listener``; the thread ends when it was the last."""
        with self._lock:
            self._listeners.pop(listener, None)
        self._wake.set()

    def wake(self) -> None:
        """Ask now: something was done that changes the lists."""
        self._wake.set()

    def join(self, timeout_seconds: float) -> bool:
        """Wait until the thread has ended (True), or the time is up (False)."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_seconds)
        return thread is None or not thread.is_alive()

    def _run(self) -> None:
        pause = self._interval_seconds
        while True:
            self._wake.clear()
            with self._lock:
                if not self._listeners:
                    self._thread = None
                    return
                listeners = dict(self._listeners)
            snapshot = self.look()
            for listener, shown in listeners.items():
                if snapshot != shown:
                    listener.show(snapshot)
                    with self._lock:
                        if listener in self._listeners:
                            self._listeners[listener] = snapshot
                listener.refresh_log()
            pause = min(pause * 2, MAX_INTERVAL_SECONDS) if snapshot.problem else self._interval_seconds
            self._wake.wait(pause)

    def look(self) -> Snapshot:
        """Return how things stand now."""
        try:
            engine = self._get_engine()
            return Snapshot(tuple(engine.containers.list(all=True)), tuple(engine.images.list()))
        except PyDockError as error:
            return Snapshot(problem=f"{error.message} {error.hint}".strip())
        except Exception as error:  # noqa: BLE001  # a thread that dies would leave a panel that looks alive
            return Snapshot(problem=f"{type(error).__name__}: {error}")
