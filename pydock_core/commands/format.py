"""How output is laid out: columns, sizes, times, and the ``--format`` option."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydock_core.commands.context import Context
from pydock_core.engine.spans import human_duration
from pydock_core.printable import json_text, printable

Record = Mapping[str, Any]
"""One row of a listing, by field name; a value may be a callable of no arguments, called when it is shown."""


@dataclass(frozen=True, slots=True)
class Method:
    """A field of a record that a template gives an argument: ``{{.Label "key"}}``.  JSON does not have it."""

    call: Callable[[str], str]


_LEAST_WIDTH = 7
"""Of a column, without the space between two: a cell of Docker's tables has at least ten characters."""


def describe_age(created: float) -> str:
    """Return how long ago a moment was (seconds since the epoch): "5 minutes ago"; "" where it is not known (0)."""
    return f"{human_duration(time.time() - created)} ago" if created > 0 else ""


def time_of(created: float) -> str:
    """Return a moment (seconds since the epoch) in local time, as Go prints it: "2026-01-31 12:00:00 +0000 UTC"."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created))


def shorten(text: str, width: int) -> str:
    """Return at most ``width`` characters of a text, the last of them an ellipsis where it was longer."""
    return text if len(text) <= width else text[: width - 1] + "…"


def write_columns(context: Context, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table: the front end's own if it has one, else columns three spaces apart, as Docker has them."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if context.table is not None:
        context.table(headers, rows)
        return
    # Not by a library: tabulate takes longer to load than all the rest of a listing.
    lines = [headers, *rows]
    widths = [max(_LEAST_WIDTH, *map(_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True))
        context.print("   ".join(cells).rstrip())


def _width(text: str) -> int:
    """How many columns of a terminal a text takes (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    import unicodedata  # late: rare

    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "FW" else 1
        for letter in text
    )


def write_listing(
    context: Context,
    records: Sequence[Record],
    columns: Sequence[tuple[str, str]],
    template: str | None,
    headers: Mapping[str, str],
) -> None:
    """Write a listing as ``--format`` asks: table (the default), json (a line each), or a template per record.

    Args:
        columns: (header, field) of the default table.
        template: the option's value.
        headers: header of each field, for "table TEMPLATE".
    """
    if template in (None, "", "table"):
        write_columns(
            context,
            [header for header, _ in columns],
            [[_text(record[name]) for _, name in columns] for record in records],
        )
        return
    if template == "json":
        for record in records:
            shown = {key: _value(value) for key, value in record.items() if not isinstance(value, Method)}
            context.print(json_text(shown, separators=(",", ":"), sort_keys=True))
        return
    from pydock_core.commands.template import Template

    assert template is not None
    if template.startswith("table "):
        body = Template(template.removeprefix("table ").strip())
        # As Docker does it: the headers are one more record, so that conditions and functions work on them too.
        shown_headers: dict[str, Any] = {
            name: name.upper() for name in (records[0] if records else ())
        } | dict(headers)
        methods = [
            name for name, value in (records[0] if records else {}).items() if isinstance(value, Method)
        ]
        shown_headers |= dict.fromkeys(methods, Method(_method_header))
        titles = body.render(shown_headers).split("\t")
        rows = [body.render(record).split("\t") for record in records]
        width = max(len(row) for row in (titles, *rows))
        padded = [row + [""] * (width - len(row)) for row in (titles, *rows)]
        write_columns(context, padded[0], padded[1:])
        return
    # Only what the fields hold is made fit: the template is the caller's own, colours and all.
    compiled = Template(template, context.shown)
    for record in records:
        context.stdout.write(compiled.render(record) + "\n")


def write_documents(context: Context, documents: Sequence[Any], template: str | None) -> None:
    """Write the result of an inspect: an indented JSON list, or a template per document."""
    if template in (None, "", "json"):
        indent = None if template == "json" else 4
        context.print(json_text(documents, indent=indent))
        return
    from pydock_core.commands.template import Template

    assert template is not None
    compiled = Template(template, context.shown)
    for document in documents:
        context.stdout.write(compiled.render(document) + "\n")


def write_fields(
    context: Context, document: Mapping[str, Any], template: str | None, plain: Callable[[], str]
) -> None:
    """Write one document: ``plain`` text, json, or a template."""
    if template in (None, ""):
        context.print(plain())
    elif template == "json":
        context.print(json_text(document))
    else:
        write_documents(context, [document], template)


def _method_header(argument: str) -> str:
    """The header of a label's column, as Docker has it: "com.example.web-server" gives "WEB SERVER"."""
    return argument.rpartition(".")[2].replace("-", " ").replace("_", " ").upper()


def _value(value: Any) -> Any:
    return value() if callable(value) else value


def _text(value: Any) -> str:
    return str(_value(value))
