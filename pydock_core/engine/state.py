"""The shared parts of an engine: one state root's database, store and workers, each created on first use."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from pydock_core.errors import DeniedError, UnavailableError
from pydock_core.paths import StateRoot

if TYPE_CHECKING:
    from pydock_core.engine.images import Images
    from pydock_core.engine.launch import Launcher
    from pydock_core.engine.recorder import Recorder
    from pydock_core.engine.tidy import Remover
    from pydock_core.images.image_store import ImageStore
    from pydock_core.store.database import Database
    from pydock_core.store.snapshots.protocol import Snapshotter
    from pydock_core.store.worker import Worker


class State:
    """One state root, shared by the engine's parts.  Creating one touches nothing.

    Args:
        root: the state root.
    """

    def __init__(self, root: StateRoot) -> None:
        self.root = root
        self._has_swept = False

    @cached_property
    def database(self) -> Database:
        from pydock_core.store.database import Database
        from pydock_core.store.reserve import Reserve

        self.ensure_root()
        return Database(self.root.database, Reserve(self.root.reserve), self.root.changed)

    def ensure_root(self) -> None:
        """Make the directories of the state root; DeniedError if that is not permitted."""
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
        """Runs storage jobs: in this process for root, else in a worker that is root of the user's namespace."""
        if os.geteuid() == 0:
            from pydock_core.store.worker import LocalWorker

            return LocalWorker()
        from pydock_core.supervision.client import Zygote

        return Zygote(self.root)

    @cached_property
    def snapshotter(self) -> Snapshotter:
        from pydock_core.store.snapshots.layers import open_layers

        self.ensure_root()
        return open_layers(self.root, self.worker)

    @cached_property
    def image_store(self) -> ImageStore:
        from pydock_core.images.image_store import ImageStore

        return ImageStore(self.root, self.database, lambda: self.snapshotter, self.worker)

    @cached_property
    def images(self) -> Images:
        from pydock_core.engine.images import Images

        return Images(self.image_store)

    @cached_property
    def launcher(self) -> Launcher:
        from pydock_core.engine.launch import Launcher

        return Launcher(self.root, self.database, self.images, self.snapshotter)

    @cached_property
    def remover(self) -> Remover:
        from pydock_core.engine.tidy import Remover

        return Remover(self.root, self.database, self.worker)

    @cached_property
    def recorder(self) -> Recorder:
        from pydock_core.engine.recorder import Recorder

        return Recorder(self.database)

    def sweep_once(self) -> None:
        """Clean up after killed processes, once, before this engine's first change of a container; reads never call it."""
        if not self._has_swept:
            self._has_swept = True
            self.remover.sweep()

    def close(self) -> None:
        """Close this thread's database connection."""
        if "database" in self.__dict__:
            self.database.close()
