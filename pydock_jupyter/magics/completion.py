"""Completion of ``%dock`` lines, from the command table.

:func:`complete` is pure except for its :class:`Source`, which lists the names of existing objects.
:func:`build_matcher` turns it into an IPython matcher (API version 2, IPython 8.6 and newer), which works with and
without jedi.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydock_core.commands.table import COMMANDS, GROUPS, Argument, Command, Option, find
from pydock_jupyter.magics.invocation import OPTIONS

if TYPE_CHECKING:
    from pydock_core.engine import EngineProtocol

_MAGIC = re.compile(r"^\s*(?:[\w, ]+=\s*)?%{1,2}dock\s+")
_SIGNALS = ("HUP", "INT", "QUIT", "KILL", "TERM", "USR1", "USR2", "STOP", "CONT", "WINCH")
_RUNTIMES = ("embedded", "crun", "runc", "nvidia")


class Source(Protocol):
    """Lists the names of existing objects."""

    def containers(self, running: bool) -> Sequence[str]: ...
    def images(self) -> Sequence[str]: ...
    def networks(self) -> Sequence[str]: ...
    def volumes(self) -> Sequence[str]: ...
    def paths(self, prefix: str) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Completions:
    """Replacements for ``fragment``, the end of the typed text; the menu shows ``kind`` beside them."""

    fragment: str
    candidates: tuple[str, ...]
    kind: str


def complete(text: str, source: Source) -> Completions:
    """Complete the last word of ``text``, the part of the line between ``%dock`` and the cursor."""
    words, current = split_at_cursor(text)
    while words and words[0] in OPTIONS:
        words.pop(0)
    if not words and current.startswith("-"):
        return _among(current, OPTIONS, "option")
    if not words or words == ["help"]:
        return _among(current, _first_words(), "command")
    found = find(tuple(words))
    if found is None:
        second = sorted({path[1] for path in _paths() if len(path) == 2 and path[0] == words[0]})
        return _among(current, second if len(words) == 1 else (), "command")
    command, length = found
    state = _walk(command, words[length:])
    if state.pending is not None:
        return _value(state.pending.complete, current, source)
    if current.startswith("-") and not state.is_rest:
        flag, equals, value = current.partition("=")
        if equals:
            option = _option(command, flag)
            return _value(option.complete if option else None, value, source)
        return _among(current, _flags(command, words[length:]), "option")
    argument = state.argument
    return _value(argument.complete if argument else None, current, source)


def split_at_cursor(text: str) -> tuple[list[str], str]:
    """Return the complete words of ``text`` and the incomplete last one, both without quotes."""
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    escaped = False
    for char in text:
        if escaped:
            word = [*(word or []), char]
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif char in "'\"" and quote in ("", char):
            quote = "" if quote else char
            word = word or []
        elif char.isspace() and not quote:
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = [*(word or []), char]
    return words, "".join(word or [])


@dataclass(slots=True)
class _State:
    """The position of the cursor: after an option, at an argument, or in the container's command."""

    pending: Option | None = None
    argument: Argument | None = None
    is_rest: bool = False


def _walk(command: Command, words: Sequence[str]) -> _State:
    state = _State()
    positional = 0
    ended = False
    for word in words:
        if state.pending is not None:
            state.pending = None
        elif word == "--" and not ended:
            ended = True
        elif word.startswith("-") and word != "-" and not ended and not state.is_rest:
            state.pending = _waiting_option(command, word)
        else:
            positional += 1
            state.is_rest = ended or _argument(command, positional, "rest") is not None
    state.argument = _argument(command, positional)
    state.is_rest = state.is_rest or ended
    return state


def _argument(command: Command, index: int, count: str | None = None) -> Argument | None:
    """Return the argument at position ``index``; a repeatable last argument takes all further positions."""
    arguments = command.arguments
    if index >= len(arguments):
        last = arguments[-1] if arguments and arguments[-1].count in ("*", "+", "rest") else None
        argument = last
    else:
        argument = arguments[index]
    return argument if argument is not None and count in (None, argument.count) else None


def _waiting_option(command: Command, word: str) -> Option | None:
    """Return the option that takes the next word as its value: ``--name``, ``-p``, the last of ``-itp``."""
    if word.startswith("--"):
        option = _option(command, word)
        return option if option is not None and option.takes_value else None
    for position, letter in enumerate(word[1:], start=2):
        option = _option(command, f"-{letter}")
        if option is not None and option.takes_value:
            return option if position == len(word) else None
    return None


def _option(command: Command, flag: str) -> Option | None:
    return next((option for option in command.options if flag in option.flags), None)


def _flags(command: Command, words: Sequence[str]) -> Iterator[str]:
    for option in command.options:
        if option.many or not any(flag in words for flag in option.flags):
            yield from option.flags
    yield "--help"


def _paths() -> Iterator[tuple[str, ...]]:
    for command in COMMANDS:
        yield command.path
        yield from command.aliases


def _first_words() -> list[str]:
    return sorted({path[0] for path in _paths()} | set(GROUPS) | {"help"})


def _value(kind: str | None, current: str, source: Source) -> Completions:
    """Complete a value by its kind in the command table."""
    if kind == "container":
        return _among(current, source.containers(running=False), "container")
    if kind == "running":
        return _among(current, source.containers(running=True), "container")
    if kind == "image":
        return _among(current, source.images(), "image")
    if kind == "volume":
        return _among(current, source.volumes(), "volume")
    if kind == "copy" and ":" not in current:  # one end of cp
        names = [f"{name}:" for name in source.containers(running=False)]
        return _among(current, [*names, *source.paths(current)], "path")
    if kind == "path" and ":" not in current:  # a path after a colon is inside the container
        return _among(current, source.paths(current), "path")
    if kind == "network":
        return _among(current, source.networks(), "network")
    fixed = {"signal": _SIGNALS, "runtime": _RUNTIMES}.get(kind or "", ())
    return _among(current, fixed, kind or "value")


def _among(current: str, names: Sequence[str] | Iterator[str], kind: str) -> Completions:
    return Completions(current, tuple(name for name in names if name.startswith(current)), kind)


class EngineSource:
    """Lists names from the engine and paths from the file system; nothing if the engine fails."""

    def __init__(self, get_engine: Callable[[], EngineProtocol]) -> None:
        self._get_engine = get_engine

    def containers(self, running: bool) -> Sequence[str]:
        return self._query(
            lambda engine: [
                name.removeprefix("/")
                for item in engine.containers.list(all=not running)
                for name in item["Names"]
            ]
        )

    def networks(self) -> Sequence[str]:
        return self._query(lambda engine: [item["Name"] for item in engine.networks.list()])

    def images(self) -> Sequence[str]:
        def names(engine: EngineProtocol) -> list[str]:
            tags = [tag for item in engine.images.list() for tag in item["RepoTags"] or ()]
            return sorted({*tags, *(tag.removesuffix(":latest") for tag in tags)})

        return self._query(names)

    def volumes(self) -> Sequence[str]:
        return self._query(lambda engine: [item["Name"] for item in engine.volumes.list()])

    def paths(self, prefix: str) -> Sequence[str]:
        directory, name = os.path.split(prefix)
        try:
            entries = sorted(os.scandir(os.path.expanduser(directory) or "."), key=lambda entry: entry.name)
        except OSError:
            return []
        start = prefix[: len(prefix) - len(name)]
        return [
            start + entry.name + ("/" if entry.is_dir() else "")
            for entry in entries
            if name.startswith(".") or not entry.name.startswith(".")
        ]

    def _query(self, query: Callable[[Any], list[str]]) -> list[str]:
        try:
            return query(self._get_engine())
        except Exception:  # noqa: BLE001  # completion shows no errors; the command does
            return []


def build_matcher(source: Source) -> Callable[[Any], Any]:
    """Return a matcher for ``IPCompleter.custom_matchers``."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    def dock_matcher(context: Any) -> dict[str, Any]:
        line = context.text_until_cursor
        magic = _MAGIC.match(line)
        is_cell_magic = magic is not None and "%%" in magic.group()
        if magic is None or (is_cell_magic and context.cursor_line != 0):
            return {"completions": []}
        typed = line[magic.end() :]
        result = complete(typed, source)
        fragment, escape = _as_typed(typed, result.fragment)
        return {
            "completions": [
                SimpleCompletion(text=escape(text), type=result.kind) for text in result.candidates
            ],
            "matched_fragment": fragment,
            "suppress": True,
            "ordered": True,
        }

    matcher: Callable[[Any], Any] = context_matcher(identifier="pydock_jupyter.dock")(dock_matcher)
    return matcher


def _as_typed(typed: str, fragment: str) -> tuple[str, Callable[[str], str]]:
    """Return ``fragment`` as spelled in the line, and a function that spells a candidate the same way.

    Spaces are escaped with backslashes, except inside an open quotation, which stays open.
    """
    if typed.endswith(fragment):
        opened = typed[: len(typed) - len(fragment)].endswith(("'", '"'))
        return fragment, (lambda text: text) if opened else _escape_spaces
    escaped = _escape_spaces(fragment)
    return (escaped, _escape_spaces) if typed.endswith(escaped) else (fragment, lambda text: text)


def _escape_spaces(text: str) -> str:
    return re.sub(r"([\s'\"\\$`])", r"\\\1", text)
