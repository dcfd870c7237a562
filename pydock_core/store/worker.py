"""The seam for storage jobs: run in this process, or in a worker that the zygote forks.

An ordinary user's layers contain files of the user's subordinate ids, which only root of the user's namespace can create
and remove.  So a storage job is a plain function at the top level of a module, named "module:function", with keyword
arguments of JSON types, ``fds`` (descriptors) and ``progress`` (a callable, or None)::

    worker.call("pydock_core.store.trees:remove_tree", {"path": "/..."})
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydock_core.errors import DeniedError
from pydock_core.progress import Progress

ALLOWED_FUNCTIONS = frozenset(
    {
        "pydock_core.store.container_copy:copy_in",
        "pydock_core.store.container_copy:copy_out",
        "pydock_core.store.container_copy:read_archive",
        "pydock_core.store.container_copy:stat_path",
        "pydock_core.store.container_copy:write_archive",
        "pydock_core.store.container_removal:remove_container",
        "pydock_core.store.event_recording:record_events",
        "pydock_core.store.snapshots.chained:apply_over",
        "pydock_core.store.snapshots.directory:apply_blob",
        "pydock_core.store.snapshots.owned:copy_tree",
        "pydock_core.store.tree_tar:export_tree",
        "pydock_core.store.trees:give_to",
        "pydock_core.store.trees:remove_tree",
        "pydock_core.store.upper_diff:list_changes",
        "pydock_core.store.upper_tar:write_upper",
        "pydock_core.store.trees:tree_sizes",
        "pydock_core.store.volumes:fill_volume",
        "pydock_core.store.volumes:settle_volume",
    }
)
"""The functions that a worker runs; it refuses all others."""


class Worker(Protocol):
    """Runs a storage job as root of the right user namespace."""

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any],
        fds: Sequence[int] = (),
        progress: Progress | None = None,
    ) -> Any:
        """Run ``function`` and return its result (JSON types).

        Args:
            function: "module:function", one of ALLOWED_FUNCTIONS.
            arguments: keyword arguments, JSON types.
            fds: descriptors, which the job gets copies of.
            progress: called for each progress event, in the caller's process.

        Raises:
            PyDockError: the job's own error; UnavailableError if the worker was killed.
        """
        ...


class LocalWorker:
    """Runs jobs in this process; for root, and for tests."""

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any],
        fds: Sequence[int] = (),
        progress: Progress | None = None,
    ) -> Any:
        """See :meth:`Worker.call`."""
        return perform(function, arguments, fds, progress)


def perform(
    function: str, arguments: Mapping[str, Any], fds: Sequence[int] = (), progress: Progress | None = None
) -> Any:
    """Import an allowed function and call it.

    Raises:
        DeniedError: the function is not on the list.
        PyDockError: the function's own error.
    """
    if function not in ALLOWED_FUNCTIONS:
        raise DeniedError(f"{function} is not a storage job", "see ALLOWED_FUNCTIONS")
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)(**arguments, fds=fds, progress=progress)
