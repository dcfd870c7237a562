"""A supervisor's side of the keeper, the process that starts its container again.

See :mod:`pydock_core.supervision.keeper` for the other side, and for the messages.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydock_core import messages
from pydock_core.errors import PyDockError, UnavailableError
from pydock_core.paths import ContainerPaths, StateRoot
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.supervision.container_status import ExitRecord, StateRecord
from pydock_core.supervision.restart_policy import NO, RestartPolicy, Restarts


class Succession:
    """The runs after one supervisor's run: the policy that decides on them, and the keeper that starts them.

    Without a policy there is no keeper, and every method does nothing.

    Args:
        supervisor_pid: of the supervisor; the calling process may be its starter.
    """

    def __init__(self, paths: ContainerPaths, supervisor_pid: int) -> None:
        self._paths = paths
        self._supervisor_pid = supervisor_pid
        self._restarts: Restarts | None = None
        self._link: socket.socket | None = None
        self._keeper: ProcessIdentity | None = None

    @property
    def count(self) -> int:
        """The number of restarts, including this supervisor's run."""
        return self._restarts.count if self._restarts is not None else 0

    def join(self, restarts: Restarts, link: socket.socket, keeper: ProcessIdentity) -> None:
        """Continue the progress of the keeper that has forked this process."""
        self._restarts, self._link, self._keeper = restarts, link, keeper

    @property
    def progress(self) -> tuple[Mapping[str, Any], Mapping[str, Any], int] | None:
        """The policy's progress and the keeper's identity as JSON, and the descriptor of the link; None without a policy."""
        if self._restarts is None or self._keeper is None or self._link is None:
            return None
        return self._restarts.to_json(), self._keeper.to_json(), self._link.fileno()

    def set_policy(self, policy: RestartPolicy) -> None:
        """Change the policy.

        Raises:
            UnavailableError: there is neither a keeper nor a zygote to fork one.
        """
        if self._restarts is None:
            if policy.name != NO:
                self._begin(Restarts(policy))
            return
        self._restarts = replace(self._restarts, policy=policy)
        if self._link is not None:
            with suppress(OSError):  # the keeper was killed; the end of the run requests another one
                messages.send(self._link, {"restarts": self._restarts.to_json()})

    def _begin(self, restarts: Restarts) -> None:
        """Have the zygote fork a keeper."""
        state_root = StateRoot(self._paths.data.parent.parent, self._paths.run.parent.parent)
        zygote_socket = state_root.zygote_socket()
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs, messages.connect(str(zygote_socket)) as connection:
                messages.send(connection, {"op": "keep"}, [theirs.fileno()])
                received = messages.receive(connection)
            if received is None:
                raise ConnectionResetError
            keeper = ProcessIdentity.of(int(messages.checked(received[0])["pid"]))
            messages.send(
                link,
                {
                    "plan": str(self._paths.plan_file),
                    "restarts": restarts.to_json(),
                    "supervisor": self._supervisor_pid,
                },
            )
        except (OSError, PyDockError) as error:
            link.close()
            raise UnavailableError(
                f"cannot keep a restart policy: no zygote answers at {zygote_socket}",
                "start the container again",
            ) from error
        self.join(restarts, link, keeper)

    def hand_over(self, ended: ExitRecord, executor: str, lock_fd: int) -> bool:
        """Hand over to the keeper after the end of a run if the policy demands a restart.

        Args:
            ended: the recorded run, of which only mounts are left.
            executor: executor of the launch plan.
            lock_fd: descriptor of the container's lock, which the keeper then holds too.

        Returns:
            Whether the container is restarted; state.json records it.
        """
        if self._restarts is None:
            return False
        restarts = self._restarts.after(ended.exit_code, (ended.finished_at_ns - ended.started_at_ns) / 1e9)
        if restarts is None:
            self.dismiss()
            return False
        for _ in range(2):
            try:
                assert self._link is not None
                assert self._keeper is not None
                record = StateRecord(
                    None, self._keeper, ended.started_at_ns, (), executor, restarts.count, is_restarting=True
                )
                record.write(self._paths.state_file)
                messages.send(self._link, {"restart": restarts.to_json()}, [lock_fd])
                return True
            except OSError as error:
                problem = error.strerror
            try:
                self._begin(self._restarts)  # the keeper was killed: another one
            except UnavailableError as error:
                problem = error.message
                break
        print(f"{self._paths.run.name[:12]}: not started again: {problem}", file=sys.stderr)
        return False

    def release(self) -> None:
        """Report that no resource of the run is in use any more."""
        self._say("free")

    def dismiss(self) -> None:
        """Report that there is no further run."""
        self._say("done")

    def _say(self, event: str) -> None:
        if self._link is not None:
            with self._link, suppress(OSError):  # the keeper is gone: no process waits for the message
                messages.send(self._link, {"event": event})
            self._link = None
