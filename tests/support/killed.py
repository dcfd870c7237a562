"""Kills a process at a chosen step of what it does, and looks at what it has left of a store of images."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from pydock_core.engine import Engine
from pydock_core.paths import StateRoot
from pydock_core.store.database import distribution
from pydock_core.store.database import images as sql

STEPS = ("rename", "link", "mkdir", "rmdir", "unlink", "fsync", "ftruncate", "pwrite")
"""Calls that change what others see; each is a step, and between two of them are the transactions."""


def dies_at(step: int, operation: Callable[[], object]) -> bool:
    """Run an operation in a process of its own that is killed (SIGKILL) before its step number ``step``, from 0.

    Returns:
        whether it came to its end before that.
    """

    def watched() -> None:
        _watch(step)
        operation()

    code = run_in_fork(watched)
    assert code in (0, -signal.SIGKILL), f"the operation failed with {code}; see standard error"
    return code == 0


def in_child(operation: Callable[[], object]) -> None:
    """Run a part of a test in a process of its own: what it mounts for itself is gone afterwards."""
    assert run_in_fork(operation) == 0, "it failed; see standard error"


def run_in_fork(operation: Callable[[], object]) -> int:
    """Run an operation in a process of its own; return its exit code, -n for signal n.  No database may be open."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            operation()
            code = 0
        except BaseException:  # noqa: BLE001  # a forked process must not go on into the test runner
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _watch(step: int) -> None:
    left = step
    lock = threading.Lock()

    def watched(function: Callable[..., object]) -> Callable[..., object]:
        def call(*words: object, **keywords: object) -> object:
            nonlocal left
            with lock:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*words, **keywords)

        return call

    for name in STEPS:
        setattr(os, name, watched(getattr(os, name)))


def state_root(base: Path) -> StateRoot:
    """The state root below a directory, as PYDOCK_ROOT has it."""
    return StateRoot(base / "data", base / "run")


@contextlib.contextmanager
def opened(base: Path) -> Iterator[Engine]:
    """An engine on a state root; its database is closed afterwards, so that a fork inherits none."""
    engine = Engine(state_root(base))
    try:
        yield engine
    finally:
        engine.close()


def contents(engine: Engine) -> list[str]:
    """Every path below the state root but the database's, the locks', and what is made once."""
    data = engine.root.data
    found = []
    for directory, directories, files in os.walk(data):
        for name in (*directories, *files):
            path = os.path.relpath(os.path.join(directory, name), data)
            if (
                not path.startswith("pydock.db")
                and not name.endswith("lock")
                and path.partition("/")[0] != "reserve"
                and path != "images/partial"
            ):
                found.append(path)
    return sorted(found)


def empty_trash(engine: Engine) -> None:
    """What the next command on containers does with what a killed removal has left."""
    engine.state.remover.sweep()


def check_whole(engine: Engine) -> None:
    """Every listed image has its documents, blobs and layers, each with the content that its digest says."""
    blobs = engine.state.image_store.blobs
    for digest in blobs.digests():
        with open(blobs.blob_path(digest), "rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest[7:]
    for image in engine.images.list():
        row = engine.images.resolve(image["Id"])
        blobs.read(row.manifest_digest, "manifest")
        blobs.read(row.id, "config")
        for layer in sql.layers_of(engine.state.database, row.id):
            assert blobs.has(layer.blob_digest)
            assert engine.state.snapshotter.has(layer.diff_id)
            engine.state.snapshotter.size_bytes(layer.diff_id)
            tar = engine.root.layers / "erofs" / layer.diff_id[7:] / "layer.tar"
            if tar.exists():
                with tar.open("rb") as file:
                    assert hashlib.file_digest(file, "sha256").hexdigest() == layer.diff_id[7:]


def check_nothing_left(engine: Engine) -> None:
    """There are no images, and nothing that images or the adding of images may leave."""
    empty_trash(engine)
    assert engine.images.list() == []
    assert engine.state.image_store.blobs.digests() == []
    assert engine.state.snapshotter.diff_ids() == []
    assert distribution.leased(engine.state.database, 0) == set()
    for directory in (engine.root.temporary, engine.root.trash, engine.root.images / "partial"):
        assert not directory.exists() or list(directory.iterdir()) == []
