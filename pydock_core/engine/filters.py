"""The ``--filter`` of container listings, with Docker's meaning: values of one key are alternatives, keys must all match."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydock_core.engine.labels import has_label
from pydock_core.engine.shapes import Seen
from pydock_core.errors import InvalidError
from pydock_core.spec.port import read_ports
from pydock_core.store.database.containers import ContainerRow
from pydock_core.supervision.plan import PublishedPort

_KEYS = (
    "id",
    "name",
    "label",
    "status",
    "exited",
    "ancestor",
    "before",
    "since",
    "volume",
    "network",
    "publish",
    "expose",
    "health",
)
_LEAST_ID = 4
_STATES = ("created", "running", "exited", "paused", "restarting", "removing", "dead")
_HEALTH = ("starting", "healthy", "unhealthy", "none")


@dataclass(frozen=True, slots=True)
class ContainerFilter:
    """A parsed filter: conditions that must all hold."""

    conditions: tuple[Callable[[Seen], bool], ...]
    names_a_status: bool

    def matches(self, seen: Seen) -> bool:
        """Whether a container fits."""
        return all(condition(seen) for condition in self.conditions)

    @classmethod
    def parse(
        cls,
        filters: Mapping[str, Sequence[str]],
        find: Callable[[str], ContainerRow],
        find_image: Callable[[str], str],
    ) -> ContainerFilter:
        """Parse filters.

        Args:
            find: returns the container that before or since names.
            find_image: returns the id of the image that ancestor names, empty if there is none.

        Raises:
            InvalidError: an unknown key or value.
            NotFoundError: before or since name no container.
        """
        conditions = []
        for key, values in filters.items():
            if key not in _KEYS:
                raise InvalidError(f"--filter {key}: unknown key", f"there are {', '.join(_KEYS)}")
            conditions.append(_condition(key, list(values), find, find_image))
        return cls(tuple(conditions), bool({"status", "exited"} & set(filters)))


def _condition(
    key: str, values: Sequence[str], find: Callable[[str], ContainerRow], find_image: Callable[[str], str]
) -> Callable[[Seen], bool]:
    if key == "label":
        return lambda seen: all(has_label(seen.definition.request["Labels"], value) for value in values)
    if key in ("before", "since"):
        rows = [find(value) for value in values]
        if key == "before":
            return lambda seen: all(seen.row.created_ns < row.created_ns for row in rows)
        return lambda seen: all(seen.row.created_ns > row.created_ns for row in rows)
    if key == "ancestor":
        ids = {find_image(value) for value in values}
        return lambda seen: seen.row.image_id in ids
    if key == "status" and (unknown := set(values) - set(_STATES)):
        raise InvalidError(
            f"--filter status={sorted(unknown)[0]}: no such state", f"there are {', '.join(_STATES)}"
        )
    if key == "health" and (unknown := set(values) - set(_HEALTH)):
        raise InvalidError(
            f"--filter health={sorted(unknown)[0]}: no such state", f"there are {', '.join(_HEALTH)}"
        )
    if key == "exited" and not all(value.isdigit() for value in values):
        raise InvalidError(f"--filter exited={values[0]}: not an exit code", "give a number")
    if key == "name":
        patterns = [_pattern(value) for value in values]
        return lambda seen: any(
            pattern.search(seen.row.name) or pattern.search("/" + seen.row.name) for pattern in patterns
        )
    test = _TESTS[key]
    return lambda seen: any(test(seen, value) for value in values)


_TESTS: Mapping[str, Callable[[Seen, str], bool]] = {
    "id": lambda seen, value: seen.row.id.startswith(value),
    "status": lambda seen, value: seen.state == value,
    "exited": lambda seen, value: seen.state == "exited" and seen.status.exit_code == int(value),
    "health": lambda seen, value: seen.health_status == value,
    "volume": lambda seen, value: any(value in (mount.source, mount.target) for mount in seen.mounts),
    "network": lambda seen, value: (
        value in seen.definition.request["NetworkingConfig"]["EndpointsConfig"]
        or seen.definition.host["NetworkMode"] == value
        or any(len(value) >= _LEAST_ID and row.id.startswith(value) for row, _ in seen.places.values())
    ),
    "publish": lambda seen, value: any(
        _is_published(port, _with_protocol(value))
        for port in read_ports(seen.definition.host["PortBindings"])
    ),
    "expose": lambda seen, value: _with_protocol(value) in seen.definition.request["ExposedPorts"],
}


def _is_published(port: PublishedPort, text: str) -> bool:
    number, _, protocol = text.partition("/")
    last = port.last_host_port or port.host_port
    return port.protocol == protocol and number.isdigit() and port.host_port <= int(number) <= last


def _with_protocol(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidError(
            f"--filter name={text}: {error}", "a name is matched as a regular expression"
        ) from error
