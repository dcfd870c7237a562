"""Content digests, ``algorithm:hex``, as in the OCI image specification (descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re

from pydock_core.errors import InvalidError

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_ANY = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
HEX_LENGTH = 64


def is_digest(text: str) -> bool:
    """Whether ``text`` is a SHA-256 digest, the only supported algorithm."""
    return _SHA256.fullmatch(text) is not None


def is_other_digest(text: str) -> bool:
    """Whether ``text`` is a digest of an unsupported algorithm ("sha512:...")."""
    return _ANY.fullmatch(text) is not None and not text.startswith("sha256:")


def parse_digest(text: str, subject: str = "digest") -> str:
    """Return ``text`` if it is a digest.

    Args:
        text: the presumed digest.
        subject: the digest's subject, for the message.

    Raises:
        InvalidError: it is not ``sha256:`` and 64 lower-case hexadecimal digits.
    """
    if not is_digest(text):
        raise InvalidError(
            f"{subject} {text!r} is not a SHA-256 digest", "a digest is sha256: and 64 hexadecimal digits"
        )
    return text


def digest_hex(digest: str) -> str:
    """Return the hexadecimal part of a digest; it is checked, so it is a safe file name."""
    return parse_digest(digest).partition(":")[2]


def digest_of(data: bytes) -> str:
    """Return the digest of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def short_id(digest: str) -> str:
    """Return the first 12 hexadecimal digits, Docker's short id."""
    return digest.partition(":")[2][:12]
