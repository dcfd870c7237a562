"""The context of a command: the engine, and the calling front end's streams."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Protocol, TextIO

from pydock_core.printable import printable, printable_lines

if TYPE_CHECKING:
    from pydock_core.commands.progress_board import DisplayFactory
    from pydock_core.engine import EngineProtocol

TableRenderer = Callable[[Sequence[str], Sequence[Sequence[str]]], None]


class Writer(Protocol):
    """An output for text and for a container's bytes; mixed writes keep their order."""

    def write(self, text: str) -> object: ...
    def write_bytes(self, data: bytes) -> object: ...
    def flush(self) -> object: ...


class StreamWriter:
    """A :class:`Writer` over one of this process's standard streams.

    Characters outside the stream's encoding are written as question marks; undecodable bytes of a file name are written
    unchanged.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self.write_bytes(_encode(text, self._stream.encoding))

    def write_bytes(self, data: bytes) -> None:
        self._stream.flush()
        self._stream.buffer.write(data)
        self._stream.buffer.flush()  # a container's output shows at once

    def flush(self) -> None:
        self._stream.flush()


def _encode(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return text.encode(encoding, "replace")


@dataclass(slots=True)
class Context:
    """The surroundings of one command.

    Attributes:
        engine: carries out the command.
        stdout, stderr: the outputs.
        stdin: standard input as a binary stream with or without a descriptor; None if there is none.
        interactive: standard input and output are a real terminal, which may be put in raw mode.
        owns_process: this process exists for the command, so its signals are forwarded to the container (the program, not
            a kernel).
        notebook: the front end is a cell of a notebook: it has no terminal, and an interrupt must end it.
        table: renders a table (headers, rows) in place of plain columns; None for plain columns.
        progress: makes the front end's own display of progress; None for bars in a terminal, and text elsewhere.
        exact: standard output is a pipe or a file, and gets foreign text (of an image, a container, a registry) byte for
            byte, as scripts need it.  For a person, each character that a terminal interprets becomes a space.
        debug: show tracebacks.
        ending: set by a command that stayed with a container: the cause of its end, if the exit code does not tell it.
        was_interrupted: set when a person interrupted a process in the foreground.
    """

    engine: EngineProtocol
    stdout: Writer = field(default_factory=lambda: StreamWriter(sys.stdout))
    stderr: Writer = field(default_factory=lambda: StreamWriter(sys.stderr))
    stdin: BinaryIO | None = None
    interactive: bool = False
    owns_process: bool = False
    notebook: bool = False
    table: TableRenderer | None = None
    progress: DisplayFactory | None = None
    exact: bool = False
    debug: bool = False
    ending: str = ""
    was_interrupted: bool = False

    def print(self, text: str = "") -> None:
        """Write a line to standard output, in the form for its reader; see ``exact``."""
        self.stdout.write(self.shown(text) + "\n")

    def shown(self, text: str) -> str:
        """Convert foreign text for the reader of standard output; see ``exact``.  Line breaks and tabs stay."""
        return text if self.exact else printable_lines(text)

    def warn(self, text: str) -> None:
        """Write a warning to standard error."""
        self.stderr.write(f"warning: {printable(text)}\n")
