"""The directory driver: every layer is a directory tree, and overlayfs stacks them.

Under ``StateRoot.layers/directory``, mode 0700 (a layer holds set-user-id programs and device nodes that
nobody on the host may reach)::

    HEX/fs/         the layer's tree, whiteouts and opaque directories in overlayfs's terms
    HEX/layer.json  {"size_bytes", "entries", "opaque_root", ...}: written last
    empty/          the bottom of an image without layers
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydock_core import syscalls
from pydock_core.errors import CorruptError, FailedError, NotFoundError, UnsupportedError
from pydock_core.oci.digest import HEX_LENGTH, digest_hex, short_id
from pydock_core.oci.documents import layer_compression
from pydock_core.paths import StateRoot
from pydock_core.runtime.plan import RootMount
from pydock_core.store.compression import ANEW, BUFFER_BYTES, open_plain
from pydock_core.store.layer_blob import LayerBlob, reading_end
from pydock_core.store.layer_tar import Applied, LayerApplier, no_space
from pydock_core.store.tar_reader import CHUNK_BYTES, ForwardSource, TarReader
from pydock_core.store.worker import Progress, Worker
from pydock_core.store.workspace import open_workspace, spread_directories

_APPLY = "pydock_core.store.snapshots.directory:apply_blob"
_REMOVE = "pydock_core.store.trees:remove_tree"
_EMPTY = "empty"
_METADATA = "layer.json"
_TREE = "fs"
# Enough for a header and the data of small files; the data of others is not read through the buffer.
_HEADER_BUFFER_BYTES = 32 << 10


class DirectorySnapshotter:
    """Keeps layers as directory trees; see :class:`pydock_core.store.snapshots.protocol.Snapshotter`.

    Args:
        root: the state root, with its skeleton made.
        worker: makes and removes trees as root of the user's namespace.
        user_xattrs: overlayfs is mounted in a user namespace and keeps its attributes under "user."; by
        default
            where this process is not root of the host.
    """

    name = "directory"

    def __init__(self, root: StateRoot, worker: Worker, *, user_xattrs: bool | None = None) -> None:
        self._base = root.layers / self.name
        self._temporary = root.temporary
        self._trash = root.trash
        self._worker = worker
        self._user_xattrs = needs_user_xattrs() if user_xattrs is None else user_xattrs
        self._base.mkdir(mode=0o700, exist_ok=True)
        spread_directories(root.temporary)

    def has(self, diff_id: str) -> bool:
        """See the protocol."""
        return (self._base / digest_hex(diff_id)).is_dir()

    def size_bytes(self, diff_id: str) -> int:
        """See the protocol."""
        return int(self._metadata(diff_id)["size_bytes"])

    def diff_ids(self) -> list[str]:
        """See the protocol."""
        return [f"sha256:{entry.name}" for entry in os.scandir(self._base) if len(entry.name) == HEX_LENGTH]

    def apply(self, diff_id: str, blob: LayerBlob, progress: Progress | None = None) -> int:
        """See the protocol."""
        place = self._base / digest_hex(diff_id)
        if place.is_dir():
            return self.size_bytes(diff_id)
        with open_workspace(self._temporary, "layer", self._remove_tree) as workspace:
            made = workspace.path / "layer"
            made.mkdir(mode=0o711)
            arguments = {
                "media_type": blob.media_type,
                "diff_id": diff_id,
                "target": str(made),
                "user_xattrs": self._user_xattrs,
                "size_bytes": 0 if blob.arrival else blob.path.stat().st_size,
            }
            with reading_end(blob) as blob_fd:
                # With the lock's descriptor, a worker that outlives this process keeps its directory from the
                # sweepers.
                self._worker.call(_APPLY, arguments, (blob_fd, workspace.lock_fd), progress)
            try:
                os.rename(made, place)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise FailedError(
                        f"layer {diff_id} could not be put in its place: {error.strerror}"
                    ) from error
                # Another process made it meanwhile, from the same bytes.
        _sync_directory(self._base)
        return self.size_bytes(diff_id)

    def mounts(self, diff_ids: Sequence[str], upper: Path | None, work: Path | None) -> tuple[RootMount, ...]:
        """See the protocol."""
        lower: list[str] = []
        # overlayfs refuses a directory that it has already.  Of a layer that is there twice the upper place
        # decides: whatever it changes, it changes there again.
        for diff_id in dict.fromkeys(reversed(diff_ids)):
            metadata = self._metadata(diff_id)
            lower.append(str(self._base / digest_hex(diff_id) / _TREE))
            if metadata["opaque_root"]:
                break  # overlayfs itself does not look at the roots of its layers
        options = ("userxattr",) if self._user_xattrs else ()
        if not lower:
            lower.append(str(self._empty()))
        if upper is not None and work is not None:
            return (RootMount("overlay", "", tuple(lower), str(upper), str(work), options),)
        if len(lower) == 1:
            return (RootMount("bind", lower[0], options=("ro",)),)
        return (RootMount("overlay", "", tuple(lower), options=(*options, "ro")),)

    def remove(self, diff_id: str) -> None:
        """See the protocol."""
        trash = self._trash / f"layer-{digest_hex(diff_id)[:12]}-{secrets.token_hex(4)}"
        try:
            os.rename(self._base / digest_hex(diff_id), trash)
        except FileNotFoundError:
            return
        self._remove_tree(trash)

    def _empty(self) -> Path:
        path = self._base / _EMPTY
        path.mkdir(mode=0o755, exist_ok=True)
        return path

    def _remove_tree(self, path: Path) -> None:
        self._worker.call(_REMOVE, {"path": str(path)})

    def _metadata(self, diff_id: str) -> dict[str, Any]:
        path = self._base / digest_hex(diff_id) / _METADATA
        try:
            with open(path, "rb") as file:
                return cast("dict[str, Any]", json.load(file))
        except FileNotFoundError as error:
            raise NotFoundError(
                f"layer {diff_id} is not in the store", "load, capture or pull the image again"
            ) from error
        except ValueError as error:
            raise CorruptError(
                f"layer {diff_id} is damaged: {path} is no JSON", "remove the image and load it anew"
            ) from error


def needs_user_xattrs() -> bool:
    """Whether overlayfs mounts of this user need ``userxattr``: "trusted." attributes want root of the
    host.
    """
    if os.geteuid() != 0:
        return True
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != ["0", "0", "4294967295"]


def has_one_id() -> bool:
    """Whether the user namespace of this process maps one id only: that of a user without subordinate ids."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return [line.split()[2] for line in file] == ["1"]


def apply_blob(
    media_type: str,
    diff_id: str,
    target: str,
    user_xattrs: bool,
    size_bytes: int,
    *,
    fds: Sequence[int] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make ``target``/fs and ``target``/layer.json of a layer's blob, on disk when it returns.  A worker
    function.

    Args:
        media_type: how the blob is compressed.
        diff_id: what the uncompressed tar's digest must be.
        target: an empty directory.
        user_xattrs: see :class:`DirectorySnapshotter`.
        size_bytes: of the blob; 0 where it arrives through a pipe.
        fds: the blob, a file at its start or a pipe; and what is kept open while it runs.
        progress: see the protocol's ``apply``.

    Returns:
        what :class:`pydock_core.store.layer_tar.Applied` says, as a dictionary.

    Raises:
        CorruptError, InvalidError, UnavailableError, UnsupportedError: as the protocol's ``apply``.
    """
    compression = layer_compression(media_type)
    if compression is None:
        raise UnsupportedError(f"layer {diff_id} has media type {media_type!r}, which is no layer's", ANEW)
    subject = f"layer {short_id(diff_id)}"
    tree = os.path.join(target, _TREE)
    try:
        os.mkdir(tree, 0o755)
        os.chmod(tree, 0o755)
        root_fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            is_file = bool(size_bytes)
            buffer_bytes = BUFFER_BYTES if compression or not is_file else _HEADER_BUFFER_BYTES
            with open(fds[0], "rb", buffering=buffer_bytes, closefd=False) as file:

                def report(current: int) -> None:
                    if progress is not None:
                        progress(
                            {
                                "status": "Extracting",
                                "id": short_id(diff_id),
                                "current": current,
                                "total": size_bytes,
                            }
                        )

                applier = LayerApplier(
                    root_fd,
                    user_xattrs=user_xattrs,
                    squash_owners=has_one_id(),
                    subject=subject,
                    progress=report,
                )
                read = _apply_stream if compression or not is_file else _apply_file
                applied = read(applier, file, compression, diff_id, subject)
            result = asdict(applied)
            _write_metadata(os.path.join(target, _METADATA), result)
            syscalls.syncfs(root_fd)
        finally:
            os.close(root_fd)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(subject) from error
        raise FailedError(f"{subject} could not be applied: {error}", "see dock doctor") from error
    return result


def _apply_file(applier: LayerApplier, file: BinaryIO, _: str, diff_id: str, subject: str) -> Applied:
    """Apply a plain tar: the kernel copies from file to file, while a thread computes the digest."""
    with _DigestThread(file.fileno()) as digest:
        applied = applier.apply(TarReader(file, subject, fd=file.fileno()))
    _check_digest(digest.result, diff_id, subject)
    return applied


def _apply_stream(
    applier: LayerApplier, file: BinaryIO, compression: str, diff_id: str, subject: str
) -> Applied:
    hashing = _HashingStream(open_plain(file, compression, subject))
    applied = applier.apply(TarReader(ForwardSource(hashing), subject))
    while hashing.read(CHUNK_BYTES):
        pass  # what follows the archive's end marker belongs to the digest
    _check_digest("sha256:" + hashing.digest.hexdigest(), diff_id, subject)
    return applied


def _check_digest(actual: str, diff_id: str, subject: str) -> None:
    if actual != diff_id:
        raise CorruptError(f"{subject} has the digest {actual}, not {diff_id}", ANEW)


class _HashingStream:
    """Computes the digest of what is read through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self.digest.update(data)
        return data


class _DigestThread:
    """Computes the digest of a whole file beside other work; waits for the end of it on leaving."""

    result: str

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._stop = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="layer-digest", daemon=True)

    def _run(self) -> None:
        digest, position = hashlib.sha256(), 0
        try:
            while not self._stop.is_set() and (data := os.pread(self._fd, CHUNK_BYTES, position)):
                digest.update(data)
                position += len(data)
        except OSError as error:
            self._error = error
        self.result = "sha256:" + digest.hexdigest()

    def __enter__(self) -> _DigestThread:
        self._thread.start()
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        if kind is not None:
            self._stop.set()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error


def _write_metadata(path: str, document: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
