"""Calls the engine from an event loop: made at the first use, called on threads, so that the loop never blocks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from pydock_core.engine import EngineProtocol

T = TypeVar("T")

_RESOLVED_SECONDS = 1.0
_RESOLVED_ENTRIES = 256
_QUEUED_ITEMS = 256


class EngineAccess:
    """One lazily made engine, threads for its calls, and a short-lived cache of resolved names.

    Args:
        make: makes the engine; called once, on a thread, at the first use.
    """

    def __init__(self, make: Callable[[], EngineProtocol]) -> None:
        self._make = make
        self._engine: EngineProtocol | None = None
        self._lock = threading.Lock()
        self._resolved: dict[str, tuple[float, str]] = {}
        self.executor = ThreadPoolExecutor(8, thread_name_prefix="pydock")

    def get(self) -> EngineProtocol:
        """Return the engine.  Call it on a thread: it may import modules and open a database."""
        with self._lock:
            if self._engine is None:
                self._engine = self._make()
            return self._engine

    async def call(self, function: Callable[[EngineProtocol], T]) -> T:
        """Call a function with the engine on a pool thread; return its result or raise its exception."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, lambda: function(self.get()))

    async def call_long(self, function: Callable[[EngineProtocol], T]) -> T:
        """Do as :meth:`call` on a thread of its own, for calls that may take long (waiting, stopping).

        The thread is a daemon: a server can exit before a container does.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def succeed(result: T) -> None:
            if not future.cancelled():
                future.set_result(result)

        def fail(error: BaseException) -> None:
            if not future.cancelled():
                future.set_exception(error)

        def work() -> None:
            try:
                result = function(self.get())
            except BaseException as error:  # noqa: BLE001 - an error left in this thread would leave the caller waiting for ever
                _call_soon(loop, fail, error)
            else:
                _call_soon(loop, succeed, result)

        threading.Thread(target=work, name="pydock-long", daemon=True).start()
        return await future

    def stream(self, function: Callable[[EngineProtocol], Iterable[T]]) -> Stream[T]:
        """Iterate, on a thread of its own, over the items that a function of the engine yields."""
        return Stream(lambda: function(self.get()))

    async def resolve(self, ref: str) -> str:
        """Return the full id of a container.

        An answer is valid for a second: a page requests dozens of resources of one container at once.  A name
        that moves to another container is followed with that delay.

        Raises:
            PyDockError: as ``Engine.containers.resolve``.
        """
        now = time.monotonic()
        known = self._resolved.get(ref)
        if known is not None and now < known[0]:
            return known[1]
        container_id = await self.call(lambda engine: engine.containers.resolve(ref))
        if len(self._resolved) >= _RESOLVED_ENTRIES:
            self._resolved.clear()
        self._resolved[ref] = (now + _RESOLVED_SECONDS, container_id)
        return container_id

    def forget(self, ref: str) -> None:
        """Drop a cached answer that proved outdated."""
        self._resolved.pop(ref, None)


class Stream(Generic[T]):
    """Items from a thread, in batches for the event loop; a slow consumer makes the thread wait.

    After :meth:`close` the thread ends at its next item; until then it is blocked in the iterator.
    """

    def __init__(self, make: Callable[[], Iterable[T]]) -> None:
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._condition = threading.Condition()
        self._items: list[T] = []
        self._error: BaseException | None = None
        self._has_ended = False
        self._is_closed = False
        threading.Thread(target=self._produce, name="pydock-stream", daemon=True).start()

    async def batches(self) -> AsyncIterator[list[T]]:
        """Yield the items since the last batch; end, or raise, as the iterator does."""
        while True:
            await self._ready.wait()
            with self._condition:
                self._ready.clear()
                batch, self._items = self._items, []
                has_ended = self._has_ended
                self._condition.notify()
            if batch:
                yield batch
            if has_ended:
                if self._error is not None:
                    raise self._error
                return

    def close(self) -> None:
        """Stop the thread at its next item."""
        with self._condition:
            self._is_closed = True
            self._condition.notify()

    def _produce(self) -> None:
        try:
            for item in self._make():
                with self._condition:
                    self._condition.wait_for(lambda: self._is_closed or len(self._items) < _QUEUED_ITEMS)
                    if self._is_closed:
                        return
                    self._items.append(item)
                    is_first = len(self._items) == 1
                if is_first:
                    _call_soon(self._loop, self._ready.set)
        except BaseException as error:  # noqa: BLE001 - the consumer raises it; otherwise the stream would just end early
            self._error = error
        finally:
            with self._condition:
                self._has_ended = True
            _call_soon(self._loop, self._ready.set)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object) -> None:
    """Run a function on the loop, unless the loop has ended in the meantime."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise


def make_default_engine() -> EngineProtocol:
    """Make the engine of this user's state root.  The expensive import happens here, not at a server's start."""
    from pydock_core.engine import Engine

    return Engine()
