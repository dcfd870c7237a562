"""The parts of a supervisor that do not depend on its container: namespaces, and the waiting maker.

The starter makes them, in the mount namespace that it shares with the supervisor, its parent; the maker is a child of the
supervisor too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pydock_core import syscalls
from pydock_core.errors import FailedError
from pydock_core.runtime.namespaces import is_in_user_namespace
from pydock_core.supervision import network_namespace, user_network
from pydock_core.supervision.maker import Maker
from pydock_core.supervision.plan import LaunchPlan


class Surroundings:
    """Namespaces and a maker, made ahead for a container with its own network namespace; other plans change them.

    The maker and the spare init are in the host's network namespace; init joins the container's by its path.

    Args:
        rehearse: called in the maker and in its spare init.
        problem: the reason why there is no new mount namespace.
    """

    def __init__(self, rehearse: Callable[[], None] | None = None, problem: OSError | None = None) -> None:
        self._rehearse = rehearse
        self._host_network_fd: int | None = None
        """The way back; None while this process is in the host's network namespace."""
        self._run: Path | None = None
        """The state root's directory, for an ordinary user's container on a bridge."""
        self._maker: Maker | None = None
        self._problem = problem

    def enter(self) -> None:
        """Separate the mounts, fork the maker and enter a new network namespace.

        :meth:`take_maker` raises a failure, because only then is a client waiting.
        """
        if self._problem is not None:
            return
        try:
            # Slave again: mounts made here do not propagate, whatever the state of the zygote's own namespace.
            syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
            self._maker = Maker.fork(self._rehearse)
            # From a user namespace there is no way back into the host's network (setns(2)).
            if not is_in_user_namespace():
                self._leave_host_network()
        except OSError as error:
            self._problem = error

    def _leave_host_network(self) -> None:
        host_fd = os.open(network_namespace.OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        network_namespace.make()
        self._host_network_fd = host_fd

    @property
    def host_network_fd(self) -> int | None:
        """The host's network namespace, for :func:`go_outside`; None if the container needs no way back, or has none."""
        return self._host_network_fd

    @contextlib.contextmanager
    def in_host_network(self) -> Iterator[None]:
        """Enter the host's network namespace for the duration of the block."""
        if self._host_network_fd is None:
            yield
            return
        own_fd = os.open(network_namespace.OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(self._host_network_fd, syscalls.CLONE_NEWNET)
            yield
            syscalls.setns(own_fd, syscalls.CLONE_NEWNET)
        finally:
            os.close(own_fd)

    def take_maker(self) -> Maker:
        """Return the maker, which the caller closes."""
        if self._maker is None or self._problem is not None:
            reason = f": {self._problem.strerror}" if self._problem else ""
            raise FailedError(f"cannot make the container's namespaces{reason}")
        maker, self._maker = self._maker, None
        return maker

    def enter_network(self, plan: LaunchPlan, namespace_file: Path, user_file: Path) -> None:
        """Enter the plan's network namespace.

        Postcondition: unless the mode is "host", the namespace is bound on ``namespace_file``.  Only on a bridge, a
        descriptor of the earlier namespace stays open for a name server.  A user namespace of the plan is bound on
        ``user_file``, and owns a new network namespace.
        """
        if plan.uid_mappings:
            from pydock_core.supervision import container_user  # late: few containers have one

            container_user.make(plan, user_file, with_network=plan.network.mode not in ("host", "container"))
        if plan.network.mode == "host":
            if self._host_network_fd is not None:
                syscalls.setns(self._host_network_fd, syscalls.CLONE_NEWNET)
        else:
            if self._host_network_fd is None and plan.network.mode != "container" and not plan.uid_mappings:
                try:
                    network_namespace.make()
                except OSError as error:
                    raise FailedError(f"cannot make a network namespace: {error.strerror}") from error
            network_namespace.enter(plan, namespace_file)
            if plan.network.mode == "bridge":
                self._run = Path(plan.network_socket).parent
        if self._host_network_fd is not None and plan.network.mode != "bridge":
            os.close(self._host_network_fd)
            self._host_network_fd = None

    def go_outside(self) -> None:
        """Call :func:`go_outside` for the plan's network namespace."""
        go_outside(self._host_network_fd, self._run)


def go_outside(host_network_fd: int | None, run: Path | None) -> None:
    """In a child: leave the container's network namespace for the host's, or that of the user's bridges.

    Args:
        host_network_fd: the host's network namespace; None if there is no way back.
        run: the state root's directory, for a container on a bridge.

    Raises:
        FailedError: the earlier namespace cannot be entered.
        UnavailableError: the namespace of the user's bridges is gone.
    """
    if host_network_fd is not None:
        syscalls.setns(host_network_fd, syscalls.CLONE_NEWNET)
        return
    if run is None:
        raise FailedError("there is no way to the host's network")
    user_network.enter(run)
