"""The engine of this host; each part is created when it is first used."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING

from pydock_core.engine.state import State
from pydock_core.paths import StateRoot, default_root

if TYPE_CHECKING:
    from pydock_core.engine.containers import Containers
    from pydock_core.engine.copies import Copies
    from pydock_core.engine.events import Events
    from pydock_core.engine.filesystems import Filesystems
    from pydock_core.engine.images import Images
    from pydock_core.engine.networks import Networks
    from pydock_core.engine.processes import Processes
    from pydock_core.engine.protocol import EngineProtocol
    from pydock_core.engine.registries import Registries
    from pydock_core.engine.system import System
    from pydock_core.engine.usage import Usage
    from pydock_core.engine.volumes import Volumes


class Engine:
    """Images and containers of one state root: :class:`pydock_core.engine.protocol.EngineProtocol` on this host.

    It is synchronous and safe to use from several threads; any number of engines, in any number of processes, may share
    one state root.  Creating one touches nothing; the directories are made when a part is first used.

    Args:
        root: the state root; by default the user's own (see :func:`pydock_core.paths.default_root`).

    Attributes:
        containers: see :class:`pydock_core.engine.containers.Containers`.
        events: see :class:`pydock_core.engine.events.Events`.
        copies: see :class:`pydock_core.engine.copies.Copies`.
        filesystems: see :class:`pydock_core.engine.filesystems.Filesystems`.
        images: see :class:`pydock_core.engine.images.Images`.
        networks: see :class:`pydock_core.engine.networks.Networks`.
        processes: see :class:`pydock_core.engine.processes.Processes`.
        registries: see :class:`pydock_core.engine.registries.Registries`.
        system: see :class:`pydock_core.engine.system.System`.
        usage: see :class:`pydock_core.engine.usage.Usage`.
        volumes: see :class:`pydock_core.engine.volumes.Volumes`.
        state: what the parts share; not for front ends.
    """

    def __init__(self, root: StateRoot | None = None) -> None:
        self.state = State(root or default_root())

    @property
    def root(self) -> StateRoot:
        return self.state.root

    @cached_property
    def containers(self) -> Containers:
        from pydock_core.engine.containers import Containers

        return Containers(self.state)

    @cached_property
    def events(self) -> Events:
        from pydock_core.engine.events import Events

        return Events(self.state)

    @cached_property
    def copies(self) -> Copies:
        from pydock_core.engine.copies import Copies

        return Copies(self.state)

    @cached_property
    def filesystems(self) -> Filesystems:
        from pydock_core.engine.filesystems import Filesystems

        return Filesystems(self.state, self.containers)

    @property
    def images(self) -> Images:
        return self.state.images

    @cached_property
    def networks(self) -> Networks:
        from pydock_core.engine.networks import Networks

        return Networks(self.state)

    @cached_property
    def processes(self) -> Processes:
        from pydock_core.engine.processes import Processes

        return Processes(self.state)

    @cached_property
    def registries(self) -> Registries:
        from pydock_core.engine.registries import Registries

        return Registries(self.state.image_store)

    @cached_property
    def system(self) -> System:
        from pydock_core.engine.system import System

        return System(self.state, self.containers)

    @cached_property
    def usage(self) -> Usage:
        from pydock_core.engine.usage import Usage

        return Usage(self.state, self.containers, self.volumes)

    @cached_property
    def volumes(self) -> Volumes:
        from pydock_core.engine.volumes import Volumes

        return Volumes(self.state)

    def close(self) -> None:
        """Close this thread's database connection; the engine can still be used."""
        self.state.close()

    def warm(self) -> None:
        """Start the zygote in the background, so that the first container does not wait for it; never fails."""
        threading.Thread(target=self._warm, name="pydock-warm", daemon=True).start()

    def _warm(self) -> None:
        from pydock_core.errors import PyDockError
        from pydock_core.supervision.client import Zygote

        try:
            self.root.ensure()
            Zygote(self.root).ping()
        except (PyDockError, OSError):
            return  # the first container's start reports the cause


if TYPE_CHECKING:
    _conforms: EngineProtocol = Engine()
