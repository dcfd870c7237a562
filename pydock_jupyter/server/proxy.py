"""The port proxy: ``BASE_URL/pydock/c/CONTAINER/PORT/PATH`` is PATH on a port of a container.

The proxy supports every method and WebSockets.  Jupyter authenticates requests (:mod:`.authentication`).  Bodies stream
in both directions: each piece is read after the one before it was sent, so memory use is constant.

Threat model: an application shares Jupyter's origin, so a page of it *that the user opens* has the user's access to
Jupyter: its script can call Jupyter's API and thereby run code on the host.  Opening an application means trusting it to
that extent, as with every path-based proxy (jupyter-server-proxy, code-server).  Without an opened page it has no such
access.  The application's *server* does not receive cookies, tokens or XSRF values of Jupyter.  Its cookies are confined
to its path.  Headers that affect the whole origin are dropped (Clear-Site-Data, Speculation-Rules, Alt-Svc and others,
see :mod:`.origin_header`).  Other sites can neither frame nor script it.

For untrusted applications, set ``PyDockProxy.content_security_policy`` to ``sandbox allow-scripts``, which gives their
pages a separate origin.  It is off by default because such a page cannot use cookies, storage or WebSockets, which
TensorBoard and Jupyter need.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import zlib
from collections.abc import Awaitable
from dataclasses import dataclass
from http.client import responses
from typing import Any, cast

from jupyter_server.prometheus.log_functions import prometheus_log_method
from tornado import httputil, web
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from pydock_core.api.access import EngineAccess
from pydock_core.errors import NotFoundError, PyDockError, UnavailableError
from pydock_jupyter.server.authentication import (
    AuthenticatedHandler,
    find_cross_site_reason,
    is_unexplained,
)
from pydock_jupyter.server.backend import BackendClosedError, Exchange, Key, Pool
from pydock_jupyter.server.cookie import CookiePolicy, cookie_values
from pydock_jupyter.server.credential import Secrets, authorization_token, pair_xsrf
from pydock_jupyter.server.header import (
    Visit,
    build_request_headers,
    build_response_headers,
    connection_options,
    is_document_request,
    request_framing,
)
from pydock_jupyter.server.html import Rewriter, choose_rewriter
from pydock_jupyter.server.limit import Gate, Limits
from pydock_jupyter.server.problem import Problem, describe_dial_error
from pydock_jupyter.server.shim import build_shim_element
from pydock_jupyter.server.target import parse_target
from pydock_jupyter.server.tunnel import join_streams

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
_NO_BODY = frozenset({204, 206, 304})
_UNREACHABLE = frozenset({502, 503, 504})
_FORM_TYPE = "application/x-www-form-urlencoded"
_FORM_LIMIT_BYTES = 64 * 1024
"""The largest URL-encoded form that is buffered, so that an XSRF value in it can be replaced."""
_LINGER_SECONDS = 5.0
"""The time for reading the rest of a request after the response; a reset would destroy the response."""

_GONE = Problem(
    502,
    "the application closed the connection without a response",
    "See the container's log:",
    "dock logs CONTAINER",
)

_SLOW = Problem(408, "the rest of the request did not arrive in time", "Send it again.")


@dataclass(frozen=True, slots=True)
class ProxyState:
    """The state that all requests of a server share.

    ``policy`` is a Content-Security-Policy to add, or empty.  ``pass_challenges`` permits applications to make the
    browser ask for a password.
    """

    engine: EngineAccess
    pool: Pool
    limits: Limits
    gate: Gate
    policy: str = ""
    pass_challenges: bool = False


@web.stream_request_body
class ProxyHandler(AuthenticatedHandler):
    """One proxied request.  A request with a body is dialled in :meth:`prepare`, others in the method."""

    def initialize(self, state: ProxyState) -> None:
        self._state = state
        self._exchange: Exchange | None = None
        self._responding: asyncio.Task[None] | None = None
        self._body_ended = asyncio.Event()
        self._body_timer: asyncio.TimerHandle | None = None
        self._entered: Key | None = None
        self._form: bytearray | None = None
        self._rewriter: Rewriter | None = None
        self._rewriter_failed = False
        self._client_gone = False
        self._is_unreachable = False
        self._visit: Visit
        self._key: Key
        self._is_upgrade = False

    # -- before the request's body

    @property
    def action(self) -> str:
        """The permission to execute: any request may run code in an application."""
        return "execute"

    def check_xsrf_cookie(self) -> None:
        """Skip Jupyter's check: an application's page has no XSRF token; see :mod:`.authentication`."""

    async def prepare(self) -> None:
        # No compression by Jupyter: the application's bytes pass unchanged.
        self._transforms: list[web.OutputTransform] = []
        headers = self.request.headers
        cookies = CookiePolicy(
            frozenset(
                (self.identity_provider.get_cookie_name(self), self.settings.get("xsrf_cookie_name", "_xsrf"))
            )
        )
        cookie, jupyter_cookie = cookies.split(headers.get_list("Cookie"))
        if "Cookie" in headers:
            headers["Cookie"] = jupyter_cookie  # an application's cookie must not shadow Jupyter's
        await super().prepare()
        if self._finished:
            return
        upgrade = headers.get("Upgrade", "").lower() if "upgrade" in connection_options(headers) else ""
        self._is_upgrade = upgrade == "websocket" and self.request.method == "GET"
        self._refuse_cross_site()
        self.record_activity()
        try:
            target = parse_target(self.request.uri or "", self.base_url)
            length = request_framing(headers)
        except PyDockError as error:
            self._send_problem(Problem(error.http_status, error.message, error.hint))
            return
        self._visit = Visit(
            target,
            cookies,
            cookie,
            self._find_secrets(cookie),
            self.request.host,
            self.request.protocol,
            self.request.remote_ip or "",
        )
        if not target.path and self.request.method in ("GET", "HEAD"):
            self.redirect(f"{target.prefix}/{'?' if target.query else ''}{target.query}")
            return
        self._connection.set_max_body_size(sys.maxsize)
        if not await self._enter():
            return
        if self._is_small_form(length):
            self._form = bytearray()
        elif length != 0:
            await self._begin_with_body()
        if length != 0 and not self._finished:
            self._await_body()

    async def _enter(self) -> bool:
        """Resolve the container and count the request; return False if an error has been sent instead."""
        try:
            self._key = await self._resolve()
        except PyDockError as error:
            self._send_problem(Problem(error.http_status, error.message, error.hint))
            return False
        if self._client_gone:
            return False
        try:
            self._state.gate.enter(self._key)
        except UnavailableError as error:
            self._send_problem(Problem(503, error.message, error.hint, is_transient=True))
            return False
        self._entered = self._key
        return True

    def _leave(self) -> None:
        """Undo :meth:`_enter`.  Idempotent."""
        if self._body_timer is not None:
            self._body_timer.cancel()
        if self._entered is not None:
            self._state.gate.leave(self._entered)
            self._entered = None

    def on_finish(self) -> None:
        self._leave()

    def _is_small_form(self, length: int | None) -> bool:
        """Return whether the body may contain an XSRF value of the browser, to be replaced."""
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        is_small = length is not None and 0 < length <= _FORM_LIMIT_BYTES
        return is_small and media_type == _FORM_TYPE and bool(self._visit.secrets.xsrf)

    def _refuse_cross_site(self) -> None:
        if self.token_authenticated:
            return
        request = self.request
        method = request.method or ""
        reason = find_cross_site_reason(
            request.headers, method, request.host, self.allows_origin, is_upgrade=self._is_upgrade
        )
        if reason is not None:
            raise web.HTTPError(403, "the request is refused: %s", reason)
        if is_unexplained(request.headers, method, is_upgrade=self._is_upgrade):
            super().check_xsrf_cookie()

    def _find_secrets(self, application_cookie: str) -> Secrets:
        tokens = [self.token] if self.token else []
        if self.token_authenticated:
            in_query = self.get_query_argument("token", "")
            in_header = authorization_token(self.request.headers.get("Authorization", ""))
            tokens.append(in_query or in_header or "")
        name = self.settings.get("xsrf_cookie_name", "_xsrf")
        jupyter = cookie_values(self.request.headers.get("Cookie", ""), name)
        return Secrets(tuple(tokens), pair_xsrf(jupyter, cookie_values(application_cookie, name)))

    @property
    def _connection(self) -> HTTP1Connection:
        return cast(HTTP1Connection, self.request.connection)

    # -- request to the application

    async def _begin_with_body(self) -> None:
        try:
            self._exchange = await self._connect()
        except PyDockError as error:
            self._send_problem(
                describe_dial_error(error, self._visit.target.container, self._visit.target.port)
            )
            return
        self._responding = asyncio.ensure_future(self._respond(self._exchange))

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        if (self._exchange is None and self._form is None) or self._finished:
            return None  # already answered: drop the rest of the request
        if self._body_timer is not None:
            self._body_timer.cancel()
        if self._form is not None:
            self._form += chunk
            self._await_body()
            return None
        return self._send_body(self._exchange, chunk)

    async def _send_body(self, exchange: Exchange | None, chunk: bytes) -> None:
        assert exchange is not None
        await exchange.send_body(chunk)
        if not self._finished and not self._client_gone:
            self._await_body()

    def _await_body(self) -> None:
        """Start the timer for the next piece of the body."""
        seconds = self._state.limits.body_idle_seconds
        self._body_timer = asyncio.get_running_loop().call_later(seconds, self._on_body_idle)

    def _on_body_idle(self) -> None:
        if self._headers_written:
            self._connection.close()
        else:
            self._send_problem(_SLOW)
        if self._exchange is not None:
            self._exchange.abort()

    async def _serve(self, *_arguments: str) -> None:
        """Answer the request after the end of its body."""
        self._body_ended.set()
        if self._body_timer is not None:
            self._body_timer.cancel()
        if self._responding is not None:
            assert self._exchange is not None
            self._exchange.finish_request()
            await self._responding
            return
        target = self._visit.target
        if self._form is not None:
            form = self._visit.secrets.clean_arguments(self._form.decode("latin-1"))
            self._form[:] = form.encode("latin-1")
        try:
            exchange = self._take_idle()
            if exchange is not None:
                with contextlib.suppress(BackendClosedError):
                    return await self._conclude(exchange, await exchange.receive())
                # The application closed the connection between requests; repeat the request.
            if self._client_gone:
                return
            exchange = await self._connect()
        except PyDockError as error:
            self._send_problem(describe_dial_error(error, target.container, target.port))
            return
        if self._client_gone:
            exchange.abort()
            return
        if self._form is not None:
            await exchange.send_body(bytes(self._form))
            exchange.finish_request()
        await self._respond(exchange)

    get = head = post = put = patch = delete = options = _serve

    async def _resolve(self) -> Key:
        target = self._visit.target
        return await self._state.engine.resolve(target.container), target.port

    def _take_idle(self) -> Exchange | None:
        if self.request.method not in _REPEATABLE or self._is_upgrade or self._form is not None:
            return None
        stream = self._state.pool.take(self._key)
        return self._send_head(Exchange(stream, self)) if stream is not None else None

    async def _connect(self) -> Exchange:
        """Dial and send the head; resolve the name again if its container is gone."""
        container = self._visit.target.container
        try:
            stream = await self._state.pool.connect(self._key)
        except PyDockError as error:
            self._state.engine.forget(container)
            if not isinstance(error, NotFoundError):
                raise
            self._key = await self._resolve()
            stream = await self._state.pool.connect(self._key)
        return self._send_head(Exchange(stream, self, upgrade=self._is_upgrade))

    def _send_head(self, exchange: Exchange) -> Exchange:
        target = self._visit.target
        received = self.request.headers
        identity = is_document_request(received) or target.path.endswith("/api/kernelspecs")
        headers = build_request_headers(received, self._visit, identity=identity)
        if self._is_upgrade:
            headers["Connection"] = "Upgrade"
            headers["Upgrade"] = "websocket"
        if self._form is not None:
            headers["Content-Length"] = str(len(self._form))
        query = self._visit.secrets.clean_arguments(target.query)
        path = target.path or "/"
        exchange.send_head(self.request.method or "", f"{path}?{query}" if query else path, headers)
        if request_framing(received) == 0:
            exchange.finish_request()
        self._exchange = exchange
        return exchange

    # -- response to the browser

    async def _respond(self, exchange: Exchange) -> None:
        try:
            await self._conclude(exchange, await exchange.receive())
        except BackendClosedError:
            exchange.abort()
            if not self._client_gone and not self._finished:
                self._write_problem(_GONE)
                self.flush()
                await self._finish()

    async def _conclude(self, exchange: Exchange, is_complete: bool) -> None:
        if exchange.detached is not None:
            await self._tunnel(exchange)
            return
        if is_complete and self._rewriter is not None:
            await self._send_rewritten(self._rewriter, None)
        if not is_complete or self._client_gone or self._rewriter_failed:
            exchange.abort()
            self._abort_response()
            return
        self._flush_head()
        if exchange.is_reusable:
            self._state.pool.release(self._key, exchange.stream)
        else:
            exchange.abort()
        await self._finish()

    async def _finish(self) -> None:
        """End the response; before that, drop the rest of the request for a limited time."""
        if not self._body_ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._body_ended.wait(), _LINGER_SECONDS)
        if self._finished:
            return
        is_unframed = self.request.version == "HTTP/1.0" and "Content-Length" not in self._headers
        sent = self.finish()
        if is_unframed:  # the close marks the end of the body
            with contextlib.suppress(StreamClosedError):
                await sent
            self._connection.close()

    def on_head(self, status: int, reason: str, headers: httputil.HTTPHeaders) -> None:
        """Take the response's head; send it with the first piece of the body, or alone if that is late."""
        self.set_status(status, reason or None)
        policies = [self._frame_policy(), self._state.policy]
        built = build_response_headers(
            headers,
            self._visit,
            [policy for policy in policies if policy],
            pass_challenges=self._state.pass_challenges,
        )
        if status == 101:
            built["Connection"] = "Upgrade"
            built["Upgrade"] = "websocket"
        elif status not in _NO_BODY:
            target = self._visit.target
            is_document = self.request.method == "GET" and is_document_request(self.request.headers)
            self._rewriter = choose_rewriter(
                target.path,
                headers.get("Content-Type", ""),
                headers.get("Content-Encoding", ""),
                target.prefix,
                hosts=(self._visit.host, target.authority),
                first_script=build_shim_element(self.base_url, target) if is_document else "",
            )
            if self._rewriter is not None:
                for name in ("Content-Length", "Content-Encoding", "Accept-Ranges"):
                    built.pop(name, None)
        self._headers = built
        if status != 101:
            if "Content-Length" not in built:
                self._connection.stream.set_nodelay(True)
            asyncio.get_running_loop().call_soon(self._flush_head)

    def on_body(self, data: bytes) -> Awaitable[None] | None:
        if self._client_gone or self._finished or self._rewriter_failed:
            return None
        if self._rewriter is not None:
            return self._send_rewritten(self._rewriter, data)
        self.write(data)
        flushed = self.flush()
        return None if flushed.done() and flushed.exception() is None else self._await_flush(flushed)

    async def _send_rewritten(self, rewriter: Rewriter, data: bytes | None) -> None:
        """Rewrite and send a piece of the body; None marks the end."""
        try:
            for piece in rewriter.close() if data is None else rewriter.feed(data):
                if piece:
                    self.write(piece)
                    await self._await_flush(self.flush())
        except zlib.error:
            self._rewriter_failed = True

    async def _await_flush(self, flushed: Awaitable[None]) -> None:
        try:
            await flushed
        except StreamClosedError:
            self.on_connection_close()

    def _flush_head(self) -> None:
        if not self._headers_written and not self._finished:
            self.flush()

    def _frame_policy(self) -> str:
        """Return the frame-ancestors directive of Jupyter's own pages."""
        for directive in self.content_security_policy.split(";"):
            if directive.strip().lower().startswith("frame-ancestors"):
                return str(directive.strip())
        return ""

    async def _tunnel(self, exchange: Exchange) -> None:
        assert exchange.detached is not None
        lines = [f"{name}: {value}\r\n" for name, value in self._headers.get_all()]
        head = f"HTTP/1.1 101 Switching Protocols\r\n{''.join(lines)}\r\n"
        client = self.detach()
        client.set_nodelay(True)
        self.application.log_request(self)
        try:
            await client.write(head.encode("latin-1"))
        except StreamClosedError:
            exchange.detached.close()
        else:
            await join_streams(client, exchange.detached, self.record_activity)
        finally:
            self._leave()

    # -- errors

    def on_connection_close(self) -> None:
        """Close the application's connection after the browser's."""
        self._client_gone = True
        self._leave()
        if self._exchange is not None:
            self._exchange.abort()
        super().on_connection_close()

    def _abort_response(self) -> None:
        """Close the browser's connection, the only way to mark a response as incomplete."""
        if self._finished:
            return  # the proxy has sent an error
        if not self._headers_written and not self._client_gone:
            self._send_problem(_GONE)
        else:
            self._connection.close()
            self._leave()

    def _send_problem(self, problem: Problem) -> None:
        if not self._finished:
            self._write_problem(problem)
            self.finish()

    def _write_problem(self, problem: Problem) -> None:
        as_page = "text/html" in self.request.headers.get("Accept", "")
        headers, body = problem.render(as_page=as_page, may_retry=self.request.method == "GET")
        headers["Content-Length"] = str(len(body))
        self._is_unreachable = problem.status in _UNREACHABLE
        self.set_status(problem.status)
        self._headers = headers
        self.write(body)

    def _log(self) -> None:
        """Log the request after its response (Tornado's hook).

        Jupyter logs each status from 500 as an error of the server, with headers.  An unreachable application is not
        an error of the server, and a waiting page retries often: log one line for debugging.
        """
        if not self._is_unreachable:
            super()._log()
            return
        self.log.debug(
            "%d %s %s %.2fms",
            self.get_status(),
            self.request.method,
            self.request.path,
            1000 * self.request.request_time(),
        )
        if self.serverapp is not None and self.serverapp.record_http_request_metrics:
            prometheus_log_method(self)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an HTTPError in the form of all other errors."""
        exc_info = kwargs.get("exc_info")
        error = exc_info[1] if exc_info else None
        message = responses.get(status_code, "error")
        if isinstance(error, web.HTTPError) and error.log_message:
            message = error.log_message % error.args if error.args else error.log_message
        self._send_problem(Problem(status_code, message))
