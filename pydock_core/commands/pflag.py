"""Splits words into options and arguments by the rules of pflag, Docker's library (spf13/pflag, flag.go).  Pure.

- An option with a value takes it from ``--name=value``, ``--name value``, ``-n=value``, ``-nvalue`` or ``-n value``,
  whatever the form of the value.
- A flag takes a value only after ``=``: in ``--rm false`` the second word is an argument.
- In a group of short options, ``-tie A=1``, all except the last are flags; a value after ``=`` belongs to the last.
- ``--`` ends the options and is dropped.  ``-`` is an argument.
- Options may stand anywhere, unless the arguments end in a command to run: then the first argument ends the options, and
  a ``--`` after it is one of the command's words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydock_core.commands.command import Option

_LETTER_AND_EQUALS = 2


class SyntaxProblem(Exception):
    """The words do not parse; the text gives the reason.

    Attributes:
        flag: the unknown option, "--name"; "" for another problem.
    """

    def __init__(self, text: str, flag: str = "") -> None:
        super().__init__(text)
        self.flag = flag


@dataclass(frozen=True, slots=True)
class Split:
    """The result of parsing words.

    Attributes:
        options: each option as it was given, in order, with its value; "" for an unknown option.
        arguments: the other words.
    """

    options: Sequence[tuple[str, str]]
    arguments: Sequence[str]


def split(
    words: Sequence[str],
    options: Mapping[str, Option],
    is_stray: Callable[[str], bool],
    *,
    interspersed: bool,
) -> Split:
    """Split a command's words.

    Args:
        options: by flag, "-e" and "--env".
        is_stray: whether to return a flag that is not in ``options``; the words after it are then ignored.
        interspersed: whether options may stand after arguments.

    Raises:
        SyntaxProblem: an option is unknown, or lacks its value.
    """
    found: list[tuple[str, str]] = []
    arguments: list[str] = []
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word == "--":
            break
        if word == "-" or not word.startswith("-"):
            arguments.append(word)
            if not interspersed:
                break
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            if name not in options:
                if not is_stray(name):
                    raise SyntaxProblem(f"unrecognized arguments: {word}", name)
                return Split([*found, (name, "")], arguments)
            found.append((name, value if equals else _value(options[name], rest)))
        else:
            letters = word[1:]
            while letters:
                flag = f"-{letters[0]}"
                if flag not in options:
                    if not is_stray(flag):
                        raise SyntaxProblem(f"unrecognized arguments: -{letters}")
                    return Split([*found, (flag, "")], arguments)
                option = options[flag]
                if len(letters) > _LETTER_AND_EQUALS and letters[1] == "=":
                    value, letters = letters[2:], ""
                elif option.takes_value and len(letters) > 1:
                    value, letters = letters[1:], ""
                else:
                    value, letters = _value(option, rest), letters[1:]
                found.append((flag, value))
    return Split(found, [*arguments, *reversed(rest)])


def _value(option: Option, rest: list[str]) -> str:
    """Return the value of an option that stands alone: the next word."""
    if not option.takes_value:
        return "true"
    if not rest:
        raise SyntaxProblem(f"argument {'/'.join(option.flags)}: expected one argument")
    return rest.pop()
