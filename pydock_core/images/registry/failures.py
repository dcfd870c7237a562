"""What a connection's failure is as one of the project's errors.

Foreign exceptions are mapped here and nowhere else: :class:`BrokenConnectionError` is what may be tried again, any
other error is final.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import threading
from types import TracebackType

import urllib3

from pydock_core.errors import CorruptError, PyDockError, UnavailableError
from pydock_core.images.registry.pace import CONNECT_SECONDS
from pydock_core.images.registry.problem import shown
from pydock_core.images.registry.settings import RegistrySettings


class BrokenConnectionError(UnavailableError):
    """A connection could not be made, broke, or stalled; another attempt may succeed.

    Attributes:
        was_refused: nobody listens there, or the name is unknown: waiting rarely helps.
    """

    def __init__(self, message: str, hint: str = "", *, was_refused: bool = False) -> None:
        super().__init__(message, hint)
        self.was_refused = was_refused


class TlsError(UnavailableError):
    """The other side does not speak TLS, or its certificate is not trusted; another attempt does not help."""


class mapped(contextlib.AbstractContextManager[None]):  # it reads as a function
    """Maps what the HTTP library raises.

    Args:
        host: who was asked, for messages.
        closed: set where the client was closed, which breaks its connections.
        settings: for the way out of a failed TLS handshake.
    """

    def __init__(
        self, host: str, closed: threading.Event | None = None, settings: RegistrySettings | None = None
    ) -> None:
        self._host = host
        self._closed = closed
        self._settings = settings or RegistrySettings()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        foreign = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)
        if error is None or isinstance(error, PyDockError) or not isinstance(error, foreign):
            return
        if self._closed is not None and self._closed.is_set():
            raise UnavailableError("the transfer was interrupted") from error
        raise map_error(self._host, error, self._settings) from error


_MALFORMED = (
    urllib3.exceptions.LocationParseError,
    urllib3.exceptions.LocationValueError,
    urllib3.exceptions.InvalidHeader,
    http.client.InvalidURL,
)


_WANTS_CERTIFICATE = frozenset(
    {"TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE", "TLSV1_ALERT_UNKNOWN_CA"}
)
"""OpenSSL's names of the alerts (RFC 8446, 6.2) with which a server refuses the certificate of this client, or none."""


def map_error(host: str, error: BaseException, settings: RegistrySettings) -> PyDockError:
    """Return what an exception of the HTTP library is."""
    known = urllib3.exceptions
    if isinstance(error, known.ProxyError) and isinstance(error.original_error, known.HTTPError | OSError):
        inner = map_error(f"{host}, through the proxy", error.original_error, settings)
        return BrokenConnectionError(inner.message, "check HTTPS_PROXY and NO_PROXY", was_refused=True)
    if isinstance(error, known.SSLError | ssl.SSLError):
        return TlsError(f"{host}: no secure connection: {_reason(error)}", tls_hint(host, error, settings))
    if isinstance(error, known.NameResolutionError):
        return BrokenConnectionError(
            f"{host}: unknown host", "check the name and the network", was_refused=True
        )
    if isinstance(error, known.NewConnectionError):
        cause = error.__cause__ or error.__context__
        said = cause.strerror if isinstance(cause, OSError) and cause.strerror else "no connection"
        return BrokenConnectionError(f"{host}: {said}", "is the registry running?", was_refused=True)
    if isinstance(error, known.ConnectTimeoutError):
        return BrokenConnectionError(
            f"{host}: no connection within {CONNECT_SECONDS:.0f} s", "check the network"
        )
    if isinstance(error, known.ReadTimeoutError | TimeoutError):
        return BrokenConnectionError(f"{host}: the registry stalls", "try again later")
    if isinstance(error, _MALFORMED):
        return CorruptError(f"{host}: an invalid address or header")
    return BrokenConnectionError(f"{host}: the connection broke: {_reason(error)}", "try again")


def tls_hint(host: str, error: BaseException, settings: RegistrySettings) -> str:
    """Return the way out of a failed TLS handshake with "HOST" or "HOST:PORT"."""
    inner = _innermost(error)
    place = settings.place_for_certificates() / host
    if isinstance(inner, ssl.SSLCertVerificationError):
        there = settings.certificates(host).authorities
        if there:
            return f"it is not signed by {there[0]}: put its authority's certificate there"
        return f"put its authority's certificate into {place / 'ca.crt'}"
    if isinstance(inner, ssl.SSLError) and inner.reason in _WANTS_CERTIFICATE:
        return f"put a certificate that it trusts and its key into {place / 'client.cert'} and client.key"
    return f'if it speaks plain HTTP, put "{host}" into insecure-registries'


def _reason(error: BaseException) -> str:
    """The innermost reason, in one line, without the names of Python objects."""
    inner = _innermost(error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return shown(inner.verify_message)
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    if isinstance(inner, http.client.IncompleteRead | urllib3.exceptions.IncompleteRead):
        return "closed in mid-answer"
    if isinstance(inner, http.client.RemoteDisconnected):
        return "closed without an answer"
    return shown(str(inner)) or type(inner).__name__


def _innermost(error: BaseException) -> BaseException:
    inner = error
    for _ in range(5):
        below = inner.args[-1] if inner.args and isinstance(inner.args[-1], BaseException) else None
        below = below or getattr(inner, "original_error", None)
        if below is None:
            break
        inner = below
    return inner
