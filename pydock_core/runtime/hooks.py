"""Runs the hooks of an OCI configuration: programs at fixed steps of a container's life (config.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from pydock_core.errors import FailedError, PyDockError
from pydock_core.runtime import reaping

NAMES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_DEATH_TIMEOUT_SECONDS = 1.0


def run_hooks(hooks: Mapping[str, Any] | None, name: str, state: Mapping[str, Any]) -> None:
    """Run the hooks of one step, in order; each gets the container's state (runtime.md) on standard input.

    Raises:
        FailedError: a hook could not be run, failed, or took longer than its ``timeout`` seconds.
    """
    for hook in (hooks or {}).get(name) or ():
        _run(name, hook, json.dumps(state).encode())


def _run(name: str, hook: Mapping[str, Any], document: bytes) -> None:
    path = str(hook["path"])
    if not path.startswith("/"):
        raise FailedError(f"hook {name}: {path} is not an absolute path")
    arguments = [str(argument) for argument in hook.get("args") or [path]]
    environment = dict(str(entry).partition("=")[::2] for entry in hook.get("env") or ())
    # A memfd, not a pipe: a hook that does not read its input cannot block the writer.
    state_fd = os.memfd_create("state", os.MFD_CLOEXEC)
    try:
        os.write(state_fd, document)
        os.lseek(state_fd, 0, os.SEEK_SET)
        pid = os.posix_spawn(
            path,
            arguments,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, state_fd, 0)],
            setsigdef=range(1, 32),
        )
    except OSError as error:
        raise FailedError(f"hook {name}: {path}: {error.strerror}") from error
    finally:
        os.close(state_fd)
    code = _wait(name, path, pid, hook.get("timeout"))
    if code != 0:
        raise FailedError(
            f"hook {name}: {path} ended with exit code {code}",
            "run it by hand, with the container's state on its standard input (OCI runtime specification, hooks)",
        )


def _wait(name: str, path: str, pid: int, timeout_seconds: int | None) -> int:
    if timeout_seconds is not None and not reaping.has_ended(pid, timeout_seconds):
        reaping.kill_and_reap(pid, _DEATH_TIMEOUT_SECONDS)
        raise FailedError(f"hook {name}: {path} took longer than {timeout_seconds} seconds")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_hooks_quietly(hooks: Mapping[str, Any] | None, name: str, state: Mapping[str, Any]) -> None:
    """Run hooks whose failure must not end the operation (runtime.md, "Lifecycle": poststart, poststop)."""
    for hook in (hooks or {}).get(name) or ():
        try:
            _run(name, hook, json.dumps(state).encode())
        except PyDockError as error:
            os.write(2, f"warning: {error.message}\n".encode())
