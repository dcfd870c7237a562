"""Maps the failures of a registry to PyDockError, by two tables.

``FAILURES`` has the exceptions of the libraries below (urllib3, http.client, ssl, sockets); ``STATUSES`` and ``CODES``
have a registry's refusals, by HTTP status and by the distribution specification's error codes.  No other module of this
package maps a foreign exception.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from urllib3 import exceptions as pool

from pydock_core.errors import (
    CorruptError,
    DeniedError,
    FailedError,
    InvalidError,
    NotFoundError,
    PyDockError,
    UnavailableError,
    UnsupportedError,
)
from pydock_core.images.registry.header import rate_limit_of, seconds_to_wait, spell_seconds
from pydock_core.images.registry.settings import CONNECT_SECONDS, RegistrySettings
from pydock_core.printable import printable_line


class BrokenConnectionError(UnavailableError):
    """A connection that was refused, broke, or stalled; another attempt may succeed."""


class RefusedConnectionError(BrokenConnectionError):
    """An unknown host, or a port without a listener; waiting rarely helps."""


class UnknownHostError(RefusedConnectionError):
    """A name that no name server knows, or there is no network."""


class TlsError(UnavailableError):
    """A failed TLS handshake: no TLS on the other side, or an untrusted certificate.  Another attempt does not help."""


class BusyError(UnavailableError):
    """A registry that fails or asks to be called later, after the last attempt.

    Attributes:
        pause_seconds: the least time to wait before another attempt.
    """

    def __init__(self, message: str, hint: str = "", *, pause_seconds: float = 0.0) -> None:
        super().__init__(message, hint)
        self.pause_seconds = pause_seconds


@dataclass(frozen=True, slots=True)
class Meaning:
    """One row of a table.

    Attributes:
        error: the class to raise.
        message: follows the host's name.  In ``FAILURES``, "{reason}" is the innermost exception's text.
        hint: for the person; empty if it depends on more than the row.
    """

    error: type[PyDockError]
    message: str
    hint: str = ""


# -- foreign exceptions ----------------------------------------------------------------------------------

_BROKEN = Meaning(BrokenConnectionError, "the connection broke: {reason}", "try again")
_STALLED = Meaning(BrokenConnectionError, "the registry stalls", "try again later")
_UNREACHED = Meaning(
    BrokenConnectionError, f"no connection within {CONNECT_SECONDS:.0f} s", "check the network"
)
_REFUSED = Meaning(RefusedConnectionError, "{reason}", "is the registry running?")
_UNKNOWN_HOST = Meaning(UnknownHostError, "unknown host", "check the name and the network")
_INSECURE = Meaning(TlsError, "no secure connection: {reason}")
_MALFORMED = Meaning(CorruptError, "an invalid address or header")
_PROXY = Meaning(RefusedConnectionError, "{reason}", "check HTTPS_PROXY and NO_PROXY")

FAILURES: Mapping[type[BaseException], Meaning] = {
    pool.ProxyError: _PROXY,
    **dict.fromkeys((pool.SSLError, ssl.SSLError), _INSECURE),
    pool.NameResolutionError: _UNKNOWN_HOST,
    pool.NewConnectionError: _REFUSED,
    pool.ConnectTimeoutError: _UNREACHED,
    **dict.fromkeys((pool.ReadTimeoutError, TimeoutError), _STALLED),
    **dict.fromkeys(
        (
            pool.LocationValueError,
            pool.InvalidHeader,
            pool.HeaderParsingError,
            pool.ProxySchemeUnknown,
            pool.ProxySchemeUnsupported,
            http.client.InvalidURL,
        ),
        _MALFORMED,
    ),
    **dict.fromkeys((pool.HTTPError, http.client.HTTPException, OSError, ValueError), _BROKEN),
}
"""The meaning of each foreign exception; a class that is not listed has its nearest base's."""

_FOREIGN = tuple(FAILURES)
_CERTIFICATE_ALERTS = frozenset(
    {"TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE", "TLSV1_ALERT_UNKNOWN_CA"}
)
"""OpenSSL's names of the alerts with which a server rejects a client's certificate or its absence (RFC 8446, 6.2)."""


@contextlib.contextmanager
def mapped_failures(
    host: str, closed: threading.Event | None = None, settings: RegistrySettings | None = None
) -> Iterator[None]:
    """Map the foreign exceptions that a block raises.

    Args:
        host: the peer, for messages.
        closed: set if this side closed the connections.
        settings: where the certificates are, for the hint of a failed TLS handshake.
    """
    try:
        yield
    except PyDockError:
        raise
    except _FOREIGN as error:
        if closed is not None and closed.is_set():
            raise UnavailableError("the transfer was interrupted") from error
        raise map_failure(host, error, settings or RegistrySettings()) from error


def map_failure(host: str, error: BaseException, settings: RegistrySettings) -> PyDockError:
    """Return the PyDockError for a foreign exception, by the table ``FAILURES``."""
    meaning = meaning_of(type(error))
    if isinstance(error, pool.ProxyError) and isinstance(error.original_error, _FOREIGN):
        below = map_failure(f"{host}, through the proxy", error.original_error, settings)
        return _PROXY.error(below.message, _PROXY.hint)
    hint = tls_hint(host, error, settings) if meaning is _INSECURE else meaning.hint
    return meaning.error(f"{host}: {meaning.message.format(reason=_reason(error))}", hint)


def meaning_of(kind: type[BaseException]) -> Meaning:
    """Return the meaning of a class of foreign exceptions: its own, or that of its nearest base in the table."""
    return next(FAILURES[base] for base in kind.__mro__ if base in FAILURES)


def tls_hint(host: str, error: BaseException, settings: RegistrySettings) -> str:
    """Return the remedy for a failed TLS handshake with "HOST" or "HOST:PORT"."""
    inner = _innermost(error)
    directory = settings.place_for_certificates() / host
    if isinstance(inner, ssl.SSLCertVerificationError):
        authorities = settings.certificates(host).authorities
        if authorities:
            return f"it is not signed by {authorities[0]}: put its authority's certificate there"
        return f"put its authority's certificate into {directory / 'ca.crt'}"
    if isinstance(inner, ssl.SSLError) and getattr(inner, "reason", "") in _CERTIFICATE_ALERTS:
        return f"put a certificate that it trusts and its key into {directory / 'client.cert'} and client.key"
    return f'if it speaks plain HTTP, put "{host}" into insecure-registries'


def _reason(error: BaseException) -> str:
    """Return the innermost reason in one line, without the names of Python objects."""
    inner = _innermost(error)
    if isinstance(inner, pool.NewConnectionError):
        cause = inner.__cause__ or inner.__context__
        return cause.strerror if isinstance(cause, OSError) and cause.strerror else "no connection"
    if isinstance(inner, ssl.SSLCertVerificationError):
        return printable_line(inner.verify_message)
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    if isinstance(inner, http.client.IncompleteRead | pool.IncompleteRead):
        return "closed in mid-answer"
    if isinstance(inner, http.client.RemoteDisconnected):
        return "closed without an answer"
    return printable_line(str(inner)) or type(inner).__name__


def _innermost(error: BaseException) -> BaseException:
    inner = error
    for _ in range(5):
        below = inner.args[-1] if inner.args and isinstance(inner.args[-1], BaseException) else None
        below = below or getattr(inner, "original_error", None)
        if below is None:
            break
        inner = below
    return inner


# -- refusals --------------------------------------------------------------------------------------------

_DENIED = Meaning(DeniedError, "access denied")
_MISSING = Meaning(NotFoundError, "not found", "check the name and the tag")
_UNSUPPORTED = Meaning(UnsupportedError, "the registry does not do this ({status})")
_INVALID = Meaning(InvalidError, "the registry does not accept this ({status})")
_LIMITED = Meaning(UnavailableError, "rate limit reached")
_FAILING = Meaning(UnavailableError, "the registry fails ({status})")
_UNEXPECTED = Meaning(FailedError, "unexpected answer {status}")

STATUSES: Mapping[int, Meaning] = {
    **dict.fromkeys((401, 403), _DENIED),
    407: Meaning(
        DeniedError,
        "access denied",
        "give the proxy's user name and password in its address (HTTPS_PROXY)",
    ),
    404: _MISSING,
    **dict.fromkeys((405, 415), _UNSUPPORTED),
    **dict.fromkeys((400, 413, 414, 416, 422), _INVALID),
    429: _LIMITED,
}
"""The meaning of each status below 500."""

CODES: Mapping[str, Meaning] = {
    **dict.fromkeys(("UNAUTHORIZED", "DENIED"), _DENIED),
    **dict.fromkeys(("BLOB_UNKNOWN", "BLOB_UPLOAD_UNKNOWN", "MANIFEST_UNKNOWN", "NAME_UNKNOWN"), _MISSING),
    **dict.fromkeys(
        (
            "BLOB_UPLOAD_INVALID",
            "DIGEST_INVALID",
            "MANIFEST_BLOB_UNKNOWN",
            "MANIFEST_INVALID",
            "NAME_INVALID",
            "SIZE_INVALID",
        ),
        _INVALID,
    ),
    "UNSUPPORTED": _UNSUPPORTED,
    "TOOMANYREQUESTS": _LIMITED,
}
"""The meaning of each error code (distribution specification, "Error Codes"), for an unspecific status."""


def refusal(
    host: str,
    subject: str,
    status: int,
    headers: Mapping[str, str],
    data: bytes,
    *,
    login_host: str,
    logged_in: bool = False,
) -> PyDockError:
    """Return the error for an unsuccessful answer.

    Args:
        host: the peer.
        subject: the object of the request, "library/busybox:latest"; empty for the registry itself.
        status: HTTP status.
        headers: names in any case.
        data: the beginning of the body.
        login_host: the argument for ``dock login``; empty if that would not help.
        logged_in: credentials were sent.
    """
    content_type = headers.get("Content-Type", "")
    text, codes = parse_refusal(content_type, data)
    meaning = _meaning(status, codes)
    if meaning is _LIMITED:
        return rate_limit_error(host, headers, text)
    if status in (400, 404, 405) and is_web_page(content_type, data):
        return web_page_error(host)
    hint = meaning.hint
    if meaning is _DENIED:
        subject = subject.partition("@")[0]  # access is to the whole repository, whichever blob was requested
        if login_host and status == 401 and logged_in:
            hint = f"the stored credentials are not, or no longer, right: `dock login {login_host}` replaces them"
        elif login_host:
            hint = f"the name may be wrong, or `dock login {login_host}` is needed"
    elif meaning is _FAILING:
        seconds = seconds_to_wait(headers)
        hint = f"try again in {spell_seconds(seconds)}" if seconds else "try again later"
    message = meaning.message.format(status=status)
    tail = f": {text}" if text else ""
    if meaning.error is DeniedError:
        tail = tail or f" ({status})"
    return meaning.error(
        f"{host}: {subject}: {message}{tail}" if subject else f"{host}: {message}{tail}", hint
    )


def _meaning(status: int, codes: list[str]) -> Meaning:
    by_status = STATUSES.get(status, _FAILING if status >= 500 else _UNEXPECTED)
    by_code = next((CODES[code] for code in codes if code in CODES), by_status)
    if _LIMITED in (by_status, by_code):
        return _LIMITED
    is_vague = by_status in (_INVALID, _UNEXPECTED)
    return by_code if is_vague else by_status


def parse_refusal(content_type: str, data: bytes) -> tuple[str, list[str]]:
    """Return the text of a refusal in one line, and its codes ("errors" of the distribution specification)."""
    if is_web_page(content_type, data):
        return "a web page", []
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return printable_line(data[:1000].decode("utf-8", "replace")), []
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list):
        # Token servers: {"details": "incorrect username or password"}, {"error_description": ...}
        fields = document if isinstance(document, dict) else {}
        words = [fields.get(key) for key in ("details", "error_description", "message", "error")]
        return printable_line(next((word for word in words if isinstance(word, str)), "")), []
    texts, codes = [], []
    for error in errors[:5]:
        if isinstance(error, dict):
            code, message = (str(error.get(key) or "") for key in ("code", "message"))
            codes.append(code)
            texts.append(": ".join(word for word in (code, message) if word))
    return printable_line("; ".join(texts)), codes


def is_web_page(content_type: str, data: bytes) -> bool:
    """Whether an answer is meant for a browser."""
    return content_type.partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml") or (
        data[:64].lstrip().lower().startswith((b"<!doctype", b"<html"))
    )


def web_page_error(host: str) -> PyDockError:
    """Return the error for a web page in place of a registry's answer."""
    return UnavailableError(
        f"{host} answered with a web page: is this a registry?",
        "check the name; a proxy or a login page of the network may also have answered",
    )


def rate_limit_error(host: str, headers: Mapping[str, str], text: str = "") -> PyDockError:
    """Return the error for a rate limit: the allowance, and the time to wait."""
    limit = rate_limit_of(headers)
    window = limit.window_seconds
    allowance = ""
    if limit.limit is not None:
        allowance = f" ({limit.limit} pulls" + (f" per {spell_seconds(window)}" if window else "") + ")"
    seconds = seconds_to_wait(headers)
    if seconds is not None:
        when = f"; try again in {spell_seconds(seconds)}"
    elif window:
        when = f"; try again within {spell_seconds(window)}"
    else:
        when = "; try again later"
    detail = f": {text}" if text and not allowance and seconds is None else ""
    return _LIMITED.error(
        f"{host}: {_LIMITED.message}{allowance}{when}{detail}",
        f"`dock login {host}` may raise the limit, and a mirror (registry-mirrors) avoids it",
    )
