"""The messages between the engine, the fork servers and the supervisors, as typed dictionaries.

ARCHITECTURE.md, "The control protocol", describes the exchanges, and the descriptors that travel with a message.  The
receiver of a request still checks the values: the other side may run another version of the code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

from pydock_core.errors import ErrorDocument
from pydock_core.progress import Event


class StreamChoice(TypedDict, total=False):
    """The standard streams that an attached client takes part in."""

    stdin: bool
    stdout: bool
    stderr: bool


class PortDocument(TypedDict):
    """A published port; see :class:`pydock_core.supervision.plan.PublishedPort`."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: str
    last_host_port: int


# -- fork servers ------------------------------------------------------------------------------------------


class PingRequest(TypedDict):
    """Asks any fork server for its facts."""

    op: Literal["ping"]


class ServerFacts(TypedDict):
    """A fork server's reply to a ping; only the zygote has a mapping, and extents of user and group ids."""

    pid: int
    version: str
    mapping: NotRequired[Literal["root", "full", "single"]]
    ids: NotRequired[list[list[int]]]


class SuperviseRequest(TypedDict):
    """Asks the zygote for a supervisor."""

    op: Literal["supervise"]
    attach: NotRequired[StreamChoice]


class LaunchOrder(TypedDict):
    """Names the launch plan, once bundle and plan are written: from the client on the status socket."""

    plan: str


class WorkRequest(TypedDict):
    """Asks the zygote to run a storage job; see :mod:`pydock_core.store.worker`."""

    op: Literal["work"]
    function: str
    arguments: Mapping[str, Any]


class EnsureRequest(TypedDict):
    """Asks the network service for a bridge with its firewall rules.

    ``rules`` and ``admission`` have the fields of the classes of :mod:`pydock_core.network.rules`.
    """

    op: Literal["ensure"]
    rules: Mapping[str, Any]
    mtu: int
    record: str
    needs_nft: bool
    admission: NotRequired[Mapping[str, Any]]


class EnsureReply(TypedDict):
    """The reason why containers of the bridge can impersonate each other; "" if they cannot."""

    weakness: str


class PlugRequest(TypedDict):
    """Asks the network service to attach a network namespace to bridges."""

    op: Literal["attach"]
    container_id: str
    interfaces: Sequence[Mapping[str, Any]]


class UnplugRequest(TypedDict):
    """Asks the network service to remove an interface of a network namespace, and to set the remaining routes."""

    op: Literal["detach"]
    container_id: str
    address: str
    routes: Sequence[Mapping[str, Any]]


class PublishRequest(TypedDict):
    """Asks the network service to translate packets for published ports from outside to a container.

    ``ports`` have the fields of :class:`pydock_core.network.port_rules.Publication`.
    """

    op: Literal["publish"]
    bridge: str
    ports: Sequence[Mapping[str, Any]]


class RemoveRequest(TypedDict):
    """Asks the network service to remove a bridge and its firewall rules."""

    op: Literal["remove"]
    rules: Mapping[str, Any]


class PresenceRequest(TypedDict):
    """Asks the network service what exists in the network namespace of its bridges."""

    op: Literal["presence"]


class PresenceReply(TypedDict):
    """The fields of :class:`pydock_core.network.presence.Presence`."""

    devices: dict[str, int]
    tables: list[str]


# -- events on a status socket -----------------------------------------------------------------------------


class StartedEvent(TypedDict):
    """The container's process runs."""

    event: Literal["started"]
    pid: int
    started_at_ns: int
    ports: list[PortDocument]


class ExitedEvent(TypedDict):
    """The container has ended, and its exit is recorded."""

    event: Literal["exited"]
    exit_code: int
    oom_killed: bool


class FailedEvent(TypedDict):
    """The start, or the storage job, failed."""

    event: Literal["failed"]
    error: ErrorDocument


class ProgressEvent(TypedDict):
    """Progress of a storage job."""

    event: Literal["progress"]
    progress: Event


class DoneEvent(TypedDict):
    """The end of a storage job, with its result (JSON types)."""

    event: Literal["done"]
    result: Any


SupervisorEvent = StartedEvent | ExitedEvent | FailedEvent
WorkerEvent = ProgressEvent | DoneEvent | FailedEvent


# -- a supervisor's control socket -------------------------------------------------------------------------


class BareRequest(TypedDict):
    """A request without fields."""

    op: Literal["state", "wait", "follow", "freeze", "thaw", "pause", "unpause"]


class AttachRequest(StreamChoice):
    """Attaches a client to the standard streams; they are not attached unless chosen."""

    op: Literal["attach"]


class ResizeRequest(TypedDict):
    """Sets the size of the container's terminal."""

    op: Literal["resize"]
    rows: int
    columns: int


class SignalRequest(TypedDict):
    """Sends a signal to the container's first process; ``unpause`` thaws the container, so that the signal can end it."""

    op: Literal["signal"]
    signal: int
    unpause: NotRequired[bool]


class StopRequest(TypedDict):
    """Stops the container; None stands for the container's own signal or timeout."""

    op: Literal["stop"]
    signal: int | None
    timeout_seconds: float | None


class ExecRequest(TypedDict):
    """Runs an additional process (an OCI ``process`` object); ``id`` identifies it in events."""

    op: Literal["exec"]
    process: Mapping[str, Any]
    id: str
    detach: NotRequired[bool]


class ConnectRequest(TypedDict):
    """Attaches an interface to a running container; see :mod:`pydock_core.supervision.plan` for the documents."""

    op: Literal["connect"]
    interface: Mapping[str, Any]
    name_service: Mapping[str, Any]


class DisconnectRequest(TypedDict):
    """Removes a running container's interface; gateway and IPv6 gateway are by network id."""

    op: Literal["disconnect"]
    network_id: str
    gateways: Mapping[str, tuple[str, str]]
    name_service: Mapping[str, Any]


class RenameRequest(TypedDict):
    """Changes a running container's names on its networks, by network id."""

    op: Literal["rename"]
    names: Mapping[str, Sequence[str]]


class RestartPolicyRequest(TypedDict):
    """Sets the restart policy; see :class:`pydock_core.supervision.restart_policy.RestartPolicy`."""

    op: Literal["restart_policy"]
    name: str
    most: int


class DialRequest(TypedDict):
    """Connects to a port in the container."""

    op: Literal["dial"]
    port: int
    protocol: Literal["tcp"]


ControlRequest = (
    BareRequest
    | AttachRequest
    | ResizeRequest
    | SignalRequest
    | StopRequest
    | ExecRequest
    | DialRequest
    | RestartPolicyRequest
    | ConnectRequest
    | DisconnectRequest
    | RenameRequest
)


class TerminalSize(TypedDict):
    """The size of a terminal in characters."""

    rows: int
    columns: int


class ExecInstruction(TypedDict, total=False):
    """A client's message to its exec process, on the connection of the exec request."""

    signal: int
    resize: TerminalSize


class StateReply(TypedDict):
    """The facts of a container."""

    pid: int
    started_at_ns: int
    ports: list[PortDocument]
    status: Literal["starting", "running", "restarting", "exited"]


class ExecReply(TypedDict):
    """The pid of a process that has been executed."""

    pid: int


class ExitReply(TypedDict):
    """The exit code of a container that has ended."""

    exit_code: int


class ExecExitedEvent(TypedDict):
    """The end of an exec process."""

    event: Literal["exited"]
    exit_code: int


class LogEvent(TypedDict):
    """The log has grown."""

    event: Literal["log"]


# -- a supervisor and its maker ----------------------------------------------------------------------------


class MadeReply(TypedDict):
    """The container's process runs; see :class:`pydock_core.supervision.maker.Made`."""

    ok: Literal[True]
    pid: int
    oom_file: str
