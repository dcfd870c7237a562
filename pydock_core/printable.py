"""Text of others (an image's, a registry's, a file's name) made fit for a terminal."""

from __future__ import annotations

import re

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text with a space for each character that a terminal obeys instead of showing it.

    Those are control characters, line separators and what turns the direction of writing (Unicode Standard Annex 9).
    Half a surrogate pair, which is no character, becomes a question mark.
    """
    return text if text.isprintable() else _UNSEEN.sub(" ", text).encode("utf-8", "replace").decode("utf-8")
