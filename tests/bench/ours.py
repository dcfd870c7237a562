"""PyDock as it is measured: the library in this warm process, and the program ``dock``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pydock_core.engine import Engine
from pydock_core.engine.execution import ExecRequest
from pydock_core.network.client import NetworkService
from pydock_core.paths import StateRoot
from pydock_core.program_server import program_server_spec
from pydock_core.supervision.client import Streams, Zygote
from pydock_core.supervision.container_status import derive_status
from pydock_core.supervision.server_start import ask_server_surely
from tests.bench.peer import Peer, command_actions, drain, end, pss, quietly
from tests.support.create_request import create_request


def pydock_peer(base: Path, archive: Path) -> Peer:
    """PyDock in this process."""
    engine = Engine(StateRoot(base / "data", base / "run"))
    with archive.open("rb") as stream:
        engine.images.load(stream)

    def zygote() -> int:
        return int(Zygote(engine.root).ping()["pid"])

    def run(network: str | None) -> None:
        true = create_request("busybox", "true", AutoRemove=True, NetworkMode=network)
        container_id, _ = engine.containers.create(true)
        with engine.containers.start(container_id, attach=Streams(stdin=False)) as session:
            drain(session)
            assert session.wait().exit_code == 0
        engine.containers.remove(container_id)

    def start() -> str:
        request = create_request("busybox", "sleep", "600")
        container_id, _ = engine.containers.create(request)
        engine.containers.start(container_id).close()
        peer.closers.append(lambda: engine.containers.remove(container_id, force=True))
        return container_id

    def start_and_exec() -> Callable[[], object]:
        container_id = start()

        def execute() -> None:
            with engine.containers.exec(container_id, ExecRequest(("true",))) as execution:
                assert execution.wait().exit_code == 0

        return execute

    is_root = os.geteuid() == 0
    peer = Peer(
        "pydock",
        lambda: run("none"),
        (lambda: run("bridge")) if is_root else None,
        start_and_exec,
        lambda: engine.containers.list(),
        lambda: derive_status(engine.root.container(start())).supervisor_pid,
        lambda: pss(zygote()),
        closers=[lambda: end(zygote())],
    )
    if is_root:
        peer.closers.append(lambda: end(int(NetworkService(engine.root).ping()["pid"])))
    return peer


def dock_program_peer(base: Path) -> Peer:
    """The program ``dock`` on the state root that :func:`pydock_peer` has filled."""
    program = Path(sys.executable).with_name("dock")

    def dock(*words: object) -> subprocess.CompletedProcess[bytes]:
        return quietly(program, *words, PYDOCK_ROOT=str(base))

    def commands() -> dict[str, Callable[[], object]]:
        name = dock("run", "-d", "--network", "none", "busybox", "sleep", "600").stdout.decode().strip()
        peer.closers.append(lambda: dock("rm", "-f", name))
        return command_actions(dock, name)

    root = StateRoot(base / "data", base / "run")
    server = program_server_spec(root)
    peer = Peer(
        "dock (command)",
        lambda: dock("run", "--rm", "--network", "none", "busybox", "true"),
        commands=commands,
        closers=[lambda: end(int(ask_server_surely(server, {"op": "ping"})["pid"]))],
    )
    return peer


def magic_peer(base: Path) -> Peer:
    """``%dock`` in an IPython shell of this process, on the state root that :func:`pydock_peer` has filled."""
    from IPython.core.interactiveshell import InteractiveShell

    os.environ["PYDOCK_ROOT"] = str(base)
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "pydock_jupyter")

    def run(network: str) -> None:
        shell.run_line_magic("dock", f"run --rm {network} busybox true")
        assert shell.user_ns["_exit_code"] == 0

    return Peer(
        "%dock (IPython)",
        lambda: run("--network none"),
        (lambda: run("")) if os.geteuid() == 0 else None,
        closers=[lambda: os.environ.pop("PYDOCK_ROOT")],
    )
