"""Handles requests to the HTTP API: versions, routing, parameters, errors.  The other modules hold the operations.

Paths may begin with a version (``/v1.51/containers/json``) as in Docker; every version gets
the shapes of the newest, which older clients understand.  A part of the Engine API that PyDock lacks is refused
by name with 501, never ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from http.client import responses
from typing import Any
from urllib.parse import unquote

from tornado import web
from tornado.iostream import StreamClosedError

from pydock_core.api.access import EngineAccess
from pydock_core.errors import InvalidError, PyDockError, UnsupportedError

API_VERSION = (1, 51)
MIN_API_VERSION = (1, 24)
"""The oldest version of Docker's own engine; older clients expect other shapes."""

_VERSION = re.compile(r"/v([0-9]{1,4})\.([0-9]{1,4})(?=/)")
_UNIX_TIME = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9}))?")
_FALSE = frozenset({"", "0", "no", "false", "none"})

Operation = Callable[..., Awaitable[None]]
"""An operation of the API: takes the handler and, as keyword arguments, the path's parameters."""

Route = tuple[str, re.Pattern[str], Operation]
"""Method, pattern of the path, and the operation."""


class ApiHandler(web.RequestHandler):
    """Answers every path below the API's root.

    A server mixes it with a base class that authenticates in ``prepare``; see :func:`pydock_core.api.build_handler`.
    """

    routes: Sequence[Route] = ()

    def initialize(self, engine: EngineAccess, root: str) -> None:
        """Set the engine and the API's path.

        Args:
            engine: the engine.
            root: the raw path of the API without its trailing slash, ``/user/me/pydock/api``.
        """
        self.engine = engine
        self.on_gone: Callable[[], None] | None = None
        self._root = root

    def on_connection_close(self) -> None:
        """Tell the running operation, through ``on_gone``, that the client has disconnected."""
        if self.on_gone is not None:
            self.on_gone()
        super().on_connection_close()

    async def _dispatch(self) -> None:
        try:
            path = self._strip_version(self.request.path.removeprefix(self._root))
            operation, names = self._find(path)
            await operation(self, **names)
        except PyDockError as error:
            self.reply_error(error)
        except StreamClosedError:
            return  # the client is gone

    async def get(self) -> None:
        await self._dispatch()

    async def head(self) -> None:
        await self._dispatch()

    async def post(self) -> None:
        await self._dispatch()

    async def put(self) -> None:
        await self._dispatch()

    async def delete(self) -> None:
        await self._dispatch()

    def _strip_version(self, path: str) -> str:
        match = _VERSION.match(path)
        if match is None:
            return path
        version = (int(match[1]), int(match[2]))
        if version > API_VERSION:
            raise InvalidError(
                f"client version {match[1]}.{match[2]} is too new. Maximum supported API version is"
                f" {API_VERSION[0]}.{API_VERSION[1]}"
            )
        if version < MIN_API_VERSION:
            raise InvalidError(
                f"client version {match[1]}.{match[2]} is too old. Minimum supported API version is"
                f" {MIN_API_VERSION[0]}.{MIN_API_VERSION[1]}"
            )
        return path[match.end() :]

    def _find(self, path: str) -> tuple[Operation, dict[str, str]]:
        for method, pattern, operation in self.routes:
            match = pattern.fullmatch(path) if method == self.request.method else None
            if match is not None:
                return operation, {name: unquote(text) for name, text in match.groupdict().items()}
        printable_path = re.sub(r"[^!-~]", "?", path)[:200]
        raise UnsupportedError(
            f"{self.request.method} {printable_path} is not supported yet", "dock does it on the command line"
        )

    # -- parameters

    def allow(self, *names: str) -> None:
        """Refuse query parameters other than those named, unless they are empty or off.

        Raises:
            UnsupportedError: another parameter is set.
        """
        for name, values in self.request.query_arguments.items():
            # Jupyter's own clients add these.
            if name in names or name in ("token", "_xsrf", "no_track_activity"):
                continue
            if any(value.decode("utf-8", "replace").lower() not in _FALSE for value in values):
                raise UnsupportedError(f"parameter {name} is not supported yet", "leave it out")

    def flag(self, name: str) -> bool:
        """Return a boolean parameter as Docker reads it: every value is true except "", 0, no, false and none."""
        return self.get_query_argument(name, "").strip().lower() not in _FALSE

    def number(self, name: str) -> int | None:
        """Return an integer parameter, or None if it is absent.

        Raises:
            InvalidError: it has another type.
        """
        text = self.get_query_argument(name, "")
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise InvalidError(f"parameter {name}: {text!r} is not a number") from None

    def moment(self, name: str) -> int | None:
        """Return a time in Unix nanoseconds: ``1700000000``, ``1700000000.000000001`` or RFC 3339.  0 means none.

        Raises:
            InvalidError: it is not a time.
        """
        text = self.get_query_argument(name, "")
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

    def filters(self) -> dict[str, list[str]]:
        """Return the ``filters`` parameter: ``{"status": ["running"]}``, or Docker's older form,
        ``{"status": {"running": true}}``.

        Raises:
            InvalidError: it has another type.
        """
        text = self.get_query_argument("filters", "")
        if not text:
            return {}
        wrong = InvalidError("parameter filters is not a JSON object of lists of strings")
        try:
            document = json.loads(text)
        except ValueError:
            raise wrong from None
        if not isinstance(document, dict):
            raise wrong
        result: dict[str, list[str]] = {}
        for key, values in document.items():
            chosen = [value for value, on in values.items() if on] if isinstance(values, dict) else values
            if not isinstance(chosen, list) or not all(isinstance(value, str) for value in chosen):
                raise wrong
            result[key] = chosen
        return result

    def document(self) -> dict[str, Any]:
        """Return the body, a JSON object.

        Raises:
            InvalidError: it has another type.
        """
        try:
            document = json.loads(self.request.body)
        except (ValueError, RecursionError) as error:
            raise InvalidError(f"invalid body: not JSON: {error}", "send a JSON object") from None
        if not isinstance(document, dict):
            raise InvalidError("invalid body: not a JSON object", "send a JSON object")
        return document

    # -- replies

    def reply(self, document: object, status: int = 200) -> None:
        """Answer with JSON.  Tornado adds an ETag, and answers 304 if the client has the same document."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(document, separators=(",", ":")).encode() + b"\n")

    def reply_nothing(self, *, changed: bool = True) -> None:
        """Answer 204, or 304 if nothing had to change."""
        self.set_status(204 if changed else 304)
        self.finish()

    def reply_error(self, error: PyDockError) -> None:
        """Answer with an ErrorResponse; end the response if a stream has already begun."""
        if self._headers_written:
            self.finish()
            return
        document = {"message": error.message} | ({"hint": error.hint} if error.hint else {})
        self.reply(document, error.http_status)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an HTTPError, or an unexpected exception, in the same shape."""
        error = kwargs["exc_info"][1] if kwargs.get("exc_info") else None
        message = error.log_message if isinstance(error, web.HTTPError) else None
        self.reply({"message": message or responses.get(status_code, "error")}, status_code)
