"""Container operations of the API: lists, the life cycle and logs."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from pydock_core.api.handler import ApiHandler
from pydock_core.errors import InvalidError, UnsupportedError

if TYPE_CHECKING:
    from pydock_core.engine import EngineProtocol

_UNIX_TIME = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9}))?")
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
    if condition != "not-running":
        raise UnsupportedError(f"condition {condition} is not supported yet", "use not-running")
    container_id = await handler.engine.call(lambda engine: engine.containers.resolve(id))
    handler.set_header("Content-Type", "application/json")
    await handler.flush()
    code = await handler.engine.call_long(lambda engine: engine.containers.wait(container_id))
    handler.finish(b'{"StatusCode":%d}\n' % code)


async def remove_container(handler: ApiHandler, id: str) -> None:
    handler.allow("force", "v")
    force, volumes = handler.flag("force"), handler.flag("v")
    await handler.engine.call_long(lambda engine: engine.containers.remove(id, force=force, volumes=volumes))
    handler.reply_nothing()


async def show_logs(handler: ApiHandler, id: str) -> None:
    """ContainerLogs: multiplexed frames (8-byte header: stream, three zeros, length), or raw bytes with a terminal."""
    handler.allow("stdout", "stderr", "follow", "tail", "timestamps", "since", "until")
    stdout, stderr = handler.flag("stdout"), handler.flag("stderr")
    if not (stdout or stderr):
        raise InvalidError("Bad parameters: you must choose at least one stream", "add stdout=1 or stderr=1")
    follow, timestamps = handler.flag("follow"), handler.flag("timestamps")
    tail, since_ns, until_ns = _tail(handler), _time(handler, "since"), _time(handler, "until")
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


def _time(handler: ApiHandler, name: str) -> int | None:
    """Return a time in Unix nanoseconds: ``1700000000``, ``1700000000.000000001`` or RFC 3339.  0 means none."""
    text = handler.get_query_argument(name, "")
    if text in ("", "0"):
        return None
    match = _UNIX_TIME.fullmatch(text)
    if match is not None:
        return int(match[1]) * 1_000_000_000 + int((match[2] or "0").ljust(9, "0"))
    try:
        moment = datetime.fromisoformat(text)
        return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
    except ValueError:
        raise InvalidError(
            f"parameter {name}: {text!r} is not a point in time", "Unix seconds, or RFC 3339"
        ) from None
