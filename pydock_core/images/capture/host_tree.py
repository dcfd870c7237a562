"""A root file system of this host's files, at the same paths, in layers.

Symbolic links on the way to a file are included as links, so that /bin -> usr/bin, library names and /etc/alternatives
lead to the same targets in the image.  Everything belongs to root; set-user-id bits are dropped.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pydock_core.store.blobs import BlobWriter
from pydock_core.store.tar_writer import TarWriter, build_header

_LINKS_LIMIT = 40
_NOTES_LIMIT = 10


@dataclass(frozen=True, slots=True)
class Item:
    """One path of the image.

    Attributes:
        kind: stat.S_IFDIR, S_IFREG or S_IFLNK.
        layer: the lowest is 0.
        mode: permission bits.
        mtime: seconds since the epoch.
        source: the host's path of a regular file's content; empty if ``content`` has it.
        content: of a regular file that is not the host's.
        target: of a link.
    """

    kind: int
    layer: int
    mode: int = 0o755
    mtime: int = 0
    source: str = ""
    content: bytes = b""
    target: str = ""


Skip = Callable[[os.DirEntry[str]], bool]
"""Whether a walk omits an entry with all below it."""


@dataclass(slots=True)
class HostTree:
    """The image's paths; a path that exists keeps its first item.

    Attributes:
        items: by absolute path.
        binaries: regular files that may be ELF files (executable, or libraries by their name).
        outward: links found by walks, with targets that may be outside: (link's path, real target).
        notes: omitted files, one line each.
    """

    items: dict[str, Item] = field(default_factory=dict)
    binaries: list[str] = field(default_factory=list)
    outward: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _unreadable: int = 0

    def __contains__(self, path: str) -> bool:
        return path in self.items

    # -- generated items ---------------------------------------------------------------------------------

    def put_directory(self, path: str, layer: int, mode: int = 0o755) -> None:
        """Add a directory, and its parents with mode 0755."""
        self._put(path, Item(stat.S_IFDIR, layer, mode))

    def put_file(self, path: str, layer: int, content: bytes, mode: int = 0o644) -> None:
        """Add a file with this content."""
        self._put(path, Item(stat.S_IFREG, layer, mode, content=content))

    def put_link(self, path: str, layer: int, target: str) -> None:
        """Add a symbolic link."""
        self._put(path, Item(stat.S_IFLNK, layer, 0o777, target=target))

    def _put(self, path: str, item: Item) -> None:
        if path not in self.items:
            self._put_parents(path, item.layer)
            self.items[path] = item

    def _put_parents(self, path: str, layer: int) -> None:
        parent = os.path.dirname(path)
        if parent != "/" and parent not in self.items:
            self._put_parents(parent, layer)
            self.items[parent] = Item(stat.S_IFDIR, layer)

    # -- the host's files -------------------------------------------------------------------------------

    def add(self, path: str, layer: int) -> str | None:
        """Add one host path, with every link on the way to it.

        Args:
            path: absolute.
            layer: for new items.

        Returns:
            the path without links, or None if it leads nowhere.
        """
        pending, resolved, links = _parts(path), "", 0
        while pending:
            part = pending.pop(0)
            if part == "..":
                resolved = resolved.rpartition("/")[0]
                continue
            here = f"{resolved}/{part}"
            try:
                status = os.lstat(here)
            except OSError:
                return None
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _LINKS_LIMIT:
                    return None
                target = os.readlink(here)
                self.put_link(here, layer, target)
                pending[:0] = _parts(target)
                resolved = "" if target.startswith("/") else resolved
                continue
            resolved = here
            if not pending:
                self._add_entry(here, status, layer)
        return resolved or "/"

    def _add_entry(self, path: str, status: os.stat_result, layer: int) -> None:
        if path in self.items:
            return
        mode, mtime = stat.S_IMODE(status.st_mode) & 0o777, int(status.st_mtime)
        if stat.S_ISREG(status.st_mode):
            self._put(path, Item(stat.S_IFREG, layer, mode, mtime, source=path))
            if mode & 0o111 or ".so" in os.path.basename(path):
                self.binaries.append(path)
        elif stat.S_ISDIR(status.st_mode):
            self.put_directory(path, layer)

    def add_tree(self, path: str, layer: int, skip: Skip | None = None) -> None:
        """Add a host directory with all below it; links below it stay links.

        Args:
            path: absolute; may contain links.
            layer: for new items.
            skip: omits entries.
        """
        real = self.add(path, layer)
        if real is None or real == "/":
            return
        for directory, entries in _walk(real, skip, self._note_unreadable):
            for entry in entries:
                here = f"{directory}/{entry.name}"
                if here in self.items:
                    continue
                # A file that is removed during the walk is not a part of the tree.
                with contextlib.suppress(FileNotFoundError):
                    self._add_walked(here, entry, layer)

    def _add_walked(self, path: str, entry: os.DirEntry[str], layer: int) -> None:
        if entry.is_symlink():
            self.put_link(path, layer, os.readlink(path))
            self.outward.append((path, os.path.realpath(path)))
        else:
            self._add_entry(path, entry.stat(follow_symlinks=False), layer)

    def _note_unreadable(self, path: str) -> None:
        self._unreadable += 1
        if self._unreadable <= _NOTES_LIMIT:
            self.notes.append(f"{path} cannot be read and is left out")
        elif self._unreadable == _NOTES_LIMIT + 1:
            self.notes.append("more files that cannot be read are left out")

    # -- layers ------------------------------------------------------------------------------------------

    def write_layer(self, layer: int, writer: BlobWriter, report: Callable[[int], None]) -> int:
        """Write the tar of a layer, in the order of the paths, and return its number of entries.

        Every parent directory of an entry is in the layer too, so that its mode is the same in all layers.

        Args:
            layer: its number.
            writer: receives the plain tar.
            report: called with the number of bytes written so far.
        """
        chosen = {path for path, item in self.items.items() if item.layer == layer}
        for path in list(chosen):
            parent = os.path.dirname(path)
            while parent != "/" and parent not in chosen:
                chosen.add(parent)
                parent = os.path.dirname(parent)
        output = TarWriter(writer.write)
        linked: dict[tuple[int, int], bytes] = {}
        for path in sorted(chosen):
            self._write_item(path, self.items[path], output, linked)
            report(writer.size_bytes)
        output.finish()
        return len(chosen)

    def _write_item(
        self, path: str, item: Item, output: TarWriter, linked: dict[tuple[int, int], bytes]
    ) -> None:
        if item.source:
            self._write_file(path, item, output, linked)
            return
        header = build_header(
            os.fsencode(path[1:]),
            item.kind,
            mode=item.mode,
            size_bytes=len(item.content),
            mtime_ns=item.mtime * 10**9,
            link=os.fsencode(item.target),
        )
        output.put(header + item.content)
        output.pad(len(item.content))

    def _write_file(
        self, path: str, item: Item, output: TarWriter, linked: dict[tuple[int, int], bytes]
    ) -> None:
        try:
            fd = os.open(item.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            self._note_unreadable(path)
            return
        name, mtime_ns = os.fsencode(path[1:]), item.mtime * 10**9
        try:
            status = os.fstat(fd)
            key = (status.st_dev, status.st_ino)
            if status.st_nlink > 1 and key in linked:
                output.put(build_header(name, 0, mode=item.mode, mtime_ns=mtime_ns, link=linked[key]))
                return
            linked[key] = name
            if not output.put_file(name, fd, status.st_size, mode=item.mode, mtime_ns=mtime_ns):
                self.notes.append(f"{path} became shorter while it was read; its end is zeros")
        finally:
            os.close(fd)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part and part != "."]


def _walk(
    top: str, skip: Skip | None, unreadable: Callable[[str], None]
) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Yield each directory from ``top`` on with its entries, in a fixed order."""
    pending = [top]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(directory) as found:
                entries = sorted(
                    (e for e in found if skip is None or not skip(e)), key=lambda entry: entry.name
                )
        except OSError:
            unreadable(directory)
            continue
        yield directory, entries
        pending += [e.path for e in reversed(entries) if e.is_dir(follow_symlinks=False)]
