"""Copies bytes between two streams after a WebSocket handshake.

The proxy does not parse frames: extensions (compression), subprotocols, pings and the closing handshake are end to end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from tornado.iostream import IOStream, StreamClosedError

from pydock_jupyter.server.backend import CHUNK_BYTES


async def join_streams(one: IOStream, other: IOStream, on_activity: Callable[[], None]) -> None:
    """Copy in both directions until either side closes; deliver all received bytes, then close both.

    Args:
        on_activity: called for each piece that the first stream sends.
    """
    forth = asyncio.ensure_future(_copy(one, other, on_activity))
    back = asyncio.ensure_future(_copy(other, one, lambda: None))
    try:
        await asyncio.wait({forth, back}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # A copier ends after its last write is complete, so the close loses no bytes.
        one.close()
        other.close()
        await asyncio.gather(forth, back)


async def _copy(source: IOStream, sink: IOStream, on_activity: Callable[[], None]) -> None:
    with contextlib.suppress(StreamClosedError):
        while True:
            data = await source.read_bytes(CHUNK_BYTES, partial=True)
            on_activity()
            await sink.write(data)  # back pressure: read on only after this write
