"""Container names and ids: random ones, and the rule for a given one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from pydock_core.errors import InvalidError

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_QUALITIES = (
    "able bold brave bright calm clear clever cool crisp curious deft eager early fair fine fleet fond gentle glad "
    "grand happy hardy honest humble keen kind lively loyal lucid mellow merry neat nimble noble patient plucky polite "
    "proud quick quiet ready robust sharp silent smart smooth snug solid spry steady still sunny swift tidy true vivid "
    "warm wise witty young zesty"
).split()
_THINGS = (
    "albatross anchor aspen badger barge beacon beaver birch bison canoe cedar clipper comet compass condor coral crane "
    "delta dolphin dory eagle ember falcon ferry finch fjord galleon gannet harbor heron ibis iris jetty juniper kayak "
    "kelp kestrel lagoon lantern larch lark lighthouse lynx mallard maple marlin meadow narwhal oak orca osprey otter "
    "pelican pine plover puffin quay raft raven reef sail schooner seal skiff sparrow spruce stork swan tern tide trawler "
    "turtle walrus whale willow wren yawl"
).split()


def random_id() -> str:
    """Return a new container id: 64 hexadecimal digits."""
    return os.urandom(32).hex()


def random_name() -> str:
    """Return a name such as ``quiet_otter``, which may be taken."""
    return f"{_choose(_QUALITIES)}_{_choose(_THINGS)}"


def _choose(words: Sequence[str]) -> str:
    # The module secrets would load OpenSSL in every command.
    return words[int.from_bytes(os.urandom(4), "big") % len(words)]


def check_name(name: str) -> str:
    """Return a valid container name, without its leading slash.

    Raises:
        InvalidError: it has another form than Docker's ([a-zA-Z0-9][a-zA-Z0-9_.-]+).
    """
    plain = name.removeprefix("/")
    if not _NAME.match(plain) or len(plain) > 255:
        raise InvalidError(
            f"invalid container name {name!r}",
            "two or more of letters, digits, '_', '.' and '-', beginning with a letter or digit",
            exit_code=125,
        )
    return plain
