"""Moves a supervisor into its container's network namespace, and binds the namespace for the executor."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from pydock_core import messages, syscalls
from pydock_core.errors import FailedError, InvalidError, UnavailableError
from pydock_core.supervision.plan import LaunchPlan

if TYPE_CHECKING:
    from pydock_core.supervision.protocol import PlugRequest, PublishRequest, UnplugRequest

_SIOCGIFFLAGS = 0x8913  # netdevice(7); linux/sockios.h
_SIOCSIFFLAGS = 0x8914
_SIOCSIFADDR = 0x8916
_SIOCSIFNETMASK = 0x891C
_IFF_UP = 1
OWN_NAMESPACE = "/proc/self/ns/net"
_ATTACH_TIMEOUT_SECONDS = 30.0


def enter(plan: LaunchPlan, namespace_file: Path) -> None:
    """Enter the network namespace of a plan's container; the caller has made one for itself (:func:`make`).

    Postcondition: the namespace is bound on ``namespace_file``, in the caller's mount namespace; its loopback is up.

    Raises:
        InvalidError: an unknown mode.
        ConflictError: the container that shares its namespace is not running.
        PyDockError: the network service could not attach the namespace to the bridge.
    """
    mode = plan.network.mode
    if mode == "container":
        _join(Path(plan.network.container_run))
    elif mode not in ("none", "bridge"):
        raise InvalidError(f"unknown network mode {mode!r}")
    bind_namespace(namespace_file)
    if mode == "bridge":
        _attach(plan)


def make() -> None:
    """Move the calling process into a network namespace of its own, with its loopback up."""
    syscalls.unshare(syscalls.CLONE_NEWNET)
    set_loopback_up()


def _join(directory: Path) -> None:
    from pydock_core.supervision.shared_namespaces import open_shared  # late: few containers join any

    namespace_fd = open_shared(directory, "network")
    try:
        syscalls.setns(namespace_fd, syscalls.CLONE_NEWNET)
    except OSError as error:
        raise FailedError(
            f"cannot join the network of container {directory.name[:12]}: {error.strerror}"
        ) from error
    finally:
        os.close(namespace_fd)


def set_loopback_up() -> None:
    """Bring ``lo`` up in the caller's network namespace, which also gives it 127.0.0.1 and ::1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def add_loopback_address(address: str) -> None:
    """Add an IPv4 address to ``lo`` in the caller's network namespace; no effect if it has the address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        for code, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.255")):
            family = struct.pack("=H2x4s8x", socket.AF_INET, socket.inet_aton(value))
            fcntl.ioctl(control, code, struct.pack("16s16s", b"lo:0", family))


def bind_namespace(target: Path) -> None:
    """Bind the caller's network namespace on a file, whose path outlives the process."""
    target.touch(mode=0o600)
    syscalls.mount(OWN_NAMESPACE, str(target), "", syscalls.MS_BIND)


def _attach(plan: LaunchPlan) -> None:
    """Request the veth pairs from the network service, which is in the bridges' namespace."""
    interfaces = [interface.to_json() for interface in plan.network.interfaces]
    request: PlugRequest = {"op": "attach", "container_id": plan.container_id, "interfaces": interfaces}
    ask_service(plan.network_socket, request)


def ask_service(socket_path: str, request: PlugRequest | UnplugRequest | PublishRequest) -> None:
    """Make the network service change the caller's network namespace.

    Raises:
        UnavailableError: the service is not running.
        PyDockError: the service's error.
    """
    namespace_fd = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with messages.connect(socket_path) as connection:
            connection.settimeout(_ATTACH_TIMEOUT_SECONDS)
            messages.send(connection, request, [namespace_fd])
            reply = messages.receive(connection)
    except OSError as error:
        raise UnavailableError(
            f"cannot reach the network service: {error.strerror or error}", exit_code=125
        ) from error
    finally:
        os.close(namespace_fd)
    if reply is None:
        raise UnavailableError("the network service ended during the request", exit_code=125)
    messages.close_all(reply[1])
    messages.checked(reply[0])
