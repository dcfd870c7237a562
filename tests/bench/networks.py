"""Times of user-defined networks: ``python -m tests.bench.networks`` (root).

Prints the time of ``run --rm`` on the default bridge and on a user-defined network, in turns; then, with many containers
on one network, the time of a start, and that of a lookup by name in one of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydock_core.engine import Engine
from pydock_core.network.client import NetworkService
from pydock_core.paths import StateRoot
from pydock_core.supervision.client import Streams, Zygote
from pydock_core.supervision.container_status import derive_status
from tests.bench.isolation import isolate
from tests.bench.peer import drain, end
from tests.bench.samples import busybox_archive
from tests.support import dns
from tests.support.create_request import create_request
from tests.support.raw_frames import Namespace

NETWORK = "bench"


def measure(action: Callable[[], object]) -> float:
    """The milliseconds that an action takes."""
    begin = time.perf_counter()
    action()
    return (time.perf_counter() - begin) * 1000


def run(engine: Engine, network: str) -> None:
    """``run --rm --network NETWORK busybox true``."""
    request = create_request("busybox", "true", AutoRemove=True, NetworkMode=network)
    container_id, _ = engine.containers.create(request)
    with engine.containers.start(container_id, attach=Streams(stdin=False)) as session:
        drain(session)
        assert session.wait().exit_code == 0
    engine.containers.remove(container_id)


def start(engine: Engine, name: str) -> str:
    """``run -d --name NAME --network bench busybox sleep``."""
    container_id, _ = engine.containers.create(
        create_request("busybox", "sleep", "3600", NetworkMode=NETWORK), name
    )
    engine.containers.start(container_id).close()
    return container_id


def shown(values: list[float]) -> str:
    """Median and best, in milliseconds."""
    return f"{statistics.median(values):.1f} ms (best {min(values):.1f})"


@contextmanager
def engine_in(base: Path) -> Iterator[Engine]:
    """An engine with the image busybox and the network; afterwards nothing of it is left."""
    engine = Engine(StateRoot(base / "data", base / "run"))
    with busybox_archive(base / "busybox.tar").open("rb") as stream:
        engine.images.load(stream)
    engine.networks.create({"Name": NETWORK})
    try:
        yield engine
    finally:
        for summary in engine.containers.list(all=True):
            engine.containers.remove(summary["Id"], force=True)
        engine.networks.remove(NETWORK)
        end(Zygote(engine.root).ping()["pid"])
        end(NetworkService(engine.root).ping()["pid"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--containers", type=int, default=200)
    words = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root: only root makes bridges")
    with tempfile.TemporaryDirectory(prefix="pd-bench-", dir="/tmp") as name, engine_in(Path(name)) as engine:
        times: dict[str, list[float]] = {"none": [], "bridge": [], NETWORK: []}
        for number in range(words.times + 2):
            for network, values in times.items():
                taken = measure(lambda network=network: run(engine, network))
                if number > 1:
                    values.append(taken)
        for network, values in times.items():
            print(f"run --rm --network {network}: {shown(values)}")
        ratio = statistics.median(times[NETWORK]) / statistics.median(times["bridge"])
        print(f"user-defined to default bridge: {ratio:.2f}")
        starts = [
            measure(lambda number=number: start(engine, f"c{number}")) for number in range(words.containers)
        ]
        first, last = starts[2:12], starts[-10:]
        print(f"run -d at the first containers: {shown(first)}; at {words.containers}: {shown(last)}")
        paths = engine.root.container(engine.containers.resolve(f"c{words.containers // 2}"))

        def look_up() -> list[float]:
            return [
                measure(lambda number=number: dns.ask(f"c{number % words.containers}"))
                for number in range(500)
            ]

        print(f"a lookup among {words.containers}: {shown(Namespace(derive_status(paths).pid)(look_up))}")


if __name__ == "__main__":
    isolate()
    main()
