"""What commands write to in tests."""

from __future__ import annotations


class Output:
    """A :class:`pydock_core.commands.context.Writer` that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    @property
    def text(self) -> str:
        return self.data.decode()

    def write(self, text: str) -> None:
        self.data += text.encode()

    def write_bytes(self, data: bytes) -> None:
        self.data += data

    def flush(self) -> None:
        """Nothing is held back."""

    def clear(self) -> None:
        self.data = b""
