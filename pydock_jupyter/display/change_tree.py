"""Draws the changes in a writable layer as a tree, in text and HTML.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from pydock_core.spelling import human_size
from pydock_jupyter.display.plain_text import one_line

ROWS_SHOWN = 200

MODIFIED, ADDED, DELETED = 0, 1, 2
"""The kinds of the Engine API's FilesystemChange."""
WORDS = {ADDED: "added", MODIFIED: "changed", DELETED: "deleted"}

_COLOURS = {
    ADDED: "var(--jp-success-color1,#388e3c)",
    MODIFIED: "var(--jp-warn-color1,#f57c00)",
    DELETED: "var(--jp-error-color1,#d32f2f)",
}
_MONOSPACE = "font-family:var(--jp-code-font-family,monospace)"
_FAINT = "color:var(--jp-ui-font-color2,inherit)"
_CELL = "text-align:left;padding:.1em .9em;line-height:1.5"
_INDENT_EM = 1.3


@dataclass(frozen=True, slots=True)
class Change:
    """One path of a writable layer.

    Attributes:
        path: absolute, inside the container.
        kind: MODIFIED, ADDED or DELETED.
        size_bytes: size of a regular file; None for other files or if it is unknown.
    """

    path: str
    kind: int
    size_bytes: int | None = None


@dataclass(slots=True)
class _Node:
    change: Change | None = None
    children: dict[str, _Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the tree; ``change`` is None for a directory that only leads to changes."""

    depth: int
    name: str
    change: Change | None


def build_rows(changes: Sequence[Change]) -> list[Row]:
    """Return the lines of the tree sorted by name, each directory before its entries."""
    root = _Node()
    for change in changes:
        node = root
        for part in filter(None, change.path.split("/")):
            node = node.children.setdefault(part, _Node())
        node.change = change
    return list(_walk(root))


def _walk(root: _Node) -> Iterator[Row]:
    # Iterative: directories may nest deeper than Python's recursion limit.
    pending = [(0, name, node) for name, node in sorted(root.children.items(), reverse=True)]
    while pending:
        depth, name, node = pending.pop()
        yield Row(depth, name, node.change)
        pending += [(depth + 1, name, child) for name, child in sorted(node.children.items(), reverse=True)]


def summarize(name: str, changes: Sequence[Change]) -> str:
    """Return the heading: "writable layer of NAME: 2 added, 1 deleted; 1.2kB"."""
    counts = [
        f"{number} {word}"
        for kind, word in WORDS.items()
        if (number := sum(change.kind == kind for change in changes))
    ]
    size_bytes = sum(change.size_bytes or 0 for change in changes)
    what = ", ".join(counts) + f"; {human_size(size_bytes)} in files" if counts else "empty"
    return f"writable layer of {one_line(name)}: {what}"


def draw_text(name: str, changes: Sequence[Change]) -> str:
    """Return the tree as lines of text, with Docker's letters A, C and D."""
    rows = build_rows(changes)
    lines = [summarize(name, changes)]
    for row in rows[:ROWS_SHOWN]:
        letter = WORDS[row.change.kind][0].upper() if row.change else " "
        lines.append(f"{letter} {'  ' * row.depth}{_name(row)}  {_size(row)}".rstrip())
    return "\n".join(lines + _rest(rows))


def draw_html(name: str, changes: Sequence[Change]) -> str:
    """Return the tree as an HTML table."""
    rows = build_rows(changes)
    body = "".join(map(_draw_row, rows[:ROWS_SHOWN]))
    rest = "".join(f'<div style="{_FAINT}">{text}</div>' for text in _rest(rows))
    table = (
        '<table class="pydock-changes" style="margin:.3em 0"><thead><tr>'
        f'<th scope="col" style="{_CELL}">path</th><th scope="col" style="{_CELL}">change</th>'
        f'<th scope="col" style="{_CELL};text-align:right">size</th></tr></thead><tbody>{body}</tbody></table>'
    )
    return f"<div>{escape(summarize(name, changes))}</div>{table if rows else ''}{rest}"


def _draw_row(row: Row) -> str:
    colour, word, struck = "inherit", "", ""
    if row.change:
        colour, word = _COLOURS[row.change.kind], WORDS[row.change.kind]
        struck = ";text-decoration:line-through" if row.change.kind == DELETED else ""
    badge = (
        f'<span aria-hidden="true" style="background:{colour};border-radius:50%;display:inline-block;height:8px;'
        f'margin-right:.5em;width:8px"></span>{word}'
        if word
        else ""
    )
    return (
        f'<tr><td style="{_CELL};{_MONOSPACE};overflow-wrap:anywhere;white-space:pre-wrap;'
        f'padding-left:{0.9 + _INDENT_EM * min(row.depth, 20):.1f}em{struck}">{escape(_name(row))}</td>'
        f'<td style="{_CELL}">{badge}</td>'
        f'<td style="{_CELL};{_FAINT};text-align:right;white-space:nowrap">{_size(row)}</td></tr>'
    )


def _name(row: Row) -> str:
    return ("/" if row.depth == 0 else "") + one_line(row.name)


def _size(row: Row) -> str:
    return "" if row.change is None or row.change.size_bytes is None else human_size(row.change.size_bytes)


def _rest(rows: Sequence[Row]) -> list[str]:
    more = len(rows) - ROWS_SHOWN
    return [f"… and {more} more"] if more > 0 else []
