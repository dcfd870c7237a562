"""What PyDock has made in a network namespace: its devices and its nftables tables, of any state root."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

TABLE_PREFIX = "pydock-"
"""Prefix of the tables' names; the rest is the name of the bridge."""
_NFT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Presence:
    """The network objects of a namespace.

    Attributes:
        devices: the indexes of all network devices, by name.
        tables: the names of PyDock's tables; empty without the program nft.
    """

    devices: Mapping[str, int]
    tables: frozenset[str]


def read_presence() -> Presence:
    """Return the objects in the calling process's network namespace."""
    return Presence({name: index for index, name in socket.if_nameindex()}, _read_tables())


def _read_tables() -> frozenset[str]:
    nft = shutil.which("nft")
    if nft is None:
        return frozenset()
    try:
        listed = subprocess.run(
            [nft, "list", "tables"], capture_output=True, text=True, timeout=_NFT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    words = (line.split() for line in listed.stdout.splitlines())
    return frozenset(word[2] for word in words if len(word) == 3 and word[2].startswith(TABLE_PREFIX))
