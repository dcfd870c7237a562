"""Platforms of the image specification: the host's, parsing, and the choice of an index's entry.

The normal forms and the list of compatible platforms are containerd's (github.com/containerd/platforms).
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydock_core.errors import InvalidError
from pydock_core.oci.documents import INDEX_TYPES, MANIFEST_TYPES, Descriptor, ImageConfig

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}

# Other names for an architecture -> the normal one.
_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_ARM64_VARIANTS = {"v8": "", "v8.0": "", "9.0": "v9", "v9.0": "v9"}
_KNOWN_ARCHITECTURES = frozenset(
    "386 amd64 arm arm64 loong64 mips mipsle mips64 mips64le ppc64 ppc64le riscv64 s390x wasm".split()
)
_KNOWN_SYSTEMS = frozenset(
    "aix android darwin dragonfly freebsd illumos ios linux netbsd openbsd plan9 solaris wasip1 windows".split()
)
_CHOSEN_TYPES = MANIFEST_TYPES | INDEX_TYPES
_COMPONENT = re.compile(r"[a-z0-9_-]{1,64}")
_VARIANT = re.compile(r"[a-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and a processor, in normal form.

    Attributes:
        os: "linux".
        architecture: in Go's terms: "amd64", "arm64", "arm".
        variant: "v6", "v7" of arm, "v8.2", "v9" of arm64; empty for baseline amd64, and for baseline arm64 (v8).
    """

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(word for word in (self.os, self.architecture, self.variant) if word)


def host_architecture() -> tuple[str, str]:
    """Return (architecture, variant) of this host in Go's terms: ("amd64", ""), ("arm64", "v8")."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, (machine, ""))


def host_platform() -> Platform:
    """Return the platform of this host, in normal form."""
    return normal_platform("linux", *host_architecture())


def normal_platform(os: str, architecture: str, variant: str = "") -> Platform:
    """Return a platform in normal form: "x86_64" is "amd64", "armhf" is "arm" "v7", "arm64" "v8" is "arm64"."""
    os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
    os = {"macos": "darwin"}.get(os, os)
    if architecture in _ALIASES:
        architecture, implied = _ALIASES[architecture]
        variant = variant or implied
    if variant.isdecimal():
        variant = "v" + variant
    if architecture == "arm":
        variant = variant or "v7"
    elif architecture == "arm64":
        variant = _ARM64_VARIANTS.get(variant, variant)
    elif (architecture, variant) == ("amd64", "v1"):
        variant = ""
    return Platform(os, architecture, variant)


def platform_of(config: ImageConfig) -> Platform:
    """Return the platform in an image's config, in normal form."""
    return normal_platform(config.os, config.architecture, config.variant)


def parse_platform(text: str) -> Platform:
    """Parse "OS[/ARCHITECTURE[/VARIANT]]", or an architecture alone, which implies linux.

    An operating system alone implies this host's architecture.

    Raises:
        InvalidError: it is not a platform.
    """
    words = text.strip().lower().split("/")
    forms = (_COMPONENT, _COMPONENT, _VARIANT)
    if len(words) > 3 or not all(form.fullmatch(word) for form, word in zip(forms, words, strict=False)):
        raise _invalid(text)
    if len(words) > 1:
        return normal_platform(*words)
    if words[0] in _KNOWN_ARCHITECTURES or words[0] in _ALIASES:
        return normal_platform("linux", words[0])
    if words[0] in _KNOWN_SYSTEMS or words[0] == "macos":
        return normal_platform(words[0], *host_architecture())
    raise _invalid(text)


def runnable(platform: Platform) -> list[Platform]:
    """Return the platforms that run on a platform, the best first: arm v7 runs v6 and v5, amd64 runs 386.

    arm64 runs the lower versions of arm64, and 32-bit arm; no arm64 is lower than v8.
    """
    os, architecture, variant = platform.os, platform.architecture, platform.variant
    number = int(variant[1:]) if re.fullmatch(r"v\d", variant) else 0
    if architecture == "arm" and number:
        return [Platform(os, "arm", f"v{version}") for version in range(number, min(number, 5) - 1, -1)]
    if architecture == "amd64":
        lower = [Platform(os, "amd64", f"v{version}") for version in range(number, 1, -1)]
        return [*lower, Platform(os, "amd64"), Platform(os, "386")]
    if architecture == "arm64":
        lower = [normal_platform(os, "arm64", version) for version in _arm64_below(variant or "v8")]
        return [platform, *lower, *runnable(Platform(os, "arm", "v8" if lower or not variant else variant))]
    return [platform]


def _arm64_below(variant: str) -> list[str]:
    """Return the versions of arm64 that a version includes, the highest first: v9.0 includes v8.5, v9.1 v8.6."""
    found = re.fullmatch(r"v([89])(?:\.(\d))?", variant)
    if found is None:
        return []
    major, minor = int(found[1]), int(found[2] or 0)
    below = [f"v{major}.{number}" for number in range(minor - 1, -1, -1)]
    return below if major == 8 else below + [f"v8.{number}" for number in range(min(minor + 5, 9), -1, -1)]


def choose_manifest(entries: Sequence[Descriptor], platform: Platform) -> Descriptor | None:
    """Choose an index's best entry for a platform, the first among equals (image-index.md).

    An entry without a platform fits every platform, after entries that name one.  Attestations and other entries for the
    platform "unknown" fit none, and an entry of an unknown media type is ignored, as the specification requires.
    """
    rank = {fitting: number for number, fitting in enumerate(runnable(platform))}
    best: Descriptor | None = None
    best_rank = len(rank) + 1
    for entry in entries:
        if is_of_unknown_kind(entry):
            continue
        entry_rank = rank.get(_entry_platform(entry.platform), best_rank) if entry.platform else len(rank)
        if entry_rank < best_rank:
            best, best_rank = entry, entry_rank
    return best


def is_of_unknown_kind(entry: Descriptor) -> bool:
    """Whether an index's entry is neither a manifest nor an index; one without a media type may be either."""
    return bool(entry.media_type) and entry.media_type not in _CHOSEN_TYPES


def is_attestation(entry: Descriptor) -> bool:
    """Whether an index's entry describes another entry instead of an image: BuildKit sets its platform to "unknown"."""
    return _entry_platform(entry.platform) == Platform("unknown", "unknown")


def _entry_platform(document: Mapping[str, Any]) -> Platform:
    """Return the platform of an entry; an empty one if it is malformed."""
    words = [document.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(word, str) for word in words):
        return Platform("", "")
    return normal_platform(*words)


def _invalid(text: str) -> InvalidError:
    return InvalidError(
        f"invalid platform: {text!r}", "write OS[/ARCHITECTURE[/VARIANT]], as in linux/arm64 or linux/arm/v7"
    )
