"""Version, host information and diagnosis, in Engine API shapes."""

from __future__ import annotations

import os
import platform
from collections.abc import Hashable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from pydock_core.oci.platform import host_architecture

if TYPE_CHECKING:
    from pydock_core.engine.containers import Containers
    from pydock_core.engine.state import State
    from pydock_core.host import Check

API_VERSION = "1.51"


class System:
    """The use cases ``version``, ``info`` and ``doctor``."""

    def __init__(self, state: State, containers: Containers) -> None:
        self._state = state
        self._containers = containers

    def version(self) -> dict[str, Any]:
        """Return SystemVersion of the Engine API."""
        return {
            "Version": package_version(),
            "ApiVersion": API_VERSION,
            "MinAPIVersion": API_VERSION,
            "Os": "linux",
            "Arch": host_architecture()[0],
            "KernelVersion": platform.release(),
            "Python": platform.python_version(),
        }

    def info(self) -> dict[str, Any]:
        """Return SystemInfo of the Engine API, as far as it applies without a daemon."""
        summaries = self._containers.list(all=True)
        states = [summary["State"] for summary in summaries]
        return {
            "ID": str(self._state.root.data),
            "Containers": len(states),
            "ContainersRunning": states.count("running"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
            "Images": len(self._state.images.list()),
            "Driver": self._state.snapshotter.name,
            "DriverStatus": [list(pair) for pair in self._state.snapshotter.status()],
            "DockerRootDir": str(self._state.root.data),
            "Name": platform.node(),
            "ServerVersion": package_version(),
            "KernelVersion": platform.release(),
            "OSType": "linux",
            "Architecture": platform.machine(),
            "NCPU": os.cpu_count() or 1,
            "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "DefaultRuntime": "embedded",
            "SecurityOptions": ["name=seccomp,profile=builtin"]
            + ([] if os.geteuid() == 0 else ["name=rootless"]),
            "Warnings": [],
        }

    def examine(self) -> list[Check]:
        """Return this host's features; see :func:`pydock_core.host.examine`."""
        from pydock_core.host import examine

        return examine(self._state.root)

    def revision(self) -> Hashable:
        """Return a value that changes with the containers or images, cheap enough to poll.

        It consists of SQLite's data_version, which counts the commits of other connections (so compare values of one
        thread only), and the modification times of the run directories, where a start and an exit make and remove
        state.json.  Two changes within a tick of the kernel's clock may share a value.
        """
        version = self._state.database.query_one("PRAGMA data_version")[0]
        times = {}
        with suppress(FileNotFoundError), os.scandir(self._state.root.run / "c") as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    times[entry.name] = entry.stat().st_mtime_ns
        return version, frozenset(times.items())


def package_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("pydock-jupyter")
    except PackageNotFoundError:  # run from a tree that was never installed
        return "0+unknown"
