"""How the proxy says that something went wrong: a plain page for a browser, JSON for everybody else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from http import HTTPStatus

from tornado.httputil import HTTPHeaders

from pydock_core.errors import PyDockError, UnavailableError

RETRY_SECONDS = 2

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>{refresh}
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:4em auto;max-width:40em;padding:0 1em;
color:#333;background:#fff}}
h1{{font-size:1.3em}}p{{margin:.5em 0}}.hint{{color:#666}}
@media (prefers-color-scheme:dark){{body{{color:#ddd;background:#1e1e1e}}.hint{{color:#999}}}}</style></head>
<body><h1>{title}</h1><p>{message}</p><p class="hint">{hint}</p></body></html>
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error response: status, one line, the way out, and whether trying again by itself makes sense."""

    status: int
    message: str
    hint: str = ""
    is_passing: bool = False

    def render(self, *, as_page: bool, may_retry: bool) -> tuple[HTTPHeaders, bytes]:
        """Return headers and body.

        Args:
            as_page: HTML, else JSON in the shape of the Engine API's errors.
            may_retry: whether the page may load itself again (the request was a GET).
        """
        headers = HTTPHeaders({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
        if self.is_passing:
            headers["Retry-After"] = str(RETRY_SECONDS)
        if not as_page:
            headers["Content-Type"] = "application/json"
            return headers, json.dumps({"message": self.message, "hint": self.hint}).encode() + b"\n"
        headers["Content-Type"] = "text/html; charset=utf-8"
        headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"
        )
        retrying = self.is_passing and may_retry
        page = _PAGE.format(
            title=f"{self.status} {HTTPStatus(self.status).phrase}",
            refresh=f'<meta http-equiv="refresh" content="{RETRY_SECONDS}">' if retrying else "",
            message=escape(_sentence(self.message)),
            hint=escape(self.hint + (" This page tries again by itself." if retrying else "")),
        )
        return headers, page.encode()


def describe_dial_error(error: PyDockError, container: str, port: int) -> Problem:
    """Turn what resolving or dialling raised into a problem; that nothing listens yet is the passing one."""
    if isinstance(error, UnavailableError):
        return Problem(
            503,
            f"nothing answers on port {port} of container {container}",
            f"The application may still be starting. See its log: dock logs {container}",
            is_passing=True,
        )
    return Problem(error.http_status, error.message, error.hint)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
