"""The error tree of the project, and the text form of an error.

    PyDockError                    code            HTTP  what the caller can do
    ├── NotFoundError              not_found       404   name something that exists
    ├── ConflictError              conflict        409   change the state first, or choose another name
    ├── InvalidError               invalid         400   correct the input
    ├── UnsupportedError           unsupported     501   leave the option out, or use another host
    ├── DeniedError                denied          403   get the permission
    ├── UnavailableError           unavailable     503   try again, or start what is missing
    │   └── NoSpaceError           no_space        507   free some space
    ├── CorruptError               corrupt         500   fetch the data again
    └── FailedError                failed          500   read the cause

Every error has a one-line ``message`` that names its subject, and a ``hint`` at the way out.  ``exit_code`` is the
exit code of the ``dock`` program if it differs from the command's default: 125 (PyDock failed), 126 (the command
cannot be executed), 127 (the command was not found), as with ``docker run``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypedDict

_LINE_CHARACTERS = 1000
_TAIL_CHARACTERS = 300


def shortened(text: str) -> str:
    """Return a line of an error, without its middle if it is too long to read.

    A name in it may come from an archive or a registry.  The beginning of the line names the subject, and its end
    names the fault.
    """
    if len(text) <= _LINE_CHARACTERS:
        return text
    return f"{text[: _LINE_CHARACTERS - _TAIL_CHARACTERS]} [...] {text[-_TAIL_CHARACTERS:]}"


class ErrorDocument(TypedDict):
    """An error as plain data, for a socket: :meth:`PyDockError.to_json`."""

    code: str
    message: str
    hint: str
    exit_code: int | None


class PyDockError(Exception):
    """Root of all errors that PyDock raises on purpose.

    Args:
        message: one line that names the subject and the fault; see :func:`shortened`.
        hint: one line, the way out; empty if there is none.
        exit_code: the exit code of the program; None for the command's default.
    """

    code: ClassVar[str] = "failed"
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, hint: str = "", *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = shortened(message)
        self.hint = shortened(hint)
        self.exit_code = exit_code

    @property
    def line(self) -> str:
        """The message and the notes added to it (``add_note``), in one line."""
        return shortened("; ".join([self.message, *getattr(self, "__notes__", [])]))

    def _render_traceback_(self) -> list[str]:
        """Return the text that IPython shows in place of a traceback: the error in one line, and its hint."""
        return [f"{type(self).__name__}: {self.line}", *([f"hint: {self.hint}"] if self.hint else [])]

    def to_json(self) -> ErrorDocument:
        """Return the error as plain data, for a socket; the inverse of :func:`from_json`."""
        return {
            "code": self.code,
            "message": self.line,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class NotFoundError(PyDockError):
    """The named object does not exist."""

    code = "not_found"
    http_status = 404


class ConflictError(PyDockError):
    """The current state does not allow it (a taken name, a running container)."""

    code = "conflict"
    http_status = 409


class InvalidError(PyDockError):
    """The input is malformed or out of range."""

    code = "invalid"
    http_status = 400


class UnsupportedError(PyDockError):
    """This host or this version cannot do it; an option is refused, never ignored."""

    code = "unsupported"
    http_status = 501


class DeniedError(PyDockError):
    """Permission is missing."""

    code = "denied"
    http_status = 403


class UnavailableError(PyDockError):
    """A process, a socket or a resource is not available now, and may be later."""

    code = "unavailable"
    http_status = 503


class NoSpaceError(UnavailableError):
    """The disk, or the user's quota, is full."""

    code = "no_space"
    http_status = 507


class CorruptError(PyDockError):
    """Data does not have the expected digest, size or format."""

    code = "corrupt"
    http_status = 500


class FailedError(PyDockError):
    """A system operation failed; the message carries the cause."""

    code = "failed"
    http_status = 500


_BY_CODE: dict[str, type[PyDockError]] = {
    kind.code: kind
    for kind in (
        NotFoundError,
        ConflictError,
        InvalidError,
        UnsupportedError,
        DeniedError,
        UnavailableError,
        NoSpaceError,
        CorruptError,
        FailedError,
    )
}


def from_json(document: Mapping[str, Any]) -> PyDockError:
    """Rebuild an error that :meth:`PyDockError.to_json` wrote; an unknown code becomes FailedError."""
    kind = _BY_CODE.get(str(document.get("code")), FailedError)
    return kind(
        str(document.get("message", "unknown error")),
        str(document.get("hint", "")),
        exit_code=document.get("exit_code"),
    )
