"""Archives of containers' files: ContainerArchiveInfo, ContainerArchive and PutContainerArchive."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

from tornado import web

from pydock_core.api.handler import ApiHandler
from pydock_core.errors import InvalidError

if TYPE_CHECKING:
    from tornado.http1connection import HTTP1Connection

    from pydock_core.engine import EngineProtocol

_CHUNK_BYTES = 256 * 1024
_BODY_BYTES = 1 << 40
"""The limit of a sent archive: the disk's free space rather than the usual limit of a request."""


@web.stream_request_body
class ArchiveHandler(ApiHandler):
    """Serves archives; the body of a request is written to a file as it arrives, and never held in memory."""

    body_file: BinaryIO | None = None

    async def prepare(self) -> None:
        """Make the file for the body after the server has authenticated the request."""
        prepared = super().prepare()
        if prepared is not None:
            await prepared
        if self.request.method == "PUT" and not self._finished:
            cast("HTTP1Connection", self.request.connection).set_max_body_size(_BODY_BYTES)
            self.body_file = cast(BinaryIO, tempfile.TemporaryFile(prefix="pydock-"))  # noqa: SIM115 - on_finish closes it

    def data_received(self, chunk: bytes) -> None:
        """Write a piece of the body."""
        if self.body_file is not None:
            self.body_file.write(chunk)

    def on_finish(self) -> None:
        """Remove the file."""
        if self.body_file is not None:
            self.body_file.close()
        super().on_finish()


def _path(handler: ApiHandler) -> str:
    path = handler.get_query_argument("path", "", strip=False)
    if not path:
        raise InvalidError("parameter path is missing", "set path to a path in the container")
    return path


async def _set_stat(handler: ApiHandler, container: str, path: str) -> None:
    """Set the header that describes the entry: base64 of a JSON object."""
    found = await handler.engine.call(lambda engine: engine.copies.stat(container, path))
    text = base64.b64encode(json.dumps(found).encode()).decode()
    handler.set_header("X-Docker-Container-Path-Stat", text)


async def stat_archive(handler: ApiHandler, id: str) -> None:
    handler.allow("path")
    await _set_stat(handler, id, _path(handler))
    handler.finish()


async def get_archive(handler: ApiHandler, id: str) -> None:
    """ContainerArchive: the entry with all below it, as a tar archive."""
    handler.allow("path")
    path = _path(handler)
    await _set_stat(handler, id, path)
    handler.set_header("Content-Type", "application/x-tar")
    stream = handler.engine.stream(lambda engine: _read(engine, id, path))
    handler.on_gone = stream.close
    try:
        async for batch in stream.batches():
            handler.write(b"".join(batch))
            await handler.flush()
    finally:
        stream.close()
    handler.finish()


def _read(engine: EngineProtocol, container: str, path: str) -> Iterator[bytes]:
    """Yield an archive in pieces; closing the generator ends its worker."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    errors: list[BaseException] = []

    def write() -> None:
        try:
            with open(write_fd, "wb") as stream:
                engine.copies.read_archive(container, path, stream)
        except BaseException as error:  # noqa: BLE001 - the thread that reads raises it, after the end of the pipe
            errors.append(error)

    thread = threading.Thread(target=write, name="pydock-archive", daemon=True)
    thread.start()
    try:
        with contextlib.closing(open(read_fd, "rb", buffering=0)) as archive:
            while chunk := archive.read(_CHUNK_BYTES):
                yield chunk
    finally:
        thread.join()
    if errors:
        raise errors[0]


async def put_archive(handler: ApiHandler, id: str) -> None:
    """PutContainerArchive: the body is a tar archive, plain or compressed."""
    handler.allow("path", "noOverwriteDirNonDir", "copyUIDGID")
    path = _path(handler)
    may_replace, as_user = not handler.flag("noOverwriteDirNonDir"), handler.flag("copyUIDGID")
    body = getattr(handler, "body_file", None)
    if body is None:
        raise InvalidError("the body is missing", "send a tar archive")
    body.flush()
    body.seek(0)
    await handler.engine.call_long(
        lambda engine: engine.copies.write_archive(id, path, body, as_user=as_user, may_replace=may_replace)
    )
    handler.set_status(200)
    handler.finish()
