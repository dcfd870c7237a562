"""Bundles of busybox and a driver process for each executor, for the tests of the executor protocol."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydock_core.errors import PyDockError, from_json
from pydock_core.runtime.cgroups import probe_cgroups, read_layout
from pydock_core.spec.builder import HostFacts, build_process, build_spec
from pydock_core.spec.definition import Definition, complete
from pydock_core.spec.seccomp_profile import parse_kernel_release
from tests.support.passable import make_passable

BUSYBOX = Path("/bin/busybox")
DRIVER = Path(__file__).with_name("executor_driver.py")
GROUPS = f"pydock-test-{os.getpid()}"
"""Of this run of the tests: others may be going on beside it."""
FIRST_ID, IDS = 100_000, 65_536
KINDS = ("embedded", "embedded-userns", "embedded-rootless", "crun", "runc")
"""embedded-userns: the bundle asks for a user namespace; -rootless: the executor runs in one."""

Patch = Callable[[dict[str, Any]], None]
UNCONFINED = {"SecurityOpt": ["seccomp=unconfined"]}


def with_profile(profile: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the HostConfig that selects a seccomp profile."""
    return {"SecurityOpt": [f"seccomp={json.dumps(profile)}"]}


def find_reason_to_skip(kind: str) -> str:
    """Say why an executor cannot be tested here; empty where it can."""
    if os.geteuid() != 0:
        return "the executor contract needs root"
    if not BUSYBOX.exists():
        return f"needs {BUSYBOX} (Debian: busybox-static)"
    if kind in ("crun", "runc") and shutil.which(kind) is None:
        return f"needs {kind} (Debian: {kind})"
    return ""


@dataclass(frozen=True)
class Result:
    """How a process ended, and what it wrote (a terminal: all on ``out``)."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Driver:
    """The client of one driver process."""

    def __init__(self, kind: str, base: Path) -> None:
        base.chmod(0o711)
        self.state = state = base / "state"
        state.mkdir(mode=0o700)
        words = [sys.executable, str(DRIVER), str(state), kind if kind in ("crun", "runc") else "embedded"]
        if kind == "embedded-rootless":
            os.chown(state, FIRST_ID, FIRST_ID)
            words.append("--user-namespace")
        root = Path(__file__).parents[2]
        environment = {
            **os.environ,
            "PYTHONPATH": str(root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOST_SECRET": "leak",
        }
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def ask(self, operation: str, **keywords: Any) -> dict[str, Any]:
        """Carry out one operation; raises the error that the executor raised."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"op": operation, **keywords}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the driver has ended"
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise from_json(answer["error"])
        return answer

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=20)


@dataclass
class Container:
    """A container that was created."""

    box: Box
    id: str
    pid: int
    bundle: Path
    waited: bool = False

    def start(self) -> Container:
        self.box.driver.ask("start", id=self.id)
        return self

    def wait(self) -> Result:
        self.waited = True
        return self.box.finish(self.pid)

    def wait_for_output(self) -> str:
        """Wait until the container has written something."""
        return str(self.box.driver.ask("output", pid=self.pid)["out"])

    def exec(
        self, *args: str, user: Mapping[str, Any] | None = None, terminal: bool = False, **changes: Any
    ) -> Result:
        """Run a further process to its end."""
        return self.box.finish(self.exec_start(*args, user=user, terminal=terminal, **changes))

    def exec_start(
        self, *args: str, user: Mapping[str, Any] | None = None, terminal: bool = False, **changes: Any
    ) -> int:
        template = json.loads((self.bundle / "config.json").read_text())["process"]
        process = build_process(
            args, ["PATH=/bin", "EXEC=1"], "/", template=template, user=user, terminal=terminal
        )
        return int(self.box.driver.ask("execute", id=self.id, process={**process, **changes})["pid"])

    def kill(self, signal: int, *, everything: bool = False) -> None:
        self.box.driver.ask("kill", id=self.id, signal=signal, everything=everything)

    def delete(self) -> None:
        self.box.driver.ask("delete", id=self.id)
        if not self.waited:
            self.wait()

    @property
    def host_proc(self) -> Path:
        return Path(f"/proc/{self.pid}")


@dataclass
class Box:
    """Makes bundles in ``base`` and runs them with one executor."""

    kind: str
    driver: Driver
    base: Path
    containers: list[Container] = field(default_factory=list)

    @property
    def is_embedded(self) -> bool:
        return self.kind.startswith("embedded")

    @property
    def in_user_namespace(self) -> bool:
        return self.kind in ("embedded-userns", "embedded-rootless")

    @property
    def has_groups(self) -> bool:
        """Whether this executor can limit containers here."""
        return self.kind != "embedded-rootless" and probe_cgroups().available

    @property
    def rootfs(self) -> Path:
        return self.base / "rootfs"

    def make_rootfs(self) -> Path:
        """Make the root filesystem that all bundles of this box use (once)."""
        if self.rootfs.exists():
            return self.rootfs
        for name in ("bin", "proc", "sys", "dev", "etc", "tmp"):
            (self.rootfs / name).mkdir(parents=True)
        shutil.copy(BUSYBOX, self.rootfs / "bin" / "busybox")
        applets = subprocess.run(
            [BUSYBOX, "--list"], capture_output=True, text=True, check=True
        ).stdout.split()
        for name in applets:
            if name != "busybox":
                os.link(self.rootfs / "bin" / "busybox", self.rootfs / "bin" / name)
        (self.rootfs / "tmp").chmod(0o1777)
        (self.rootfs / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        self.give(self.rootfs)
        return self.rootfs

    def give(self, path: Path) -> None:
        """Give a tree to the container's root, where that is another user on the host."""
        if not self.in_user_namespace:
            return
        for directory, names, files in os.walk(path):
            for name in (".", *names, *files):
                os.lchown(os.path.join(directory, name), FIRST_ID, FIRST_ID)

    def make_bundle(
        self,
        args: Sequence[str],
        patch: Patch | None = None,
        *,
        host: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> tuple[Path, str]:
        """Write a bundle; return it and the id of its container.

        Args:
            args: the command.
            patch: changes the finished config.json.
            host, config: fields of the create request's HostConfig and of itself.
            facts: fields of :class:`HostFacts`.
        """
        self.make_rootfs()
        container_id = f"t{secrets.token_hex(6)}"
        bundle = self.base / container_id
        bundle.mkdir(mode=0o711)
        values: dict[str, Any] = {
            "rootfs": str(self.rootfs),
            "machine": os.uname().machine,
            "kernel": parse_kernel_release(os.uname().release),
            "hostname": "box",
            "cgroups_path": f"/{GROUPS}/{container_id}" if self.has_groups else "",
            "rootless": self.kind == "embedded-rootless",
        }
        request = complete({"Cmd": list(args), "Env": ["PATH=/bin"], **config, "HostConfig": host or {}})
        spec = build_spec(Definition(request, {}), HostFacts(**(values | dict(facts or {}))))
        if self.kind == "embedded-userns":
            spec["linux"]["namespaces"].append({"type": "user"})
            mapping = [{"containerID": 0, "hostID": FIRST_ID, "size": IDS}]
            spec["linux"] |= {"uidMappings": mapping, "gidMappings": mapping}
        if patch is not None:
            patch(spec)
        (bundle / "config.json").write_text(json.dumps(spec))
        return bundle, container_id

    def create(
        self, *args: str, stdin: str | None = None, patch: Patch | None = None, **request: Any
    ) -> Container:
        """Create a container; it is deleted at the test's end where the test does not."""
        bundle, container_id = self.make_bundle(args, patch, **request)
        source = bundle / "stdin"
        if stdin is not None:
            source.write_text(stdin)
        self.give(bundle)
        answer = self.driver.ask(
            "create",
            bundle=str(bundle),
            id=container_id,
            stdin=str(source) if stdin is not None else "",
            terminal=bool(request.get("Tty")),
        )
        container = Container(self, container_id, answer["pid"], bundle)
        self.containers.append(container)
        return container

    def start(self, *args: str, **request: Any) -> Container:
        """Create and start a container."""
        return self.create(*args, **request).start()

    def start_shell(self, **request: Any) -> Container:
        """Start a shell that waits, and return once it runs.

        crun and runc return from start while the container's process is still their own, on its way to execve(2).
        """
        container = self.start("sh", "-c", "echo on; sleep 100; :", **request)
        container.wait_for_output()
        return container

    def run(self, *args: str, **request: Any) -> Result:
        """Run a container to its end and delete it."""
        container = self.start(*args, **request)
        result = container.wait()
        container.delete()
        self.containers.remove(container)
        return result

    def sh(self, script: str, **request: Any) -> Result:
        """:meth:`run` a shell script."""
        return self.run("sh", "-c", script, **request)

    def finish(self, pid: int) -> Result:
        """Wait for a process of a container."""
        answer = self.driver.ask("wait", pid=pid)
        return Result(answer["code"], answer["out"], answer["err"])

    def fail(self, *args: str, **request: Any) -> PyDockError:
        """Run a container that must not come to run; return the error."""
        try:
            container = self.create(*args, **request)
            try:
                container.start()
            except PyDockError:
                container.delete()
                self.containers.remove(container)
                raise
        except PyDockError as error:
            return error
        raise AssertionError("the container was started")

    def list_groups(self) -> list[str]:
        """The control groups of tests that are there now."""
        layout = read_layout()
        places = {*layout.v1.values(), *([layout.unified] if layout.unified else [])}
        return sorted(str(path) for place in places for path in place.glob(f"{GROUPS}/*") if path.is_dir())

    def census(self) -> dict[str, Any]:
        census = self.driver.ask("census", base=str(self.base))
        census.pop("seconds")
        census["groups"] = self.list_groups()
        census["host mounts"] = [
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.base) in line
        ]
        return census

    def clean(self) -> None:
        for container in self.containers:
            container.delete()
        self.containers.clear()


@contextlib.contextmanager
def opened_box(kind: str, driver: Driver, base: Path) -> Iterator[Box]:
    """A box for one test, with a check that nothing is left of its containers."""
    make_passable(base)
    box = Box(kind, driver, base)
    before = box.census()
    yield box
    box.clean()
    if not driver.has_ended:  # a test may kill it
        assert box.census() == before


def remove_test_groups() -> None:
    """Remove the directory in which the tests' control groups were."""
    layout = read_layout()
    for place in {*layout.v1.values(), *([layout.unified] if layout.unified else [])}:
        with contextlib.suppress(OSError):
            (place / GROUPS).rmdir()
