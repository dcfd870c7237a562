"""The use cases of networks: create, list, inspect, remove, prune, connect and disconnect."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pydock_core.engine import container_files
from pydock_core.engine.attachments import (
    Attachments,
    Places,
    build_name_service,
    check_addresses,
    check_way_out,
    choose_routes,
    own_names,
)
from pydock_core.engine.labels import has_label, parse_prune_filters
from pydock_core.engine.names import random_id
from pydock_core.engine.network_rows import Network, build_endpoint, build_network
from pydock_core.errors import ConflictError, InvalidError, NotFoundError, PyDockError
from pydock_core.network.addresses import (
    DEFAULT_CANDIDATES,
    host_routes,
    overlapping,
    pick_subnet,
    private_subnet6,
)
from pydock_core.network.client import NetworkService
from pydock_core.spec.definition import ENDPOINT, CreateRequest, Definition, EndpointSettings, decode, encode
from pydock_core.spec.network import NetworkRequest, check_network
from pydock_core.spec.network import encode as encode_network
from pydock_core.spelling import parse_boolean
from pydock_core.store.database import containers as containers_sql
from pydock_core.store.database import networks as table
from pydock_core.store.database.containers import ContainerRow
from pydock_core.store.database.events import Event
from pydock_core.store.database.networks import DEFAULT_NETWORK, PREDEFINED, EndpointRow, NetworkRow
from pydock_core.supervision.client import SupervisorClient
from pydock_core.supervision.container_status import derive_status
from pydock_core.supervision.plan import NameService

if TYPE_CHECKING:
    from pydock_core.engine.state import State

Filters = Mapping[str, Sequence[str]]
_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")


class Networks:
    """Networks of one state root.

    A network is named by its name, its id or a unique prefix of the id; NotFoundError if there is none.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._root = state.root
        self._database = state.database
        self._attachments = Attachments(state.root, state.database)

    # -- definition --------------------------------------------------------------------------------------

    def create(self, request: Mapping[str, Any]) -> tuple[str, list[str]]:
        """Create a network.

        Args:
            request: the body of ``POST /networks/create``; see :mod:`pydock_core.spec.network`.

        Returns:
            Its full id, and warnings.

        Raises:
            ConflictError: the name, the subnet or the bridge's name is taken.
            InvalidError: the request contradicts itself.
            UnsupportedError: this host or PyDock does not support it.

        Postcondition: the network is listed, and for root its bridge exists; on an error nothing has changed.
        """
        name, driver, checked = check_network(request)
        check_way_out(name)
        if table.find_by_name(self._database, name) is not None:
            raise ConflictError(
                f"network {name} already exists", f"choose another name, or remove it: dock network rm {name}"
            )
        with _failing_with_one():
            return self._make(name, driver, checked), []

    def _make(self, name: str, driver: str, checked: NetworkRequest) -> str:
        """Choose subnets, record the network and make its bridge; return its id."""
        network_id = random_id()
        row = NetworkRow(network_id, name, driver, time.time_ns(), "", "", "", encode_network(checked))
        options = Network(row).options
        bridge = options.bridge or f"br-{network_id[:12]}"
        with self._attachments.subnet_lock():
            if self._attachments.is_device(bridge):
                raise ConflictError(f"a network device {bridge} exists already", "choose another bridge name")
            subnet, subnet6 = self._choose_subnets(Network(row))
            row = NetworkRow(
                network_id, name, driver, row.created_ns, bridge, subnet, subnet6, row.definition
            )
            network = Network(row)
            table.insert(self._database, row, _event(network, "create"))
            try:
                self._attachments.make(network)
            except BaseException:
                with suppress(PyDockError):
                    self._attachments.unmake(network)
                table.delete(self._database, network_id)
                raise
        return network_id

    def _choose_subnets(self, network: Network) -> tuple[str, str]:
        """Return the requested subnets, with chosen ones in place of missing ones.

        Raises:
            ConflictError: a requested subnet overlaps a route of the host or another network.
        """
        in_use = host_routes()
        for row in table.all_rows(self._database):
            in_use += [subnet for subnet in (row.subnet, row.subnet6) if subnet]
        chosen = []
        for version in (4, 6):
            subnet = network.pool(version)["Subnet"]
            if subnet and (route := overlapping(subnet, in_use)):
                raise ConflictError(
                    f"the subnet {subnet} overlaps {route}, which is in use on this host",
                    "give another subnet, or leave it out: a free one is chosen",
                )
            if not subnet and version == 4:
                subnet = pick_subnet(DEFAULT_CANDIDATES, in_use)
            if not subnet and network.request["EnableIPv6"]:
                subnet = private_subnet6(network.row.id)
            chosen.append(subnet)
        return chosen[0], chosen[1]

    def remove(self, reference: str, *, force: bool = False) -> bool:
        """Remove a network, its bridge and its firewall rules.

        Args:
            force: ignore a missing network.

        Returns:
            Whether it was removed.

        Raises:
            ConflictError: a running container is on it.
            InvalidError: it is predefined.
        """
        self._state.sweep_once()
        try:
            network = Network(table.find(self._database, reference))
        except NotFoundError:
            if force:
                return False
            raise
        if network.is_predefined:
            raise InvalidError(f"network {network.row.name} is predefined and cannot be removed", "leave it")
        with self._attachments.lock(network.row.id, exclusive=True):
            users = [row.name for row, _ in self._running(network)]
            if users:
                raise ConflictError(
                    f"network {network.row.name} has running containers: {', '.join(users)}",
                    f"stop them, or disconnect them: dock network disconnect {network.row.name} {users[0]}",
                )
            # The row first: a bridge without a row is removed by the next sweep.
            table.delete(self._database, network.row.id, _event(network, "destroy"))
            self._attachments.unmake(network)
        return True

    def prune(self, filters: Filters | None = None) -> dict[str, Any]:
        """Remove the networks without containers.

        Without filters, root's default bridge also leaves the host if no container runs on it; the next start makes it again.

        Args:
            filters: label, label!, until.

        Returns:
            NetworkPruneResponse of the Engine API: NetworksDeleted, their names.

        Raises:
            InvalidError: an unknown filter, or a malformed one.
        """
        may_go = parse_prune_filters(filters or {}, time.time_ns())
        used = self._used_names()
        removed = []
        for row in table.all_rows(self._database):
            labels = Network(row).request["Labels"]
            if row.name in PREDEFINED or row.name in used or not may_go(row.created_ns, labels):
                continue
            try:
                self.remove(row.id)
            except (ConflictError, NotFoundError):
                continue  # used or removed in the meantime
            removed.append(row.name)
        if not filters:
            self._remove_idle_default()
        return {"NetworksDeleted": removed}

    def _remove_idle_default(self) -> None:
        row = table.find(self._database, DEFAULT_NETWORK)
        if os.geteuid() != 0 or not row.bridge:  # an ordinary user's bridges end with the last container
            return
        users = table.endpoints_of_network(self._database, row.id)
        if not any(derive_status(self._root.container(user.container_id)).is_active for user in users):
            NetworkService(self._root).remove(Network(row).rules)

    # -- looking -----------------------------------------------------------------------------------------

    def list(self, filters: Filters | None = None) -> list[dict[str, Any]]:
        """Return networks by name, as Network of the Engine API.

        Args:
            filters: dangling, driver, id, label, name, scope, type.

        Raises:
            InvalidError: an unknown filter, or a malformed one.
        """
        condition = self._parse_filters(filters or {})
        networks = map(Network, table.all_rows(self._database))
        return [build_network(network) for network in networks if condition(network)]

    def _parse_filters(self, filters: Filters) -> Callable[[Network], bool]:
        tests: dict[str, Callable[[Network, str], bool]] = {
            "driver": lambda network, value: network.row.driver == value,
            "id": lambda network, value: value in network.row.id,
            "label": lambda network, value: has_label(network.request["Labels"], value),
            "name": lambda network, value: value in network.row.name,
            "scope": lambda _, value: value == "local",
            "type": lambda network, value: value == ("builtin" if network.is_predefined else "custom"),
        }
        if unknown := set(filters) - set(_FILTERS):
            raise InvalidError(f"--filter {min(unknown)}: unknown key", f"there are {', '.join(_FILTERS)}")
        for value in filters.get("type", ()):
            if value not in ("builtin", "custom"):
                raise InvalidError(f"--filter type={value}: no such type", "there are builtin and custom")
        dangling = [parse_boolean(value) for value in filters.get("dangling", ())]
        if None in dangling:
            raise InvalidError("--filter dangling: neither true nor false", "write dangling=true")
        used = self._used_names() if dangling else frozenset()

        def matches(network: Network) -> bool:
            for key, test in tests.items():
                values = filters.get(key, ())
                chosen = all if key == "label" else any
                if values and not chosen(test(network, value) for value in values):
                    return False
            is_dangling = not network.is_predefined and network.row.name not in used
            return not dangling or is_dangling in dangling

        return matches

    def _used_names(self) -> frozenset[str]:
        """The names of the networks in containers' definitions."""
        rows = containers_sql.all_rows(self._database)
        definitions = (decode(row.definition).request for row in rows)
        return frozenset(
            name for request in definitions for name in request["NetworkingConfig"]["EndpointsConfig"]
        )

    def inspect(self, reference: str) -> dict[str, Any]:
        """Return a network with its running containers, as Network of the Engine API."""
        network = Network(table.find(self._database, reference))
        containers = {}
        for row, endpoint in self._running(network):
            settings = _endpoints(decode(row.definition)).get(network.row.name, ENDPOINT)
            place = build_endpoint(network, endpoint, settings)
            containers[row.id] = {
                "Name": row.name,
                "EndpointID": place["EndpointID"],
                "MacAddress": place["MacAddress"],
                "IPv4Address": endpoint.address,
                "IPv6Address": endpoint.address6,
            }
        return build_network(network, containers)

    def name(self, reference: str) -> str:
        """Return a network's name."""
        return table.find(self._database, reference).name

    def _running(self, network: Network) -> Iterable[tuple[ContainerRow, EndpointRow]]:
        """Yield the running and starting containers on a network."""
        for endpoint in table.endpoints_of_network(self._database, network.row.id):
            status = derive_status(self._root.container(endpoint.container_id)).status
            if status not in ("created", "exited"):
                with suppress(NotFoundError):  # removed just now
                    yield containers_sql.find(self._database, endpoint.container_id), endpoint

    # -- connections -------------------------------------------------------------------------------------

    def connect(self, reference: str, container: str, settings: Mapping[str, Any] | None = None) -> None:
        """Connect a container to a network; a running one gets the interface at once.

        Args:
            container: its name or id.
            settings: EndpointSettings of the Engine API: IPAMConfig, Aliases, Links, GwPriority, MacAddress.

        Raises:
            ConflictError: it is already connected, or an address is taken.
            InvalidError: the network or the container cannot be connected, or a setting is malformed.

        Postcondition: the definition names the network; on an error nothing has changed.
        """
        network = Network(table.find(self._database, reference))
        row = containers_sql.find(self._database, container)
        definition = decode(row.definition)
        name = network.row.name
        endpoints = _endpoints(definition)
        _check_connectable(network, definition, container)
        if name in endpoints:
            raise ConflictError(
                f"container {container} is on network {name} already", f"dock inspect {container}"
            )
        checked = check_settings(network, settings or {})
        changed = {**endpoints, name: checked}
        with self._attachments.lock(network.row.id, exclusive=False):
            status = derive_status(self._root.container(row.id))
            if status.status == "restarting":
                raise ConflictError(
                    f"container {container} is restarting", "connect it when it runs, or when it is stopped"
                )
            if status.is_running:
                with _failing_with_one():
                    self._connect_running(network, row, definition, checked, changed)
            event = _event(network, "connect", container=row.id)
            table.connect(self._database, network.row.id, row.id, _changing(name, checked), event)

    def _connect_running(
        self,
        network: Network,
        row: ContainerRow,
        definition: Definition,
        settings: EndpointSettings,
        endpoints: Mapping[str, EndpointSettings],
    ) -> None:
        places = self._places(endpoints)
        interface = self._attachments.admit(
            network,
            row.id,
            settings,
            device=network.options.interface if network.has_names else "eth",
            names=own_names(row.id, row.name, definition, settings) if network.has_names else (),
            access="none",
            routes=choose_routes(places, network),
        )
        try:
            SupervisorClient(self._root.container(row.id), row.name).connect(
                interface, self._name_service(places, definition)
            )
        except PyDockError:
            table.release(self._database, network.row.id, row.id)
            raise
        container_files.add_network(
            self._root.container(row.id).data,
            [text.partition("/")[0] for text in (interface.address, interface.address6) if text],
            definition.host_name(row.id),
            has_names=network.has_names,
            settings=definition.host,
        )

    def disconnect(self, reference: str, container: str, *, force: bool = False) -> None:
        """Disconnect a container from a network; a running one loses the interface at once.

        Args:
            force: ignore a container that is gone or not on the network.

        Raises:
            NotFoundError: the container is not on the network.
            InvalidError: the network cannot be left.
        """
        network = Network(table.find(self._database, reference))
        name = network.row.name
        try:
            row = containers_sql.find(self._database, container)
        except NotFoundError:
            if force:
                return
            raise
        definition = decode(row.definition)
        endpoints = _endpoints(definition)
        if not network.is_bridge:
            raise InvalidError(
                f"a container cannot be disconnected from network {name}", "create another container"
            )
        held = table.endpoints_of_container(self._database, row.id).get(name)
        if name not in endpoints and held is None:  # a killed connection leaves one without the other
            if force:
                return
            raise NotFoundError(
                f"container {container} is not on network {name}", f"dock inspect {container}"
            )
        rest = {key: settings for key, settings in endpoints.items() if key != name}
        paths = self._root.container(row.id)
        if derive_status(paths).is_running:
            places = self._places(rest)
            gateways = _gateways(places)
            with suppress(ConflictError):  # it has just ended
                SupervisorClient(paths, row.name).disconnect(
                    network.row.id, gateways, self._name_service(places, definition)
                )
            if held is not None:
                addresses = [text.partition("/")[0] for text in (held[1].address, held[1].address6) if text]
                container_files.remove_addresses(paths.data, addresses)
        event = _event(network, "disconnect", container=row.id)
        table.disconnect(self._database, network.row.id, row.id, _changing(name, None), event)

    def _places(self, endpoints: Mapping[str, EndpointSettings]) -> Places:
        found = ((table.find_by_name(self._database, name), settings) for name, settings in endpoints.items())
        return [(Network(row), settings) for row, settings in found if row is not None]

    @staticmethod
    def _name_service(places: Places, definition: Definition) -> NameService:
        return build_name_service(places, lambda: container_files.upstream_servers(definition.host))


@contextmanager
def _failing_with_one() -> Iterator[None]:
    """Give errors the exit code of a command that runs no container; at a start they have 125."""
    try:
        yield
    except PyDockError as error:
        error.exit_code = 1
        raise


def check_settings(network: Network, settings: Mapping[str, Any]) -> EndpointSettings:
    """Check the settings of one connection by the rules of a container's creation.

    Raises:
        InvalidError, UnsupportedError: as :func:`pydock_core.spec.validation.check_request`.
    """
    from pydock_core.spec.validation import check_request

    document = {"Image": "-", "NetworkingConfig": {"EndpointsConfig": {network.row.name: dict(settings)}}}
    with _failing_with_one():
        checked: CreateRequest = check_request(document)
        found = checked["NetworkingConfig"]["EndpointsConfig"].get(network.row.name, ENDPOINT)
        check_addresses(network, found)
    return found


def _endpoints(definition: Definition) -> dict[str, EndpointSettings]:
    return definition.request["NetworkingConfig"]["EndpointsConfig"]


def _gateways(places: Places) -> dict[str, tuple[str, str]]:
    """Return the gateways of the default routes by network id; IPv4 and IPv6."""
    found = {}
    for network, _ in places:
        has_route, has_route6 = choose_routes(places, network)
        if has_route or has_route6:
            rules = network.rules
            found[network.row.id] = (rules.gateway if has_route else "", rules.gateway6 if has_route6 else "")
    return found


def _check_connectable(network: Network, definition: Definition, container: str) -> None:
    if not network.is_bridge:
        raise InvalidError(
            f"a container cannot be connected to network {network.row.name}",
            f"create it on that network: dock run --network {network.row.name}",
        )
    mode = definition.host["NetworkMode"].partition(":")[0]
    if mode in ("host", "container", "none"):
        raise InvalidError(
            f"container {container} was created with --network {mode}, and cannot be connected to another network",
            "create it on a bridge network",
        )


def _changing(name: str, settings: EndpointSettings | None) -> Callable[[str], str]:
    """Return a function that adds a network to a stored definition, or with None removes it."""

    def change(text: str) -> str:
        definition = decode(text)
        endpoints = {key: value for key, value in _endpoints(definition).items() if key != name}
        if settings is not None:
            endpoints[name] = settings
        networking = {"EndpointsConfig": endpoints}
        request: Any = {**definition.request, "NetworkingConfig": networking}
        return encode(Definition(request, definition.volumes))

    return change


def _event(network: Network, action: str, **attributes: str) -> Event:
    """Return an event of a network, with its name and driver among the attributes, as in Docker."""
    described = {"name": network.row.name, "type": network.row.driver}
    return Event("network", action, network.row.id, {**attributes, **described})
