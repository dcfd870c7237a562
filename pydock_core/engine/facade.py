"""Puts the engine's parts together, each when it is first used."""

from __future__ import annotations

import os
import threading
from functools import cached_property
from typing import TYPE_CHECKING

from pydock_core.errors import DeniedError, UnavailableError
from pydock_core.paths import StateRoot, default_root

if TYPE_CHECKING:
    from pydock_core.engine.containers import Containers
    from pydock_core.engine.filesystems import Filesystems
    from pydock_core.engine.images import Images
    from pydock_core.engine.launch import Launcher
    from pydock_core.engine.registries import Registries
    from pydock_core.engine.system import System
    from pydock_core.engine.tidy import Remover
    from pydock_core.engine.usage import Usage
    from pydock_core.images.image_store import ImageStore
    from pydock_core.store.database import Database
    from pydock_core.store.snapshots.protocol import Snapshotter
    from pydock_core.store.worker import Worker


class Engine:
    """Images and containers of one state root.

    A synchronous library, safe to use from several threads; any number of engines, in any number of processes,
    work on one state root.  Making one touches nothing; the directories are made when a part is first used.

    Args:
        root: where the state is; the user's own (see :func:`pydock_core.paths.default_root`) by default.

    Attributes:
        containers: see :class:`pydock_core.engine.containers.Containers`.
        filesystems: see :class:`pydock_core.engine.filesystems.Filesystems`.
        images: see :class:`pydock_core.engine.images.Images`.
        registries: see :class:`pydock_core.engine.registries.Registries`.
        system: see :class:`pydock_core.engine.system.System`.
        usage: see :class:`pydock_core.engine.usage.Usage`.
    """

    def __init__(self, root: StateRoot | None = None) -> None:
        self.root = root or default_root()
        self._has_swept = False

    @cached_property
    def database(self) -> Database:
        from pydock_core.store.database import Database
        from pydock_core.store.reserve import Reserve

        self._ensure_root()
        return Database(self.root.database, Reserve(self.root.reserve))

    def _ensure_root(self) -> None:
        try:
            self.root.ensure()
        except PermissionError as error:
            raise DeniedError(
                f"state directory {error.filename}: permission denied",
                "set PYDOCK_ROOT to a directory of yours",
            ) from error
        except OSError as error:
            raise UnavailableError(
                f"state directory {error.filename}: {error.strerror}", "set PYDOCK_ROOT to another directory"
            ) from error

    @cached_property
    def worker(self) -> Worker:
        """Root does storage jobs itself; for others a worker does, as root of the user's namespace."""
        if os.geteuid() == 0:
            from pydock_core.store.worker import LocalWorker

            return LocalWorker()
        from pydock_core.supervision.client import ZygoteWorker

        return ZygoteWorker(self.root)

    @cached_property
    def snapshotter(self) -> Snapshotter:
        from pydock_core.store.snapshots.layers import open_layers

        self._ensure_root()
        return open_layers(self.root, self.worker)

    @cached_property
    def image_store(self) -> ImageStore:
        from pydock_core.images.image_store import ImageStore

        return ImageStore(self.root, self.database, self.snapshotter, self.worker)

    @cached_property
    def images(self) -> Images:
        from pydock_core.engine.images import Images

        return Images(self.image_store)

    @cached_property
    def registries(self) -> Registries:
        from pydock_core.engine.registries import Registries

        return Registries(self.image_store)

    @cached_property
    def filesystems(self) -> Filesystems:
        from pydock_core.engine.filesystems import Filesystems

        return Filesystems(self)

    @cached_property
    def usage(self) -> Usage:
        from pydock_core.engine.usage import Usage

        return Usage(self)

    @cached_property
    def containers(self) -> Containers:
        from pydock_core.engine.containers import Containers

        return Containers(self)

    def sweep_once(self) -> None:
        """Tidy up after killed processes, before this engine's first change of a container; reads do not."""
        if not self._has_swept:
            self._has_swept = True
            self.remover.sweep()

    @cached_property
    def launcher(self) -> Launcher:
        from pydock_core.engine.launch import Launcher

        return Launcher(self.root, self.database, self.images, self.snapshotter)

    @cached_property
    def remover(self) -> Remover:
        from pydock_core.engine.tidy import Remover

        return Remover(self.root, self.database, self.worker)

    @cached_property
    def system(self) -> System:
        from pydock_core.engine.system import System

        return System(self)

    def close(self) -> None:
        """Close what this thread holds open (the database); the engine can still be used."""
        if "database" in self.__dict__:
            self.database.close()

    def warm(self) -> None:
        """Start the zygote in the background, so that the first container need not wait for it; never fails."""
        threading.Thread(target=self._warm, name="pydock-warm", daemon=True).start()

    def _warm(self) -> None:
        from pydock_core.errors import PyDockError
        from pydock_core.supervision.client import Zygote

        try:
            self.root.ensure()
            Zygote(self.root).ping()
        except (PyDockError, OSError):
            return  # whoever needs the zygote will say why it cannot be there
