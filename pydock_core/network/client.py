"""Client of the network service, called by the engine before it starts a container on a bridge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from pydock_core.errors import UnsupportedError
from pydock_core.network.rules import Admission
from pydock_core.paths import StateRoot
from pydock_core.supervision.server_start import ask_server_surely, network_spec

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import (
        EnsureReply,
        EnsureRequest,
        PingRequest,
        RemoveRequest,
        ServerFacts,
    )


class NetworkService:
    """The network service of one state root, started on demand.  Only root has one.

    Args:
        root: whose ``run`` directory must exist; a launch plan names ``root.network_socket()``.
    """

    def __init__(self, root: StateRoot) -> None:
        self._spec = network_spec(root)

    def ensure(self, bridge: str, subnet: str, gateway: str, admission: Admission | None = None) -> str:
        """Make sure that a bridge has its address and firewall rules; call it before each start on that bridge.

        Args:
            bridge: name of the device, at most 15 bytes.
            subnet: "172.30.0.0/16".
            gateway: the bridge's own address with prefix length.
            admission: of the container to attach; without it, the container's packets are dropped.

        Returns:
            The reason why containers of the bridge can impersonate each other; "" if they cannot.

        Raises:
            UnsupportedError: the caller is not root, or the host has neither nft nor iptables.
            ConflictError: a device of this name is not a bridge.
        """
        request: EnsureRequest = {"op": "ensure", "bridge": bridge, "subnet": subnet, "gateway": gateway}
        if admission is not None:
            request["admission"] = {
                "address": admission.address,
                "access": admission.access,
                "resolvers": admission.resolvers,
            }
        return cast("EnsureReply", self._ask(request))["weakness"]

    def remove(self, bridge: str, subnet: str) -> None:
        """Remove a bridge and its firewall rules."""
        self._ask({"op": "remove", "bridge": bridge, "subnet": subnet})

    def ping(self) -> ServerFacts:
        """Start the service if necessary; return its facts."""
        return cast("ServerFacts", self._ask({"op": "ping"}))

    def _ask(self, request: EnsureRequest | RemoveRequest | PingRequest) -> Mapping[str, Any]:
        if os.geteuid() != 0:
            raise UnsupportedError(
                "bridge networks need root",
                hint="use --network none (its ports still open in the notebook) or host",
                exit_code=125,
            )
        return ask_server_surely(self._spec, request)
