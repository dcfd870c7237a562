"""Filters response headers that affect Jupyter's whole origin.

All other headers pass: they affect one response, whose address is below the application's prefix.  Some pass on
purpose: Content-Security-Policy, Permissions-Policy, Cross-Origin-*, X-Frame-Options and Reporting-Endpoints apply to
one document; Access-Control-* applies to the application's responses, and the proxy has already refused other origins;
a service worker's scope ends at the prefix without Service-Worker-Allowed.

:mod:`.cookie` confines Set-Cookie; :mod:`.header` rewrites Location, Content-Location, Refresh and SourceMap.
"""

from __future__ import annotations

import re
from collections.abc import Callable

DROPPED = {
    # Persisted by the browser for the origin or host
    "accept-ch": "requests client hints for the origin",
    "critical-ch": "requests them and repeats the request",
    "alt-svc": "directs requests for the origin to another host or port",
    "clear-site-data": "deletes the origin's cookies, storage and caches, and ends its sessions",
    "expect-ct": "is stored for the host",
    "nel": "reports network errors of the origin to an address",
    "report-to": "names the origin's reporting addresses",
    "public-key-pins": "is stored for the host",
    "public-key-pins-report-only": "is stored for the host",
    "strict-transport-security": "makes the host require TLS",
    "set-login": "tells the browser whether the user is logged in to the origin",
    "secure-session-registration": "binds a session of the whole site to a key",
    "sec-session-registration": "the same, under its earlier name",
    "use-as-dictionary": "offers a compression dictionary for other addresses of the origin",
    "shared-storage-write": "writes to a storage of the origin",
    # Wider than the application's part of the origin
    "origin-agent-cluster": "applies to every page of the origin in a browsing context group",
    "service-worker-allowed": "permits a service worker to control pages outside the prefix",
    "speculation-rules": "makes the browser load pages of the origin with the user's cookies",
    "supports-loading-mode": "permits such loading",
    # Obeyed by a server in front of Jupyter (nginx, lighttpd, LiteSpeed, Perlbal), not by the browser
    "x-accel-charset": "is a directive to nginx",
    "x-accel-expires": "is a directive to nginx",
    "x-accel-limit-rate": "is a directive to nginx",
    "x-accel-redirect": "makes nginx send an internal file or address",
    "x-lighttpd-send-file": "makes lighttpd send a file",
    "x-litespeed-location": "makes LiteSpeed send an internal address",
    "x-reproxy-url": "makes Perlbal send another address",
    "x-sendfile": "makes Apache or lighttpd send a file",
}
"""Names in lower case, and reasons.  X-Accel-Buffering passes because streaming applications need it."""

_PASSIVE_RELATIONS = frozenset(
    "alternate author canonical collection describedby edit edit-form first help item last license next prev"
    " previous profile related search self service-desc service-doc start status type up via".split()
)
"""Link relations (IANA's registry) that browsers do not follow by themselves."""

_LINK = re.compile(
    r"\s*<(?P<target>[^<>]*)>(?P<parameters>(?:\s*;\s*[^\s=;,]+(?:\s*=\s*(?:\"[^\"]*\"|[^\s\";,]*))?)*)\s*"
)
_RELATION = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s\";,]*))", re.IGNORECASE)
_PASSWORD_SCHEME = re.compile(r"(?:^|[\s,])(?:basic|digest|negotiate|ntlm)(?:$|[\s,])", re.IGNORECASE)


def filter_link(value: str, rewrite: Callable[[str], str]) -> str | None:
    """Return a Link header's passive links, such as ``rel=next``; None if there are none.

    A browser loads the targets of ``preload``, ``prefetch``, ``preconnect``, ``stylesheet`` and others from the whole
    origin with the user's cookies, even if no page of the application is open.

    Args:
        value: the header's value (RFC 8288, section 3); a malformed one is dropped.
        rewrite: adds the application's prefix to a target.
    """
    kept: list[str] = []
    position = 0
    while position < len(value):
        match = _LINK.match(value, position)
        if match is None or (match.end() < len(value) and value[match.end()] != ","):
            return None
        position = match.end() + 1
        found = _RELATION.findall(match["parameters"])
        relations = set((found[0][0] or found[0][1]).lower().split()) if len(found) == 1 else set()
        if relations and relations <= _PASSIVE_RELATIONS:
            kept.append(f"<{rewrite(match['target'])}>{match['parameters'].strip()}")
    return ", ".join(kept) or None


def is_password_challenge(value: str) -> bool:
    """Return whether a WWW-Authenticate header makes the browser ask for a password or send the user's identity.

    The dialog names Jupyter's host, so that a user may enter Jupyter's password, which the application receives.
    Schemes without a dialog, such as Bearer, are exempt.
    """
    return _PASSWORD_SCHEME.search(value) is not None
