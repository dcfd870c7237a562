"""Expands and splits the line after ``%dock``.  Pure.

First, ``{expression}`` and ``$name`` expand to values of the notebook as in IPython's magics
(IPython.utils.text.DollarFormatter).  There are three differences, because the line also holds a container's command:
an expression that cannot be evaluated stays without affecting the rest of the line; Go templates (``{{.Names}}``) stay;
braces of a shell or of awk (``{a,b}``, ``{print}``) stay.

Then :mod:`shlex` splits the line; no shell runs.  ``$(pwd)``, ``$NAME`` and ``${NAME}`` of the environment, and ``~``
expand as in a shell (not between single quotes), each to one word.  Any other command substitution is refused.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from string import Formatter
from typing import Any

from pydock_core.errors import InvalidError

_NAME = re.compile(r"[A-Za-z_]\w*")
_ATTRIBUTES = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_EXPRESSION_START = re.compile(r"[A-Za-z_(\[\d'\"]")
_JSON_KEY = re.compile(r"""["'][^"']*["']\s*:""")
_BRACE_EXPANSION = re.compile(r"[\w./-]*(?:,[\w./-]*)+|-?\w+\.\.-?\w+")
_TILDE = re.compile(r"~[\w.-]*(?=/|:|\s|$)")
_NEEDS_ESCAPE = re.compile(r"([^\w@%+=:,./-])")


class _EvaluatingFormatter(Formatter):
    """Evaluates the fields of a format string as Python expressions, as IPython's FullEvalFormatter does."""

    def get_field(self, field_name: str, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        return eval(field_name, {}, dict(kwargs)), field_name


def expand_names(line: str, namespace: Mapping[str, Any]) -> str:
    """Replace ``{expression}``, ``$name`` and ``${name}`` by values of the notebook.

    Attributes may follow ``$name`` (``$data.path``).  Between single quotes it does not expand; ``$$name`` is a
    literal ``$name``.  Names that ``namespace`` lacks stay.
    """
    out: list[str] = []
    index = 0
    quote = ""
    while index < len(line):
        char = line[index]
        if char == "\\" and quote != "'":
            out.append(line[index : index + 2])
            index += 2
            continue
        if char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        elif char == "{":
            text, index = _expand_brace(line, index, namespace)
            out.append(text)
            continue
        elif line.startswith("${", index) and quote == "'":  # for the container's shell
            out.append("${")
            index += 2
            continue
        elif char == "$" and quote != "'":
            text, index = _expand_dollar(line, index, namespace)
            out.append(text)
            continue
        out.append(char)
        index += 1
    return "".join(out)


def _expand_brace(line: str, start: int, namespace: Mapping[str, Any]) -> tuple[str, int]:
    """Return the expansion of the brace at ``start``, and the index after it."""
    if line.startswith("{{", start):
        end = line.find("}}", start)
        return (line[start : end + 2], end + 2) if end >= 0 else ("{{", start + 2)
    end = _closing_brace(line, start)
    if end < 0:
        return "{", start + 1
    inner = line[start + 1 : end]
    name = _NAME.fullmatch(inner)
    if name and inner not in namespace:  # awk's {print} is not the builtin
        return "{", start + 1
    if not _EXPRESSION_START.match(inner) or _JSON_KEY.match(inner) or _BRACE_EXPANSION.fullmatch(inner):
        return "{", start + 1
    try:
        return _EvaluatingFormatter().vformat(line[start : end + 1], (), namespace), end + 1
    except Exception:  # noqa: BLE001  # a user's expression may raise anything
        return "{", start + 1


def _closing_brace(line: str, start: int) -> int:
    depth = 0
    for index in range(start, len(line)):
        depth += {"{": 1, "}": -1}.get(line[index], 0)
        if depth == 0:
            return index
    return -1


def _expand_dollar(line: str, start: int, namespace: Mapping[str, Any]) -> tuple[str, int]:
    """Return the expansion of the dollar sign at ``start``, and the index after it."""
    if line.startswith("$$", start) and (escaped := _ATTRIBUTES.match(line, start + 2)):
        return line[start + 1 : escaped.end()], escaped.end()
    if line.startswith("${", start):
        name = _NAME.match(line, start + 2)
        if name and line.startswith("}", name.end()):
            known = name.group() in namespace
            return str(namespace[name.group()]) if known else line[start : name.end() + 1], name.end() + 1
        return "${", start + 2
    path = _ATTRIBUTES.match(line, start + 1)
    if path is None:
        return "$", start + 1
    root, *attributes = path.group().split(".")
    if root not in namespace:
        return line[start : start + 1 + len(root)], start + 1 + len(root)
    value: Any = namespace[root]
    end = start + 1 + len(root)
    for attribute in attributes:
        if not hasattr(value, attribute):  # "$name.txt": the rest is text
            break
        value = getattr(value, attribute)
        end += 1 + len(attribute)
    return str(value), end


def split_words(line: str, environ: Mapping[str, str], directory: str) -> list[str]:
    """Split a line as a POSIX shell does, with ``directory`` as the working directory.

    Raises:
        InvalidError: a quotation is open at the end, or a command substitution is not ``$(pwd)``.
    """
    try:
        return shlex.split(_expand_shell(line, environ, directory))
    except ValueError as error:
        raise InvalidError(
            f"%dock: {str(error).lower()}: {line}",
            "close the quotation, or escape the quote with a backslash",
        ) from error


def _expand_shell(line: str, environ: Mapping[str, str], directory: str) -> str:
    """Expand as a shell does, escaping each value so that :func:`shlex.split` keeps it in its word."""
    out: list[str] = []
    index = 0
    quote = ""
    at_word_start = True
    while index < len(line):
        char = line[index]
        value: str | None = None
        end = index + 1
        if char == "\\" and quote != "'":
            end = index + 2
        elif char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        elif char in "$`" and quote != "'":
            value, end = _shell_value(line, index, environ, directory)
        elif char == "~" and at_word_start and not quote and (tilde := _TILDE.match(line, index)):
            home = environ.get("HOME") if tilde.group() == "~" else None
            value, end = home or os.path.expanduser(tilde.group()), tilde.end()
        out.append(line[index:end] if value is None else _escape(value, quote))
        at_word_start = char.isspace() and not quote
        index = end
    return "".join(out)


def _shell_value(line: str, start: int, environ: Mapping[str, str], directory: str) -> tuple[str | None, int]:
    """Return the value of the substitution at ``start``, None if it stays, and the index after it."""
    for opening, closing in (("$(", ")"), ("`", "`")):
        if not line.startswith(opening, start):
            continue
        end = line.find(closing, start + len(opening))
        command = line[start + len(opening) : end].strip() if end >= 0 else line[start:]
        if end < 0 or command not in ("pwd", "pwd -P", "pwd -L"):
            raise InvalidError(
                f"%dock: {command!r} needs a shell, and a cell does not run one",
                "compute it in Python and write {name}, or use single quotes to pass it to the container",
            )
        return directory, end + len(closing)
    if line.startswith("${", start):
        name = _NAME.match(line, start + 2)
        end = name.end() + 1 if name and line.startswith("}", name.end()) else -1
    else:
        name = _NAME.match(line, start + 1)
        end = name.end() if name else -1
    if name is None or end < 0:
        return None, start + 1
    if name.group() == "PWD":  # the environment has that of the kernel's parent
        return directory, end
    return environ.get(name.group()), end


def _escape(value: str, quote: str) -> str:
    if quote:
        return re.sub(r'(["\\])', r"\\\1", value)
    return _NEEDS_ESCAPE.sub(r"\\\1", value)
