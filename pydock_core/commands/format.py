"""The layout of output: columns, JSON, and the templates of the option ``--format``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydock_core.commands.context import Context
from pydock_core.commands.record import Method, Record, field_value
from pydock_core.printable import json_text, printable

_LEAST_WIDTH = 7
"""The least width of a column without the gap: a cell of Docker's tables has at least ten characters."""


def write_columns(
    context: Context,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    least_width: int = _LEAST_WIDTH,
) -> None:
    """Write a table: the front end's own if it has one, else columns with three spaces between them, as in Docker.

    Args:
        least_width: minimum width of a column, without the gap.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    if context.table is not None:
        context.table(headers, rows)
        return
    # Without a library: tabulate takes longer to load than the rest of a listing.
    lines = [headers, *rows]
    widths = [max(least_width, *map(_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True))
        context.print("   ".join(cells).rstrip())


def _width(text: str) -> int:
    """Return the width of a text on a terminal (Unicode Standard Annex 11)."""
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
    """Write a listing by the option ``--format``: table (the default), json (one line per record), or a template.

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
            document = {
                key: field_value(value) for key, value in record.items() if not isinstance(value, Method)
            }
            context.print(json_text(document, separators=(",", ":"), sort_keys=True))
        return
    from pydock_core.commands.template import Template

    assert template is not None
    if template.startswith("table "):
        body = Template(template.removeprefix("table ").strip())
        # As in Docker, the headers are one more record, so that conditions and functions apply to them too.
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
    # Only the fields' values are made printable: the template is the caller's own, with its colours.
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
    """Return the header of a label's column, as in Docker: "WEB SERVER" for "com.example.web-server"."""
    return argument.rpartition(".")[2].replace("-", " ").replace("_", " ").upper()


def _text(value: Any) -> str:
    return str(field_value(value))
