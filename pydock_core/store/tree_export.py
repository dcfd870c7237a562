"""Writes the whole file system of a container as a tar.  Runs in a worker."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pydock_core.errors import FailedError
from pydock_core.progress import Progress
from pydock_core.store.layer_tar import no_space
from pydock_core.store.private_root import open_private_root, open_running_root
from pydock_core.store.tar_writer import TarWriter, write_all
from pydock_core.store.tree_tar import TreeTar


def export_tree(
    root_mounts: Sequence[Mapping[str, Any]],
    mount_point: str,
    supervisor: Mapping[str, Any] | None,
    rootfs: str,
    *,
    fds: Sequence[int] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a container's file system.  A worker function.

    Args:
        root_mounts: of a container that does not run; see :func:`open_private_root`.
        mount_point: an empty directory.
        supervisor: of one that runs; None for one that does not.
        rootfs: where the supervisor has mounted it.
        fds: where the archive goes: a file, a pipe, a socket.
        progress: unused; the signature is that of all worker functions.

    Returns:
        {"size_bytes", "entries", "notes"}.

    Raises:
        ConflictError: the container has ended meanwhile.
        UnavailableError: the disk that the archive goes to is full.
        FailedError: whoever read the archive is gone; or something cannot be read.
    """
    output = TarWriter(partial(write_all, fds[0]), fds[0])
    try:
        root_fd = (
            open_private_root(root_mounts, mount_point)
            if supervisor is None
            else open_running_root(supervisor, rootfs)
        )
        tree = TreeTar(root_fd, output, "the container's file system")
        tree.write()
        output.finish()
    except BrokenPipeError as error:
        raise FailedError("the archive's reader went away before its end") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space("the archive") from error
        raise FailedError(f"the container's file system could not be exported: {error}") from error
    os.close(root_fd)
    return {"size_bytes": output.size_bytes, "entries": tree.entries, "notes": tree.notes.lines}
