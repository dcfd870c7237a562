"""Content digests, ``algorithm:hex``, as the OCI image specification has them (descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re

from pydock_core.errors import InvalidError

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_ANY = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
HEX_LENGTH = 64


def is_digest(text: str) -> bool:
    """Whether ``text`` is a SHA-256 digest, the one algorithm that image stores must and that this one does
    know.
    """
    return _SHA256.fullmatch(text) is not None


def is_other_digest(text: str) -> bool:
    """Whether ``text`` is a digest of another algorithm ("sha512:..."), which is not known here."""
    return _ANY.fullmatch(text) is not None and not text.startswith("sha256:")


def parse_digest(text: str, subject: str = "digest") -> str:
    """Return ``text`` where it is a digest.

    Args:
        text: what should be a digest.
        subject: what it is the digest of, for the message.

    Raises:
        InvalidError: it is not ``sha256:`` and 64 lower-case hexadecimal digits.
    """
    if not is_digest(text):
        raise InvalidError(
            f"{subject} {text!r} is no SHA-256 digest", "a digest is sha256: and 64 hexadecimal digits"
        )
    return text


def digest_hex(digest: str) -> str:
    """Return the hexadecimal part of a digest: a safe file name, as the digest is checked."""
    return parse_digest(digest).partition(":")[2]


def digest_of(data: bytes) -> str:
    """Return the digest of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def short_id(digest: str) -> str:
    """Return the 12 hexadecimal digits that Docker shows."""
    return digest.partition(":")[2][:12]
