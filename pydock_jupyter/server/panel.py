"""``GET /pydock/panel``: the content of a panel, pushed to the JupyterLab extension as it changes.

The response is a stream of JSON objects, one a line.  The first one has all members of
:class:`~pydock_jupyter.panel_view.PanelView`, a later one those that have changed.  An empty line keeps proxies from
closing an idle connection.  The stream lasts until the client closes it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from pydock_jupyter.panel_view import build_view

if TYPE_CHECKING:
    from pydock_core.api import ApiHandler, EngineAccess, Operation
    from pydock_core.engine import Snapshot, Watcher

KEEP_ALIVE_SECONDS = 20.0


def build_operation(engine: EngineAccess) -> Operation:
    """Return the operation that streams an engine's snapshots; all streams share one watcher."""

    @cache
    def get_watcher() -> Watcher:
        from pydock_core.engine import Watcher

        return Watcher(engine.get)

    async def stream_panel(handler: ApiHandler) -> None:
        handler.allow()
        handler.set_header("Content-Type", "application/x-ndjson")
        handler.set_header("Cache-Control", "no-store")
        handler.set_header("X-Accel-Buffering", "no")  # nginx passes each line on at once
        watcher, feed = get_watcher(), _Feed()
        handler.on_gone = feed.close
        watcher.add(feed.put)
        try:
            async for line in feed.lines():
                handler.write(line)
                await handler.flush()
        finally:
            watcher.remove(feed.put)

    return stream_panel


class _Feed:
    """Carries the latest snapshot from the watcher's thread to the event loop; a slow client misses earlier ones."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._latest: Snapshot | None = None
        self._is_closed = False

    def put(self, snapshot: Snapshot) -> None:
        """Take a snapshot; called in the watcher's thread."""
        if snapshot is not self._latest:
            self._latest = snapshot
            with suppress(RuntimeError):  # the server has ended its loop
                self._loop.call_soon_threadsafe(self._wake.set)

    def close(self) -> None:
        """End :meth:`lines`."""
        self._is_closed = True
        self._wake.set()

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield a line for each change, and an empty one after 20 seconds without."""
        sent: dict[str, object] = {}
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), KEEP_ALIVE_SECONDS)
            if self._is_closed:
                return
            self._wake.clear()
            view: Mapping[str, object] = build_view(self._latest) if self._latest is not None else {}
            change = {name: value for name, value in view.items() if name not in sent or sent[name] != value}
            sent |= change
            yield json.dumps(change, separators=(",", ":")).encode() + b"\n" if change else b"\n"
