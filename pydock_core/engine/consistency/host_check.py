"""Inconsistencies outside the state root: mounts, control groups, bridges and firewall tables without an owner."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Set
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydock_core import syscalls
from pydock_core.engine.attachments import Attachments
from pydock_core.engine.consistency.finding import (
    LONG_SECONDS,
    Inconsistency,
    Known,
    inconsistency,
    inode_of,
    names_in,
    short,
)
from pydock_core.engine.network_rows import Network
from pydock_core.errors import CorruptError, DeniedError, NotFoundError, PyDockError, UnavailableError
from pydock_core.network.client import NetworkService
from pydock_core.network.presence import TABLE_PREFIX
from pydock_core.network.rules import BridgeRules
from pydock_core.runtime.cgroups import find_cgroup, read_layout
from pydock_core.runtime.cgroups.layout import find_v2_base
from pydock_core.runtime.record_file import read_json
from pydock_core.store.database import checks
from pydock_core.store.database import networks as table
from pydock_core.supervision import user_network
from pydock_core.supervision.container_status import derive_status
from pydock_core.supervision.names.names_file import NAMES, withdraw

if TYPE_CHECKING:
    from pydock_core.engine.state import State

_GROUPS = "pydock"
_USER_BRIDGE = "br-"
_NO_SUBNET = (
    "192.0.2.0/24"  # RFC 5737: placeholder for a bridge without a row; removing the tables does not use it
)
Groups = dict[str, dict[str, str]]


class HostCheck:
    """Finds remains of one state root's containers and networks on the host."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._root = state.root
        self._database = state.database
        self._attachments = Attachments(state.root, state.database)

    def look(self, known: Known) -> Iterator[Inconsistency]:
        """Yield the current inconsistencies."""
        yield from self._mounts()
        yield from self._groups(known)
        yield from self._names(known)
        yield from self._networks()

    # -- mounts ------------------------------------------------------------------------------------------

    def _mounts(self) -> Iterator[Inconsistency]:
        """Find mounts in directories where only private mount namespaces should have any."""
        root = self._root
        tops = (root.containers, root.layers, root.temporary, root.trash, root.run / "c", root.run / "n")
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            place = Path(fields[4].encode().decode("unicode_escape"))
            if any(top in place.parents for top in tops):
                yield inconsistency(
                    "mount",
                    str(place),
                    "the host's mount table has it, but containers are mounted in namespaces of their own",
                    "unmounts it",
                    partial(_unmount, str(place)),
                    identity=fields[0],
                )

    # -- control groups ----------------------------------------------------------------------------------

    def _groups(self, known: Known) -> Iterator[Inconsistency]:
        """Find groups of containers that are not running; other state roots' groups are skipped."""
        found = {
            container_id: directories
            for container_id, directories in _container_groups().items()
            if known.is_at_rest(container_id)
        }
        strangers = set(found) - set(known.rows) - set(names_in(self._root.containers))
        once = checks.with_history(self._database, "container", strangers)
        for container_id, directories in found.items():
            if container_id in strangers and container_id not in once:
                continue
            row = known.rows.get(container_id)
            yield inconsistency(
                "control group",
                row.name if row else container_id[:12],
                "it is there, but the container does not run",
                "kills its processes, and removes it",
                partial(_remove_group, directories),
                identity=tuple(sorted(inode_of(Path(path)) for path in directories.values())),
            )

    # -- networks ----------------------------------------------------------------------------------------

    def _names(self, known: Known) -> Iterator[Inconsistency]:
        """Find ended containers that are still among a network's names."""
        for network_id in names_in(self._root.run / "n"):
            directory = self._root.network_directory(network_id)
            try:
                entries = read_json(directory / NAMES) or {}
            except CorruptError:
                continue  # a name server reads it as empty, and the next writer replaces it
            for container_id in entries:
                if known.is_at_rest(container_id):
                    row = known.rows.get(container_id)
                    yield inconsistency(
                        "network",
                        network_id[:12],
                        f"it has the name of {row.name if row else container_id[:12]}, which does not run",
                        "removes the name",
                        partial(withdraw, directory, container_id),
                    )

    def _networks(self) -> Iterator[Inconsistency]:
        networks = {row.id: Network(row) for row in table.all_rows(self._database) if row.driver == "bridge"}
        try:
            presence = NetworkService(self._root).presence()
        except UnavailableError:
            return  # an ordinary user's network has just ended, with all that it had
        devices, tables = presence.devices, presence.tables
        for network_id in names_in(self._root.run / "n"):
            if network_id not in networks and self._is_gone(network_id):
                yield inconsistency(
                    "network",
                    network_id[:12],
                    "it is not recorded, but its directory is there",
                    "removes its bridge, its rules and the directory",
                    partial(self._attachments.sweep, network_id),
                )
        yield from self._ownerless(networks, devices, tables)
        for network in networks.values():
            if network.row.bridge:
                yield from self._look_at(network, devices, tables)
        yield from self._uplink(network for network in networks.values() if network.row.bridge in devices)

    def _uplink(self, networks: Iterator[Network]) -> Iterator[Inconsistency]:
        """Find a killed uplink of an ordinary user's network namespace."""
        shared = user_network.read(self._root.run)
        network = next(networks, None)
        if shared is not None and network is not None and not shared.uplink.is_running():
            yield inconsistency(
                "network",
                network.row.name,
                "its uplink to the host's network was killed, so published ports and the outside are unreachable",
                "starts the uplink again",
                partial(self._ensure, network),
                identity=shared.uplink.pid,
                patience_seconds=LONG_SECONDS,
            )

    def _is_gone(self, network_id: str) -> bool:
        try:
            table.find(self._database, network_id)
        except NotFoundError:
            return True
        return False

    def _ownerless(
        self, networks: Mapping[str, Network], devices: Mapping[str, int], tables: Set[str]
    ) -> Iterator[Inconsistency]:
        """Find bridges and tables of networks that this database once had."""
        owned = {network.row.bridge for network in networks.values()}
        # A network that still has a directory is found and removed by that.
        owned |= {f"{_USER_BRIDGE}{network_id[:12]}" for network_id in names_in(self._root.run / "n")}
        bridges = {*devices, *(name.removeprefix(TABLE_PREFIX) for name in tables)} - owned
        prefixes = {
            name.removeprefix(_USER_BRIDGE): name for name in bridges if name.startswith(_USER_BRIDGE)
        }
        for prefix in checks.with_history(self._database, "network", prefixes):
            bridge = prefixes[prefix]
            yield inconsistency(
                "network",
                prefix,
                f"it is not recorded, but the host has {_describe(bridge, devices, tables)}",
                "removes its bridge and its rules",
                partial(self._remove_rules, BridgeRules(bridge, _NO_SUBNET)),
                identity=devices.get(bridge),
                patience_seconds=LONG_SECONDS,
            )

    def _look_at(
        self, network: Network, devices: Mapping[str, int], tables: Set[str]
    ) -> Iterator[Inconsistency]:
        """Compare a network's bridge with its rules and its running containers."""
        row = network.row
        has_rules = f"{TABLE_PREFIX}{row.bridge}" in tables
        if row.bridge in devices:
            if not has_rules and shutil.which("nft"):
                yield inconsistency(
                    "network",
                    row.name,
                    f"its bridge {row.bridge} is there, but its firewall rules are not",
                    "puts the rules in place",
                    partial(self._ensure, network),
                    identity=devices[row.bridge],
                    patience_seconds=LONG_SECONDS,
                )
            return
        users = [
            endpoint.container_id
            for endpoint in table.endpoints_of_network(self._database, row.id)
            if derive_status(self._root.container(endpoint.container_id)).is_running
        ]
        if users:
            named = short(user[:12] for user in users)
            yield inconsistency(
                "network",
                row.name,
                f"its bridge {row.bridge} is gone, but containers run on it: {named}",
                f"restart them: dock restart {' '.join(user[:12] for user in users)}",
                patience_seconds=LONG_SECONDS,
            )
        elif has_rules:
            yield inconsistency(
                "network",
                row.name,
                f"its bridge {row.bridge} is gone, but its firewall rules are there",
                "removes the rules; the next start makes both",
                partial(self._remove_rules, network.rules),
                patience_seconds=LONG_SECONDS,
            )

    def _ensure(self, network: Network) -> None:
        NetworkService(self._root).ensure(
            network.rules,
            mtu=network.options.mtu if network.has_names else 0,
            needs_nft=network.has_names,
        )

    def _remove_rules(self, rules: BridgeRules) -> None:
        NetworkService(self._root).remove(rules)


def _describe(bridge: str, devices: Mapping[str, int], tables: Set[str]) -> str:
    return " and ".join(
        word
        for word, is_there in (
            (f"the bridge {bridge}", bridge in devices),
            (f"the rules {TABLE_PREFIX}{bridge}", f"{TABLE_PREFIX}{bridge}" in tables),
        )
        if is_there
    )


def _container_groups() -> Groups:
    """The control groups of containers, of any state root: directories by hierarchy, by container id."""
    layout = read_layout()
    hierarchies = {name: path / _GROUPS for name, path in layout.v1.items()}
    if layout.version == 1 and layout.unified is not None:
        hierarchies["unified"] = layout.unified / _GROUPS
    elif layout.version == 2 and (base := find_v2_base(layout)) is not None:
        hierarchies = {"": base / _GROUPS}
    found: Groups = {}
    for name, parent in hierarchies.items():
        for container_id in names_in(parent):
            if len(container_id) == 64 and (parent / container_id).is_dir():
                found.setdefault(container_id, {})[name] = str(parent / container_id)
    return found


def _remove_group(directories: Mapping[str, str]) -> None:
    group = find_cgroup(directories)
    group.kill()
    group.delete()


def _unmount(place: str) -> None:
    try:
        syscalls.umount(place, syscalls.MNT_DETACH)
    except PermissionError as error:
        raise DeniedError(f"cannot unmount {place}: {error.strerror}", f"as root: umount {place}") from error
    except OSError as error:
        raise PyDockError(f"cannot unmount {place}: {error.strerror}", f"umount -l {place}") from error
