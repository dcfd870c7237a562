"""Makes untrusted text (from images, registries, file names) safe for a terminal."""

from __future__ import annotations

import json
import re
from typing import Any

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text with a space for each character that a terminal obeys instead of showing it.

    Those are control characters, line separators and what turns the direction of writing (Unicode Standard Annex 9).
    Half a surrogate pair, which is no character, becomes a question mark.
    """
    return text if text.isprintable() else _UNSEEN.sub(" ", text).encode("utf-8", "replace").decode("utf-8")


def printable_line(text: str, limit_characters: int = 200) -> str:
    """Return another party's text as part of a message: one printable line, shortened to a limit."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit_characters else line[: limit_characters - 1] + "…"


def printable_lines(text: str) -> str:
    """As :func:`printable`, for text of several lines and columns: line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def json_text(value: Any, **options: Any) -> str:
    """Return JSON that a terminal shows as it is, with the meaning of the value unchanged.

    JSON itself escapes some of the characters that a terminal obeys, but not those from U+007F on (RFC 8259, section 7).

    Args:
        options: of :func:`json.dumps`.
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    if text.isascii() and "\x7f" not in text:
        return text
    # Unescaped, only an indented document's line breaks are left of those below U+0020.
    return _UNSEEN.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)
