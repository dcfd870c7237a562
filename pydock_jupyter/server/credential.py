"""Jupyter's own secrets, and taking them out of what an application is sent.

A token that let the request into Jupyter, or that equals the server's token, is taken out of the
Authorization header, the query and the Referer.  Any other token is the application's (a Jupyter server in a
container has one) and passes. Jupyter's XSRF token goes too; the application's own one was marked with its
cookie (see :mod:`.cookie`), and loses the mark where its JavaScript read it from ``document.cookie``.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_plus

from pydock_jupyter.server.cookie import MARK, is_marked, unmark

_AUTHORIZATION = re.compile(r"(?:token|bearer)\s+(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must not reach an application: ``tokens`` of Jupyter, and the ``xsrf`` values that its cookie
    holds.
    """

    tokens: tuple[str, ...] = ()
    xsrf: tuple[str, ...] = ()

    def is_token(self, text: str) -> bool:
        return _equals_any(text, self.tokens)

    def is_xsrf(self, text: str) -> bool:
        return _equals_any(text, self.xsrf)

    def is_authorization(self, value: str) -> bool:
        """Whether an Authorization header's value carries a token of Jupyter."""
        token = authorization_token(value)
        return token is not None and self.is_token(token)

    def clean_query(self, query: str) -> str:
        """Take Jupyter's token and XSRF argument out of a raw query; every other byte of it stays."""
        if "token" not in query and "xsrf" not in query and "%" not in query:
            return query
        kept: list[str] = []
        for item in query.split("&"):
            name, separator, text = item.partition("=")
            name = unquote_plus(name)
            value = unquote_plus(text).strip()
            if name == "token" and self.is_token(value):
                continue
            if name == "_xsrf" and separator:
                if is_marked(value):
                    item = _remove_last_mark(item)
                elif self.is_xsrf(value):
                    continue
            kept.append(item)
        return "&".join(kept)

    def clean_xsrf_headers(self, values: Iterable[str], *, keep_foreign: bool) -> list[str]:
        """Return the application's own values of an XSRF header, without their mark.

        Args:
            keep_foreign: whether an unmarked value that is not Jupyter's passes; X-XSRFToken is Jupyter's own
                header, where an unmarked value never does, X-CSRFToken is Django's as well.
        """
        return [
            unmark(value)
            for value in values
            if is_marked(value) or (keep_foreign and not self.is_xsrf(value))
        ]


def authorization_token(value: str) -> str | None:
    """Return the token in an Authorization header of the forms that Jupyter understands."""
    match = _AUTHORIZATION.match(value)
    return match[1].strip() if match else None


def _remove_last_mark(item: str) -> str:
    head, _, tail = item.rpartition(MARK)
    return head + tail


def _equals_any(text: str, secrets: Iterable[str]) -> bool:
    candidate = text.encode("utf-8", "surrogateescape")
    return any(hmac.compare_digest(candidate, secret.encode()) for secret in secrets if secret)
