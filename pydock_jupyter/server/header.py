"""Translates headers between browser and application: pure functions on Tornado's HTTPHeaders.

Sources: RFC 9110, section 7.6.1 (hop-by-hop fields); RFC 9112, section 6 (framing); the Fetch standard (Origin).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tornado.httputil import HTTPHeaders

from pydock_core.errors import InvalidError
from pydock_jupyter.server.cookie import CookiePolicy, place_under
from pydock_jupyter.server.credential import Secrets
from pydock_jupyter.server.origin_header import DROPPED, filter_link, is_password_challenge
from pydock_jupyter.server.target import Target

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

_OWN_REQUEST_HEADERS = frozenset(
    {
        "content-length",
        "cookie",
        "expect",  # Tornado has already sent 100 Continue
        "forwarded",
        "host",
        "origin",
        "referer",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-prefix",
        "x-forwarded-proto",
    }
)

_FORWARDED_NAME = re.compile(r"[A-Za-z0-9-]+")
"""Names that pass.  CGI, WSGI and PHP read ``Content_Length`` and ``Content-Length`` as one variable, so that the former
could contradict the latter, or forge ``X_Forwarded_For``; nginx drops such names too.
"""

_DIGITS = re.compile(r"[0-9]{1,18}")
_DOCUMENTS = frozenset({"document", "embed", "frame", "iframe", "object"})
_REFRESH_URL = re.compile(
    r"(?P<head>\s*[0-9.]*\s*[;,]\s*(?:url\s*=\s*)?[\"']?)(?P<url>[^\"']*)(?P<tail>[\"']?\s*)", re.I
)


@dataclass(frozen=True, slots=True)
class Visit:
    """The context of one request.

    ``host`` and ``protocol`` are those of Jupyter in the browser; ``remote_ip`` is the client's address; ``cookie``
    holds the application's part of the received cookies.
    """

    target: Target
    cookies: CookiePolicy
    cookie: str
    secrets: Secrets
    host: str
    protocol: str
    remote_ip: str

    def is_own_origin(self, origin: str) -> bool:
        """Return whether an origin is Jupyter's.  Ignores the scheme, which is unreliable behind a TLS proxy."""
        return urlsplit(origin).netloc.lower() == self.host.lower() != ""


def connection_options(headers: HTTPHeaders) -> set[str]:
    """Return the field names and options in the Connection header, in lower case."""
    return {
        option.strip().lower() for value in headers.get_list("Connection") for option in value.split(",")
    } - {""}


def is_document_request(headers: HTTPHeaders) -> bool:
    """Return whether a browser requests a page, which the proxy may have to rewrite."""
    destination = headers.get("Sec-Fetch-Dest")
    if destination is not None:
        return destination in _DOCUMENTS
    return "text/html" in headers.get("Accept", "")


def request_framing(headers: HTTPHeaders) -> int | None:
    """Return the length of the request's body in bytes, or None if it is chunked.

    Tornado checks the framing too, but after the handler has begun.  A request with an ambiguous end must not reach an
    application (RFC 9112, section 11.2: request smuggling).

    Raises:
        InvalidError: the request has both framings, an unknown transfer coding, or a malformed or contradictory
            length.
    """
    if "Transfer-Encoding" in headers:
        if "Content-Length" in headers:
            raise InvalidError("the request has both a Content-Length and a Transfer-Encoding")
        if headers["Transfer-Encoding"].lower() != "chunked":
            raise InvalidError("the request's Transfer-Encoding is not chunked")
        return None
    lengths = {item.strip(" \t") for value in headers.get_list("Content-Length") for item in value.split(",")}
    if not lengths:
        return 0
    length = lengths.pop()
    if lengths or _DIGITS.fullmatch(length) is None:
        raise InvalidError("the request's Content-Length is not one number")
    return int(length)


def build_request_headers(received: HTTPHeaders, visit: Visit, *, identity: bool) -> HTTPHeaders:
    """Build the headers of the request to the application.

    Args:
        received: the request's headers; :func:`request_framing` has accepted their framing.
        identity: request an uncompressed response, because it may have to be rewritten.
    """
    target = visit.target
    skipped = HOP_BY_HOP | _OWN_REQUEST_HEADERS | connection_options(received)
    result = HTTPHeaders()
    result["Host"] = target.authority
    for name, value in received.get_all():
        lowered = name.lower()
        if lowered in skipped or _FORWARDED_NAME.fullmatch(name) is None:
            continue
        if lowered == "authorization" and visit.secrets.is_authorization(value):
            continue
        if lowered == "accept-encoding" and identity:
            continue
        given = visit.secrets.translate_xsrf(value)
        if given is not None:
            result.add(name, given)
    if "Transfer-Encoding" in received:
        result["Transfer-Encoding"] = "chunked"
    elif "Content-Length" in received:
        result["Content-Length"] = str(request_framing(received))
    if identity:
        result["Accept-Encoding"] = "identity"
    if visit.cookie:
        result["Cookie"] = visit.cookie
    origin = received.get("Origin")
    if origin is not None:
        result["Origin"] = target.origin if visit.is_own_origin(origin) else origin
    referer = received.get("Referer")
    if referer is not None:
        result["Referer"] = _rewrite_referer(referer, visit)
    result["X-Forwarded-For"] = visit.remote_ip
    result["X-Forwarded-Host"] = visit.host
    result["X-Forwarded-Proto"] = visit.protocol
    result["X-Forwarded-Prefix"] = target.prefix
    return result


def build_response_headers(
    received: HTTPHeaders, visit: Visit, policies: Iterable[str], *, pass_challenges: bool = False
) -> HTTPHeaders:
    """Build the headers of the response to the browser.

    Args:
        policies: values of Content-Security-Policy to add; a browser enforces all of them.
        pass_challenges: whether the application may make the browser ask for a password.
    """
    skipped = HOP_BY_HOP | DROPPED.keys() | connection_options(received)
    result = HTTPHeaders()
    for name, value in received.get_all():
        match name.lower():
            case lowered if lowered in skipped:
                continue
            case "set-cookie":
                confined = visit.cookies.rewrite(value, visit.target.prefix)
                if confined is not None:
                    result.add(name, confined)
            case "www-authenticate":
                if pass_challenges or not is_password_challenge(value):
                    result.add(name, value)
            case "link":
                links = filter_link(value, lambda link: rewrite_location(link, visit))
                if links is not None:
                    result.add(name, links)
            case "location" | "content-location" | "sourcemap" | "x-sourcemap":
                result.add(name, rewrite_location(value, visit))
            case "refresh":
                result.add(name, _rewrite_refresh(value, visit))
            case _:
                result.add(name, value)
    for policy in policies:
        result.add("Content-Security-Policy", policy)
    return result


def rewrite_location(location: str, visit: Visit) -> str:
    """Add the prefix to a redirect within the application; others are unchanged."""
    prefix = visit.target.prefix
    if location.startswith("/") and not location.startswith(("//", "/\\")):
        return place_under(prefix, location)
    if not location[:7].lower().startswith(("http://", "https:/")):
        return location
    try:
        parts = urlsplit(location)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        is_own = parts.hostname in {"localhost", "127.0.0.1", "0.0.0.0"} and port == visit.target.port
    except ValueError:
        return location
    if not is_own and not visit.is_own_origin(location):
        return location
    rest = location.split("://", 1)[1][len(parts.netloc) :]
    return place_under(prefix, rest if rest.startswith("/") else "/" + rest)


def _rewrite_refresh(value: str, visit: Visit) -> str:
    match = _REFRESH_URL.fullmatch(value)
    return match["head"] + rewrite_location(match["url"], visit) + match["tail"] if match else value


def _rewrite_referer(referer: str, visit: Visit) -> str:
    """Translate a page of this application to its own address; reduce any other Jupyter page to its origin.

    The address of a Jupyter page may contain Jupyter's token.
    """
    if not visit.is_own_origin(referer):
        return referer
    target = visit.target
    path, mark, query = referer.split("://", 1)[-1].partition("?")
    path = path[path.find("/") :] if "/" in path else "/"
    if not path.startswith(target.prefix + "/"):
        return f"{target.origin}/"
    query = visit.secrets.clean_arguments(query)
    return f"{target.origin}{path[len(target.prefix) :]}{mark if query else ''}{query}"
