"""Reads the CDI files of this host.

They are in /etc/cdi, /var/run/cdi and the user's own directory (``$XDG_CONFIG_HOME/cdi``, ~/.config/cdi); a later directory
has priority.  A file can contain hooks, which run as the caller, so files and directories that another user can write are
refused.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydock_core.cdi.document import parse_document
from pydock_core.cdi.edit import CdiSpec
from pydock_core.errors import DeniedError, FailedError, InvalidError, PyDockError
from pydock_core.private_files import check_way

SYSTEM_DIRECTORIES = (Path("/etc/cdi"), Path("/var/run/cdi"))
SUFFIXES = (".json", ".yaml")
_LARGEST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class FoundSpecs:
    """The specifications of all directories.

    Attributes:
        specs: specifications with the priority of their directory; the higher number wins.
        problems: the reasons why files could not be read.
    """

    specs: tuple[tuple[int, CdiSpec], ...]
    problems: tuple[PyDockError, ...] = ()


def list_directories() -> tuple[Path, ...]:
    """Return the directories of CDI files, by rising priority."""
    configuration = os.environ.get("XDG_CONFIG_HOME") or ""
    if not configuration.startswith("/"):  # a relative one is ignored (XDG Base Directory Specification)
        home = os.environ.get("HOME") or ""
        configuration = f"{home}/.config" if home.startswith("/") else ""
    own = (Path(configuration) / "cdi",) if configuration else ()
    return (*SYSTEM_DIRECTORIES, *own)


def find_specs(directories: Sequence[Path]) -> FoundSpecs:
    """Read the CDI files of directories; missing directories are ignored."""
    specs: list[tuple[int, CdiSpec]] = []
    problems: list[PyDockError] = []
    for priority, directory in enumerate(directories):
        try:
            names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIXES))
            if names:
                check_way(directory)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PyDockError:
            problems.append(_foreign(f"CDI directory {directory}", directory))
            continue
        except OSError as error:
            problems.append(_unreadable(directory, error))
            continue
        for name in names:
            try:
                specs.append((priority, read_spec(directory / name)))
            except PyDockError as error:
                problems.append(error)
    return FoundSpecs(tuple(specs), tuple(problems))


def read_spec(path: Path) -> CdiSpec:
    """Read one CDI file.

    Raises:
        DeniedError: it cannot be read, or another user can write it.
        InvalidError: it is malformed.
    """
    try:
        with open(path, "rb", opener=_open_file) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidError(f"CDI file {path}: not a regular file", "remove it", exit_code=125)
            if not _is_own(status):
                raise _foreign(f"CDI file {path}", path)
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > _LARGEST_BYTES:
        raise InvalidError(f"CDI file {path}: it is larger than 16 MiB", "remove it", exit_code=125)
    return parse_document(_parse(path, data), str(path))


def _is_own(status: os.stat_result) -> bool:
    """Whether only root and the caller can write a file."""
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid())
    return status.st_uid in (0, os.geteuid()) and not by_group and not status.st_mode & stat.S_IWOTH


def _foreign(what: str, path: Path) -> DeniedError:
    return DeniedError(
        f"{what}: another user can change it, and its hooks would run as you",
        f"make it root's or your own, with all above it: chown root {path}; chmod go-w {path}",
        exit_code=125,
    )


def _open_file(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO does not block


def _parse(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data) if path.suffix == ".json" else _parse_yaml(data)
    except (ValueError, RecursionError) as error:
        raise InvalidError(
            f"CDI file {path}: {' '.join(str(error).split())}",
            "have it made again by its vendor's tool",
            exit_code=125,
        ) from error


def _parse_yaml(data: bytes) -> Any:
    import yaml  # late: many hosts have no YAML file

    try:
        return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _unreadable(path: Path, error: OSError) -> PyDockError:
    kind = DeniedError if isinstance(error, PermissionError) else FailedError
    return kind(f"CDI file {path}: {error.strerror}", "make it readable, or remove it", exit_code=125)
