"""Makes untrusted text (from an image, a registry, a file name) safe for a terminal."""

from __future__ import annotations

import json
import re
from typing import Any

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text with a space for each character that a terminal interprets instead of displaying.

    These are control characters, line separators and bidirectional formatting (Unicode Standard Annex 9).  A lone
    surrogate becomes a question mark.
    """
    return text if text.isprintable() else _UNSEEN.sub(" ", text).encode("utf-8", "replace").decode("utf-8")


def printable_line(text: str, limit_characters: int = 200) -> str:
    """Return untrusted text for use in a message: one printable line, shortened to a limit."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit_characters else line[: limit_characters - 1] + "…"


def printable_lines(text: str) -> str:
    """Do as :func:`printable`, but keep line breaks and tabs."""
    if text.isprintable():
        return text
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def json_text(value: Any, **options: Any) -> str:
    """Return JSON that is safe for a terminal and has the same value.

    JSON escapes only some of the characters that a terminal interprets, not those from U+007F on (RFC 8259, section 7).

    Args:
        options: of :func:`json.dumps`.
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    if text.isascii() and "\x7f" not in text:
        return text
    # Below U+0020, only the line breaks of an indented document are still unescaped.
    return _UNSEEN.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)
