"""Makes a container's own user namespace, nested in the user's, and binds it for the executor.

The supervisor stays outside: it owns every id of the user's namespace, and so of the nested one.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pydock_core import syscalls
from pydock_core.errors import FailedError
from pydock_core.runtime.namespaces import write_id_maps
from pydock_core.supervision import network_namespace
from pydock_core.supervision.plan import LaunchPlan

_FAILED = 1


def make(plan: LaunchPlan, target: Path, *, with_network: bool) -> None:
    """Make the user namespace of a plan's container, and bind it on a file in the caller's mount namespace.

    Args:
        plan: has id maps.
        target: the file.
        with_network: make a network namespace that belongs to the user namespace, with its loopback up, and move the
            caller into it.

    Raises:
        FailedError: the kernel refuses the namespace or its maps.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _unshare_and_wait(theirs, with_network=with_network)
    theirs.close()
    try:
        with ours:
            if ours.recv(1) != b"u":
                raise FailedError(
                    "cannot make the container's user namespace",
                    "see /proc/sys/user/max_user_namespaces, and `dock doctor`",
                )
            write_id_maps(pid, plan.uid_mappings, plan.gid_mappings)
            target.touch(mode=0o600)
            syscalls.mount(f"/proc/{pid}/ns/user", str(target), "", syscalls.MS_BIND)
            if with_network:
                namespace_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    syscalls.setns(namespace_fd, syscalls.CLONE_NEWNET)
                finally:
                    os.close(namespace_fd)
    except OSError as error:
        raise FailedError(f"cannot make the container's user namespace: {error.strerror}") from error
    finally:
        os.waitpid(pid, 0)
    if with_network:
        network_namespace.set_loopback_up()


def _unshare_and_wait(link: socket.socket, *, with_network: bool) -> None:
    """Make the namespaces, and keep them until the other side has opened them."""
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | (syscalls.CLONE_NEWNET if with_network else 0))
        link.sendall(b"u")
        link.recv(1)
    finally:
        os._exit(_FAILED)
