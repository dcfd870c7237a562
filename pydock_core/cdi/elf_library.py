"""Reads the soname and the loader's flags of a shared library of the host."""

from __future__ import annotations

from typing import NamedTuple

from pydock_core.loader_cache import COMPAT32_FLAGS, MACHINE_FLAGS

_FLAGS = {
    ("EM_X86_64", 64): MACHINE_FLAGS["x86_64"],
    ("EM_AARCH64", 64): MACHINE_FLAGS["aarch64"],
    ("EM_386", 32): COMPAT32_FLAGS["x86_64"],
}


class Library(NamedTuple):
    """A shared library: its soname (empty for none), and its flags in the loader's cache."""

    soname: str
    flags: int


def read_library(path: str) -> Library | None:
    """Read a library's header; return None unless it is a shared library of a known machine."""
    if ".so" not in path.rpartition("/")[2]:
        return None
    from elftools.common.exceptions import ELFError, ELFParseError  # late: few containers have devices
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.elffile import ELFFile

    try:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            flags = _FLAGS.get((elf["e_machine"], elf.elfclass))
            if elf["e_type"] != "ET_DYN" or flags is None:
                return None
            for segment in elf.iter_segments():
                if isinstance(segment, DynamicSegment):
                    tag = next(segment.iter_tags("DT_SONAME"), None)
                    return Library(str(tag.soname) if tag is not None else "", flags)
            return None
    except (ELFError, ELFParseError, OSError, UnicodeDecodeError, ValueError):
        return None
