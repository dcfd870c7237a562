"""Adds the proxy's prefix to root-absolute links in pages of applications that expect to be served at "/".

A page is rewritten as it streams.  Attributes with a URL change, and the JSON element with the base URL of JupyterLab
and Jupyter Notebook; scripts, styles, comments and text do not.  Links that are relative, name another host or have the
prefix are unchanged.  The parser follows the HTML standard's tokenizer (section 13.2.5) as far as it needs to find tags.

A rewriter cannot see the requests of a page's scripts.  Therefore it inserts a script of the proxy as the first one of
the document in a tab or frame; see shim.js.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

TAG_LIMIT_BYTES = 64 * 1024
"""A longer tag passes unchanged, so that a hostile page cannot exhaust the proxy's memory."""

CONFIG_LIMIT_BYTES = 1024 * 1024

_TAG = re.compile(rb"<[A-Za-z][^\s/>]*+(?>[^>\"']++|\"[^\"]*+\"|'[^']*+')*+>")
_TAG_NAME = re.compile(rb"<([A-Za-z][^\s/>]*)")
_ATTRIBUTE = re.compile(rb"([^\s\"'>/=]+)(\s*=\s*)(\"[^\"]*\"|'[^']*'|[^\s>\"']+)")
_URL_ATTRIBUTES = frozenset({b"action", b"data-base-url", b"formaction", b"href", b"poster", b"src"})
_ABSOLUTE = re.compile(rb"https?://([^/?#\s\"'<>]+)", re.IGNORECASE)
_CONFIG_ELEMENT = re.compile(rb"\sid\s*=\s*[\"']?jupyter-config-data[\"'\s>]", re.IGNORECASE)
_CONFIG_KEY = re.compile(r"baseUrl|full[A-Z]\w*Url")
_RAW_TEXT = {
    name: re.compile(b"</" + name, re.IGNORECASE)
    for name in (b"iframe", b"noembed", b"noframes", b"script", b"style", b"textarea", b"title", b"xmp")
}
_COMMENT_END = re.compile(b"-->")
_DECODED_PIECE_BYTES = 256 * 1024
_SPACES = b" \t\r\n\f"


class Rewriter(Protocol):
    """Transforms a body as it streams, in pieces of limited size."""

    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def close(self) -> Iterator[bytes]:
        """Yield the rest after the end of the body."""
        ...


class PageRewriter:
    """Rewrites one HTML page in an encoding that extends ASCII.

    Args:
        prefix: the application's prefix, ``/pydock/c/web/80``.
        hosts: the application's own hosts, with ports; a URL with one of them is treated like one without a host.
        first_script: an element to insert before all others, inside the head if the page has one.
    """

    def __init__(self, prefix: str, hosts: Iterable[str] = (), first_script: str = "") -> None:
        self._prefix = prefix.encode("latin-1")
        self._hosts = frozenset(host.lower().encode("latin-1", "replace") for host in hosts)
        self._first_script = first_script.encode("latin-1")
        self._pending = b""
        self._terminator: re.Pattern[bytes] | None = None  # the end of the current raw text or comment
        self._in_config = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield self._process(self._pending + data, is_last=False)

    def close(self) -> Iterator[bytes]:
        yield self._process(self._pending, is_last=True)

    def _process(self, text: bytes, *, is_last: bool) -> bytes:
        out: list[bytes] = []
        position = 0
        while position < len(text):
            if self._terminator is not None:
                after = self._pass_raw_text(text, position, out, is_last)
            else:
                after = self._pass_markup(text, position, out, is_last)
            if after is None:
                break
            position = after
        self._pending = text[position:]
        return b"".join(out)

    def _pass_raw_text(self, text: bytes, position: int, out: list[bytes], is_last: bool) -> int | None:
        """Pass text up to the terminator; return the new position, or None if more input is needed."""
        assert self._terminator is not None
        match = self._terminator.search(text, position)
        end = match.start() if match else -1
        if self._in_config:
            if end < 0 and not is_last and len(text) - position <= CONFIG_LIMIT_BYTES:
                return None
            self._in_config = False
            if end >= 0:
                out.append(rewrite_config(text[position:end], self._prefix.decode("latin-1")))
                self._terminator = None
                return end
        if end >= 0:
            self._terminator = None
        else:
            end = len(text) if is_last else max(position, len(text) - len(self._terminator.pattern) + 1)
            if end == position:
                return None
        out.append(text[position:end])
        return end

    def _pass_markup(self, text: bytes, position: int, out: list[bytes], is_last: bool) -> int | None:
        start = text.find(b"<", position)
        if start < 0:
            out.append(text[position:])
            return len(text)
        if start > position:
            out.append(text[position:start])
            return start
        if len(text) - start < 4 and not is_last:
            return None
        if text.startswith(b"<!--", start):
            out.append(b"<!--")
            self._terminator = _COMMENT_END
            return start + 4
        if not text[start + 1 : start + 2].isalpha():
            out.append(b"<")
            return start + 1
        match = _TAG.match(text, start)
        if match is None:
            if not is_last and len(text) - start <= TAG_LIMIT_BYTES:
                return None
            out.append(b"<")
            return start + 1
        tag = match[0]
        name = _TAG_NAME.match(tag)
        assert name is not None
        element = name[1].lower()
        self._terminator = _RAW_TEXT.get(element)
        if self._terminator is not None:
            self._in_config = _CONFIG_ELEMENT.search(tag) is not None
        if b"=" in tag and b"/" in tag:
            tag = _ATTRIBUTE.sub(self._rewrite_attribute, tag)
        if self._first_script and element != b"html":
            pair = (tag, self._first_script)
            tag = b"".join(pair if element == b"head" else reversed(pair))
            self._first_script = b""
        out.append(tag)
        return match.end()

    def _rewrite_attribute(self, match: re.Match[bytes]) -> bytes:
        name, equals, value = match.groups()
        if name.lower() not in _URL_ATTRIBUTES:
            return match[0]
        quote = value[:1] if value[:1] in (b'"', b"'") else b""
        url = value[1:-1] if quote else value
        stripped = url.lstrip(_SPACES)
        own = _ABSOLUTE.match(stripped)
        if own is not None and own[1].lower() in self._hosts:
            stripped = stripped[own.end() :]
            if not stripped.startswith(b"/"):
                stripped = b"/" + stripped
            is_below = stripped.startswith(self._prefix + b"/")
            return name + equals + quote + (b"" if is_below else self._prefix) + stripped + quote
        if not stripped.startswith(b"/") or stripped.startswith((b"//", b"/\\")):
            return match[0]
        if stripped == self._prefix or stripped.startswith(self._prefix + b"/"):
            return match[0]
        return name + equals + quote + self._prefix + stripped + quote


class KernelSpecRewriter:
    """Rewrites the URLs of logos in a Jupyter server's list of kernel specifications."""

    def __init__(self, prefix: str) -> None:
        self._pattern = b'"/kernelspecs/'
        self._replacement = b'"%b/kernelspecs/' % prefix.encode("latin-1")
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        text = (self._pending + data).replace(self._pattern, self._replacement)
        keep = len(self._pattern) - 1
        self._pending = text[-keep:]
        yield text[:-keep]

    def close(self) -> Iterator[bytes]:
        yield self._pending


class Decompressor:
    """Decodes gzip or deflate for another rewriter, in pieces, so that back pressure limits a decompression bomb."""

    def __init__(self, encoding: str, rewriter: Rewriter) -> None:
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | (32 if encoding == "gzip" else 0))
        self._rewriter = rewriter

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode and rewrite.

        Raises:
            zlib.error: the data do not match Content-Encoding.
        """
        while data:
            yield from self._rewriter.feed(self._zlib.decompress(data, _DECODED_PIECE_BYTES))
            data = self._zlib.unconsumed_tail

    def close(self) -> Iterator[bytes]:
        yield from self._rewriter.feed(self._zlib.flush())
        yield from self._rewriter.close()


def rewrite_config(content: bytes, prefix: str) -> bytes:
    """Add the prefix to the settings ``baseUrl`` and ``full…Url`` in the JSON of a Jupyter page.

    Other settings with a leading slash are unchanged: they are relative to the base URL or name directories.
    """
    try:
        config: dict[str, Any] = json.loads(content)
        changed = {
            key: prefix + value
            for key, value in config.items()
            if isinstance(value, str)
            and _CONFIG_KEY.fullmatch(key)
            and value.startswith("/")
            and not value.startswith("//")
            and value != prefix
            and not value.startswith(prefix + "/")
        }
    except (ValueError, AttributeError):
        return content
    if not changed:
        return content
    # "<" is escaped as in the original, so that a value cannot end the element.
    return json.dumps(config | changed).replace("<", "\\u003c").encode()


def choose_rewriter(
    path: str,
    content_type: str,
    content_encoding: str,
    prefix: str,
    *,
    hosts: Iterable[str] = (),
    first_script: str = "",
) -> Rewriter | None:
    """Return the rewriter for a response, or None if it passes unchanged; see :class:`PageRewriter`."""
    media_type, _, parameters = content_type.lower().partition(";")
    rewriter: Rewriter
    match media_type.strip():
        case "text/html" if "utf-16" not in parameters and "utf-32" not in parameters:
            rewriter = PageRewriter(prefix, hosts, first_script)
        case "application/json" if path.endswith("/api/kernelspecs"):
            rewriter = KernelSpecRewriter(prefix)
        case _:
            return None
    match content_encoding.strip().lower():
        case "" | "identity":
            return rewriter
        case "gzip" | "x-gzip":
            return Decompressor("gzip", rewriter)
        case "deflate":
            return Decompressor("deflate", rewriter)
        case _:
            return None  # not requested; the page passes unchanged
