"""Parses words into a command of the command table."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydock_core.commands.command import Option
from pydock_core.commands.pflag import SyntaxProblem, split
from pydock_core.commands.table import (
    COMMANDS,
    GROUPS,
    LATER_COMMANDS,
    LATER_SUBCOMMANDS,
    Command,
    find,
)
from pydock_core.errors import InvalidError, UnsupportedError
from pydock_core.spelling import parse_boolean

USAGE_EXIT_CODE = 125
PROGRAM = "dock"
_DELETING = frozenset({"rm", "rmi", "prune", "kill"})
"""Commands that a mistyped word does not mean if another one is as near."""
_SYNONYMS = {"remove": "rm", "delete": "rm", "list": "ls"}
"""Words of other programs for a command."""
_HELP = ("--help", "-h")
"""Docker accepts the short one too, unless the command has a flag of that name (``run -h NAME``)."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A command and its words; ``words`` has an attribute per option and argument, None or [] if it is not given."""

    command: Command
    words: argparse.Namespace


@dataclass(frozen=True, slots=True)
class Help:
    """A requested help text, in place of a command to run."""

    text: str


def build_parser(command: Command) -> argparse.ArgumentParser:
    """Return an argparse parser of one command, which formats its help."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {command.name}",
        description=command.summary,
        add_help=False,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options = parser.add_argument_group("options")
    for option in command.options:
        text = option.help.replace("%", "%%")
        if option.takes_value:
            options.add_argument(*option.flags, metavar=option.metavar, help=text)
        else:
            options.add_argument(*option.flags, action="store_true", help=text)
    counts = {"1": None, "rest": argparse.REMAINDER}
    for argument in command.arguments:
        parser.add_argument(argument.name, nargs=counts.get(argument.count, argument.count))
    options.add_argument("--help", action="store_true", help="show this text")
    return parser


def parse(argv: Sequence[str]) -> Parsed | Help:
    """Parse the words after the program's name.

    Raises:
        InvalidError: no such command, a bad option, a missing argument (exit code 125).
        UnsupportedError: a command or an option of Docker's that PyDock refuses (exit code 125).
    """
    words = tuple(argv)
    if any("\0" in word for word in words):  # only possible in a notebook: execve(2) ends a word there
        raise InvalidError("a word cannot hold a zero byte", "leave it out", exit_code=USAGE_EXIT_CODE)
    if not words or words[0] in (*_HELP, "help"):
        topic = words[1:]
        if topic and (found := find(topic)):
            return Help(build_parser(found[0]).format_help())
        return Help(_overview())
    if words[0] in GROUPS and (len(words) == 1 or words[1] in (*_HELP, "help")):
        return Help(_group_overview(words[0]))
    found = find(words)
    if found is None:
        raise _unknown(words)
    command, length = found
    words_of = _parse_words(command, words[length:])
    return Help(build_parser(command).format_help()) if words_of is None else Parsed(command, words_of)


def _parse_words(command: Command, rest: Sequence[str]) -> argparse.Namespace | None:
    """Parse the words after a command's name; return None for a request for help."""
    options = {flag: option for option in command.options for flag in option.flags}
    refused = {flag for flag in command.refused if "=" not in flag}
    try:
        found = split(
            rest,
            options,
            lambda flag: flag in _HELP or flag in refused,
            interspersed=not any(argument.count == "rest" for argument in command.arguments),
        )
    except SyntaxProblem as problem:
        # Without the dashes, which would make all options alike.
        near = _nearest(problem.flag.lstrip("-"), (flag[2:] for flag in options if flag.startswith("--")))
        raise _usage(command, str(problem), f"did you mean --{near}?" if near else "") from None
    values: dict[str, Any] = {"help": False}
    for option in command.options:
        default: Any = option.default if option.takes_value else option.default == "true"
        values[option.destination] = [] if option.many else default
    for flag, text in found.options:
        if flag not in options:
            if flag in _HELP:
                return None
            raise _not_here(command, flag)
        option = options[flag]
        name = option.destination
        if option.many:
            values[name].append(text)
        else:
            values[name] = text if option.takes_value else _parse_flag(command, option, flag, text)
    values |= _assign(command, found.arguments)
    return argparse.Namespace(**values)


def _parse_flag(command: Command, option: Option, flag: str, text: str) -> bool:
    value = parse_boolean(text)
    if value is None:
        raise _usage(command, f"argument {'/'.join(option.flags)}: neither true nor false: {text!r}")
    told = f"{flag}={'true' if value else 'false'}"
    if told in command.refused:
        raise _not_here(command, told)
    return value


def _not_here(command: Command, flag: str) -> UnsupportedError:
    return UnsupportedError(
        f"{PROGRAM} {command.name}: option {flag} is refused: {command.refused[flag]}",
        "leave it out",
        exit_code=USAGE_EXIT_CODE,
    )


def _usage(command: Command, problem: str, hint: str = "") -> InvalidError:
    program = f"{PROGRAM} {command.name}"
    return InvalidError(f"{program}: {problem}", hint or f"see {program} --help", exit_code=USAGE_EXIT_CODE)


def _nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that looks most like a mistyped one; "" if none does."""
    from difflib import get_close_matches  # late: only for mistakes

    near = get_close_matches(word, list(known), n=10)
    return min(near, key=lambda other: (_distance(word, other), other in _DELETING), default="")


def _distance(one: str, other: str) -> int:
    """Return the number of letters to insert, delete, replace or swap with a neighbour (Damerau and Levenshtein)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        current = [row]
        for column, letter_of_other in enumerate(other, 1):
            cost = min(last[column] + 1, current[-1] + 1, last[column - 1] + (letter != letter_of_other))
            if row > 1 and column > 1 and one[row - 2 : row] == other[column - 2 : column][::-1]:
                cost = min(cost, before[column - 2] + 1)
            current.append(cost)
        before, last = last, current
    return last[-1]


def _assign(command: Command, words: Sequence[str]) -> dict[str, Any]:
    """Assign words to the arguments, from left to right; only the last argument takes several."""
    values: dict[str, Any] = {}
    left = list(words)
    missing = []
    for argument in command.arguments:
        if argument.count in ("1", "?"):
            values[argument.name] = left.pop(0) if left else None
        else:
            values[argument.name], left = left, []
        if argument.count in ("1", "+") and values[argument.name] in (None, []):
            missing.append(argument.name)
    if missing:
        raise _usage(command, f"the following arguments are required: {', '.join(missing)}")
    if left:
        raise _usage(command, f"unrecognized arguments: {' '.join(left)}", _extra_hint(command, left))
    return values


def _extra_hint(command: Command, left: Sequence[str]) -> str:
    """Return the hint for arguments that a command does not take."""
    from shlex import quote  # late: only for mistakes

    program = f"{PROGRAM} {command.name}"
    if any(option.long_flag == "--input" for option in command.options):
        return f"name the file with -i: {program} -i {quote(left[0])}"
    see = f"see {program} --help"
    if not command.arguments:
        return f"{program} takes no arguments; {see}"
    if len(command.arguments) == 1:
        return f"{program} takes one {command.arguments[0].name}; {see}"
    return see


def _unknown(words: Sequence[str]) -> InvalidError | UnsupportedError:
    name = " ".join(words[:2]) if words[0] in GROUPS else words[0]
    instead = LATER_COMMANDS.get(words[0]) or LATER_SUBCOMMANDS.get(tuple(words[:2]))
    if instead:
        return UnsupportedError(
            f"{PROGRAM} {name} is not supported by this version of PyDock", instead, exit_code=USAGE_EXIT_CODE
        )
    if words[0].startswith("-"):
        return InvalidError(f"unknown option: {words[0]}", f"see {PROGRAM} --help", exit_code=USAGE_EXIT_CODE)
    from shlex import join  # late: only for mistakes

    corrected = _correct(words)
    where = f"{PROGRAM} {words[0]}" if words[0] in GROUPS else PROGRAM
    hint = (
        f"did you mean {join((PROGRAM, *corrected))}?" if corrected else f"{where} --help lists what there is"
    )
    return InvalidError(f"{PROGRAM}: no such command: {name}", hint, exit_code=USAGE_EXIT_CODE)


def _correct(words: Sequence[str]) -> Sequence[str]:
    """Return the words with the nearest names of a group and a command; empty if nothing is near."""
    paths = {path for command in COMMANDS for path in (command.path, *command.aliases)}
    first, rest = words[0], words[1:]
    if first not in GROUPS:
        first = _nearest_command(first, {path[0] for path in paths if len(path) == 1} | GROUPS.keys())
        if first not in GROUPS or not rest:
            return (first, *rest) if first else ()
    known = {path[1] for path in paths if path[0] == first and len(path) > 1}
    second = rest[0] if rest[0] in known else _nearest_command(rest[0], known)
    return (first, second, *rest[1:]) if second else ()


def _nearest_command(word: str, known: Collection[str]) -> str:
    synonym = _SYNONYMS.get(word, "")
    return synonym if synonym in known else _nearest(word, sorted(known))


def _overview() -> str:
    lines = [
        f"usage: {PROGRAM} [--debug] COMMAND …",
        "",
        "Images and containers without a daemon.",
        "",
        "commands:",
    ]
    lines += _two_columns((command.name, command.summary) for command in COMMANDS)
    lines += ["", "groups:", *_two_columns(GROUPS.items())]
    lines += ["", f"{PROGRAM} COMMAND --help explains a command."]
    return "\n".join(lines) + "\n"


def _group_overview(group: str) -> str:
    lines = [f"usage: {PROGRAM} {group} COMMAND …", "", GROUPS[group], "", "commands:"]
    rows = []
    for command in COMMANDS:
        for path in (command.path, *command.aliases):
            if path[0] == group:
                rows.append((path[1], command.summary))
                break
    return "\n".join(lines + _two_columns(rows)) + "\n"


def _two_columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    width = max(len(name) for name, _ in rows) + 2
    return [f"  {name:<{width}}{summary}" for name, summary in rows]
