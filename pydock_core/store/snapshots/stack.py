"""Layers of several drivers as one stack: its mounts, and its small files without mounting it.

A file is looked up layer by layer from the top, as in overlayfs: a whiteout ends the search, and an opaque directory hides
the layers below.  A layer's content is hostile, so symbolic links are followed here, component by component, within the
stack, and never by the kernel.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from pydock_core.errors import NotFoundError
from pydock_core.oci.root_mount import RootMount

FILE_LIMIT_BYTES = 4 << 20
_LINKS_FOLLOWED = 40
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


@dataclass(frozen=True, slots=True)
class Node:
    """A file, directory or link of one layer.

    Attributes:
        view: the layer.
        place: its location in the layer.
        mode: its type (stat.S_IF*); S_IFCHR only for a whiteout, 0 for other special files.
        target: of a symbolic link.
    """

    view: LayerView
    place: int
    mode: int
    target: bytes = b""


class LayerView(Protocol):
    """One layer, read without mounting it."""

    def root(self) -> Node | None:
        """Return the layer's root; None if it is missing (a writable layer before the first start)."""
        ...

    def lookup(self, directory: Node, name: bytes) -> Node | None:
        """Return a directory's entry by name; None if there is none."""
        ...

    def is_opaque(self, directory: Node) -> bool:
        """Whether a directory hides the lower layers' entries in it."""
        ...

    def read(self, file: Node, limit: int) -> bytes | None:
        """Return the contents of a regular file; None for more than ``limit`` bytes, or without read permission."""
        ...

    def close(self) -> None:
        """Close the layer's files."""
        ...


class Driver(Protocol):
    """The facts about a layer that stacking layers of several drivers needs."""

    def has(self, diff_id: str) -> bool:
        """Whether the layer exists."""
        ...

    def lower(self, diff_id: str) -> tuple[str, tuple[RootMount, ...], bool]:
        """Return the directory for an overlay, the mount that it needs first, and whether its root is opaque.

        Raises:
            NotFoundError: the layer is missing.
        """
        ...

    def metadata(self, diff_id: str) -> Mapping[str, Any]:
        """Return the layer's :class:`pydock_core.store.layer_rules.Applied`, as a dictionary.

        Raises:
            NotFoundError: the layer is missing.
        """
        ...

    def view(self, diff_id: str) -> LayerView:
        """Open the layer for reading.

        Raises:
            NotFoundError: it is missing.
        """
        ...


class Merged(Protocol):
    """Merged layers of some images, from the bottom up to one layer."""

    def merged_lower(self, chain_id: str) -> tuple[str, tuple[RootMount, ...]] | None:
        """Return the directory for an overlay, and the mount that it needs first; None if they are not merged."""
        ...

    def merged_view(self, chain_id: str) -> LayerView | None:
        """Open the merged layers for reading; None if they are not merged."""
        ...


class Chained(Protocol):
    """Layers that depend on the layers below them, applied over these."""

    def chained_lower(
        self, diff_id: str, chain_id: str, metadata: Mapping[str, Any]
    ) -> tuple[str, bool] | None:
        """Return the directory that replaces a layer in a chain, and whether its root is opaque.

        Args:
            metadata: of the layer.

        Returns:
            None if the layer is the same in every chain.

        Raises:
            NotFoundError: the layer cannot be used without this directory, and it is missing.
        """
        ...


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Return the chain id of each layer, which names all layers up to it (config.md, "Layer ChainID")."""
    chains: list[str] = []
    for diff_id in diff_ids:
        text = f"{chains[-1]} {diff_id}" if chains else diff_id
        chains.append("sha256:" + sha256(text.encode()).hexdigest() if chains else diff_id)
    return chains


def driver_of(drivers: Sequence[Driver], diff_id: str) -> Driver:
    """Return the first driver that has a layer.

    Raises:
        NotFoundError: none has it.
    """
    for driver in drivers:
        if driver.has(diff_id):
            return driver
    raise NotFoundError(f"layer {diff_id} is not in the store", "load, capture or pull the image again")


_WHOLE = ("redirect_dir=off", "metacopy=off")
"""Options that keep a writable layer self-contained, whatever the kernel's defaults, so that it can be committed."""


def root_mounts(
    drivers: Sequence[Driver],
    diff_ids: Sequence[str],
    upper: Path | None,
    work: Path | None,
    *,
    options: tuple[str, ...] = (),
    empty: str = "",
    merged: Merged | None = None,
    chained: Chained | None = None,
) -> tuple[RootMount, ...]:
    """Return the mounts of a stack (see the protocol's ``mounts``).

    Args:
        options: of the overlay.
        empty: a directory for an image without layers.
        merged: the merged layers.
        chained: the layers that depend on those below.
    """
    lower: list[str] = []
    first: list[RootMount] = []
    # overlayfs refuses a directory twice.  Of two occurrences of a layer, only the upper one matters, because it repeats
    # every change.
    seen = set()
    for diff_id, chain_id in zip(reversed(diff_ids), reversed(chain_ids(diff_ids)), strict=True):
        rest = merged.merged_lower(chain_id) if merged is not None and chain_id != diff_id else None
        if rest is not None:
            lower.append(rest[0])
            first += rest[1]
            break
        driver = driver_of(drivers, diff_id)
        own = _chained_lower(chained, driver, diff_id, chain_id)
        needed: tuple[RootMount, ...] = ()
        if own is not None:
            directory, is_opaque = own
        else:
            directory, needed, is_opaque = driver.lower(diff_id)
        if directory in seen:
            continue
        seen.add(directory)
        lower.append(directory)
        first += needed
        if is_opaque:
            break  # overlayfs does not examine the roots of its layers
    if not lower:
        lower.append(empty)
    if upper is not None and work is not None:
        # With "userxattr" the kernel turns both off (ovl_fs_params_verify), and refuses the options.
        whole = () if "userxattr" in options else _WHOLE
        return (*first, RootMount("overlay", "", tuple(lower), str(upper), str(work), (*options, *whole)))
    if len(lower) == 1:
        return (*first, RootMount("bind", lower[0], options=("ro",)))
    return (*first, RootMount("overlay", "", tuple(lower), options=(*options, "ro")))


def _chained_lower(
    chained: Chained | None, driver: Driver, diff_id: str, chain_id: str
) -> tuple[str, bool] | None:
    if chained is None:
        return None
    return chained.chained_lower(diff_id, chain_id, driver.metadata(diff_id))


def read_merged(
    drivers: Sequence[Driver],
    diff_ids: Sequence[str],
    path: str,
    upper: Path | None = None,
    merged: Merged | None = None,
    chained: Chained | None = None,
) -> bytes | None:
    """Return the contents of a regular file of a stack; None if there is none, or if it is larger than 4 MiB.

    Args:
        drivers: the layers' own.
        diff_ids: bottom first.
        path: absolute, within the stack.
        upper: a writable layer's directory, on top of them.
        merged: the merged layers.
        chained: the layers that depend on those below.

    Raises:
        NotFoundError: a layer is missing.
    """
    views: list[LayerView] = [] if upper is None else [DirectoryView(str(upper))]
    try:
        for diff_id, chain_id in zip(reversed(diff_ids), reversed(chain_ids(diff_ids)), strict=True):
            rest = merged.merged_view(chain_id) if merged is not None and chain_id != diff_id else None
            if rest is not None:
                views.append(rest)
                break
            driver = driver_of(drivers, diff_id)
            own = _chained_lower(chained, driver, diff_id, chain_id)
            if own is not None:
                views.append(DirectoryView(own[0]))
                if own[1]:
                    break
                continue
            views.append(driver.view(diff_id))
            if driver.lower(diff_id)[2]:
                break
        node = _resolve(views, os.fsencode(path))
        if node is None or not stat.S_ISREG(node.mode):
            return None
        return node.view.read(node, FILE_LIMIT_BYTES)
    except PermissionError:
        return None
    finally:
        for view in views:
            view.close()


def _resolve(views: Sequence[LayerView], path: bytes) -> Node | None:
    """Resolve a path.  A directory is a list of its nodes in the layers, the top one first."""
    root = [node for view in views if (node := view.root()) is not None]
    stack: list[list[Node]] = [root]
    parts = path.split(b"/")[::-1]
    followed = 0
    while parts:
        part = parts.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if len(stack) > 1:
                stack.pop()
            continue
        found = _lookup(stack[-1], part)
        if not found:
            return None
        first = found[0]
        if stat.S_ISDIR(first.mode):
            stack.append(found)
        elif stat.S_ISLNK(first.mode):
            followed += 1
            if followed > _LINKS_FOLLOWED:
                return None
            if first.target.startswith(b"/"):
                stack = [root]
            parts += first.target.split(b"/")[::-1]
        else:
            return None if any(parts) else first
    return None


def _lookup(directories: Sequence[Node], name: bytes) -> list[Node]:
    found: list[Node] = []
    for directory in directories:
        node = directory.view.lookup(directory, name)
        if node is None:
            continue
        if not stat.S_ISDIR(node.mode):
            return found or [node]
        found.append(node)
        if node.view.is_opaque(node):
            break
    return found


class DirectoryView:
    """A layer that is a directory; see :class:`LayerView`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fds: list[int] = []

    def root(self) -> Node | None:
        """See the protocol."""
        try:
            return Node(self, self._open(self._directory, None), stat.S_IFDIR)
        except FileNotFoundError:
            return None

    def lookup(self, directory: Node, name: bytes) -> Node | None:
        """See the protocol."""
        try:
            fd = self._open(name, directory.place)
        except FileNotFoundError:
            return None
        kind = stat.S_IFMT(os.fstat(fd).st_mode)
        target = os.fsencode(os.readlink("", dir_fd=fd)) if stat.S_ISLNK(kind) else b""
        return Node(self, fd, kind, target)

    def _open(self, name: str | bytes, directory_fd: int | None) -> int:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
        self._fds.append(fd)
        return fd

    def is_opaque(self, directory: Node) -> bool:
        """See the protocol."""
        for name in _OPAQUE:
            try:
                if os.getxattr(f"/proc/self/fd/{directory.place}", name) == b"y":
                    return True
            except OSError:
                continue
        return False

    def read(self, file: Node, limit: int) -> bytes | None:
        """See the protocol.  Reads through an O_PATH descriptor that has been checked to be of a regular file."""
        if os.fstat(file.place).st_size > limit:
            return None
        with open(f"/proc/self/fd/{file.place}", "rb") as stream:
            return stream.read(limit)

    def close(self) -> None:
        """See the protocol."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
