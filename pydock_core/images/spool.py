"""Splits an archive of images into files of a workspace, in one pass over a stream.

Names in the archive are keys of a dictionary, never names of files, and links between members are resolved in it too.  So
the archive cannot refer to anything outside itself.
"""

from __future__ import annotations

import io
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydock_core.errors import CorruptError, InvalidError
from pydock_core.images.member_file import MemberFile
from pydock_core.oci.digest import is_digest, short_id
from pydock_core.oci.documents import decode
from pydock_core.progress import Progress
from pydock_core.store.blobs import DOCUMENT_LIMIT, BlobStore, BlobWriter, check_content
from pydock_core.store.compression import ANEW, InflationLimit, open_plain, peek_compression, peekable
from pydock_core.store.layer_rules import clean_name
from pydock_core.store.tar_reader import Entry, TarReader
from pydock_core.store.tar_source import CHUNK_BYTES, FileSource, Source, StreamSource

_BLOBS = "blobs/sha256/"
_PROGRESS_BYTES = 8 << 20
_LINKS_LIMIT = 8
_MEMBERS_LIMIT = 100_000
"""The largest number of members; each takes memory and a file."""
_NAMES_LIMIT_BYTES = 16 << 20
"""The total size of names and link targets."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of an archive.

    Attributes:
        path: of its content.
        digest, size_bytes: computed while it was written.
        stored: ``path`` is in the blob store.
    """

    path: Path
    digest: str
    size_bytes: int
    stored: bool


def _file_source(stream: io.BufferedReader) -> FileSource | None:
    """Return the source of a stream that reads a file as it is; None for any other stream."""
    if type(stream.raw) is not io.FileIO:
        return None
    fd = stream.fileno()
    return FileSource(fd, stream.tell()) if stat.S_ISREG(os.fstat(fd).st_mode) else None


class Spool:
    """The members of an archive.

    Args:
        blobs: the store for the blobs.
        directory: a workspace on the blob store's file system.
        subject: names the archive in errors.
        progress: receives {"status": "Loading layer", "id", "current", "total"}.
    """

    def __init__(self, blobs: BlobStore, directory: Path, subject: str, progress: Progress | None) -> None:
        self.blobs = blobs
        self.directory = directory
        self.subject = subject
        self._progress = progress
        self._members: dict[str, Member] = {}
        self._kept: dict[str, Member] = {}
        self._links: dict[str, str] = {}
        self._file: FileSource | None = None

    def read(self, stream: BinaryIO) -> None:
        """Split the archive; of several members with one name the last one counts, as in any tar.

        Args:
            stream: plain or compressed (gzip, zstd, xz, bzip2); need not be seekable.

        Raises:
            CorruptError: it is damaged or truncated, or a member that is named by a digest does not have it.
            InvalidError: it is empty, or has too many members.
        """
        buffered = peekable(stream)
        if not buffered.peek(1):
            raise InvalidError(f"{self.subject} is empty", "check the file's name")
        compression = peek_compression(buffered)
        limit = InflationLimit.for_file_system(self.directory)
        plain = open_plain(buffered, compression, self.subject, limit)
        source: Source = StreamSource(plain)
        if not compression and (file := _file_source(buffered)) is not None:
            source, self._file = file, file
        reader = TarReader(source, self.subject)
        names_bytes = 0
        for number, entry in enumerate(reader):
            names_bytes += len(entry.name) + len(entry.link)
            if number >= _MEMBERS_LIMIT or names_bytes > _NAMES_LIMIT_BYTES:
                raise InvalidError(
                    f"{self.subject} has more than {_MEMBERS_LIMIT:,} members, or {_NAMES_LIMIT_BYTES >> 20} MiB of names, "
                    "as no archive of images has",
                    "save the images in several archives; a root file system is for: dock import",
                )
            name = os.fsdecode(clean_name(entry.name, self.subject))
            link = ""
            if entry.kind == stat.S_IFREG:
                self._links.pop(name, None)
                self._members[name] = self._read_member(reader, entry, name, number)
            elif entry.kind == stat.S_IFLNK:
                link = posixpath.normpath(posixpath.join(posixpath.dirname(name), os.fsdecode(entry.link)))
            elif entry.kind == 0:
                link = posixpath.normpath(os.fsdecode(entry.link))
            if (
                link and link != name
            ):  # tar(1) may append a link to itself, which stands for the earlier member
                self._links[name] = link
        if not reader.ended:
            raise CorruptError(f"{self.subject} is truncated: it has no end marker", ANEW)
        while self._file is None and plain.read(CHUNK_BYTES):
            pass  # read the padding, so that a writer to a pipe can finish and a checksum at the end is compared

    def _read_member(self, reader: TarReader, entry: Entry, name: str, number: int) -> Member:
        if sum(length for _, length in entry.parts) != entry.size_bytes:
            raise InvalidError(
                f"{self.subject}: member {name!r} is sparse", "write the archive without holes"
            )
        digest = name.replace(_BLOBS, "sha256:") if name.startswith(_BLOBS) else ""
        if is_digest(digest) and self.blobs.has(digest):
            # The store has a verified copy.
            path = self.blobs.blob_path(digest)
            return Member(path, digest, path.stat().st_size, stored=True)
        path = self.directory / f"member-{number}"
        with MemberFile(path, f"{self.subject}, {name}", entry.size_bytes) as file:
            reported = 0
            for _ in self._fill(file, reader, entry):
                if self._progress and file.size_bytes - reported >= _PROGRESS_BYTES:
                    reported = file.size_bytes
                    self._report(name, reported, entry.size_bytes)
            actual = file.digest()
            if is_digest(digest):
                check_content(actual, file.size_bytes, digest, None, f"{self.subject}: blob {name}")
            return Member(path, actual, file.size_bytes, stored=False)

    def _fill(self, file: MemberFile, reader: TarReader, entry: Entry) -> Iterator[None]:
        """Write a member's content, stopping after each piece."""
        if self._file is None:
            for chunk in reader.chunks(entry):
                file.write(chunk)
                yield
            return
        while file.size_bytes < entry.size_bytes:
            position = self._file.base + entry.offset + file.size_bytes
            file.send(self._file.fd, position, entry.size_bytes - file.size_bytes)
            yield

    def _report(self, name: str, current: int, total: int) -> None:
        if self._progress is not None:
            label = (
                posixpath.dirname(name)[:12] if name.endswith("/layer.tar") else posixpath.basename(name)[:12]
            )
            self._progress({"status": "Loading layer", "id": label, "current": current, "total": total})

    # -- members -----------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether there is a member with this name, possibly a link."""
        return self._find(name) is not None

    def _find(self, name: str) -> Member | None:
        key = posixpath.normpath(name)
        for _ in range(_LINKS_LIMIT):
            if key not in self._links:
                return self._members.get(key)
            key = self._links[key]
        return None

    def member(self, name: str) -> Member:
        """Return a member by its name.

        Raises:
            CorruptError: the archive does not have it.
        """
        member = self._find(name)
        if member is None:
            raise CorruptError(f"{self.subject} lacks {name!r}, which its manifest names", ANEW)
        return self._kept.get(member.digest, member)

    def bytes_of(self, name: str) -> bytes:
        """Return the content of a document.

        Raises:
            CorruptError: the archive does not have it, or it is too large for a document.
        """
        member = self.member(name)
        if member.size_bytes > DOCUMENT_LIMIT:
            raise CorruptError(f"{self.subject}: {name} is larger than {DOCUMENT_LIMIT >> 20} MiB", ANEW)
        return member.path.read_bytes()

    def document(self, name: str) -> Any:
        """Return a parsed JSON document."""
        return decode(self.bytes_of(name), f"{self.subject}: {name}")

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Return a parsed JSON document that is an object."""
        document = self.document(name)
        if not isinstance(document, Mapping):
            raise CorruptError(f"{self.subject}: {name} is not a JSON object", ANEW)
        return document

    def keep(self, name: str) -> Member:
        """Move a member into the blob store, under its digest; idempotent."""
        member = self.member(name)
        if member.stored:
            return member
        if not self.blobs.has(member.digest):
            self.blobs.adopt(member.path, member.digest, f"{self.subject}: {name}")
        kept = Member(self.blobs.blob_path(member.digest), member.digest, member.size_bytes, stored=True)
        self._kept[member.digest] = kept  # by whatever names the archive has it
        return kept

    def keep_plain(self, name: str, compression: str, diff_id: str) -> Member:
        """Store the plain content of a member whose compression layers do not support.

        Raises:
            CorruptError: the plain content does not have the digest ``diff_id``.
        """
        member = self.member(name)
        subject = f"{self.subject}: layer {short_id(diff_id)}"
        if not self.blobs.has(diff_id):
            with (
                open(member.path, "rb") as file,
                BlobWriter(self.directory / f"plain-{member.digest[7:]}", subject) as writer,
            ):
                limit = InflationLimit.for_file_system(self.directory)
                plain = open_plain(file, compression, subject, limit)
                while chunk := plain.read(CHUNK_BYTES):
                    writer.write(chunk)
                self.blobs.put(writer, digest=diff_id, subject=subject)
        path = self.blobs.blob_path(diff_id)
        return Member(path, diff_id, path.stat().st_size, stored=True)
