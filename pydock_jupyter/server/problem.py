"""The proxy's error responses: a page for browsers, JSON for other clients."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from importlib.resources import files

from tornado.httputil import HTTPHeaders

from pydock_core.errors import PyDockError, UnavailableError

RETRY_SECONDS = 2

_SCRIPT = files(__package__).joinpath("problem.js").read_text(encoding="utf-8")
_SCRIPT_HASH = b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY = f"default-src 'none'; script-src 'sha256-{_SCRIPT_HASH}'; style-src 'unsafe-inline'; frame-ancestors 'self'"

_PAGE = """<!DOCTYPE html>
<html lang="en"{retry}><head><meta charset="utf-8"><title>{title}</title>{refresh}
<style>:root{{color-scheme:light dark}}
body{{font:15px/1.5 system-ui,sans-serif;margin:4em auto;max-width:40em;padding:0 1em;
color:light-dark(#333,#ddd);background:light-dark(#fff,#1e1e1e)}}
h1{{font-size:1.3em}}p{{margin:.5em 0}}.hint{{color:light-dark(#666,#999)}}</style>
<script>{script}</script></head>
<body><h1>{title}</h1>{message}<p class="hint">{hint}</p></body></html>
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error response.

    ``message`` is one line.  ``hint`` tells what to do, and ends with ``command``, if any.  ``heading`` replaces the
    status and the message on a page.  ``is_transient`` tells that the same request may succeed later.
    """

    status: int
    message: str
    hint: str = ""
    command: str = ""
    heading: str = ""
    is_transient: bool = False

    def render(self, *, as_page: bool, may_retry: bool) -> tuple[HTTPHeaders, bytes]:
        """Return headers and body.

        Args:
            as_page: return HTML instead of JSON in the shape of the Engine API's errors.
            may_retry: whether the page may reload itself (the request was a GET).
        """
        headers = HTTPHeaders({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
        if self.is_transient:
            headers["Retry-After"] = str(RETRY_SECONDS)
        if not as_page:
            headers["Content-Type"] = "application/json"
            hint = f"{self.hint} {self.command}".rstrip()
            return headers, json.dumps({"message": self.message, "hint": hint}).encode() + b"\n"
        headers["Content-Type"] = "text/html; charset=utf-8"
        headers["Content-Security-Policy"] = _POLICY
        return headers, self._render_page(is_retrying=self.is_transient and may_retry).encode()

    def _render_page(self, *, is_retrying: bool) -> str:
        """Return the page; without scripts, a retry works only at an address without a fragment."""
        hint = escape(self.hint)
        if self.command:
            hint += f" <code>{escape(self.command)}</code>."
        if is_retrying:
            hint += " This page retries automatically."
        refresh = f'<noscript><meta http-equiv="refresh" content="{RETRY_SECONDS}"></noscript>'
        return _PAGE.format(
            title=escape(self.heading) or f"{self.status} {HTTPStatus(self.status).phrase}",
            retry=f' data-retry-seconds="{RETRY_SECONDS}"' if is_retrying else "",
            refresh=refresh if is_retrying else "",
            script=_SCRIPT,
            message="" if self.heading else f"<p>{escape(_sentence(self.message))}</p>",
            hint=hint.strip(),
        )


def describe_dial_error(error: PyDockError, container: str, port: int) -> Problem:
    """Map an error of resolving or dialling to a response; a port without a listener is transient."""
    if isinstance(error, UnavailableError):
        return Problem(
            503,
            f"container {container} does not answer on port {port}",
            "The application may still be starting. See its log:",
            f"dock logs {container}",
            f"{container} does not answer on port {port} yet",
            is_transient=True,
        )
    return Problem(error.http_status, error.message, error.hint)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
