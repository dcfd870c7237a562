"""Parsers of the HTTP headers that registries send; none raises, for any text.

Grammars: RFC 9110 (WWW-Authenticate, Retry-After, Content-Range), RFC 8288 (Link), the distribution specification
(Range of an upload), draft-ietf-httpapi-ratelimit-headers (RateLimit-*, as Docker Hub has them).
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BLANK = re.compile(r"[ \t]*")
_SEPARATORS = re.compile(r"[ \t,]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_BARE = re.compile(r"[^\s,;\"]*")
_ESCAPE = re.compile(r"\\(.)")
_UPLOAD_RANGE = re.compile(r"(?:bytes=)?(\d{1,19})-(\d{1,19})", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)
_LIMIT = re.compile(r"(\d{1,9})(?:[^;]*;\s*w=(\d{1,9}))?", re.ASCII)
_SECONDS_LIMIT = 10**9
"""A longer time from now is not a pause."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One authentication scheme that a server offers.

    Attributes:
        scheme: in lower case: "basic", "bearer".
        parameters: names in lower case: realm, service, scope, error.
    """

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Return the challenges of all WWW-Authenticate headers of one answer; an unreadable part ends its header."""
    found: list[Challenge] = []
    for value in values:
        _read_challenges(value, found)
    return found


def _read_challenges(text: str, found: list[Challenge]) -> None:
    position = _skip(_SEPARATORS, text, 0)
    parameters: dict[str, str] | None = None
    while match := _TOKEN.match(text, position):
        word = match.group()
        after = _skip(_BLANK, text, match.end())
        if parameters is not None and text[after : after + 1] == "=":
            value, position = _value(text, _skip(_BLANK, text, after + 1))
            # The first of two wins: a second realm cannot replace the one that a reader sees.
            parameters.setdefault(word.lower(), value)
        else:
            parameters = {}
            found.append(Challenge(word.lower(), parameters))
            position = match.end()
        position = _skip(_SEPARATORS, text, position)


def _value(text: str, position: int) -> tuple[str, int]:
    """Return a quoted string or a bare word at ``position``, and its end."""
    if quoted := _QUOTED.match(text, position):
        return _ESCAPE.sub(r"\1", quoted.group(1)), quoted.end()
    bare = _BARE.match(text, position)
    assert bare is not None  # it matches the empty text
    return bare.group(), bare.end()


def _skip(form: re.Pattern[str], text: str, position: int) -> int:
    match = form.match(text, position)
    return match.end() if match else position


def parse_next_link(values: Iterable[str]) -> str | None:
    """Return the target of the link with the relation "next" among all Link headers of one answer."""
    for text in values:
        position = text.find("<")
        while position >= 0:
            end = text.find(">", position)
            if end < 0:
                break
            target, position = text[position + 1 : end], end + 1
            relation, position = _link_relation(text, position)
            if "next" in relation.lower().split():
                return target
            position = text.find("<", position)
    return None


def _link_relation(text: str, position: int) -> tuple[str, int]:
    """Return the value of "rel" among the parameters from ``position`` on, and their end."""
    relation = ""
    while True:
        position = _skip(_BLANK, text, position)
        if text[position : position + 1] != ";":
            return relation, position
        position = _skip(_BLANK, text, position + 1)
        name = _TOKEN.match(text, position)
        if name is None:
            continue
        position = _skip(_BLANK, text, name.end())
        value = ""
        if text[position : position + 1] == "=":
            value, position = _value(text, _skip(_BLANK, text, position + 1))
        if name.group().lower() == "rel":
            relation = relation or value


def parse_upload_range(text: str) -> int | None:
    """Return how many bytes an upload session has ("0-1023": 1024), or None for other text.

    Registries send "0-0" for an empty session, so it means 0 here, and a session of a single byte is sent again.
    """
    match = _UPLOAD_RANGE.fullmatch(text.strip())
    if match is None or int(match.group(1)) != 0:
        return None
    end = int(match.group(2))
    return end + 1 if end else 0


def parse_content_range(text: str) -> tuple[int, int, int | None] | None:
    """Return (first byte, last byte, whole size or None), or None for other text."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, last = int(match.group(1)), int(match.group(2))
    whole = None if match.group(3) == "*" else int(match.group(3))
    if last < first or (whole is not None and last >= whole):
        return None
    return first, last, whole


def parse_length(text: str | None) -> int | None:
    """Return a Content-Length, or None if it is absent or malformed."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,19}", text.strip()) else None


def parse_retry_after(text: str, now_seconds: float) -> float | None:
    """Return the pause of a number of seconds or an HTTP date, in seconds; None for other text."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,12}", text):
        seconds = float(text)
        if seconds > _SECONDS_LIMIT:  # Docker Hub and GitHub give a time since the epoch in some answers
            seconds -= now_seconds
        return max(0.0, seconds) if seconds <= _SECONDS_LIMIT else None
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    seconds = moment - now_seconds
    return max(0.0, seconds) if seconds <= _SECONDS_LIMIT else None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A registry's rate limit; None for each number that it does not send.

    Attributes:
        limit: requests in a window.
        window_seconds: the window's length.
        remaining: requests that are left in this window.
    """

    limit: int | None = None
    window_seconds: int | None = None
    remaining: int | None = None


def parse_rate_limit(limit: str | None, remaining: str | None) -> RateLimit:
    """Read "ratelimit-limit" ("100;w=21600") and "ratelimit-remaining" ("0;w=21600")."""
    most = _LIMIT.match(limit.strip()) if limit else None
    left = _LIMIT.match(remaining.strip()) if remaining else None
    window = (most and most.group(2)) or (left and left.group(2))
    return RateLimit(
        int(most.group(1)) if most else None,
        int(window) if window else None,
        int(left.group(1)) if left else None,
    )


def rate_limit_of(headers: Mapping[str, str]) -> RateLimit:
    """Return the rate limit in an answer's headers."""
    return parse_rate_limit(headers.get("RateLimit-Limit"), headers.get("RateLimit-Remaining"))


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return the pause that an answer asks for, in seconds; None if it asks for none."""
    now = time.time()
    for name in ("Retry-After", "RateLimit-Reset", "X-RateLimit-Reset", "X-Retry-After"):
        if name in headers and (seconds := parse_retry_after(headers[name], now)) is not None:
            return seconds
    return None


def spell_seconds(seconds: float) -> str:
    """Return a time in words: "45 s", "3 min", "2 h 14 min"; rounded up."""
    whole = max(1, int(-(-seconds // 1)))
    if whole < 120:
        return f"{whole} s"
    minutes = -(-whole // 60)
    hours, minutes = divmod(minutes, 60)
    return " ".join(
        part for part in (f"{hours} h" if hours else "", f"{minutes} min" if minutes else "") if part
    )
