"""The EROFS driver: a layer is its plain tar and an index over it, which the kernel mounts as they are.

Nothing is unpacked, and no loop device is needed (Linux 6.12, CONFIG_EROFS_FS_BACKED_BY_FILE, root of the host).
Under ``StateRoot.layers/erofs``, mode 0700::

    HEX/index.erofs  see pydock_core.store.erofs.layout
    HEX/layer.tar    a hard link to the blob where that is plain and known to be right, else a copy, inflated
    HEX/fs           an empty directory: a kernel before 6.15 needs a place to mount the layer on, each supervisor in
                     its own mount namespace; and the layer's name in a plan
    HEX/layer.json   {"size_bytes", "entries", "opaque_root", ...}: written last
    stack-HEX/       all layers up to one, by its chain id: index.erofs, fs, stack.json {"diff_ids", "devices"}

Why stacks: a mount of each layer costs 0.1 ms at the start and 0.1 ms at the end of a container, which of thirty layers
is a quarter of a start.  An image of more than a few layers gets one index over all its tars, made when the image is
added; and then looking a file up costs no more than in one layer.  A stack is found from the top down, so an image
that was made from another one mounts that one's stack and its own layers.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydock_core.errors import CorruptError, FailedError, NotFoundError, UnsupportedError
from pydock_core.oci.digest import HEX_LENGTH, digest_hex, short_id
from pydock_core.oci.documents import layer_compression
from pydock_core.paths import StateRoot
from pydock_core.runtime.plan import RootMount
from pydock_core.store.compression import ANEW, InflationLimit, open_plain
from pydock_core.store.erofs.merge import merge_indexes
from pydock_core.store.erofs.reader import Index, Inode
from pydock_core.store.erofs.writer import build_index
from pydock_core.store.layer_blob import LayerBlob
from pydock_core.store.layer_digest import check_digest, check_pair
from pydock_core.store.layer_inflate import write_plain
from pydock_core.store.layer_tar import Applied, no_space
from pydock_core.store.snapshots.stack import LayerView, Node, chain_ids, read_merged, root_mounts
from pydock_core.store.worker import Progress, Worker
from pydock_core.store.workspace import open_workspace, spread_directories

_REMOVE = "pydock_core.store.trees:remove_tree"
_METADATA = "layer.json"
_INDEX = "index.erofs"
_TAR = "layer.tar"
_MOUNT_POINT = "fs"
_STACK_PREFIX = "stack-"
_STACK_METADATA = "stack.json"
SEPARATE_LAYERS = 4
"""So many layers are mounted one by one; of more a stack is made."""
_WHOLE = 1 << 62
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class ErofsSnapshotter:
    """Keeps layers as tars with an index; see :class:`pydock_core.store.snapshots.protocol.Snapshotter`.

    Whether the kernel mounts them is :mod:`pydock_core.store.snapshots.probe`'s business.

    Args:
        root: the state root, with its skeleton made.
        worker: removes trees.
    """

    name = "erofs"

    def __init__(self, root: StateRoot, worker: Worker) -> None:
        self._base = root.layers / self.name
        self._temporary = root.temporary
        self._trash = root.trash
        self._worker = worker
        self._known: dict[str, dict[str, Any]] = {}
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
            check_pair(diff_id, blob)
            return self.size_bytes(diff_id)
        subject = f"layer {short_id(diff_id)}"
        with open_workspace(self._temporary, "layer", self._remove_tree) as workspace:
            made = workspace.path / "layer"
            try:
                made.mkdir(mode=0o711)
                _make(diff_id, blob, made, subject, progress)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise no_space(subject) from error
                raise FailedError(f"{subject} could not be applied: {error}", "see dock doctor") from error
            try:
                os.rename(made, place)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise FailedError(
                        f"layer {diff_id} could not be put in its place: {error.strerror}"
                    ) from error
                # Another process made it meanwhile, from the same bytes.
        _sync(self._base)
        return self.size_bytes(diff_id)

    def mounts(self, diff_ids: Sequence[str], upper: Path | None, work: Path | None) -> tuple[RootMount, ...]:
        """See the protocol."""
        empty = self._base / "empty"
        if not diff_ids:
            empty.mkdir(mode=0o755, exist_ok=True)
        return root_mounts([self], diff_ids, upper, work, empty=str(empty), merged=self)

    def lower(self, diff_id: str) -> tuple[str, tuple[RootMount, ...], bool]:
        """See :class:`pydock_core.store.snapshots.stack.Driver`."""
        metadata = self._metadata(diff_id)
        base = f"{self._base}/{digest_hex(diff_id)}/"
        target = base + _MOUNT_POINT
        mount = RootMount("erofs", base + _INDEX, devices=(base + _TAR,), target=target)
        return target, (mount,), bool(metadata["opaque_root"])

    def view(self, diff_id: str) -> LayerView:
        """See :class:`pydock_core.store.snapshots.stack.Driver`."""
        base = f"{self._base}/{digest_hex(diff_id)}/"
        try:
            return IndexView(base + _INDEX, [base + _TAR], f"layer {short_id(diff_id)}")
        except FileNotFoundError as error:
            raise _missing(diff_id) from error

    def tar_path(self, diff_id: str) -> Path:
        """The layer's plain tar: what commit, save, push and another driver read."""
        return self._base / digest_hex(diff_id) / _TAR

    def read_file(self, diff_ids: Sequence[str], path: str, upper: Path | None = None) -> bytes | None:
        """See the protocol."""
        return read_merged([self], diff_ids, path, upper, self)

    # -- stacks ------------------------------------------------------------------------------------------

    def prepare(self, diff_ids: Sequence[str]) -> None:
        """See the protocol: merge the layers where they are many."""
        chains = chain_ids(diff_ids)
        separate = next(
            (count for count, chain_id in enumerate(reversed(chains)) if self._has_stack(chain_id)),
            len(chains),
        )
        if separate <= SEPARATE_LAYERS:
            return
        place = self._stack(chains[-1])
        with open_workspace(self._temporary, "stack", self._remove_tree) as workspace:
            made = workspace.path / "stack"
            made.mkdir(mode=0o711)
            try:
                self._merge(diff_ids, made)
                os.rename(made, place)
            except UnsupportedError:
                return  # too large; its layers are mounted one by one
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise no_space("the index of an image") from error
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise FailedError(f"the index of an image could not be made: {error}") from error
        _sync(self._base)

    def _merge(self, diff_ids: Sequence[str], made: Path) -> None:
        with contextlib.ExitStack() as opened:
            indexes = []
            for diff_id in diff_ids:
                base = f"{self._base}/{digest_hex(diff_id)}/"
                index = Index(base + _INDEX, [base + _TAR], f"layer {short_id(diff_id)}")
                opened.callback(index.close)
                indexes.append(index)
            opaque = [bool(self._metadata(diff_id)["opaque_root"]) for diff_id in diff_ids]
            fd = os.open(made / _INDEX, _NEW, 0o644)
            opened.callback(os.close, fd)
            files = merge_indexes(indexes, opaque, fd, f"image of {len(diff_ids)} layers")
            os.fsync(fd)
        devices = [[digest_hex(diff_ids[file.layer]), _INDEX if file.is_index else _TAR] for file in files]
        (made / _MOUNT_POINT).mkdir(mode=0o755)
        _write_json(made / _STACK_METADATA, {"diff_ids": list(diff_ids), "devices": devices})
        _sync(made)

    def merged_lower(self, chain_id: str) -> tuple[str, tuple[RootMount, ...]] | None:
        """See :class:`pydock_core.store.snapshots.stack.Merged`."""
        devices = self._devices(chain_id)
        if devices is None:
            return None
        base = f"{self._stack(chain_id)}/"
        target = base + _MOUNT_POINT
        return target, (RootMount("erofs", base + _INDEX, devices=devices, target=target),)

    def merged_view(self, chain_id: str) -> LayerView | None:
        """See :class:`pydock_core.store.snapshots.stack.Merged`."""
        devices = self._devices(chain_id)
        if devices is None:
            return None
        try:
            return IndexView(f"{self._stack(chain_id)}/{_INDEX}", devices, f"image {short_id(chain_id)}")
        except FileNotFoundError:
            return None  # removed just now

    def _devices(self, chain_id: str) -> tuple[str, ...] | None:
        try:
            with open(f"{self._stack(chain_id)}/{_STACK_METADATA}", "rb") as file:
                return tuple(f"{self._base}/{layer}/{name}" for layer, name in json.load(file)["devices"])
        except (FileNotFoundError, ValueError):
            return None

    def _stack(self, chain_id: str) -> str:
        return f"{self._base}/{_STACK_PREFIX}{digest_hex(chain_id)}"

    def _has_stack(self, chain_id: str) -> bool:
        return os.path.isdir(self._stack(chain_id))

    def _remove_stacks(self, diff_id: str) -> None:
        """Remove the stacks that a layer is part of."""
        for entry in list(os.scandir(self._base)):
            if not entry.name.startswith(_STACK_PREFIX):
                continue
            try:
                with open(f"{entry.path}/{_STACK_METADATA}", "rb") as file:
                    if diff_id not in json.load(file)["diff_ids"]:
                        continue
            except (FileNotFoundError, ValueError):
                pass  # of no use to anybody
            self._discard(Path(entry.path))

    # -- removing ----------------------------------------------------------------------------------------

    def status(self) -> list[tuple[str, str]]:
        """See the protocol."""
        return [("Layers as EROFS indexes", str(len(self.diff_ids())))]

    def remove(self, diff_id: str) -> None:
        """See the protocol."""
        self._remove_stacks(diff_id)
        self._discard(self._base / digest_hex(diff_id))

    def _discard(self, path: Path) -> None:
        trash = self._trash / f"layer-{path.name[-HEX_LENGTH:][:12]}-{secrets.token_hex(4)}"
        try:
            os.rename(path, trash)
        except FileNotFoundError:
            return
        self._remove_tree(trash)

    def _remove_tree(self, path: Path) -> None:
        self._worker.call(_REMOVE, {"path": str(path)})

    def _metadata(self, diff_id: str) -> dict[str, Any]:
        path = f"{self._base}/{digest_hex(diff_id)}/{_METADATA}"
        known = self._known.get(diff_id)
        if known is not None and os.path.exists(path):
            return known
        try:
            with open(path, "rb") as file:
                self._known[diff_id] = metadata = cast("dict[str, Any]", json.load(file))
        except FileNotFoundError as error:
            raise _missing(diff_id) from error
        except ValueError as error:
            raise CorruptError(
                f"layer {diff_id} is damaged: {path} is no JSON", "remove the image and load it anew"
            ) from error
        return metadata


class IndexView:
    """A layer that is an index; see :class:`pydock_core.store.snapshots.stack.LayerView`."""

    def __init__(self, index: str, files: Sequence[str], subject: str) -> None:
        self._index = Index(index, files, subject)

    def root(self) -> Node | None:
        """See the protocol."""
        return Node(self, self._index.root_nid, stat.S_IFDIR)

    def lookup(self, directory: Node, name: bytes) -> Node | None:
        """See the protocol."""
        nid = self._index.lookup(self._index.inode(directory.place), name)
        if nid is None:
            return None
        inode = self._index.inode(nid)
        kind = stat.S_IFMT(inode.mode)
        return Node(self, nid, kind, self._index.contents(inode) if stat.S_ISLNK(kind) else b"")

    def is_opaque(self, directory: Node) -> bool:
        """See the protocol."""
        return self._index.xattrs(self._inode(directory)).get(b"trusted.overlay.opaque") == b"y"

    def read(self, file: Node, limit: int) -> bytes | None:
        """See the protocol."""
        inode = self._inode(file)
        return None if inode.size > limit else self._index.contents(inode)

    def close(self) -> None:
        """See the protocol."""
        self._index.close()

    def _inode(self, node: Node) -> Inode:
        return self._index.inode(node.place)


def _missing(diff_id: str) -> NotFoundError:
    return NotFoundError(f"layer {diff_id} is not in the store", "load, capture or pull the image again")


# -- making a layer --------------------------------------------------------------------------------------


def _make(diff_id: str, blob: LayerBlob, made: Path, subject: str, progress: Progress | None) -> None:
    compression = layer_compression(blob.media_type)
    if compression is None:
        raise UnsupportedError(
            f"layer {diff_id} has media type {blob.media_type!r}, which is no layer's", ANEW
        )
    index_fd = os.open(made / _INDEX, _NEW, 0o644)
    try:
        if compression or not blob.is_known_as(diff_id):
            applied = _inflate(diff_id, blob, compression, made / _TAR, index_fd, subject, progress)
        else:
            applied = _link(diff_id, blob, made / _TAR, index_fd, subject, progress)
        os.fsync(index_fd)
    finally:
        os.close(index_fd)
    (made / _MOUNT_POINT).mkdir(mode=0o755)
    _write_json(made / _METADATA, asdict(applied))
    _sync(made)


def _inflate(
    diff_id: str,
    blob: LayerBlob,
    compression: str,
    tar: Path,
    index_fd: int,
    subject: str,
    progress: Progress | None,
) -> Applied:
    with open(os.open(tar, _NEW, 0o644), "w+b", buffering=0) as file, blob.open() as stream:
        total = 0 if blob.arrival else os.fstat(stream.fileno()).st_size

        def report(plain_bytes: int) -> None:
            # How much will arrive is not known, nor how much of it has been read.
            _report(progress, diff_id, stream.tell() if total else plain_bytes, total)

        limit = InflationLimit.for_file_system(file.fileno())
        plain = open_plain(stream, compression, subject, limit)
        check_digest(write_plain(plain, file.fileno(), report), diff_id, subject)
        with _rewound(file) as reading:
            applied = build_index(reading, index_fd, subject, tag=digest_hex(diff_id))
        os.fsync(file.fileno())
    return applied


def _link(
    diff_id: str, blob: LayerBlob, tar: Path, index_fd: int, subject: str, progress: Progress | None
) -> Applied:
    with open(blob.path, "rb") as file:
        if blob.arrival is not None:
            blob.arrival.wait(_WHOLE)
        total = os.fstat(file.fileno()).st_size
        _report(progress, diff_id, 0, total)
        applied = build_index(file, index_fd, subject, tag=digest_hex(diff_id))
        os.fsync(file.fileno())  # before the layer is in its place; the blob store has it to do no more
        _link_file(file.fileno(), tar)
        _report(progress, diff_id, total, total)
    return applied


def _link_file(fd: int, target: Path) -> None:
    """Give an open file a further name, or copy it to another file system."""
    directory_fd = os.open(target.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Through the descriptor: the blob may have been renamed meanwhile.  With a directory's descriptor, so that it is
        # linkat(2), which follows the link that /proc has.
        os.link(f"/proc/self/fd/{fd}", target.name, dst_dir_fd=directory_fd, follow_symlinks=True)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.ENOENT, errno.EPERM):
            raise
        shutil.copyfile(f"/proc/self/fd/{fd}", target)
        _sync(target)
    finally:
        os.close(directory_fd)


@contextlib.contextmanager
def _rewound(file: BinaryIO) -> Iterator[BinaryIO]:
    """A buffered reader of the same file, from its start."""
    with open(file.fileno(), "rb", closefd=False) as reading:
        reading.seek(0)
        yield reading


def _report(progress: Progress | None, diff_id: str, current: int, total: int) -> None:
    if progress is not None:
        progress({"status": "Extracting", "id": short_id(diff_id), "current": current, "total": total})


def _write_json(path: Path, document: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
