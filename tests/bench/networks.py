"""Measures networks: detached containers, user-defined networks, many containers, names and published ports."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydock_core.engine import Engine
from pydock_core.network.client import NetworkService
from pydock_core.paths import StateRoot
from pydock_core.program_server import program_server_spec
from pydock_core.supervision.client import Streams, Zygote
from pydock_core.supervision.container_status import derive_status
from pydock_core.supervision.server_start import ask_server_surely
from tests.bench.image_peers import ImagePeer, dock_peer, docker_images, podman_images
from tests.bench.isolation import unmount_below
from tests.bench.peer import Skipped, drain, end, last_line
from tests.bench.samples import busybox_archive
from tests.support import dns
from tests.support.create_request import create_request
from tests.support.network_namespace import NetworkNamespace
from tests.support.raw_frames import Namespace

Row = tuple[str, str, str, str, str]

_NETWORK = "bench"
_DETACHED = 20
_LIBRARY = "pydock (Python)"
_MANY = 200
_LOOKUPS = 500
_FIRST_PORT = 5200
_STREAM_SECONDS = 2.0
_CHUNK = bytes(1 << 20)
_HOST, _LAN_PEER = "192.0.2.1", "192.0.2.2"
"""TEST-NET-1 (RFC 5737): the ends of the pair between this namespace and a client's."""

_SINK = """
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
static char buffer[1 << 20];
int main(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(5000)};
    int listening = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listening, (struct sockaddr *)&any, sizeof any) || listen(listening, 8))
        return 1;
    for (;;) {
        int connection = accept(listening, 0, 0);
        while (read(connection, buffer, sizeof buffer) > 0)
            ;
        close(connection);
    }
}
"""
"""A server on port 5000 that reads everything; it closes a connection at its end, so a client knows that all has arrived."""


def run(base: Path, *, times: int, quick: bool) -> list[Row]:
    """Measure everything below ``base``; return the table's rows.  As an ordinary user: what a user can do."""
    archive = busybox_archive(base / "busybox.tar")
    makers: list[Callable[[], ImagePeer]] = [
        lambda: dock_peer(base / "pydock", "erofs"),
        lambda: podman_images(base / "podman"),
        lambda: docker_images(base / "docker"),
    ]
    peers: list[ImagePeer] = []
    rows: list[Row] = []
    for maker in makers:
        try:
            peers.append(maker())
        except Skipped as reason:
            rows.append(("networks", reason.name, "-", "-", str(reason)))
    try:
        for peer in [*peers]:
            try:
                peer.command("load", "-i", archive)
                peer.command("run", "--rm", *peer.run, "busybox", "true")
            except subprocess.CalledProcessError as error:
                peers.remove(peer)
                rows.append(("networks", peer.name, "-", "-", last_line(error)))
        rows += _detached(base, archive, peers, max(1, min(times, 5)))
        rows += _published(base, peers, max(1, min(times, 5)))
    finally:
        for peer in peers:
            peer.close()
        _end_servers(StateRoot(base / "pydock" / "data", base / "pydock" / "run"))
        unmount_below(base)
    return [*rows, *_user_defined(base, archive, times, 20 if quick else _MANY)]


# -- beside the peers -------------------------------------------------------------------------------------


def _detached(base: Path, archive: Path, peers: Sequence[ImagePeer], times: int) -> list[Row]:
    """Measure a number of ``run -d``, then the removal of all: as commands, and from Python (as in a cell)."""
    engine = Engine(StateRoot(base / "library" / "data", base / "library" / "run"))
    with archive.open("rb") as stream:
        engine.images.load(stream)
    rows: list[Row] = []
    try:
        for network in ("none", "default"):
            actions: dict[str, Callable[[], None]] = {
                _LIBRARY: lambda network=network: _detach(engine, network)  # type: ignore[misc]  # the default binds it
            }
            for peer in peers:
                actions[peer.name] = lambda peer=peer, network=network: _detach_by_command(peer, network)  # type: ignore[misc]
            taken: dict[str, list[float]] = {name: [] for name in actions}
            for _ in range(times):
                for name, action in actions.items():
                    taken[name].append(_timed(action))
                    _tell(f"{_DETACHED} x run -d, network {network}: {name} {taken[name][-1]:.2f} s")
            rows += _time_rows(f"{_DETACHED} x run -d on the network {network}, then rm -f", taken)
            if "podman" in taken:
                ratio = statistics.median(taken[_LIBRARY]) * 8 / statistics.median(taken["podman"])
                rows.append(_verdict("  at most 1/8 of podman (as 1.00)", _LIBRARY, ratio, 1))
    finally:
        _end_servers(engine.root)
    return rows


def _detach(engine: Engine, network: str) -> None:
    made = []
    for _ in range(_DETACHED):
        request = create_request("busybox", "sleep", "600", NetworkMode=network)
        container_id, _ = engine.containers.create(request)
        engine.containers.start(container_id).close()
        made.append(container_id)
    for container_id in made:
        engine.containers.remove(container_id, force=True)


def _detach_by_command(peer: ImagePeer, network: str) -> None:
    choice = [] if network == "default" else ["--network", network]
    now = ["-t", "0"] if peer.name == "podman" else []  # the others kill at once
    words = ["run", "-d", *peer.run, *choice, "busybox", "sleep", "600"]
    names = [peer.command(*words).stdout.decode().strip() for _ in range(_DETACHED)]
    peer.command("rm", "-f", *now, *names)


def _published(base: Path, peers: Sequence[ImagePeer], times: int) -> list[Row]:
    """Measure the TCP throughput through a published port: over loopback, and as root from another host."""
    sink = base / "sink"
    try:
        sink.parent.mkdir(exist_ok=True)
        words = ["gcc", "-O2", "-static", "-x", "c", "-", "-o", str(sink)]
        subprocess.run(words, input=_SINK.encode(), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return [("TCP through a published port", "-", "-", "-", f"no server: {error}"[:80])]
    ports: dict[str, int] = {}
    started: list[tuple[ImagePeer, str]] = []
    rows: list[Row] = []
    try:
        for number, peer in enumerate(peers):
            port = _FIRST_PORT + number
            options = ["-p", f"0.0.0.0:{port}:5000", "-v", f"{sink}:/sink:ro"]
            done = peer.command("run", "-d", *peer.run, *options, "busybox", "/sink")
            started.append((peer, done.stdout.decode().strip()))
            ports[peer.name] = port
        ways: list[tuple[str, Callable[[int], float]]] = [
            ("loopback", lambda port: _throughput(("127.0.0.1", port)))
        ]
        if os.geteuid() == 0:
            with _other_host() as other:
                ways.append(("another host", lambda port: other(_throughput, (_HOST, port))))
                rows += [row for way in ways for row in _throughput_rows(*way, ports, times)]
        else:
            rows += _throughput_rows(*ways[0], ports, times)
    finally:
        for peer, name in started:
            peer.command("rm", "-f", name)
    return rows


def _throughput_rows(
    way: str, measure: Callable[[int], float], ports: dict[str, int], times: int
) -> list[Row]:
    rates: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(times):
        for name, port in ports.items():
            rates[name].append(measure(port))
            _tell(f"TCP through a published port, {way}: {name} {rates[name][-1]:.2f} Gbit/s")
    ours = next(iter(ports))
    base = statistics.median(rates[ours])
    work = f"TCP through a published port, from {way}"
    rows = [
        (
            work,
            name,
            f"{statistics.median(found):.2f} Gbit/s",
            f"{max(found):.2f} Gbit/s",
            f"{statistics.median(found) / base:.2f} x",
        )
        for name, found in rates.items()
    ]
    peer, least = ("docker", 0.9) if os.geteuid() == 0 else ("podman", 1.0)
    if peer in rates:
        share = base / statistics.median(rates[peer])
        is_met = "met" if share >= least else "missed"
        rows.append((f"  at least {least:g} x {peer}", ours, f"{share:.2f} x", "", is_met))
    return rows


def _throughput(address: tuple[str, int]) -> float:
    """Return the Gbit/s that a client sends to the sink and the sink receives."""
    deadline = time.monotonic() + 10
    while True:
        try:
            connection = socket.create_connection(address, timeout=10)
            break
        except ConnectionRefusedError:  # the sink has not begun to listen
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    with connection:
        begin = time.perf_counter()
        sent_bytes = 0
        while time.perf_counter() - begin < _STREAM_SECONDS:
            sent_bytes += connection.send(_CHUNK)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        return sent_bytes * 8 / (time.perf_counter() - begin) / 1e9


@contextmanager
def _other_host() -> Iterator[NetworkNamespace]:
    """A network namespace that is joined with this one by a pair, as another host is by a wire."""
    with_pair = NetworkNamespace()
    try:
        for words in (
            f"ip link add bench-lan type veth peer name lan netns {with_pair.pid}",
            f"ip addr add {_HOST}/24 dev bench-lan",
            "ip link set bench-lan up",
        ):
            subprocess.run(words.split(), check=True, capture_output=True)
        with_pair.run("ip", "addr", "add", f"{_LAN_PEER}/24", "dev", "lan")
        with_pair.run("ip", "link", "set", "lan", "up")
        yield with_pair
    finally:
        with_pair.close()


# -- PyDock alone -----------------------------------------------------------------------------------------


def _user_defined(base: Path, archive: Path, times: int, count: int) -> list[Row]:
    """Compare a user-defined network with the default one; then start many containers on it and look up their names."""
    engine = Engine(StateRoot(base / "many" / "data", base / "many" / "run"))
    with archive.open("rb") as stream:
        engine.images.load(stream)
    engine.networks.create({"Name": _NETWORK})
    try:
        taken: dict[str, list[float]] = {"bridge": [], _NETWORK: []}
        for number in range(times + 2):
            for network, values in taken.items():
                seconds = _timed(lambda network=network: _run(engine, network))
                if number > 1:
                    values.append(seconds)
        rows = _time_rows(
            "run --rm --network", {"default bridge": taken["bridge"], "user-defined": taken[_NETWORK]}
        )
        ratio = statistics.median(taken[_NETWORK]) / statistics.median(taken["bridge"])
        rows.append(_verdict("  at most 1.3 x the default bridge", "user-defined", ratio, 1.3))
        starts = [_timed(lambda number=number: _start(engine, f"c{number}")) for number in range(count)]
        first, last = starts[2:12], starts[-10:]
        rows += _time_rows("run -d", {"at the first containers": first, f"at {count} running": last})
        ratio = statistics.median(last) / statistics.median(first)
        rows.append(_verdict("  at most 1.3 x that at the first", f"at {count} running", ratio, 1.3))
        pid = derive_status(engine.root.container(engine.containers.resolve(f"c{count // 2}"))).pid

        def look_up() -> list[float]:
            return [_timed(lambda number=number: dns.ask(f"c{number % count}")) for number in range(_LOOKUPS)]

        lookups = Namespace(pid)(look_up)
        rows += _time_rows(f"a name among {count} containers", {"pydock": lookups})
        rows.append(_verdict("  under 1 ms", "pydock", statistics.median(lookups) * 1000, 1))
        return rows
    finally:
        for summary in engine.containers.list(all=True):
            engine.containers.remove(summary["Id"], force=True)
        engine.networks.remove(_NETWORK)
        _end_servers(engine.root)


def _run(engine: Engine, network: str) -> None:
    request = create_request("busybox", "true", AutoRemove=True, NetworkMode=network)
    container_id, _ = engine.containers.create(request)
    with engine.containers.start(container_id, attach=Streams(stdin=False)) as session:
        drain(session)
        assert session.wait().exit_code == 0
    engine.containers.remove(container_id)


def _start(engine: Engine, name: str) -> None:
    request = create_request("busybox", "sleep", "3600", NetworkMode=_NETWORK)
    container_id, _ = engine.containers.create(request, name)
    engine.containers.start(container_id).close()


def _end_servers(root: StateRoot) -> None:
    """End what serves a state root."""
    if root.zygote_socket().exists():
        end(int(Zygote(root).ping()["pid"]))
        end(int(NetworkService(root).ping()["pid"]))
        end(int(ask_server_surely(program_server_spec(root), {"op": "ping"})["pid"]))


# -- rows -------------------------------------------------------------------------------------------------


def _timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def _time_rows(work: str, taken: dict[str, list[float]]) -> list[Row]:
    """Return a row for each list of seconds, with the ratio of its median to the first's."""
    base = statistics.median(next(iter(taken.values())))
    return [
        (
            work,
            name,
            _time_text(statistics.median(values)),
            _time_text(min(values)),
            f"{statistics.median(values) / base:.2f} x",
        )
        for name, values in taken.items()
    ]


def _verdict(work: str, who: str, value: float, most: float) -> Row:
    return (work, who, f"{value:.2f}", "", "met" if value <= most else "missed")


def _time_text(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
