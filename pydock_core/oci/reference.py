"""Parses image references into Docker's normal and familiar forms.

The grammar is that of github.com/distribution/reference::

    reference  := name [ ":" tag ] [ "@" digest ]
    name       := [ domain "/" ] path-component { "/" path-component }

A first component counts as a domain if it has a dot, a colon or an upper-case letter, or is "localhost".
Without one the domain is docker.io, and a single component is in its "library".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pydock_core.errors import InvalidError
from pydock_core.oci.digest import is_digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_NAME_LIMIT = 255
_ALGORITHM = "sha256"

_DOMAIN_COMPONENT = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_COMPONENT}(?:\.{_DOMAIN_COMPONENT})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEX64 = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference in normal form.

    Attributes:
        domain: "docker.io", "ghcr.io", "localhost:5000".
        path: "library/busybox", "a/b"; without the domain.
        tag: empty if absent.
        digest: "sha256:...", empty if absent.
    """

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """The familiar name without tag: "busybox", "bitnami/redis", "ghcr.io/a/b"."""
        if self.domain != DEFAULT_DOMAIN:
            return f"{self.domain}/{self.path}"
        remainder = self.path.removeprefix(_OFFICIAL)
        # "library/a/b" is not an official image: shortened, it would parse as another name.
        return self.path if "/" in remainder else remainder

    @property
    def familiar(self) -> str:
        """The form that Docker displays: "busybox:latest"."""
        return self.repository + self._suffix()

    @property
    def canonical(self) -> str:
        """The full form: "docker.io/library/busybox:latest"."""
        return f"{self.domain}/{self.path}{self._suffix()}"

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """Return the reference with the tag "latest" if it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def __str__(self) -> str:
        return self.familiar


def parse_reference(text: str) -> Reference:
    """Parse a reference in familiar or full form; :meth:`Reference.familiar` and ``canonical`` are inverses.

    Raises:
        InvalidError: ``text`` is not a reference.
    """
    if "://" in text:
        raise _invalid(
            text, f"leave out {text.partition('://')[0]}://, a name begins with the registry's host"
        )
    remainder, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, "after @ comes sha256: and 64 hexadecimal digits")
    if _HEX64.fullmatch(remainder):
        raise _invalid(text, "64 hexadecimal digits are an image id, and cannot be a name")
    tag = ""
    colon = remainder.rfind(":")
    if colon > remainder.rfind("/"):
        remainder, tag = remainder[:colon], remainder[colon + 1 :]
        if not _TAG.fullmatch(tag):
            raise _invalid(text, "a tag is up to 128 letters, digits, dots, dashes and underscores")
    domain, path = _split_domain(remainder)
    if not _DOMAIN.fullmatch(domain):
        raise _invalid(text, f"{domain!r} is not a registry host")
    if not _PATH.fullmatch(path):
        if _PATH.fullmatch(path.lower()):
            raise _invalid(text, "a repository name is in lower case")
        raise _invalid(text, "write NAME[:TAG], as in busybox:latest")
    if len(domain) + 1 + len(path) > _NAME_LIMIT:
        raise _invalid(text, f"a name has at most {_NAME_LIMIT} characters")
    if (domain, path) == (DEFAULT_DOMAIN, _OFFICIAL + _ALGORITHM):
        # With a tag, it would parse as an image id.  Docker's engine refuses it too: "refusing to create an ambiguous tag".
        raise _invalid(text, f"{_ALGORITHM}: begins an image id, and {_ALGORITHM} cannot be a name")
    return Reference(domain, path, tag, digest)


def parse_tagged(text: str) -> Reference:
    """Parse a new name for an image, with a tag ("latest" by default) and without a digest.

    Raises:
        InvalidError: not a reference, or one with a digest.
    """
    reference = parse_reference(text)
    if reference.digest:
        raise _invalid(text, "a name with a digest cannot be given to an image; leave @sha256:... out")
    return reference.with_default_tag()


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, remainder = name.partition("/")
    is_domain = slash and (any(c in ".:" for c in first) or first == "localhost" or first.lower() != first)
    domain, path = (first, remainder) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _invalid(text: str, hint: str) -> InvalidError:
    return InvalidError(f"invalid reference format: {text!r}", hint)
