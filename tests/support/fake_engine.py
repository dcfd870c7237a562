"""A Jupyter server extension that mounts the real handlers on an engine double, for tests of the server side
alone.

Its containers are listed below; dialling one connects to that port of the loopback interface, where a test
has a backend.  Everything else of the server is as in production.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydock_core.api import EngineAccess
from pydock_core.engine.shapes import ZERO_TIME
from pydock_core.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from pydock_core.spec.definition import compact
from pydock_core.spec.network import check_network
from pydock_core.spec.validation import check_request
from pydock_core.supervision.logs import LogEntry

WEB = "a1" * 32
IDLE = "b2" * 32
TERMINAL = "b3" * 32
CREATED = "c4" * 32
NAMES = {"web": WEB, "idle": IDLE, "terminal": TERMINAL}


class FakeContainers:
    """The part of ``Engine.containers`` that the server calls; ``calls`` records what changed something."""

    def __init__(self, directory: Path) -> None:
        self.running = {WEB, TERMINAL}
        self.removed: set[str] = set()
        self.stopped = threading.Condition()
        self._dials = directory / "dials"

    def resolve(self, reference: str) -> str:
        known = {name: full for name, full in NAMES.items() if full not in self.removed}
        if reference in known:
            return known[reference]
        found = [full for full in known.values() if full.startswith(reference)]
        if len(found) > 1:
            raise ConflictError(f"container {reference}: the id is ambiguous", "use more of it")
        if not found:
            raise NotFoundError(f"no such container: {reference}", "dock ps -a lists them")
        return found[0]

    def create(
        self, request: Mapping[str, Any], name: str | None = None, *, any_platform: bool = False
    ) -> tuple[str, list[str]]:
        checked = check_request(request)
        if checked["Image"] != "demo":
            raise NotFoundError(f"no such image: {checked['Image']}", "dock images lists what there is")
        if name in NAMES:
            raise ConflictError(f"container name {name!r} is taken")
        return CREATED, [json.dumps(compact(checked), sort_keys=True)]

    def is_running(self, reference: str) -> bool:
        return self.resolve(reference) in self.running

    def dial(self, reference: str, port: int) -> socket.socket:
        full = self.resolve(reference)
        with open(self._dials, "a") as log:
            log.write(f"{full} {port}\n")
        if full not in self.running:
            raise ConflictError(f"container {reference} is not running", "start it: dock start idle")
        connection = socket.socket()
        try:
            connection.connect(("127.0.0.1", port))
        except OSError as error:
            connection.close()
            raise UnavailableError(f"port {port}: {error.strerror}") from error
        connection.setblocking(False)
        return connection

    def list(
        self,
        all: bool = False,
        filters: dict[str, list[str]] | None = None,
        limit: int | None = None,
        size: bool = False,
    ) -> list[dict[str, Any]]:
        chosen = [full for full in NAMES.values() if full not in self.removed]
        names = {full: name for name, full in NAMES.items()}
        for name in (filters or {}).get("name", ()):
            chosen = [full for full in chosen if name in names[full]]
        if not (all or limit):
            chosen = [full for full in chosen if full in self.running]
        return [
            {
                "Id": full,
                "Names": [f"/{names[full]}"],
                "Image": "demo:latest",
                "ImageID": "sha256:" + "c" * 64,
                "Command": "sleep inf",
                "Created": 1700000000,
                "Ports": [{"PrivatePort": 6006, "Type": "tcp"}],
                "Labels": {},
                "State": "running" if full in self.running else "exited",
                "Status": "Up 5 minutes" if full in self.running else "Exited (0) 5 minutes ago",
                "HostConfig": {"NetworkMode": "none"},
                "NetworkSettings": {"Networks": {}},
                "Mounts": [],
            }
            for full in chosen[:limit]
        ]

    def inspect(self, reference: str, size: bool = False) -> dict[str, Any]:
        full = self.resolve(reference)
        return {
            "Id": full,
            "Name": "/" + next(name for name, known in NAMES.items() if known == full),
            "State": {"Status": "running", "Running": full in self.running, "FinishedAt": ZERO_TIME},
            "Config": {"Tty": full == TERMINAL},
        }

    def start(self, reference: str, *, attach: object = None, size: tuple[int, int] = (0, 0)) -> FakeLaunch:
        self.running.add(self.resolve(reference))
        return FakeLaunch()

    def stop(self, reference: str, timeout_seconds: float | None = None, signal: str | None = None) -> None:
        with self.stopped:
            self.running.discard(self.resolve(reference))
            self.stopped.notify_all()

    def restart(
        self, reference: str, timeout_seconds: float | None = None, signal: str | None = None
    ) -> None:
        self.stop(reference)
        self.start(reference)

    def kill(self, reference: str, signal: str = "KILL") -> None:
        if not self.is_running(reference):
            raise ConflictError(f"container {reference} is not running")
        self.stop(reference)

    def rename(self, reference: str, name: str) -> None:
        self.resolve(reference)
        if name in NAMES:
            raise ConflictError(f"the name {name} is taken")

    def wait(self, reference: str, condition: str = "not-running") -> int:
        if condition not in ("not-running", "next-exit", "removed"):
            raise InvalidError(f'invalid condition: "{condition}"')
        full = self.resolve(reference)
        with self.stopped:
            self.stopped.wait_for(lambda: full not in self.running)
        return 137

    def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        full = self.resolve(reference)
        if full in self.running and not force:
            raise ConflictError(f"container {reference} is running", "stop it first")
        self.running.discard(full)
        self.removed.add(full)

    def logs(
        self,
        reference: str,
        follow: bool = False,
        tail: int | None = None,
        timestamps: bool = False,
        since_ns: int | None = None,
        until_ns: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
        details: bool = False,
    ) -> Iterator[LogEntry]:
        full = self.resolve(reference)
        second = 1_000_000_000
        entries = [
            LogEntry(
                "stderr" if number % 2 else "stdout", (1_700_000_000 + number) * second, b"line %d\n" % number
            )
            for number in range(4)
        ]
        entries = [e for e in entries if e.time_ns >= (since_ns or 0) and e.time_ns < (until_ns or 1 << 63)]
        for entry in entries if tail is None else entries[len(entries) - tail :]:
            if {"stdout": stdout, "stderr": stderr}[entry.stream]:
                prefix = entry.time.encode() + b" " if timestamps else b""
                yield LogEntry(entry.stream, entry.time_ns, prefix + entry.data)
        if follow:
            with self.stopped:
                self.stopped.wait_for(lambda: full not in self.running)
            yield LogEntry("stdout", 1_700_000_009 * second, b"the end\n")


class FakeLaunch:
    def close(self) -> None:
        """Leave the container alone."""


class FakeImages:
    def list(self, filters: dict[str, list[str]] | None = None, all: bool = False) -> list[dict[str, Any]]:
        return []

    def inspect(self, reference: str) -> dict[str, Any]:
        if reference != "registry.example:5000/team/demo:latest":
            raise NotFoundError(f"no such image: {reference}", "dock images lists them")
        return {"Id": "sha256:" + "c" * 64, "RepoTags": [reference]}


class FakeNetworks:
    """The part of ``Engine.networks`` that the server calls; what is asked for comes back in errors and documents."""

    def __init__(self) -> None:
        self.made: dict[str, list[str]] = {}

    def list(self, filters: dict[str, list[str]] | None = None) -> list[dict[str, Any]]:
        return [{"Name": name, "Filters": filters} for name in self.made]

    def inspect(self, reference: str) -> dict[str, Any]:
        if reference not in self.made:
            raise NotFoundError(f"no such network: {reference}", "dock network ls lists them")
        return {"Name": reference, "Containers": dict.fromkeys(self.made[reference])}

    def create(self, request: Mapping[str, Any]) -> tuple[str, list[str]]:
        name, _, _ = check_network(request)
        if name in self.made:
            raise ConflictError(f"network {name} already exists")
        self.made[name] = []
        return name * 8, ["a warning"]

    def remove(self, reference: str, *, force: bool = False) -> bool:
        self.inspect(reference)
        del self.made[reference]
        return True

    def prune(self, filters: dict[str, list[str]] | None = None) -> dict[str, Any]:
        return {"NetworksDeleted": [name for name, users in self.made.items() if not users]}

    def connect(self, reference: str, container: str, settings: Mapping[str, Any] | None = None) -> None:
        self.inspect(reference)
        self.made[reference].append(f"{container} {json.dumps(settings)}")

    def disconnect(self, reference: str, container: str, *, force: bool = False) -> None:
        self.inspect(reference)
        self.made[reference].append(f"{container} {force}")


class FakeSystem:
    def version(self) -> dict[str, Any]:
        return {"Version": "0", "Os": "linux", "Arch": "amd64"}

    def info(self) -> dict[str, Any]:
        return {"ID": "fake", "Containers": 3}


class FakeChanges:
    """No changes: a wait ends with its time, or when it is interrupted."""

    def __init__(self) -> None:
        self._interrupted = threading.Event()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        self._interrupted.wait(timeout_seconds)
        self._interrupted.clear()
        return False

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        """Close nothing."""


class FakeEvents:
    """Without a past and a future."""

    def changes(self) -> FakeChanges:
        return FakeChanges()


class FakeEngine:
    def __init__(self, directory: Path) -> None:
        self.containers = FakeContainers(directory)
        self.images = FakeImages()
        self.networks = FakeNetworks()
        self.system = FakeSystem()
        self.events = FakeEvents()

    def close(self) -> None:
        """Close nothing."""


def _load_jupyter_server_extension(app: Any) -> None:
    from pydock_jupyter.server.extension import PyDockProxy, add_handlers

    engine: Any = FakeEngine(Path(app.root_dir))
    add_handlers(app.web_app, EngineAccess(lambda: engine), PyDockProxy(parent=app))
