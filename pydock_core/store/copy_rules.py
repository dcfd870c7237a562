"""The rules of ``docker cp``: the destination by the spelling of two paths and the existing entries.  Pure.

They follow github.com/moby/go-archive, copy.go: a trailing slash means that a path is a directory, and ``/.`` at the
end of a source means its content.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from pydock_core.errors import InvalidError, NotFoundError

CONTENT = "."
"""The name for a source's content, which is copied into the directory itself."""


@dataclass(frozen=True, slots=True)
class CopyEnd:
    """One end of a copy.

    Attributes:
        path: absolute path; a slash or ``/.`` at its end is kept.
        exists, is_dir: whether the entry exists, and whether it is a directory.
        renamed: given name of a source whose link was followed; otherwise empty.
    """

    path: str
    exists: bool = True
    is_dir: bool = False
    renamed: str = ""


def names_content(path: str) -> bool:
    """Whether the last component is ".": the content of a directory."""
    return posixpath.basename(path.rstrip("/")) == CONTENT if path.rstrip("/") else False


def names_directory(path: str) -> bool:
    """Whether a path's spelling means a directory."""
    return path.endswith("/") or names_content(path)


def keep_spelling(clean: str, original: str) -> str:
    """Restore the original's final slash or ``/.`` on a cleaned path."""
    if names_content(original) and not names_content(clean):
        return clean.rstrip("/") + "/."
    if original.endswith("/") and not clean.endswith("/"):
        return clean + "/"
    return clean


def absolute(path: str, directory: str) -> str:
    """Return a path relative to a directory in normalized form, with its final spelling kept."""
    joined = posixpath.normpath(posixpath.join(directory, path))
    return keep_spelling("/" + joined.lstrip("/"), path)


def split_entry(path: str) -> tuple[str, str]:
    """Split a path into the directory and the name of the entry; the name of a content is "."."""
    clean = posixpath.normpath(path)
    if names_content(path):
        return clean, CONTENT
    directory, name = posixpath.split(clean)
    return directory or "/", name or CONTENT


def plan_copy(source: CopyEnd, target: CopyEnd) -> tuple[str, str]:
    """Return a source's target directory, and its name there; CONTENT for its content.

    Raises:
        InvalidError: a directory would replace a file.
        NotFoundError: the target's spelling means a directory, and it does not exist.
    """
    name = source.renamed or split_entry(source.path)[1]
    if target.exists and target.is_dir:
        return target.path, name
    if target.exists and source.is_dir:
        raise InvalidError(
            f"cannot copy directory {source.path} to {target.path}: it is not a directory",
            "remove it first, or name another target",
        )
    if not target.exists and not source.is_dir and names_directory(target.path):
        raise NotFoundError(
            f"no such directory: {target.path}",
            "make it first, or write the target without a slash at its end",
        )
    return split_entry(target.path)
