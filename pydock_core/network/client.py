"""Client of the network service, called by the engine before it starts a container on a bridge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydock_core.network.rules import Admission, BridgeRules
from pydock_core.paths import StateRoot
from pydock_core.supervision import user_network
from pydock_core.supervision.client import Zygote
from pydock_core.supervision.server_start import ask_server_surely, network_spec

if TYPE_CHECKING:
    from pydock_core.network.presence import Presence
    from pydock_core.supervision.protocol import (
        EnsureReply,
        EnsureRequest,
        PingRequest,
        PresenceReply,
        PresenceRequest,
        RemoveRequest,
        ServerFacts,
    )


class NetworkService:
    """The network service of one state root, started on demand.

    Args:
        root: the state root, whose ``run`` directory must exist; a launch plan names ``root.network_socket()``.
    """

    def __init__(self, root: StateRoot) -> None:
        self._root = root
        self._spec = network_spec(root)

    def ensure(
        self,
        rules: BridgeRules,
        admission: Admission | None = None,
        *,
        mtu: int = 0,
        record: Path | None = None,
        needs_nft: bool = False,
    ) -> str:
        """Ensure a bridge with its addresses and firewall rules; called before each start on that bridge.

        Args:
            admission: admits the container to attach; without it, the container's packets are dropped.
            mtu: MTU of a new bridge in bytes; 0 for the kernel's default.
            record, needs_nft: see :func:`pydock_core.network.firewall.ensure`.

        Returns:
            The reason why containers of the bridge can impersonate each other; "" if they cannot.

        Raises:
            UnsupportedError: the host has neither nft nor iptables; for an ordinary user, it lacks nft or a program for
                the uplink.
            ConflictError: another kind of device has this name.
        """
        request: EnsureRequest = {
            "op": "ensure",
            "rules": asdict(rules),
            "mtu": mtu,
            "record": str(record or ""),
            "needs_nft": needs_nft,
        }
        if admission is not None:
            request["admission"] = asdict(admission)
        return cast("EnsureReply", self._ask(request))["weakness"]

    def remove(self, rules: BridgeRules) -> None:
        """Remove a bridge and its firewall rules; missing objects are ignored."""
        if os.geteuid() != 0 and user_network.read(self._root.run) is None:
            return  # no container of this user runs on a bridge, so the bridge does not exist
        self._ask({"op": "remove", "rules": asdict(rules)})

    def presence(self) -> Presence:
        """Return what exists in the network namespace of the bridges; for an ordinary user without one, nothing."""
        from pydock_core.network.presence import Presence, read_presence  # late: a start does not need it

        if os.geteuid() == 0:
            return read_presence()
        if user_network.read(self._root.run) is None:
            return Presence({}, frozenset())
        reply = cast("PresenceReply", self._ask({"op": "presence"}))
        return Presence(reply["devices"], frozenset(reply["tables"]))

    def ping(self) -> ServerFacts:
        """Start the service if necessary; return its facts."""
        return cast("ServerFacts", self._ask({"op": "ping"}))

    def _ask(
        self, request: EnsureRequest | RemoveRequest | PresenceRequest | PingRequest
    ) -> Mapping[str, Any]:
        if os.geteuid() != 0:
            Zygote(self._root).ping()  # the service joins its user namespace
        return ask_server_surely(self._spec, request)
