"""The client of the program server, without a server that answers."""

from __future__ import annotations

import errno
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from pydock_core import program_client


@pytest.mark.timeout(30)
def test_a_server_whose_queue_is_full_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        # Not below tmp_path: the path of a socket has at most 107 bytes (unix(7)).
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pydock-")))
        (root / "run").mkdir()
        monkeypatch.setenv("PYDOCK_ROOT", str(root))
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(program_client.socket_path())
        listener.listen(0)
        while True:
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            waiting.setblocking(False)
            if waiting.connect_ex(program_client.socket_path()) == errno.EAGAIN:
                break
        assert program_client.run(["ps"]) == program_client.REFUSED
