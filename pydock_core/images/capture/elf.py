"""The libraries of an ELF file, as the dynamic loader finds them (ld.so(8))."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

_MAGIC = b"\x7fELF"
_INCLUDE_DEPTH = 8


@dataclass(frozen=True, slots=True)
class ElfFile:
    """The dynamic part of an ELF file.

    Attributes:
        path: absolute, without links.
        architecture: (class in bits, machine name), which its libraries share.
        interpreter: the dynamic loader; empty for a library.
        needed: sonames, DT_NEEDED.
        search: DT_RUNPATH's directories, or else DT_RPATH's, as written.
    """

    path: str
    architecture: tuple[int, str]
    interpreter: str
    needed: tuple[str, ...]
    search: tuple[str, ...]


def read_elf(path: str) -> ElfFile | None:
    """Read the dynamic part of a file; return None if it is not a complete ELF file, or unreadable."""
    real = os.path.realpath(path)
    try:
        with open(real, "rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return None
            elf = ELFFile(file)
            interpreter, needed, rpath, runpath = "", [], "", ""
            for segment in elf.iter_segments():
                if isinstance(segment, InterpSegment):
                    interpreter = segment.get_interp_name()
                elif isinstance(segment, DynamicSegment):
                    for tag in segment.iter_tags():
                        kind = tag.entry.d_tag
                        if kind == "DT_NEEDED":
                            needed.append(str(tag.needed))
                        elif kind == "DT_RPATH":
                            rpath = str(tag.rpath)
                        elif kind == "DT_RUNPATH":
                            runpath = str(tag.runpath)
            search = tuple(part for part in (runpath or rpath).split(":") if part)
            return ElfFile(real, (elf.elfclass, str(elf["e_machine"])), interpreter, tuple(needed), search)
    except (ELFError, OSError, ValueError, KeyError, AttributeError, IndexError):
        return None


class LibraryFinder:
    """A search for libraries, as by this host's dynamic loader.

    Args:
        cached: soname to paths, from the loader's cache.
        directories: the loader's last places.
    """

    def __init__(self, cached: Mapping[str, Iterable[str]], directories: Iterable[str]) -> None:
        self._cached = {name: tuple(paths) for name, paths in cached.items()}
        self._directories = tuple(directories)
        self._files: dict[str, ElfFile | None] = {}

    def read(self, path: str) -> ElfFile | None:
        """Return :func:`read_elf`, reading each file once."""
        if path not in self._files:
            self._files[path] = read_elf(path)
        return self._files[path]

    def find(self, soname: str, user: ElfFile) -> str | None:
        """Return the path, links unresolved, of a library that ``user`` needs; None if there is none."""
        if "/" in soname:
            candidates = [soname]
        else:
            origin = os.path.dirname(user.path)
            searched = [_expand(directory, origin) for directory in user.search]
            candidates = [os.path.join(directory, soname) for directory in searched]
            candidates += self._cached.get(soname, ())
            candidates += [os.path.join(directory, soname) for directory in self._directories]
        for candidate in candidates:
            if os.path.isfile(candidate):
                found = self.read(candidate)
                if found is not None and found.architecture == user.architecture:
                    return os.path.normpath(candidate)
        return None


def _expand(directory: str, origin: str) -> str:
    for word, value in (("ORIGIN", origin), ("LIB", "lib"), ("PLATFORM", os.uname().machine)):
        directory = directory.replace(f"${{{word}}}", value).replace(f"${word}", value)
    return directory


def default_directories(multiarch: str) -> list[str]:
    """Return the default directories of the loaders of glibc, Debian and musl."""
    triplets = [f"/lib/{multiarch}", f"/usr/lib/{multiarch}"] if multiarch else []
    return [*triplets, "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"]


def configured_directories(path: str = "/etc/ld.so.conf", depth: int = 0) -> list[str]:
    """Return the directories in ld.so.conf and its includes."""
    directories: list[str] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return directories
    for line in lines:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"] and depth < _INCLUDE_DEPTH:
            for pattern in words[1:]:
                for included in sorted(glob.glob(os.path.join(os.path.dirname(path), pattern))):
                    directories += configured_directories(included, depth + 1)
        elif words and words[0].startswith("/"):
            directories.append(words[0])
    return directories
