"""Container operations of the API: lists, the life cycle and logs."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from pydock_core.api.handler import ApiHandler
from pydock_core.errors import InvalidError, UnsupportedError

if TYPE_CHECKING:
    from pydock_core.engine import EngineProtocol

STATS_SECONDS = 1.0
_STREAM_NUMBERS = {"stdout": 1, "stderr": 2}


async def list_containers(handler: ApiHandler) -> None:
    """ContainerList.  ``limit`` implies all, as in Docker.  ``size`` is refused: it would walk every layer."""
    handler.allow("all", "limit", "filters")
    show_all, filters, limit = handler.flag("all"), handler.filters(), handler.number("limit")
    newest = limit if limit is not None and limit > 0 else None
    summaries = await handler.engine.call(
        lambda engine: engine.containers.list(all=show_all, filters=filters, limit=newest)
    )
    handler.reply(summaries)


async def create_container(handler: ApiHandler) -> None:
    """ContainerCreate.  A field that PyDock does not have is refused by name, unless its value is the default."""
    handler.allow("name", "platform")
    name, platform = (handler.get_query_argument(key, "") for key in ("name", "platform"))
    request = handler.document()

    def create(engine: EngineProtocol) -> tuple[str, list[str]]:
        if platform:
            engine.images.require_platform(str(request.get("Image") or ""), platform)
        return engine.containers.create(request, name or None, any_platform=bool(platform))

    container_id, warnings = await handler.engine.call(create)
    handler.reply({"Id": container_id, "Warnings": warnings}, 201)


async def inspect_container(handler: ApiHandler, id: str) -> None:
    handler.allow()
    handler.reply(await handler.engine.call(lambda engine: engine.containers.inspect(id)))


async def start_container(handler: ApiHandler, id: str) -> None:
    handler.allow()

    def start(engine: EngineProtocol) -> bool:
        if engine.containers.is_running(id):
            return False
        engine.containers.start(id).close()
        return True

    handler.reply_nothing(changed=await handler.engine.call_long(start))


async def stop_container(handler: ApiHandler, id: str) -> None:
    handler.allow("t", "signal")
    seconds, signal = _timeout(handler), handler.get_query_argument("signal", "") or None

    def stop(engine: EngineProtocol) -> bool:
        if not engine.containers.is_running(id):
            return False
        engine.containers.stop(id, seconds, signal)
        return True

    handler.reply_nothing(changed=await handler.engine.call_long(stop))


async def restart_container(handler: ApiHandler, id: str) -> None:
    handler.allow("t", "signal")
    seconds, signal = _timeout(handler), handler.get_query_argument("signal", "") or None
    await handler.engine.call_long(lambda engine: engine.containers.restart(id, seconds, signal))
    handler.reply_nothing()


async def kill_container(handler: ApiHandler, id: str) -> None:
    handler.allow("signal")
    signal = handler.get_query_argument("signal", "") or "KILL"
    await handler.engine.call_long(lambda engine: engine.containers.kill(id, signal))
    handler.reply_nothing()


async def pause_container(handler: ApiHandler, id: str) -> None:
    handler.allow()
    await handler.engine.call_long(lambda engine: engine.containers.pause(id))
    handler.reply_nothing()


async def unpause_container(handler: ApiHandler, id: str) -> None:
    handler.allow()
    await handler.engine.call_long(lambda engine: engine.containers.unpause(id))
    handler.reply_nothing()


async def update_container(handler: ApiHandler, id: str) -> None:
    """ContainerUpdate."""
    handler.allow()
    changes = handler.document()
    await handler.engine.call_long(lambda engine: engine.containers.update(id, changes))
    handler.reply({"Warnings": []})


async def list_processes(handler: ApiHandler, id: str) -> None:
    """ContainerTop."""
    handler.allow("ps_args")
    options = handler.get_query_argument("ps_args", "").split()
    handler.reply(await handler.engine.call_long(lambda engine: engine.processes.top(id, options)))


async def show_stats(handler: ApiHandler, id: str) -> None:
    """ContainerStats: one reading a second, each with the previous one; ``stream=0`` for one reading with its rate."""
    handler.allow("stream", "one-shot")
    is_stream = handler.get_query_argument("stream", "1").lower() not in ("0", "false")
    gone = asyncio.Event()
    handler.on_gone = gone.set
    before = await handler.engine.call(lambda engine: engine.processes.stats(id))
    if handler.flag("one-shot") and not is_stream:
        handler.reply(before)
        return
    handler.set_header("Content-Type", "application/json")
    while True:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(gone.wait(), STATS_SECONDS)
        if gone.is_set():
            return
        now = await handler.engine.call(lambda engine: engine.processes.stats(id))
        document = {**now, "preread": before["read"], "precpu_stats": before["cpu_stats"]}
        handler.write(json.dumps(document, separators=(",", ":")) + "\n")
        if not is_stream:
            handler.finish()
            return
        await handler.flush()
        before = now


async def rename_container(handler: ApiHandler, id: str) -> None:
    handler.allow("name")
    name = handler.get_query_argument("name", "")
    if not name:
        raise InvalidError("parameter name is missing", "set name to the new name")
    await handler.engine.call(lambda engine: engine.containers.rename(id, name))
    handler.reply_nothing()


async def wait_for_container(handler: ApiHandler, id: str) -> None:
    """ContainerWait.  As in Docker, the response headers are sent at once: waiting has begun."""
    handler.allow("condition")
    condition = handler.get_query_argument("condition", "") or "not-running"
    if condition not in ("not-running", "next-exit", "removed"):
        raise InvalidError(f'invalid condition: "{condition}"', "not-running is one")
    container_id = await handler.engine.call(lambda engine: engine.containers.resolve(id))
    handler.set_header("Content-Type", "application/json")
    await handler.flush()
    code = await handler.engine.call_long(lambda engine: engine.containers.wait(container_id, condition))
    handler.finish(b'{"StatusCode":%d}\n' % code)


async def remove_container(handler: ApiHandler, id: str) -> None:
    handler.allow("force", "v")
    force, volumes = handler.flag("force"), handler.flag("v")
    await handler.engine.call_long(lambda engine: engine.containers.remove(id, force=force, volumes=volumes))
    handler.reply_nothing()


async def show_logs(handler: ApiHandler, id: str) -> None:
    """ContainerLogs: multiplexed frames (8-byte header: stream, three zeros, length), or raw bytes with a terminal."""
    handler.allow("stdout", "stderr", "follow", "tail", "timestamps", "since", "until", "details")
    stdout, stderr = handler.flag("stdout"), handler.flag("stderr")
    if not (stdout or stderr):
        raise InvalidError("Bad parameters: you must choose at least one stream", "add stdout=1 or stderr=1")
    follow, timestamps = handler.flag("follow"), handler.flag("timestamps")
    details = handler.flag("details")
    tail, since_ns, until_ns = _tail(handler), handler.moment("since"), handler.moment("until")
    config = (await handler.engine.call(lambda engine: engine.containers.inspect(id)))["Config"]
    is_raw = bool(config.get("Tty"))
    kind = "raw" if is_raw else "multiplexed"
    handler.set_header("Content-Type", f"application/vnd.docker.{kind}-stream")
    stream = handler.engine.stream(
        lambda engine: engine.containers.logs(
            id,
            follow=follow,
            tail=tail,
            timestamps=timestamps,
            details=details,
            since_ns=since_ns,
            until_ns=until_ns,
            stdout=stdout,
            stderr=stderr,
        )
    )
    handler.on_gone = stream.close
    try:
        if follow:
            await handler.flush()
        async for batch in stream.batches():
            for entry in batch:
                handler.write(entry.data if is_raw else frame(entry.stream, entry.data))
            await handler.flush()
    finally:
        stream.close()
    handler.finish()


def frame(stream: str, data: bytes) -> bytes:
    """Return a frame of the multiplexed format ("Stream format" at ContainerAttach in the specification)."""
    return bytes((_STREAM_NUMBERS[stream], 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def _timeout(handler: ApiHandler) -> float | None:
    """Return the ``t`` parameter in seconds; Docker's -1 (wait forever) is not supported."""
    seconds = handler.number("t")
    if seconds is not None and seconds < 0:
        raise UnsupportedError(
            "parameter t: waiting without end is not supported yet", "set t to a number of seconds"
        )
    return None if seconds is None else float(seconds)


def _tail(handler: ApiHandler) -> int | None:
    text = handler.get_query_argument("tail", "all") or "all"
    if text == "all":
        return None
    if not text.isascii() or not text.isdigit():
        raise InvalidError(f"parameter tail: {text!r} is not a number", "a number, or all")
    return int(text)
