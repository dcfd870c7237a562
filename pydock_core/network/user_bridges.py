"""Carries out the network service's requests in the network namespace that an ordinary user's containers share."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydock_core import messages
from pydock_core.errors import FailedError, UnavailableError
from pydock_core.network import firewall, uplink_program, uplink_rules
from pydock_core.network.rules import Admission, BridgeRules
from pydock_core.network.uplink import fork_uplink, write_settings
from pydock_core.network.user_holder import fork_holder
from pydock_core.runtime.record_file import write_json
from pydock_core.supervision import user_network
from pydock_core.supervision.forkserver import Function, Kind, Operation, Refusal, Request
from pydock_core.supervision.user_network import UserNetwork


class UserBridges:
    """The bridges of one state root; construction moves this process into the user namespace that owns them or will own them.

    Args:
        run: the directory of the state root.

    Raises:
        UnavailableError: the zygote, which provides the user namespace, is not running.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        user_network.join_user_namespace_of(self._owner())
        self._own_namespace = os.stat("/proc/self/ns/user").st_ino
        os.environ["PATH"] = uplink_program.search_path()

    def wrap(self, operations: Mapping[str, Operation]) -> dict[str, Operation]:
        """Return operations that work in the shared namespace."""
        functions = {
            "ensure": self._ensure,
            "attach": self._enter,
            "detach": self._enter,
            "remove": self._enter,
            "presence": self._enter,
        }
        return {
            name: Operation(
                Kind.CALL,
                _after(functions[name], operation.function),
                self._refuse if name == "ensure" else None,
            )
            if operation.function is not None and name in functions
            else operation
            for name, operation in operations.items()
        }

    def _owner(self) -> int:
        """Return a process in the user namespace that owns the shared network or will own it."""
        network = user_network.read(self._run)
        if network is not None:
            return network.holder.pid
        try:
            with messages.connect(str(self._run / "zygote.sock")) as connection:
                return messages.peer(connection)[0]
        except OSError as error:
            raise UnavailableError(
                "the zygote ended at the start of the network service", "try again", exit_code=125
            ) from error

    def _refuse(self, _request: Request, _peer_pid: int) -> Refusal | None:
        """Request replacement of this service if it is in the user namespace of an earlier zygote."""
        try:
            is_same = os.stat(f"/proc/{self._owner()}/ns/user").st_ino == self._own_namespace
        except FileNotFoundError:
            is_same = False
        return None if is_same else Refusal.STALE

    def _enter(self, _request: Request) -> None:
        user_network.enter(self._run)

    def _ensure(self, request: Request) -> None:
        """Ensure the namespace and its uplink, enter it, and set the container's access to the host."""
        with self._locked():
            network = user_network.read(self._run)
            try:
                holder = fork_holder(self._run) if network is None else network.holder
            except OSError as error:
                raise FailedError(
                    f"cannot make a network namespace: {error.strerror}", exit_code=125
                ) from error
            if network is None or not network.uplink.is_running():
                network = UserNetwork(holder, fork_uplink(self._run, holder))
                write_json(user_network.record_file(self._run), network.to_json())
                self._openings.unlink(missing_ok=True)
            else:
                os.utime(user_network.record_file(self._run))
                write_settings(self._run)
        user_network.enter(self._run)
        document = request.document.get("admission")
        if document is not None:
            self._open(Admission(**{**document, "resolvers": ()}), request.document["rules"])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(user_network.lock_file(self._run), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @property
    def _openings(self) -> Path:
        """A file that exists once a container of the namespace has had access to the host."""
        return self._run / "user-network.opened"

    def _open(self, admission: Admission, rules: Mapping[str, Any]) -> None:
        if admission.access == "none" and not self._openings.exists():
            return  # the usual case costs no process
        self._openings.touch(mode=0o600)
        firewall.apply(uplink_rules.build_opening(admission, BridgeRules(**rules).gateway))


def _after(first: Function, then: Function) -> Function:
    """Return a function that calls one function, then the other, in the child of a request."""

    def function(request: Request) -> Mapping[str, Any] | None:
        first(request)
        return then(request)

    return function
