"""A client that runs random commands on one state root until it is killed; see test_random_kills.py.

Arguments: the state root's base, a directory to copy to, a seed, a file for what must not happen.
"""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import run_command
from pydock_core.engine import Engine
from pydock_core.paths import StateRoot
from tests.support.commands import Output

NAMES = [f"box{number}" for number in range(5)]
NETWORKS = ["net0", "net1"]
VOLUMES = ["vol0", "vol1"]
PROGRAMS = ("sleep 1000", "sleep 1000", "sleep 0.2", "exit 3", "trap '' TERM; while :; do sleep 1; done")
POLICIES = ("no", "no", "no", "always", "on-failure:3", "unless-stopped")


def build_run(choose: random.Random) -> list[str]:
    """Return the words of a ``run``."""
    words = ["run", "-d", "--name", choose.choice(NAMES), "--restart", choose.choice(POLICIES)]
    if choose.random() < 0.5:
        words += ["--network", choose.choice(NETWORKS)]
    if choose.random() < 0.4:
        words += ["-v", f"{choose.choice(VOLUMES)}:/data"]
    if choose.random() < 0.2:
        words += ["--health-cmd", "true", "--health-interval", "1s"]
    if choose.random() < 0.2:
        words += ["--init"]
    return [*words, "busybox", "sh", "-c", choose.choice(PROGRAMS)]


def build_words(choose: random.Random, scratch: Path) -> list[str]:
    """Return the words of a random command."""
    name, network, volume = choose.choice(NAMES), choose.choice(NETWORKS), choose.choice(VOLUMES)
    commands: list[Callable[[], list[str]]] = [
        *[lambda: build_run(choose)] * 6,
        lambda: ["run", "--rm", "-v", "/fresh", "busybox", "true"],
        lambda: ["start", name],
        lambda: ["stop", "-t", "0", name],
        lambda: ["restart", "-t", "0", name],
        lambda: ["kill", name],
        lambda: ["exec", name, "true"],
        lambda: ["rm", "-f", "-v", name],
        lambda: ["pause", name],
        lambda: ["unpause", name],
        lambda: ["cp", f"{name}:/bin/busybox", str(scratch / name)],
        lambda: ["cp", str(scratch / "given"), f"{name}:/tmp"],
        lambda: ["volume", "create", volume],
        lambda: ["volume", "rm", volume],
        *[lambda: ["network", "create", network]] * 2,
        lambda: ["network", "rm", network],
        lambda: ["network", "connect", network, name],
        lambda: ["network", "disconnect", network, name],
        lambda: ["container", "prune", "-f"],
        lambda: ["ps", "-a"],
    ]
    return choose.choice(commands)()


def main() -> None:
    """Run commands for ever; note what is neither a success nor an error of one line."""
    base, scratch, notes = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[4])
    choose = random.Random(int(sys.argv[3]))
    engine = Engine(StateRoot(base / "data", base / "run"))
    while True:
        words = build_words(choose, scratch)
        output = Output()
        try:
            run_command(words, Context(engine=engine, stdout=output, stderr=output))
        except BaseException:  # noqa: BLE001  # whatever it is, the test shows it
            with notes.open("a") as file:
                file.write(f"{words}\n{traceback.format_exc()}\n")


if __name__ == "__main__":
    main()
