"""A subset of Go's text/template, for ``--format``.

Supported: fields and chains (``.State.Status``, ``$x.Name``), ``index``, ``json``, ``upper``, ``lower``, ``title``,
``join``, ``split``, ``len``, ``print``, ``println``, ``printf`` (%s %d %v %q), ``truncate``, ``pad``, ``eq`` ``ne``
``lt`` ``le`` ``gt`` ``ge``, ``and`` ``or`` ``not``, pipelines, parentheses and a field of their value, methods
(``.Label "key"``), ``if``/``else if``/``else``, ``range`` with ``break`` and ``continue``, ``with``, ``end``,
variables (``:=`` and ``=``), comments and trim markers. Not supported: ``define``, ``template``, ``block``, ``call``,
``html``, ``js``, ``urlquery``.  The source of the rules is the documentation of Go's text/template and of ``docker
--format``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydock_core.commands.record import Method
from pydock_core.commands.template_functions import FUNCTIONS, Nil, shown_value
from pydock_core.errors import InvalidError

_ACTION = re.compile(
    r"""\{\{(-\s)?((?:/\*.*?\*/|"(?:\\.|[^"\\])*"|`[^`]*`|(?!\}\})[^"`])*?)(\s-)?\}\}""", re.DOTALL
)
_DECLARATION = re.compile(r"\s*(\$\w+)(?:\s*,\s*(\$\w+))?\s*(:?=)\s*(.*)", re.DOTALL)
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
"""The characters of the single-letter escapes."""

Node = Callable[["_Scope", list[str]], None]
Expression = Callable[["_Scope"], Any]


class _Scope:
    """The dot, and the variables of a block and its enclosing blocks."""

    def __init__(self, dot: Any, variables: dict[str, Any], outer: _Scope | None = None) -> None:
        self.dot = dot
        self.variables = variables
        self._outer = outer

    def inner(self, dot: Any) -> _Scope:
        return _Scope(dot, {}, self)

    def holder(self, name: str) -> dict[str, Any] | None:
        """Return the innermost scope's variables that include a name."""
        scope: _Scope | None = self
        while scope is not None and name not in scope.variables:
            scope = scope._outer
        return None if scope is None else scope.variables


class _Leave(Exception):
    """``break``, or with ``goes_on`` ``continue``."""

    def __init__(self, *, goes_on: bool) -> None:
        self.goes_on = goes_on


class Template:
    """A compiled template.

    Args:
        text: the template; outside of its actions, ``\\t`` and ``\\n`` written with a backslash become a tab and a line
            break, as in Docker.
        shown: converts the value of an action before it is written.

    Raises:
        InvalidError: the template does not parse; the message quotes the place.
    """

    def __init__(self, text: str, shown: Callable[[str], str] = str) -> None:
        self.text = text
        self._shown = shown
        self._tokens = [
            (kind, part.replace("\\t", "\t").replace("\\n", "\n") if kind == "text" else part)
            for kind, part in _split(text)
        ]
        self._position = 0
        self._range_depth = 0
        self._body, ended = self._block(())
        if ended:
            raise _bad(text, f"unexpected {{{{{ended}}}}}")

    def render(self, data: Any) -> str:
        """Return the text for ``data`` (dictionaries, lists, strings, numbers).

        Raises:
            InvalidError: a field is missing.
        """
        parts: list[str] = []
        scope = _Scope(data, {"$": data})
        for node in self._body:
            node(scope, parts)
        return "".join(parts)

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
            elif text in ("break", "continue"):
                if not self._range_depth:
                    raise _bad(self.text, f"{text} outside of a range")
                nodes.append(_leave_node(goes_on=text == "continue"))
            else:
                nodes.append(self._output(text))
        if enders:
            raise _bad(
                self.text, "a block has no {{end}}", "each {{if}}, {{range}} and {{with}} needs its {{end}}"
            )
        return nodes, ""

    def _control(self, word: str, text: str) -> Node:
        names: list[str] = []
        if match := _DECLARATION.match(text):
            names = [name for name in match.group(1, 2) if name]
            text = match[4]
            if match[3] == "=" or (len(names) > 1 and word != "range"):
                raise _bad(self.text, f"{word}: cannot read {match[0].strip()!r}")
        condition = _Expressions(self.text, text).pipeline()
        self._range_depth += word == "range"
        body, ended = self._block(("end", "else"))
        self._range_depth -= word == "range"
        otherwise: list[Node] = []
        if ended.startswith("else"):
            following, _, tail = ended[4:].strip().partition(" ")
            if following in ("if", "with"):
                otherwise = [self._control(following, tail)]
            elif following:
                raise _bad(self.text, f"unexpected {following!r} behind else")
            else:
                otherwise, ended = self._block(("end",))
        if word == "range":
            return _range_node(self.text, condition, names, body, otherwise)

        def node(scope: _Scope, out: list[str]) -> None:
            value = condition(scope)
            inner = scope.inner(value if word == "with" and value else scope.dot)
            for name in names:
                inner.variables[name] = value
            for child in body if value else otherwise:
                child(inner, out)

        return node

    def _output(self, text: str) -> Node:
        match = _DECLARATION.match(text)
        if match and not match[2]:
            return _assign_node(
                self.text, match[1], _Expressions(self.text, match[4]).pipeline(), declares=match[3] == ":="
            )
        expression = _Expressions(self.text, text).pipeline()
        shown = self._shown
        return lambda scope, out: out.append(shown(shown_value(expression(scope))))


def _text_node(text: str) -> Node:
    return lambda scope, out: out.append(text)


def _leave_node(*, goes_on: bool) -> Node:
    def node(scope: _Scope, out: list[str]) -> None:
        raise _Leave(goes_on=goes_on)

    return node


def _assign_node(template: str, name: str, value: Expression, *, declares: bool) -> Node:
    def node(scope: _Scope, out: list[str]) -> None:
        holder = scope.variables if declares else scope.holder(name)
        if holder is None:
            raise _bad(template, f"variable {name} is not defined")
        holder[name] = value(scope)

    return node


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
            pairs = sorted(value.items())  # Go iterates over a map in the order of its keys
        elif isinstance(value, (list, tuple)):
            pairs = list(enumerate(value))
        elif value is None or isinstance(value, Nil):
            pairs = []
        else:
            raise _bad(template, f"range: {shown_value(value)!r} is neither a list nor a map")
        for key, item in pairs:
            inner = scope.inner(item)
            if names:
                inner.variables[names[-1]] = item
                if len(names) == 2:
                    inner.variables[names[0]] = key
            try:
                for child in body:
                    child(inner, out)
            except _Leave as leave:
                if not leave.goes_on:
                    return
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
        raise _bad(text, "an action is not closed", "each {{ needs its }}, as in '{{.Name}}'")
    rest = rest.lstrip() if trim_next else rest
    if rest:
        yield "text", rest


class _Expressions:
    """Parser of one action's expression."""

    def __init__(self, template: str, text: str) -> None:
        self._template = template
        self._tokens: list[tuple[str, str]] = []
        self._chained: set[int] = set()
        """Positions of fields directly after a parenthesis: ``(index .Ports 0).HostPort``, not ``(…) .HostPort``."""
        position = 0
        text = text.strip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if not match or match.end() == position:
                raise _bad(template, f"cannot read {text[position:].strip()!r}")
            kind = str(match.lastgroup)
            if (
                match[kind].startswith(".")
                and match.start(kind) == position
                and text[position - 1 : position] == ")"
            ):
                self._chained.add(len(self._tokens))
            self._tokens.append((kind, match[kind]))
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
            function = FUNCTIONS.get(text)
            if function is None:
                known = ", ".join(sorted(FUNCTIONS))
                raise _bad(self._template, f"function {text!r} is not defined", f"there are {known}")
            self._position += 1
            arguments = self._arguments(piped)
            if text in ("and", "or"):
                return self._until(text, arguments)

            def call(scope: _Scope) -> Any:
                try:
                    return function(*(argument(scope) for argument in arguments))
                except (TypeError, ValueError, AttributeError, LookupError, MemoryError) as error:
                    raise _bad(self._template, f"{text}: {error}") from error

            return call
        if not kind:
            raise _bad(self._template, "a value is missing")
        if kind != "field" and piped is not None:
            raise _bad(self._template, f"{text} is not a function")
        value = self._operand()
        return self._method(text, value, self._arguments(piped)) if kind == "field" else value

    def _arguments(self, piped: Expression | None) -> list[Expression]:
        arguments: list[Expression] = []
        while self._peek()[0] and self._peek() not in (("sign", "|"), ("sign", ")")):
            arguments.append(self._operand())
        return arguments if piped is None else [*arguments, piped]

    def _until(self, word: str, arguments: Sequence[Expression]) -> Expression:
        """Evaluate ``and`` or ``or`` up to the deciding argument (Go 1.18)."""
        if not arguments:
            raise _bad(self._template, f"{word}: a value is missing")

        def get(scope: _Scope) -> Any:
            value: Any = None
            for argument in arguments:
                value = argument(scope)
                if bool(value) == (word == "or"):
                    break
            return value

        return get

    def _method(self, text: str, value: Expression, arguments: Sequence[Expression]) -> Expression:
        """Read a field, or call a method with its arguments."""

        def get(scope: _Scope) -> Any:
            found = value(scope)
            if isinstance(found, Method) and len(arguments) == 1:
                return found.call(str(arguments[0](scope)))
            if isinstance(found, Method) or arguments:
                problem = "needs one argument" if isinstance(found, Method) else "takes no arguments"
                raise _bad(self._template, f"{text} {problem}")
            return found

        return get

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
                raise _bad(self._template, "a parenthesis is not closed", "each ( needs its )")
            self._position += 1
            while self._position in self._chained:
                expression = self._members(expression, self._peek()[1].split(".")[1:])
                self._position += 1
            return expression
        raise _bad(self._template, f"unexpected {text!r}" if text else "a value is missing")

    def _unquoted(self, text: str) -> str:
        """Return the text of a literal in double quotes (the Go specification, "String literals")."""
        if not _LITERAL.fullmatch(text):
            raise _bad(self._template, f"cannot read {text}")
        return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1]) or chr(int(match[1][1:], 16)), text[1:-1])

    def _field(self, text: str) -> Expression:
        template = self._template
        head, *names = text.split(".") if text != "." else ("",)

        def get(scope: _Scope) -> Any:
            holder = scope.holder(head) if head else None
            if head and holder is None:
                raise _bad(template, f"variable {head} is not defined")
            return scope.dot if holder is None else holder[head]

        return self._members(get, [name for name in names if name])

    def _members(self, value: Expression, names: Sequence[str]) -> Expression:
        template = self._template

        def get(scope: _Scope) -> Any:
            found = value(scope)
            for name in names:
                found = _member(template, found, name)
            return found

        return get if names else value


_NIL = dict.fromkeys(("Cmd", "Entrypoint", "Env", "OnBuild", "RepoDigests", "RepoTags", "Shell"), "[]")
_NIL |= dict.fromkeys(("ExposedPorts", "Labels", "Volumes"), "map[]") | {"Healthcheck": "<nil>"}
"""Go's output for null fields of the Engine API, which have types in Go."""


def _member(template: str, value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        if name in value:
            member = value[name]
            member = member() if callable(member) else member  # but not a Method, which needs its argument
            return Nil(_NIL[name]) if member is None and name in _NIL else member
        raise _bad(template, f"no field .{name}; there are {', '.join(sorted(map(str, value)))[:300]}")
    if value is None or isinstance(value, Nil):
        return None
    raise _bad(template, f"no field .{name} in {type(value).__name__}")


def _bad(template: str, what: str, hint: str = "") -> InvalidError:
    return InvalidError(
        f"bad --format {template!r}: {what}", hint or "the fields are those that --format '{{json .}}' shows"
    )
