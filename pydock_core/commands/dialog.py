"""Asks a person for a confirmation, a name or a password, in a terminal or below the cell of a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pydock_core.commands.context import Context
from pydock_core.errors import InvalidError


def confirm(context: Context, question: str) -> bool:
    """Ask a question as Docker does, "[y/N]"; only "y" confirms.

    Without a person, a line of standard input is the answer, as in ``yes | dock container prune``; without a line, it is
    no.

    Raises:
        InvalidError: a notebook's front end takes no input.
    """
    prompt = f"{question} [y/N] "
    if _has_person(context):
        answer = _ask(
            context, prompt, "nobody can be asked to confirm", "give -f to go on without being asked"
        )
    else:
        context.stdout.write(prompt)
        context.stdout.flush()
        answer = context.stdin.readline().decode(errors="replace") if context.stdin is not None else ""
        context.stdout.write("\n")
    return answer.strip().lower() == "y"


def ask_name(context: Context, question: str) -> str:
    """Ask for a line of text; InvalidError if there is no person to ask."""
    problem, hint = "nobody can be asked for the user name", "give it with -u"
    if not _has_person(context):
        raise InvalidError(problem, hint)
    return _ask(context, question, problem, hint).strip()


def ask_password(context: Context) -> str:
    """Ask for a password without echoing it.

    Raises:
        InvalidError: there is no person to ask.
    """
    message, hint = "nobody can be asked for the password", "pipe it in, with --password-stdin"
    if not _has_person(context):
        raise InvalidError(message, hint)
    import getpass  # late: rare; in a notebook it is the kernel's own

    return _answer(context, lambda: getpass.getpass("Password: "), message, hint)


def _ask(context: Context, prompt: str, problem: str, hint: str) -> str:
    context.stdout.flush()
    return _answer(context, lambda: input(prompt), problem, hint)  # in a notebook it is the kernel's own


def _answer(context: Context, ask: Callable[[], str], problem: str, hint: str) -> str:
    """Return the answer; InvalidError if there is none."""
    try:
        return ask()
    except KeyboardInterrupt:
        # End the line of the question, so that the shell's prompt begins a new one.
        context.stdout.write("\n")
        context.stdout.flush()
        raise
    except (EOFError, NotImplementedError) as error:
        # The second is ipykernel's StdinNotImplementedError: the front end takes no input.
        raise InvalidError(problem, hint) from error


def _has_person(context: Context) -> bool:
    # If standard input is a cell's body or a pipe, no person sees a question.
    if context.notebook:
        return context.stdin is None
    return context.owns_process and sys.stdin is not None and sys.stdin.isatty()
