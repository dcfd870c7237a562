"""Extracts an archive into a directory of a container; no entry can escape its root."""

from __future__ import annotations

import errno
import os
import stat
from functools import partial

from pydock_core.errors import ConflictError, InvalidError, PyDockError
from pydock_core.store.layer_rules import clean_name
from pydock_core.store.layer_tar import LayerApplier
from pydock_core.store.tar_reader import Entry, TarReader

_HINT = "remove it in the container first, or copy to another place"


class ContainerExtractor(LayerApplier):
    """Extracts an archive as Docker's ``PUT /containers/ID/archive`` does: names are literal; there are no whiteouts.

    Args:
        root_fd: the root of the container.
        directory: absolute path of an existing target directory in it; links are followed within the root.
        subject: the archive's name in errors.
        owner: the user and the group of all entries; None for those in the archive.
        squash_owners: make root the owner of all entries; for a user namespace without other ids.
        may_replace: a directory may be replaced by another kind of file, and the reverse.
    """

    def __init__(
        self,
        root_fd: int,
        directory: str,
        subject: str,
        *,
        owner: tuple[int, ...] | None,
        squash_owners: bool,
        may_replace: bool,
    ) -> None:
        super().__init__(root_fd, user_xattrs=False, subject=subject, squash_owners=squash_owners)
        self._prefix = os.fsencode(directory.strip("/"))
        self._given_owner = owner
        self._may_replace = may_replace

    def _apply_entry(self, entry: Entry, reader: TarReader) -> None:
        name = clean_name(entry.name, self._subject)
        if not name:
            return  # the directory itself is unchanged
        prefix = self._prefix + b"/" if self._prefix else b""
        link = entry.link
        if entry.kind == 0:
            link = prefix + clean_name(entry.link, self._subject, entry.name)
        self._apply_named(entry._replace(name=prefix + name, link=link), os.fsdecode(prefix + name), reader)

    def _owner(self, entry: Entry) -> tuple[int, int]:
        if self._given_owner is not None and not self._squash_owners:
            return self._given_owner[0], self._given_owner[1]
        return super()._owner(entry)

    def _remove(self, path: str, name: str, parent_fd: int) -> None:
        if not self._may_replace:
            mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                raise InvalidError(
                    f"{self._subject}: cannot overwrite directory /{path} with a non-directory", _HINT
                )
        super()._remove(path, name, parent_fd)

    def _make_directory(self, path: str, name: str, parent_fd: int, entry: Entry) -> None:
        if not self._may_replace:
            try:
                mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
            except FileNotFoundError:
                mode = stat.S_IFDIR
            if not stat.S_ISDIR(mode):
                raise InvalidError(
                    f"{self._subject}: cannot overwrite non-directory /{path} with a directory", _HINT
                )
        super()._make_directory(path, name, parent_fd, entry)

    def _leave_link(self, entry: Entry) -> None:
        raise InvalidError(
            f"{self._subject}: hard link {entry.text!r} leads to /{os.fsdecode(entry.link)}, which is not there",
            "put the file into the archive before the link",
        )

    def _finish(self) -> None:
        for path, mtime_ns in self._times.items():
            if path not in self._implied:  # an implied parent directory has the current time
                self._finish_directory(path, partial(os.utime, ns=(mtime_ns, mtime_ns)))

    def _mapped(self, entry: Entry | None, error: OSError) -> PyDockError:
        if error.errno == errno.EROFS:
            return ConflictError(
                f"cannot write {self._subject}: its file system is read-only", "copy to a volume that is not"
            )
        if error.errno == errno.EBUSY and entry is not None:
            return ConflictError(
                f"cannot replace /{entry.text}: something is mounted there", "copy to another name"
            )
        return super()._mapped(entry, error)
