"""Foreign text made fit for a picture: one line, printable, no wider than its place."""

from __future__ import annotations

import unicodedata

ELLIPSIS = "…"
UNPRINTABLE = "\ufffd"


def one_line(text: str) -> str:
    """Return text on one line, each character that is not printable as U+FFFD.

    These are the control characters that XML 1.0 (section 2.2) does not allow, lone surrogates, and what changes
    the direction of the text around it.
    """
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else UNPRINTABLE for letter in line)


def shorten(text: str, columns: int, *, keep_end: bool = False) -> str:
    """Return text no wider than a number of columns of a fixed-width font, with an ellipsis for what is cut off.

    Args:
        columns: at least 1.
        keep_end: cut the beginning off, not the end: for names, of which the end tells more.
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
    """Return how many columns a text takes (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "FW" else 1
        for letter in text
    )
