"""Prepares untrusted text for a diagram: one line, printable, limited in width."""

from __future__ import annotations

import unicodedata

ELLIPSIS = "…"
UNPRINTABLE = "\ufffd"


def one_line(text: str) -> str:
    """Return text on one line, with U+FFFD for each unprintable character.

    These are the control characters that XML 1.0 (section 2.2) forbids, lone surrogates, and characters that change
    the direction of surrounding text.
    """
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else UNPRINTABLE for letter in line)


def shorten(text: str, columns: int, *, keep_end: bool = False) -> str:
    """Return text limited to a number of columns of a fixed-width font, with an ellipsis for the removed part.

    Args:
        columns: at least 1.
        keep_end: remove the beginning instead of the end, for names, which differ at the end.
    """
    if width(text) <= columns:
        return text
    kept: list[str] = []
    room = columns - 1
    for letter in reversed(text) if keep_end else text:
        room -= width(letter)
        if room < 0:
            break
        kept.append(letter)
    return ELLIPSIS + "".join(reversed(kept)) if keep_end else "".join(kept).rstrip() + ELLIPSIS


def width(text: str) -> int:
    """Return the width of a text in columns (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "FW" else 1
        for letter in text
    )
