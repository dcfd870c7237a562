"""Tables: HTML in the colours of the theme in a notebook, plain columns elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tabulate import tabulate

# Inline, because notebook sanitizers drop style elements; JupyterLab's table style adds the rest.
_CELL = "text-align:left;vertical-align:top;white-space:pre-wrap;padding:0.25em 0.9em"
_EMPTY = "color:var(--jp-ui-font-color2,#757575)"


@dataclass(frozen=True, slots=True)
class Table:
    """Headers and rows of text; each row has as many cells as there are headers."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        return cls(tuple(headers), tuple(tuple(row) for row in rows))

    def text(self) -> str:
        """Return plain columns, as ``dock`` prints them."""
        return tabulate(self.rows, self.headers, tablefmt="plain", disable_numparse=True)

    def html(self) -> str:
        """Return an HTML table; all text is escaped."""
        head = "".join(f'<th scope="col" style="{_CELL}">{escape(header)}</th>' for header in self.headers)
        body = "".join(
            "<tr>" + "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in row) + "</tr>"
            for row in self.rows
        )
        if not self.rows:
            body = f'<tr><td colspan="{len(self.headers)}" style="{_CELL};{_EMPTY}">none</td></tr>'
        return f'<table class="pydock-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html()}
