"""Response headers with which an application would act on Jupyter's origin, and what happens to each.

A header that no rule names passes: it concerns one response, whose address lies under the application's
prefix.  Passing on purpose: Content-Security-Policy, Permissions-Policy, Cross-Origin-*, X-Frame-Options and
Reporting-Endpoints (they bind the one document), Access-Control-* (they open the application's own responses,
and the proxy refuses other origins before that), Service workers' scripts (their scope ends at the prefix
without Service-Worker-Allowed).

Set-Cookie is confined by :mod:`.cookie`; Location, Content-Location, Refresh and SourceMap are rewritten by
:mod:`.header`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

DROPPED = {
    # Persisted by the browser for the origin or host
    "accept-ch": "asks for client hints in every later request to the origin",
    "critical-ch": "the same, with a repeated request",
    "alt-svc": "sends later requests for the origin to another host or port",
    "clear-site-data": "deletes the origin's cookies, storage and caches, and ends its sessions",
    "expect-ct": "is kept for the host",
    "nel": "reports each network error of the origin to a chosen address",
    "report-to": "names the origin's reporting addresses",
    "public-key-pins": "is kept for the host",
    "public-key-pins-report-only": "is kept for the host",
    "strict-transport-security": "makes the host unreachable without TLS",
    "set-login": "tells the browser whether the user is logged in to the origin",
    "secure-session-registration": "binds a session of the whole site to a key",
    "sec-session-registration": "the same, under its earlier name",
    "use-as-dictionary": "offers a compression dictionary for other addresses of the origin",
    "shared-storage-write": "writes to a storage of the origin",
    # Wider than the application's part of the origin
    "origin-agent-cluster": "decides for every page of the origin in the same browsing context group",
    "service-worker-allowed": "lets a service worker control pages outside of the prefix",
    "speculation-rules": "has the browser load and run any page of the origin with the user's cookies",
    "supports-loading-mode": "permits such loading",
    # Obeyed by a server in front of Jupyter (nginx, lighttpd, LiteSpeed, Perlbal), not by the browser
    "x-accel-charset": "is a directive to nginx",
    "x-accel-expires": "is a directive to nginx",
    "x-accel-limit-rate": "is a directive to nginx",
    "x-accel-redirect": "has nginx send an internal file or address",
    "x-lighttpd-send-file": "has lighttpd send a file",
    "x-litespeed-location": "has LiteSpeed send an internal address",
    "x-reproxy-url": "has Perlbal send another address",
    "x-sendfile": "has Apache or lighttpd send a file",
}
"""Lower-case names and reasons.  X-Accel-Buffering passes: streaming applications need it."""

_PASSIVE_RELATIONS = frozenset(
    "alternate author canonical collection describedby edit edit-form first help item last license next prev"
    " previous profile related search self service-desc service-doc start status type up via".split()
)
"""Link relations (IANA's registry) on which no browser acts by itself."""

_LINK = re.compile(
    r"\s*<(?P<target>[^<>]*)>(?P<parameters>(?:\s*;\s*[^\s=;,]+(?:\s*=\s*(?:\"[^\"]*\"|[^\s\";,]*))?)*)\s*"
)
_RELATION = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s\";,]*))", re.IGNORECASE)
_PASSWORD_SCHEME = re.compile(r"(?:^|[\s,])(?:basic|digest|negotiate|ntlm)(?:$|[\s,])", re.IGNORECASE)


def filter_link(value: str, rewrite: Callable[[str], str]) -> str | None:
    """Keep the links of a Link header that are data, such as ``rel=next``; None if there is none.

    A browser loads what ``preload``, ``prefetch``, ``preconnect``, ``stylesheet`` and others name, with the
    user's cookies and from the whole origin, while a page of the application is not even open.

    Args:
        value: the header's value (RFC 8288, section 3); one that cannot be parsed is dropped.
        rewrite: brings a target under the application's prefix.
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
    """Whether a WWW-Authenticate header has the browser ask for a password, or send the user's identity.

    The dialog names Jupyter's host, so a person may type Jupyter's password, which the application gets.
    Schemes without a dialog, such as Bearer, are not such challenges.
    """
    return _PASSWORD_SCHEME.search(value) is not None
