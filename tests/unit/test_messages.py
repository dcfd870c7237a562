"""Local messages: documents, descriptors, and what is no message."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core import messages
from pydock_core.errors import ConflictError, CorruptError

Pair = tuple[socket.socket, socket.socket]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture
def pair() -> Iterator[Pair]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@given(document=st.dictionaries(st.text(), JSON, max_size=5))
def test_any_document_survives(document: dict[str, object]) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        messages.send(left, document)
        assert messages.receive(right) == (document, [])


@pytest.mark.parametrize("size", [10, messages.PACKET_BYTES, 3_000_000])
def test_descriptors_ride_along(pair: Pair, size: int) -> None:
    read_fd, write_fd = os.pipe()
    messages.send(pair[0], {"text": "x" * size}, [write_fd])
    os.close(write_fd)
    received = messages.receive(pair[1])
    assert received is not None
    document, fds = received
    assert len(document["text"]) == size
    assert len(fds) == 1
    assert not os.get_inheritable(fds[0])
    os.write(fds[0], b"through")
    assert os.read(read_fd, 100) == b"through"
    messages.close_all([read_fd, *fds])


def test_the_end(pair: Pair) -> None:
    pair[0].close()
    assert messages.receive(pair[1]) is None


@pytest.mark.parametrize("payload", [b"{", b"[]", b"\xff", b"@memfd", b"x" * (messages.PACKET_BYTES + 1)])
def test_what_is_no_message_is_refused_and_its_descriptors_closed(pair: Pair, payload: bytes) -> None:
    before = open_descriptors()
    with open(os.devnull, "rb") as null:
        fds = [] if payload == b"@memfd" else [null.fileno()]
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        pair[0].sendmsg([payload], ancillary)
    with pytest.raises(CorruptError):
        messages.receive(pair[1])
    assert open_descriptors() == before


def test_more_descriptors_than_the_protocol_has_are_closed(pair: Pair) -> None:
    before = open_descriptors()
    with open(os.devnull, "rb") as null:
        messages.send(pair[0], {}, [null.fileno()] * (messages.MAXIMUM_FDS + 5))
    with pytest.raises(CorruptError):
        messages.receive(pair[1])
    assert open_descriptors() == before


def test_a_document_in_memory_may_not_be_huge(pair: Pair) -> None:
    memory_fd = os.memfd_create("test")
    os.truncate(memory_fd, messages.DOCUMENT_BYTES + 1)
    pair[0].sendmsg([b"@memfd"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory_fd]))])
    os.close(memory_fd)
    with pytest.raises(CorruptError, match="longer than"):
        messages.receive(pair[1])


def test_errors_cross(pair: Pair) -> None:
    messages.send_error(pair[0], ConflictError("taken", "choose another", exit_code=125))
    received = messages.receive(pair[1])
    assert received is not None
    with pytest.raises(ConflictError, match="taken") as caught:
        messages.checked(received[0])
    assert (caught.value.hint, caught.value.exit_code) == ("choose another", 125)


def test_an_error_for_a_peer_that_is_gone_is_nobodys(pair: Pair) -> None:
    pair[1].close()
    messages.send_error(pair[0], ConflictError("x"))


@pytest.mark.parametrize("depth", [1, 12])
def test_listen_and_connect_at_any_path_length(tmp_path: Path, depth: int) -> None:
    directory = tmp_path.joinpath(*["a-directory-name"] * depth)
    directory.mkdir(parents=True)
    path = str(directory / "x.sock")
    with messages.listen(path) as listener, messages.connect(path) as client:
        assert os.stat(path).st_mode & 0o777 == 0o600
        served, _ = listener.accept()
        with served:
            assert messages.peer(served) == (os.getpid(), os.geteuid())
            messages.send(client, {"a": 1})
            assert messages.receive(served) == ({"a": 1}, [])
    assert os.listdir(directory) == ["x.sock"]
    with pytest.raises(ConnectionRefusedError):
        messages.connect(path)
    with messages.listen(path):  # replaces what a killed server left
        messages.connect(path).close()
