"""Turns words into a parsed command, by the command table."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NoReturn

from pydock_core.commands.table import (
    COMMANDS,
    GROUPS,
    LATER_COMMANDS,
    LATER_SUBCOMMANDS,
    Command,
    find,
)
from pydock_core.errors import InvalidError, UnsupportedError

USAGE_EXIT_CODE = 125
PROGRAM = "dock"
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_HELP = ("--help", "-h")
"""Docker takes the short one too, where it is no flag of the command's own (``run -h NAME``)."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A command and its words; ``words`` has an attribute per option and argument, None or [] where not given."""

    command: Command
    words: argparse.Namespace


@dataclass(frozen=True, slots=True)
class Help:
    """A help text that was asked for, instead of a command to run."""

    text: str


class _Parser(argparse.ArgumentParser):
    """argparse with errors raised as ours, and Docker's later options refused by name."""

    def __init__(self, command: Command) -> None:
        super().__init__(
            prog=f"{PROGRAM} {command.name}",
            description=command.summary,
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.command = command

    def error(self, message: str) -> NoReturn:
        message = message.replace("IMAGE, COMMAND", "IMAGE")  # the command need not be given
        # Of "-qx", of which it knows "-q" alone.
        message = re.sub(
            r"argument \S+: ignored explicit argument '(.*)'", r"unrecognized arguments: -\1", message
        )
        raise InvalidError(f"{self.prog}: {message}", f"see {self.prog} --help", exit_code=USAGE_EXIT_CODE)


class _Later(argparse.Action):
    """Refuses an option that Docker has and PyDock has not yet."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> NoReturn:
        raise UnsupportedError(
            f"{parser.prog}: option {option_string} comes with a later version of PyDock",
            "leave it out",
            exit_code=USAGE_EXIT_CODE,
        )


class _Refused(argparse.Action):
    """Refuses an option that makes no sense here; ``const`` is the reason."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> NoReturn:
        raise UnsupportedError(
            f"{parser.prog}: option {option_string} is refused: {self.const}",
            "leave it out",
            exit_code=USAGE_EXIT_CODE,
        )


def build_parser(command: Command) -> argparse.ArgumentParser:
    """Return the argparse parser of one command."""
    parser = _Parser(command)
    options = parser.add_argument_group("options")
    for option in command.options:
        text = option.help.replace("%", "%%")
        if not option.takes_value:
            is_set = option.default == "true"
            options.add_argument(*option.flags, action="store_true", default=is_set, help=text)
        elif option.many:
            options.add_argument(
                *option.flags, action="append", default=[], metavar=option.metavar, help=text
            )
        else:
            options.add_argument(*option.flags, default=option.default, metavar=option.metavar, help=text)
    for flag in command.later:
        parser.add_argument(flag, action=_Later, nargs="?", help=argparse.SUPPRESS)
    for flag, reason in command.refused.items():
        if "=" not in flag:
            parser.add_argument(flag, action=_Refused, nargs="?", const=reason, help=argparse.SUPPRESS)
    counts = {"1": None, "rest": argparse.REMAINDER}
    for argument in command.arguments:
        parser.add_argument(argument.name, nargs=counts.get(argument.count, argument.count))
    options.add_argument("--help", action="store_true", help="show this text")
    return parser


def parse(argv: Sequence[str]) -> Parsed | Help:
    """Parse the words after the program's name.

    Raises:
        InvalidError: no such command, a bad option, a missing argument (exit code 125).
        UnsupportedError: a command or an option of Docker's that comes later (exit code 125).
    """
    words = tuple(argv)
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
    rest = list(words[length:])
    own_flags = {flag for option in command.options for flag in option.flags}
    if any(word in _HELP and word not in own_flags for word in _own_words(command, rest)):
        return Help(build_parser(command).format_help())
    parser = build_parser(command)
    _accept_booleans(parser, command, rest)
    parsed = parser.parse_args(_options_first(command, rest))
    for option in command.options:  # argparse appends to the default list itself
        if option.many:
            name = _destination(option.flags)
            setattr(parsed, name, list(getattr(parsed, name)))
    return Parsed(command, parsed)


def _accept_booleans(parser: argparse.ArgumentParser, command: Command, rest: Sequence[str]) -> None:
    """Let flags be given as ``--flag=true`` and ``--flag=false`` too, as Go's flags can (strconv.ParseBool).

    argparse looks a whole word up before it splits it, so each word that occurs becomes an option of its own.
    """
    flags = {flag: option for option in command.options if not option.takes_value for flag in option.flags}
    for word in dict.fromkeys(_own_words(command, rest)):
        flag, equals, text = word.partition("=")
        if not equals or flag not in flags:
            continue
        if text not in _TRUE | _FALSE:
            parser.error(f"argument {'/'.join(flags[flag].flags)}: neither true nor false: {text!r}")
        name = _destination(flags[flag].flags)
        reason = command.refused.get(f"{flag}={'true' if text in _TRUE else 'false'}")
        if reason is not None:
            parser.add_argument(word, action=_Refused, nargs=0, const=reason, help=argparse.SUPPRESS)
        else:
            parser.add_argument(
                word, action="store_const", const=text in _TRUE, dest=name, help=argparse.SUPPRESS
            )


def _destination(flags: Sequence[str]) -> str:
    long = next((flag for flag in flags if flag.startswith("--")), flags[0])
    return long.lstrip("-").replace("-", "_")


def _own_words(command: Command, rest: Sequence[str]) -> Sequence[str]:
    """The words that may be this command's own options: not those of the command to run in a container."""
    if not any(argument.count == "rest" for argument in command.arguments):
        return list(itertools.takewhile(lambda word: word != "--", rest))
    takes_value = {flag for option in command.options if option.takes_value for flag in option.flags}
    index = 0
    while index < len(rest) and rest[index].startswith("-") and rest[index] != "--":
        index += 2 if rest[index] in takes_value else 1
    return rest[:index]


def _options_first(command: Command, rest: Sequence[str]) -> Sequence[str]:
    """Order the words as argparse can take them: it gives arguments only words that stand side by side.

    Docker's options may stand anywhere: ``save one -o file two``, ``import file -c CMD name``.
    """
    if not command.arguments or any(argument.count == "rest" for argument in command.arguments):
        return rest
    takes_value = {flag for option in command.options if option.takes_value for flag in option.flags}
    options: list[str] = []
    arguments: list[str] = []
    words = iter(rest)
    for word in words:
        if word == "--":
            arguments += words
        elif word == "-" or not word.startswith("-"):
            arguments.append(word)
        else:
            options.append(word)
            if _wants_value(word, takes_value):
                options += itertools.islice(words, 1)
    return [*options, "--", *arguments] if arguments else options


def _wants_value(word: str, takes_value: Collection[str]) -> bool:
    """Whether an option's value is the next word: not with ``--flag=value`` and ``-fvalue``, but with ``-qf value``."""
    if word.startswith("--"):
        return word in takes_value
    first = next((place for place, letter in enumerate(word) if f"-{letter}" in takes_value), None)
    return first == len(word) - 1


def _unknown(words: Sequence[str]) -> InvalidError | UnsupportedError:
    name = " ".join(words[:2]) if words[0] in GROUPS else words[0]
    if words[0] in LATER_COMMANDS or tuple(words[:2]) in LATER_SUBCOMMANDS:
        return UnsupportedError(
            f"{PROGRAM} {name} comes with a later version of PyDock",
            f"{PROGRAM} --help lists what there is",
            exit_code=USAGE_EXIT_CODE,
        )
    if words[0].startswith("-"):
        return InvalidError(f"unknown option: {words[0]}", f"see {PROGRAM} --help", exit_code=USAGE_EXIT_CODE)
    paths = {path for command in COMMANDS for path in (command.path, *command.aliases)}
    # With the group's name in them all its commands would be alike.
    group = words[:1] if words[0] in GROUPS else ()
    known = {" ".join(path[len(group) :]) for path in paths if path[: len(group)] == tuple(group)}
    from difflib import get_close_matches  # late: for mistakes only

    near = get_close_matches(words[len(group)], known, n=1)
    where = " ".join((PROGRAM, *group))
    hint = f"did you mean {where} {near[0]}?" if near else f"{where} --help lists what there is"
    return InvalidError(f"{PROGRAM}: no such command: {name}", hint, exit_code=USAGE_EXIT_CODE)


def _overview() -> str:
    lines = [
        f"usage: {PROGRAM} [--debug] COMMAND …",
        "",
        "Images and containers without a daemon.",
        "",
        "commands:",
    ]
    lines += [f"  {command.name:<18}{command.summary}" for command in COMMANDS]
    lines += ["", "groups:", *(f"  {name:<18}{summary}" for name, summary in GROUPS.items())]
    lines += ["", f"{PROGRAM} COMMAND --help tells more of a command."]
    return "\n".join(lines) + "\n"


def _group_overview(group: str) -> str:
    lines = [f"usage: {PROGRAM} {group} COMMAND …", "", GROUPS[group], "", "commands:"]
    for command in COMMANDS:
        for path in (command.path, *command.aliases):
            if path[0] == group:
                lines.append(f"  {path[1]:<18}{command.summary}")
                break
    return "\n".join(lines) + "\n"
