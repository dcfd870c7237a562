"""Version, host information and diagnosis, in Engine API shapes."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from pydock_core.oci.platform import host_architecture

if TYPE_CHECKING:
    from pydock_core.engine.consistency.finding import Finding
    from pydock_core.engine.containers import Containers
    from pydock_core.engine.state import State
    from pydock_core.errors import PyDockError
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
        from pydock_core.cdi.spec_directory import list_directories  # late: `version` has none of it

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
            "CDISpecDirs": [str(directory) for directory in list_directories()],
            "SecurityOptions": ["name=seccomp,profile=builtin"]
            + ([] if os.geteuid() == 0 else ["name=rootless"]),
            "Warnings": [],
        }

    def examine(self) -> list[Check]:
        """Return this host's features; see :func:`pydock_core.host.examine`."""
        from pydock_core.host import examine

        return examine(self._state.root)

    def check(self, *, repair: bool = False) -> list[Finding]:
        """Return the inconsistencies of this state root.

        The check is safe while other processes work on the root: it does not report work in progress.

        Args:
            repair: repair as much as possible; otherwise nothing changes.

        Returns:
            Findings; with ``repair``, first the repaired and then the remaining ones.
        """
        from pydock_core.engine.consistency.check import Consistency

        return Consistency(self._state).check(repair=repair)

    def start_by_policy(self) -> Iterator[tuple[str, PyDockError | None]]:
        """Start containers after a reboot; see :func:`pydock_core.engine.boot.start_containers`."""
        from pydock_core.engine.boot import start_containers

        return start_containers(self._state, self._containers)

    def install_restart(self, *, remove: bool = False) -> str:
        """Install or remove the unit that starts them; see :func:`pydock_core.engine.boot.install_unit`."""
        from pydock_core.engine.boot import install_unit

        return install_unit(remove=remove)


def package_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("pydock-jupyter")
    except PackageNotFoundError:  # run from a tree that was never installed
        return "0+unknown"
