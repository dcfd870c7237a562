"""The name server without its process: the wire format, the names file, what is answered and what is forwarded."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import NotFoundError
from pydock_core.supervision.event_loop import EventLoop
from pydock_core.supervision.names import message, names_file
from pydock_core.supervision.names.message import AAAA, PTR, A, MalformedQuery, parse_query
from pydock_core.supervision.names.server import Directory, NameServer, answer, build_settings
from tests.support.dns import build_query, read_answer, reverse

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    for name in ("web", "back"):
        (tmp_path / name).mkdir()
    names_file.publish(tmp_path / "web", "a" * 64, ("one", "Shop"), "10.0.0.2/16", "fd00::2/64")
    names_file.publish(tmp_path / "web", "b" * 64, ("two", "shop"), "10.0.0.3/16")
    names_file.publish(tmp_path / "back", "b" * 64, ("two", "db"), "10.1.0.3/16")
    networks = [("web", str(tmp_path / "web")), ("Back", str(tmp_path / "back"))]
    hosts = [("host.docker.internal", "10.0.0.1")]
    settings = build_settings(networks, ["127.0.0.53"], [("Till", "One")], hosts)
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    made = Directory(tmp_path / "settings.json")
    made.refresh()
    return made


def look_up(
    directory: Directory, name: str, kind: int = A, limit: int = 65535
) -> tuple[int, list[str]] | None:
    directory.refresh()
    data = answer(directory, parse_query(build_query(name, kind)), limit)
    if data is None:
        return None
    code, found = read_answer(data)
    return code, [value for value, _ in found]


def test_what_is_known_is_answered(directory: Directory) -> None:
    for name in ("one", "ONE", "one.web", "One.WEB", "till"):
        assert look_up(directory, name) == (0, ["10.0.0.2"])
        assert look_up(directory, name, AAAA) == (0, ["fd00::2"])
    assert look_up(directory, "two", AAAA) == look_up(directory, "two", 15) == (0, [])
    assert look_up(directory, "two") == (0, ["10.0.0.3"])  # the first network has it
    assert look_up(directory, "two.back") == look_up(directory, "db") == (0, ["10.1.0.3"])
    assert look_up(directory, "host.docker.internal") == (0, ["10.0.0.1"])
    assert look_up(directory, reverse("10.1.0.3"), PTR) == (0, ["two.Back"])
    assert look_up(directory, reverse("fd00::2"), PTR) == (0, ["one.web"])
    for name, kind in (
        ("example.com", A),
        ("db.web", A),
        ("", A),
        (reverse("10.9.9.9"), PTR),
        ("one.web.x", A),
    ):
        assert look_up(directory, name, kind) is None


def test_several_containers_of_one_name_take_turns(directory: Directory) -> None:
    seen = {tuple((look_up(directory, "shop") or (0, []))[1][:1]) for _ in range(4)}
    assert seen == {("10.0.0.2",), ("10.0.0.3",)} | ({("fd00::2",)} & seen)


def test_a_long_answer_is_cut_and_says_so(tmp_path: Path) -> None:
    for number in range(100):
        names_file.publish(tmp_path, f"{number:064x}", ("same",), f"10.0.0.{number + 1}/24")
    (tmp_path / "settings.json").write_text(json.dumps(build_settings([("n", str(tmp_path))], [], [], [])))
    directory = Directory(tmp_path / "settings.json")
    directory.refresh()
    for query, is_cut in ((build_query("same", A), True), (build_query("same", A, edns=True), True)):
        parsed = parse_query(query)
        data = answer(directory, parsed, parsed.size_bytes)
        assert data is not None
        assert len(data) <= parsed.size_bytes
        assert bool(data[2] & 0x02) == is_cut
        assert 20 < len(read_answer(data)[1]) < 100
    whole = answer(directory, parsed, message.LARGEST_BYTES)
    assert whole is not None
    assert len(read_answer(whole)[1]) == 100


def test_names_come_and_go(directory: Directory, tmp_path: Path) -> None:
    names_file.rename(tmp_path / "web", "a" * 64, ("uno",))
    assert look_up(directory, "uno") == (0, ["10.0.0.2"])
    assert look_up(directory, "one") is None
    names_file.rename(tmp_path / "web", "c" * 64, ("nobody",))
    names_file.withdraw(tmp_path / "web", "a" * 64)
    assert look_up(directory, "uno") is None
    names_file.withdraw(tmp_path / "web", "a" * 64)
    names_file.withdraw(tmp_path / "gone", "a" * 64)
    names_file.rename(tmp_path / "gone", "a" * 64, ("x",))
    with pytest.raises(NotFoundError, match="network has been removed"):
        names_file.publish(tmp_path / "gone", "a" * 64, ("x",), "10.0.0.2")
    (tmp_path / "web" / names_file.NAMES).write_text("torn")
    assert look_up(directory, "shop") is None
    (tmp_path / "web" / names_file.NAMES).unlink()
    assert look_up(directory, "db") == (0, ["10.1.0.3"])


# -- hostile input ---------------------------------------------------------------------------------------


@given(
    st.lists(LABEL, max_size=4), st.integers(0, 65535), st.sampled_from([A, PTR, AAAA, 255]), st.booleans()
)
def test_a_query_is_read_as_it_was_written(labels: list[str], identifier: int, kind: int, edns: bool) -> None:
    name = ".".join(labels)
    if len(name) > 250:
        return
    query = parse_query(build_query(name, kind, identifier, edns=edns))
    assert (query.name, query.kind, query.identifier) == (name, kind, identifier)
    assert query.size_bytes == (1232 if edns else 512)
    assert query.is_standard
    refused = message.build_answer(query, code=message.NAME_ERROR, limit_bytes=512)
    assert refused[:2] == struct.pack(">H", identifier)
    assert read_answer(refused) == (3, [])
    assert message.is_answer_to(query, refused, identifier)
    assert not message.is_answer_to(query, refused, identifier ^ 1)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_query_or_none(data: bytes) -> None:
    try:
        query = parse_query(data)
    except MalformedQuery as error:
        assert error.identifier in (None, int.from_bytes(data[:2], "big"))
        return
    assert data[12:].startswith(query.question)


@given(st.data())
def test_a_damaged_query_is_a_query_or_none(data: st.DataObject) -> None:
    whole = bytearray(build_query("one.web", A, edns=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    test_any_bytes_are_a_query_or_none.hypothesis.inner_test(
        bytes(whole[: data.draw(st.integers(0, len(whole)))])
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        build_query("a", A)[:-1],
        build_query("a", A)[:12] + b"\xc0\x0c\0\1\0\1",  # a pointer to itself
        build_query("a", A)[:12] + b"\x40" + b"a" * 64 + b"\0\0\1\0\1",  # a label of 64 bytes
        build_query(".".join(["a" * 63] * 5), A),  # a name of more than 255 bytes
        b"\x12\x34\x81\x80" + build_query("a", A)[4:],  # a response
        build_query("a", A)[:4] + b"\0\2" + build_query("a", A)[6:],  # two questions
        build_query("a", A)[:6] + b"\0\1" + build_query("a", A)[8:],  # an answer
        build_query("a", A)[:10]
        + b"\0\1"
        + build_query("a", A)[12:],  # an additional record that is not there
        build_query("a", A)[:10] + b"\xff\xff" + build_query("a", A)[12:],
    ],
)
def test_what_is_no_query_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedQuery):
        parse_query(data)


def test_a_dot_within_a_label_does_not_part_a_name() -> None:
    query = build_query("x", A)[:12] + b"\x07one.web\0\0\1\0\1"
    assert parse_query(query).name == "one\\.web"


def test_another_opcode_is_not_implemented(directory: Directory) -> None:
    query = parse_query(b"\x12\x34\x10\x00" + build_query("one", A)[4:])
    data = answer(directory, query, 512)
    assert data is not None
    assert read_answer(data)[0] == message.NOT_IMPLEMENTED


@given(st.text(max_size=80))
def test_reverse_names_are_addresses_or_none(name: str) -> None:
    message.reverse_address(name)
    assert message.reverse_address(reverse("10.0.0.1")) == "10.0.0.1"
    assert message.reverse_address(reverse("fd00::1")) == "fd00::1"
    assert message.reverse_address("1.10.in-addr.arpa") == ""
    assert message.reverse_address("256.0.0.10.in-addr.arpa") == ""


# -- the sockets -----------------------------------------------------------------------------------------


def serve(directory: Directory) -> tuple[NameServer, socket.socket, socket.socket]:
    loop = EventLoop()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    for item in (udp, tcp):
        item.bind(("127.0.0.1", 0))
    tcp.listen()
    server = NameServer(loop, directory, udp, tcp)
    server.start()
    return server, udp, tcp


def turn(server: NameServer) -> None:
    """Handle what has come."""
    server.loop.call_later(0.01, lambda: None)
    server.loop.run_once()


def end(server: NameServer) -> None:
    """Handle the ends of the clients."""
    for _ in range(100):
        if server.clients:
            turn(server)
    assert server.clients == 0
    server.loop.close()


def test_a_client_over_tcp_asks_in_pieces_and_at_once(directory: Directory) -> None:
    server, udp, tcp = serve(directory)
    with udp, tcp, socket.create_connection(tcp.getsockname(), timeout=5) as client:
        query = build_query("one", A)
        framed = struct.pack(">H", len(query)) + query
        for piece in (framed[:1], framed[1:5], framed[5:] + framed + framed[:7]):
            client.sendall(piece)
            for _ in range(5):
                turn(server)
        received = client.recv(65535)
        assert received.count(query[12:]) == 2
        client.sendall(struct.pack(">H", 3) + b"\x12\x34\x56")
        client.sendall(framed[7:])
    end(server)


def test_clients_that_say_nothing_do_not_keep_others_out(directory: Directory) -> None:
    server, udp, tcp = serve(directory)
    clients = []
    for _ in range(80):
        clients.append(socket.create_connection(tcp.getsockname(), timeout=5))
        turn(server)
    with udp, tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(udp.getsockname())
        client.send(build_query("one", A))
        turn(server)
        assert read_answer(client.recv(512))[1] == [("10.0.0.2", 0)]
    closed = 0
    for item in clients:
        item.setblocking(False)
        try:
            closed += item.recv(1) == b""
        except BlockingIOError:
            continue
        finally:
            item.close()
    assert closed == 80 - 64
    end(server)


def test_an_answer_takes_no_time(directory: Directory, tmp_path: Path) -> None:
    """200 containers on one network: a lookup takes less than a millisecond at the median, reading the file included."""
    for number in range(200):
        names_file.publish(tmp_path / "web", f"{number:064x}", (f"c{number}",), f"10.0.{number}.9/16")
    durations = []
    for number in range(101):
        names_file.publish(tmp_path / "web", f"{number:064x}", (f"c{number}",), f"10.0.{number}.8/16")
        look_up(directory, "c1")
        begin = time.perf_counter()
        assert look_up(directory, f"c{number}") == (0, [f"10.0.{number}.8"])
        durations.append(time.perf_counter() - begin)
    assert sorted(durations)[50] < 0.001
    assert os.stat(tmp_path / "web" / names_file.NAMES).st_mode & 0o777 == 0o600
