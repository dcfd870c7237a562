"""The content of a panel: rows of containers and images, ready to draw.  Pure.

The ipywidgets panel and the JupyterLab extension draw the same rows.  Order, names, texts, ports and the point at which
a long name may be cut are decided here.  The JupyterLab extension receives them as JSON from ``GET /pydock/panel``
(labextension/src/engine.ts declares the same types).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from pydock_core.spelling import human_size

if TYPE_CHECKING:
    from pydock_core.engine import Snapshot

MIN_TAIL, MAX_TAIL = 10, 16
"""The number of characters at the end of a name that stay visible."""

Look = Literal["running", "paused", "changing", "failed", "ended", "created"]
"""The symbol of a state."""

_LOOKS: dict[str, Look] = {
    "running": "running",
    "paused": "paused",
    "created": "created",
    "restarting": "changing",
    "removing": "changing",
    "dead": "failed",
}


class Port(TypedDict):
    """A TCP port of a running container; ``published`` is its host address, ``0.0.0.0:8080``, or empty."""

    number: int
    published: str


class ContainerRow(TypedDict):
    """A container.

    ``label`` is the name in two parts: the view may cut the first one, never the second.  ``up`` tells whether the
    container has processes.  ``title`` is the tooltip.
    """

    id: str
    name: str
    label: tuple[str, str]
    image: str
    state: str
    status: str
    look: Look
    up: bool
    ports: list[Port]
    title: str


class ImageRow(TypedDict):
    """An image; ``label`` is its first name, or its short id, in two parts as for a container."""

    id: str
    names: list[str]
    label: tuple[str, str]
    size: str
    title: str


class Notice(TypedDict):
    """An error: one line, and a hint that may be empty."""

    message: str
    hint: str


class PanelView(TypedDict):
    """A panel's content; the lists are None before the first successful listing, and stale beside a problem."""

    containers: list[ContainerRow] | None
    images: list[ImageRow] | None
    problem: Notice | None


def build_view(snapshot: Snapshot) -> PanelView:
    """Return the content of a panel for a snapshot."""
    problem = snapshot.problem
    return {
        "containers": None if snapshot.containers is None else build_container_rows(snapshot.containers),
        "images": None if snapshot.images is None else build_image_rows(snapshot.images),
        "problem": None if problem is None else {"message": problem.message, "hint": problem.hint},
    }


def build_container_rows(containers: Sequence[dict[str, Any]]) -> list[ContainerRow]:
    """Return a row for each ContainerSummary, in the same order."""
    names = [_container_name(container) for container in containers]
    tail = tail_length(names)
    return [_container_row(container, name, tail) for container, name in zip(containers, names, strict=True)]


def build_image_rows(images: Sequence[dict[str, Any]]) -> list[ImageRow]:
    """Return a row for each ImageSummary, in the same order."""
    tail = tail_length(str(name) for image in images for name in (image.get("RepoTags") or ())[:1])
    return [_image_row(image, tail) for image in images]


def tail_length(names: Iterable[str]) -> int:
    """Return the number of characters, 10 to 16, that tell the ends of all names apart."""
    different = set(names)
    for length in range(MIN_TAIL, MAX_TAIL):
        if len({name[-length:] for name in different}) == len(different):
            return length
    return MAX_TAIL


def split_name(name: str, tail: int) -> tuple[str, str]:
    """Split a name before its tail; a short one in the middle."""
    cut = len(name) - min(tail, len(name) // 2)
    return name[:cut], name[cut:]


def _container_name(container: dict[str, Any]) -> str:
    """Return the name, which the Engine API writes with a leading slash, or the short id."""
    return str(container["Names"][0]).removeprefix("/") if container["Names"] else str(container["Id"])[:12]


def _container_row(container: dict[str, Any], name: str, tail: int) -> ContainerRow:
    state, status = str(container["State"]), str(container["Status"])
    is_up = state in ("running", "paused", "restarting")
    ports = _tcp_ports(container["Ports"])
    # The status names every state but a running one ("Up 2 minutes").
    in_words = (status or state) if status.lower().startswith(state) or not status else f"{state}, {status}"
    title = [f"{name} ({str(container['Id'])[:12]})", f"Image: {container['Image']}", f"State: {in_words}"]
    if ports:
        title.append(f"Ports: {', '.join(str(port['number']) for port in ports)}")
    return {
        "id": str(container["Id"]),
        "name": name,
        "label": split_name(name, tail),
        "image": str(container["Image"]),
        "state": state,
        "status": status or state,
        "look": _LOOKS.get(state) or ("ended" if status.startswith("Exited (0)") else "failed"),
        "up": is_up,
        "ports": ports if is_up else [],
        "title": "\n".join(title),
    }


def _tcp_ports(ports: Iterable[dict[str, Any]]) -> list[Port]:
    """Return each TCP port once, in ascending order, with its first host address."""
    published: dict[int, str] = {}
    for port in ports:
        if port["Type"] == "tcp":
            address = f"{port.get('IP', '')}:{port['PublicPort']}" if port.get("PublicPort") else ""
            published[port["PrivatePort"]] = published.get(port["PrivatePort"]) or address
    return [{"number": number, "published": published[number]} for number in sorted(published)]


def _image_row(image: dict[str, Any], tail: int) -> ImageRow:
    names = [str(name) for name in image.get("RepoTags") or ()]
    short_id = str(image["Id"]).removeprefix("sha256:")[:12]
    size = human_size(image["Size"])
    return {
        "id": str(image["Id"]),
        "names": names,
        "label": split_name([*names, short_id][0], tail),
        "size": size,
        "title": "\n".join([*names, f"{short_id} · {size}"]),
    }
