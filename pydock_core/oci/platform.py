"""The platform of this host in the image specification's words, and the choice among an index's entries."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from pydock_core.oci.documents import Descriptor

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}


def host_architecture() -> tuple[str, str]:
    """Return (architecture, variant) of this host in Go's words: ("amd64", ""), ("arm64", "v8")."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, (machine, ""))


def choose_manifest(entries: Sequence[Descriptor], architecture: str, variant: str) -> Descriptor | None:
    """Choose the entry for linux on ``architecture`` (image-index.md: the first match is preferred).

    An entry without a platform fits any; an exact variant is preferred to another one.  Attestations and
    other entries for the platform "unknown" fit none.
    """

    def fits(entry: Descriptor) -> bool:
        said = entry.platform
        return not said or (said.get("os") == "linux" and said.get("architecture") == architecture)

    fitting = [entry for entry in entries if fits(entry)]
    exact = [entry for entry in fitting if str(entry.platform.get("variant", "")) == variant]
    return next(iter(exact or fitting), None)
