"""What a registry's refusal is as one of the project's errors: one line, with the registry's own words shortened."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from pydock_core.errors import (
    DeniedError,
    FailedError,
    InvalidError,
    NotFoundError,
    PyDockError,
    UnavailableError,
    UnsupportedError,
)
from pydock_core.images.registry.headers import RateLimit, parse_rate_limit, parse_retry_after, spell_seconds
from pydock_core.printable import printable

_SHOWN_CHARACTERS = 200
PATIENCE_SECONDS = 30.0
"""A registry that asks for more than this is not waited for: the person is told how long it takes."""


def shown(text: str) -> str:
    """Return another's text so that it can stand in a message: one line, no control characters, not long."""
    line = " ".join(printable(text).split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


def is_web_page(content_type: str, data: bytes) -> bool:
    """Whether an answer is for browsers."""
    return content_type.partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml") or (
        data[:64].lstrip().lower().startswith((b"<!doctype", b"<html"))
    )


def web_page_error(host: str) -> PyDockError:
    """A web page where a registry should have answered."""
    return UnavailableError(
        f"{host} answered with a web page: is this a registry?",
        "check the name; a proxy or a login page of the network may also have answered",
    )


def said_by(content_type: str, data: bytes) -> tuple[str, list[str]]:
    """Return what a refusal says, in one line, and its codes ("errors" of the distribution specification)."""
    if is_web_page(content_type, data):
        return "a web page", []
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return shown(data[:1000].decode("utf-8", "replace")), []
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list):
        # Token servers: {"details": "incorrect username or password"}, {"error_description": ...}
        fields = document if isinstance(document, dict) else {}
        words = [fields.get(key) for key in ("details", "error_description", "message", "error")]
        return shown(next((word for word in words if isinstance(word, str)), "")), []
    texts, codes = [], []
    for error in errors[:5]:
        if isinstance(error, dict):
            code, message = (str(error.get(key) or "") for key in ("code", "message"))
            codes.append(code)
            texts.append(": ".join(word for word in (code, message) if word))
    return shown("; ".join(texts)), codes


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
    """Return the error for an answer that is no success.

    Args:
        host: who answered.
        subject: what was wanted, "library/busybox:latest"; empty for the registry itself.
        status: HTTP status.
        headers: names in any case.
        data: the beginning of the body.
        login_host: what to give to ``dock login``; empty where that would not help.
        logged_in: credentials were sent.
    """
    text, codes = said_by(headers.get("Content-Type", ""), data)
    if status in (
        401,
        403,
    ):  # access is to the whole repository; which of its blobs was asked for says nothing
        subject = subject.partition("@")[0]
    what = f"{host}: {subject}" if subject else host
    tail = f": {text}" if text else ""
    if status == 429 or "TOOMANYREQUESTS" in codes:
        return rate_limit_error(host, headers, text)
    if status in (401, 403, 407):
        hint = f"the name may be wrong, or `dock login {login_host}` is needed" if login_host else ""
        if status == 401 and login_host and logged_in:
            hint = f"the stored credentials are not, or no longer, right: `dock login {login_host}` replaces them"
        if status == 407:
            hint = "give the proxy's user name and password in its address (HTTPS_PROXY)"
        return DeniedError(f"{what}: access denied{tail or f' ({status})'}", hint)
    if status in (400, 404, 405) and is_web_page(headers.get("Content-Type", ""), data):
        return web_page_error(host)
    if status == 404:
        return NotFoundError(f"{what}: not found{tail}", "check the name and the tag")
    if status >= 500:
        seconds = seconds_to_wait(headers)
        when = f"try again in {spell_seconds(seconds)}" if seconds else "try again later"
        return UnavailableError(f"{what}: the registry fails ({status}){tail}", when)
    if status in (405, 415, 501) or "UNSUPPORTED" in codes:
        return UnsupportedError(f"{what}: the registry does not do this ({status}){tail}")
    if status in (400, 413, 414, 416, 422) or any(code.endswith("_INVALID") for code in codes):
        return InvalidError(f"{what}: the registry does not accept this ({status}){tail}")
    return FailedError(f"{what}: unexpected answer {status}{tail}")


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return how long an answer asks to wait; None where it does not say."""
    now = time.time()
    for name in ("Retry-After", "RateLimit-Reset", "X-RateLimit-Reset", "X-Retry-After"):
        if name in headers and (seconds := parse_retry_after(headers[name], now)) is not None:
            return seconds
    return None


def rate_limit_of(headers: Mapping[str, str]) -> RateLimit:
    """Return what an answer says about limits."""
    return parse_rate_limit(headers.get("RateLimit-Limit"), headers.get("RateLimit-Remaining"))


def rate_limit_error(host: str, headers: Mapping[str, str], text: str = "") -> PyDockError:
    """The registry wants to be asked less often; say how often, and how long to wait."""
    said = rate_limit_of(headers)
    window = said.window_seconds
    allowance = ""
    if said.limit is not None:
        allowance = f" ({said.limit} pulls" + (f" per {spell_seconds(window)}" if window else "") + ")"
    seconds = seconds_to_wait(headers)
    if seconds is not None:
        when = f"; try again in {spell_seconds(seconds)}"
    elif window:
        when = f"; try again within {spell_seconds(window)}"
    else:
        when = "; try again later"
    detail = f": {text}" if text and not allowance and seconds is None else ""
    return UnavailableError(
        f"{host}: rate limit reached{allowance}{when}{detail}",
        f"`dock login {host}` may raise the limit, and a mirror (registry-mirrors) avoids it",
    )
