"""A subset of Go's text/template, for ``--format``.

What there is: fields and chains (``.State.Status``, ``$x.Name``), ``index``, ``json``, ``upper``, ``lower``,
``title``, ``join``, ``split``, ``len``, ``print``, ``println``, ``printf`` (%s %d %v %q), ``truncate``, ``pad``,
``eq`` ``ne`` ``lt`` ``le`` ``gt`` ``ge``, ``and`` ``or`` ``not``, pipelines, ``if``/``else if``/``else``, ``range``,
``with``, ``end``, variables (``:=``), comments and trim markers.  The source of the rules is the documentation of Go's
text/template and of ``docker --format``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydock_core.errors import InvalidError
from pydock_core.printable import json_text

_ACTION = re.compile(r"\{\{(- )?(.*?)( -)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)
    | (?P<number>-?\d+(?:\.\d+)?)
    | (?P<field>\$?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|\$(?:[A-Za-z_]\w*)?(?:\.\w+)*|(?:\.[A-Za-z_]\w*)+|\.)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<sign>:=|[|(),])
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r'\\([abfnrtv\\"]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})')
_LITERAL = re.compile(rf'"(?:[^"\\\n]|{_ESCAPE.pattern})*"')
_ESCAPES = {**dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True)), "\\": "\\", '"': '"'}
"""What stands for a single character behind a backslash."""

Node = Callable[["_Scope", list[str]], None]
Expression = Callable[["_Scope"], Any]


class _Scope:
    """The dot and the variables."""

    def __init__(self, dot: Any, variables: dict[str, Any]) -> None:
        self.dot = dot
        self.variables = variables

    def inner(self, dot: Any) -> _Scope:
        return _Scope(dot, dict(self.variables))


class Template:
    """A compiled template.

    Args:
        text: the template; outside of its actions, ``\\t`` and ``\\n`` written with a backslash become a tab and a line
            break, as docker has it.
        shown: what the value of an action becomes before it is written.

    Raises:
        InvalidError: the template does not parse; the message says where.
    """

    def __init__(self, text: str, shown: Callable[[str], str] = str) -> None:
        self.text = text
        self._shown = shown
        self._tokens = [
            (kind, part.replace("\\t", "\t").replace("\\n", "\n") if kind == "text" else part)
            for kind, part in _split(text)
        ]
        self._position = 0
        self._body, ended = self._block(())
        if ended:
            raise _bad(text, f"unexpected {{{{{ended}}}}}")

    def render(self, data: Any) -> str:
        """Return the text for ``data`` (dictionaries, lists, strings, numbers).

        Raises:
            InvalidError: a field is not there.
        """
        parts: list[str] = []
        scope = _Scope(data, {"$": data})
        for node in self._body:
            node(scope, parts)
        return "".join(parts)

    def fields(self) -> list[str]:
        """The top-level fields in the order in which they are used (for a table's header)."""
        return re.findall(
            r"\.([A-Za-z]\w*)", " ".join(text for kind, text in self._tokens if kind == "action")
        )

    # -- parsing ---------------------------------------------------------------------------------------

    def _block(self, enders: Sequence[str]) -> tuple[list[Node], str]:
        nodes: list[Node] = []
        while self._position < len(self._tokens):
            kind, text = self._tokens[self._position]
            self._position += 1
            if kind == "text":
                nodes.append(_text_node(text))
                continue
            word = text.split(None, 1)[0] if text.strip() else ""
            if word in ("end", "else"):
                if not enders:
                    raise _bad(self.text, f"unexpected {word}")
                return nodes, text
            if text.startswith("/*"):
                continue
            if word in ("if", "range", "with"):
                nodes.append(self._control(word, text[len(word) :]))
            else:
                nodes.append(self._output(text))
        if enders:
            raise _bad(self.text, "a block has no {{end}}")
        return nodes, ""

    def _control(self, word: str, text: str) -> Node:
        names: list[str] = []
        if word == "range" and ":=" in text:
            declared, text = text.split(":=", 1)
            names = [name.strip() for name in declared.split(",")]
        condition = _Expressions(self.text, text).pipeline()
        body, ended = self._block(("end", "else"))
        otherwise: list[Node] = []
        if ended.startswith("else"):
            tail = ended[4:].strip()
            if tail.startswith("if"):
                otherwise = [self._control("if", tail[2:])]
            else:
                otherwise, ended = self._block(("end",))
        if word == "range":
            return _range_node(self.text, condition, names, body, otherwise)

        def node(scope: _Scope, out: list[str]) -> None:
            value = condition(scope)
            inner = scope.inner(value) if word == "with" and value else scope
            for child in body if value else otherwise:
                child(inner, out)

        return node

    def _output(self, text: str) -> Node:
        match = re.match(r"\s*(\$\w+)\s*:?=\s*(.*)", text, re.DOTALL)
        if match:
            name, value = match.group(1), _Expressions(self.text, match.group(2)).pipeline()
            return lambda scope, out: scope.variables.__setitem__(name, value(scope))
        expression = _Expressions(self.text, text).pipeline()
        shown = self._shown
        return lambda scope, out: out.append(shown(_shown(expression(scope))))


def _text_node(text: str) -> Node:
    return lambda scope, out: out.append(text)


def _range_node(
    template: str,
    condition: Expression,
    names: Sequence[str],
    body: Sequence[Node],
    otherwise: Sequence[Node],
) -> Node:
    def node(scope: _Scope, out: list[str]) -> None:
        value = condition(scope)
        pairs: list[tuple[Any, Any]]
        if isinstance(value, Mapping):
            pairs = sorted(value.items())  # Go visits a map's elements in the order of their keys
        elif isinstance(value, (list, tuple)):
            pairs = list(enumerate(value))
        elif value is None or isinstance(value, _Nil):
            pairs = []
        else:
            raise _bad(template, f"range: {_shown(value)!r} is neither a list nor a map")
        for key, item in pairs:
            inner = scope.inner(item)
            if names:
                inner.variables[names[-1]] = item
                if len(names) == 2:
                    inner.variables[names[0]] = key
            for child in body:
                child(inner, out)
        if not pairs:
            for child in otherwise:
                child(scope, out)

    return node


def _split(text: str) -> Iterator[tuple[str, str]]:
    """Yield ("text", …) and ("action", …) with Go's trim markers applied."""
    position = 0
    trim_next = False
    for match in _ACTION.finditer(text):
        before = text[position : match.start()]
        before = before.lstrip() if trim_next else before
        before = before.rstrip() if match.group(1) else before
        if before:
            yield "text", before
        yield "action", match.group(2).strip()
        trim_next = bool(match.group(3))
        position = match.end()
    rest = text[position:]
    if "{{" in rest:
        raise _bad(text, "an action is not closed")
    rest = rest.lstrip() if trim_next else rest
    if rest:
        yield "text", rest


class _Expressions:
    """Parser of one action's expression."""

    def __init__(self, template: str, text: str) -> None:
        self._template = template
        self._tokens: list[tuple[str, str]] = []
        position = 0
        text = text.strip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if not match or match.end() == position:
                raise _bad(template, f"cannot read {text[position:].strip()!r}")
            self._tokens.append((str(match.lastgroup), match.group(str(match.lastgroup))))
            position = match.end()
        self._position = 0

    def pipeline(self) -> Expression:
        expression = self._pipeline()
        if self._position < len(self._tokens):
            raise _bad(self._template, f"unexpected {self._tokens[self._position][1]!r}")
        return expression

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._position] if self._position < len(self._tokens) else ("", "")

    def _pipeline(self) -> Expression:
        expression = self._command(None)
        while self._peek() == ("sign", "|"):
            self._position += 1
            expression = self._command(expression)
        return expression

    def _command(self, piped: Expression | None) -> Expression:
        kind, text = self._peek()
        if kind == "word" and text not in ("true", "false", "nil"):
            function = _FUNCTIONS.get(text)
            if function is None:
                known = ", ".join(sorted(_FUNCTIONS))
                raise _bad(self._template, f"function {text!r} is not defined", f"there are {known}")
            self._position += 1
            arguments: list[Expression] = []
            while self._peek()[0] and self._peek() not in (("sign", "|"), ("sign", ")")):
                arguments.append(self._operand())
            if piped is not None:
                arguments.append(piped)

            def call(scope: _Scope) -> Any:
                try:
                    return function(*(argument(scope) for argument in arguments))
                except (TypeError, ValueError, AttributeError, LookupError, MemoryError) as error:
                    raise _bad(self._template, f"{text}: {error}") from error

            return call
        if piped is not None or not kind:
            raise _bad(self._template, "a value is missing" if not kind else f"{text} is no function")
        return self._operand()

    def _operand(self) -> Expression:
        kind, text = self._peek()
        self._position += 1
        if kind == "string":
            value = text[1:-1] if text[0] == "`" else self._unquoted(text)
            return lambda scope: value
        if kind == "number":
            number = float(text) if "." in text else int(text)
            return lambda scope: number
        if kind == "word" and text in ("true", "false", "nil"):
            constant = {"true": True, "false": False, "nil": None}[text]
            return lambda scope: constant
        if kind == "field":
            return self._field(text)
        if (kind, text) == ("sign", "("):
            expression = self._pipeline()
            if self._peek() != ("sign", ")"):
                raise _bad(self._template, "a parenthesis is not closed")
            self._position += 1
            return expression
        raise _bad(self._template, f"unexpected {text!r}" if text else "a value is missing")

    def _unquoted(self, text: str) -> str:
        """The text that a literal between double quotes is (the Go specification, "String literals")."""
        if not _LITERAL.fullmatch(text):
            raise _bad(self._template, f"cannot read {text}")
        return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1]) or chr(int(match[1][1:], 16)), text[1:-1])

    def _field(self, text: str) -> Expression:
        template = self._template
        head, *names = text.split(".") if text != "." else ("",)
        names = [name for name in names if name]

        def get(scope: _Scope) -> Any:
            if head and head not in scope.variables:
                raise _bad(template, f"variable {head} is not defined")
            value = scope.variables[head] if head else scope.dot
            for name in names:
                value = _member(template, value, name)
            return value

        return get


_NIL = dict.fromkeys(("Cmd", "Entrypoint", "Env", "OnBuild", "RepoDigests", "RepoTags", "Shell"), "[]")
_NIL |= dict.fromkeys(("ExposedPorts", "Labels", "Volumes"), "map[]") | {"Healthcheck": "<nil>"}
"""How Go prints fields of the Engine API that are null: their types are known there."""


class _Nil:
    """A field that is null, as Go has it: false, empty, null in JSON, and printed as its type is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, _Nil)

    def __hash__(self) -> int:
        return hash(None)


def _member(template: str, value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        if name in value:
            member = value[name]
            member = member() if callable(member) else member
            return _Nil(_NIL[name]) if member is None and name in _NIL else member
        raise _bad(template, f"no field .{name}; there are {', '.join(sorted(map(str, value)))[:300]}")
    if value is None or isinstance(value, _Nil):
        return None
    raise _bad(template, f"no field .{name} in {type(value).__name__}")


def _shown(value: Any) -> str:
    """A value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, _Nil):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{_shown(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(_shown(item) for item in value) + "]"
    return str(value)


_NUMBERS: dict[str, Callable[[Any], float]] = {"d": int, "x": int, "f": float}
"""The verbs of printf that print numbers."""


def _printf(pattern: str, *values: Any) -> str:
    remaining = iter(values)

    def one(match: re.Match[str]) -> str:
        verb = match.group(2)
        if verb == "%":
            return "%"
        try:
            value = next(remaining)
        except StopIteration:
            raise ValueError(f"no value is given for {match[0]}") from None
        if verb in _NUMBERS:
            return f"%{match.group(1)}{verb}" % _NUMBERS[verb](value)
        return f"%{match.group(1)}s" % (json.dumps(value) if verb == "q" else _shown(value))

    return re.sub(r"%([-+0]*\d*(?:\.\d+)?)([sdvqtfx%])", one, pattern)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None or isinstance(value, _Nil):
            return None
        value = value.get(key, "") if isinstance(value, Mapping) else value[key]
    return value


def _slice(value: Any, *bounds: int) -> Any:
    """Go's ``value[low:high]``, of a text or a list; bounds outside of it are an error there too."""
    low, high = (*bounds, *(0, len(value))[len(bounds) :])
    if not 0 <= low <= high <= len(value):
        raise ValueError(f"{low} to {high} is out of range: the length is {len(value)}")
    return value[low:high]


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda value: json_text(None if isinstance(value, _Nil) else value, separators=(",", ":")),
    "upper": lambda value: str(value).upper(),
    "lower": lambda value: str(value).lower(),
    "title": lambda value: str(value).title(),
    "join": lambda values, separator: separator.join(_shown(value) for value in values or ()),
    "split": lambda value, separator: value.split(separator),
    "len": len,
    "index": _index,
    "slice": _slice,
    "print": lambda *values: "".join(_shown(value) for value in values),
    "println": lambda *values: " ".join(_shown(value) for value in values) + "\n",
    "printf": _printf,
    "truncate": lambda value, length: str(value)[:length],
    "pad": lambda value, before, after: " " * before + str(value) + " " * after,
    "eq": lambda value, *others: any(value == other for other in others),
    "ne": lambda value, other: value != other,
    "lt": lambda value, other: value < other,
    "le": lambda value, other: value <= other,
    "gt": lambda value, other: value > other,
    "ge": lambda value, other: value >= other,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "not": lambda value: not value,
}


def _bad(template: str, what: str, hint: str = "") -> InvalidError:
    return InvalidError(
        f"bad --format {template!r}: {what}", hint or "the fields are those that --format '{{json .}}' shows"
    )
