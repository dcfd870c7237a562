"""Starts containers after a reboot: the choice by their restart policies, and the systemd unit.

PyDock has no daemon that runs after a boot, so the host has to run ``dock system start-restart`` once.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydock_core.errors import FailedError, PyDockError, UnsupportedError
from pydock_core.paths import ROOT_VARIABLE
from pydock_core.runtime.record_file import write_whole
from pydock_core.spec.definition import decode
from pydock_core.store.database import containers as table
from pydock_core.supervision.container_status import ExitRecord, derive_status
from pydock_core.supervision.restart_policy import RestartPolicy

if TYPE_CHECKING:
    from pydock_core.engine.containers import Containers
    from pydock_core.engine.state import State

UNIT = "pydock-restart.service"
_SYSTEM_UNITS = Path("/etc/systemd/system")
_SYSTEMD_RUNS = Path("/run/systemd/system")
"""It exists if systemd is the init system: sd_booted(3)."""
_SYSTEMCTL_SECONDS = 30.0


def start_containers(state: State, containers: Containers) -> Iterator[tuple[str, PyDockError | None]]:
    """Start the containers whose policy demands it, oldest first; yield each one's name and the error of its start.

    These containers have run before and have the policy "always", or "unless-stopped" without a stop by hand.
    """
    for row in reversed(list(table.all_rows(state.database))):
        policy = decode(row.definition).host["RestartPolicy"]
        paths = state.root.container(row.id)
        if derive_status(paths).is_active or not paths.config_file.exists():
            continue
        ended = ExitRecord.read(paths.exit_file)  # missing: it was running when the machine stopped
        if ended is not None and not ended.started_at_ns:
            continue  # its start has failed
        stopped = ended is not None and ended.stopped_by_hand
        if not RestartPolicy(policy["Name"]).starts_at_boot(stopped_by_hand=stopped):
            continue
        try:
            containers.start(row.id).close()
        except PyDockError as error:
            yield row.name, error
        else:
            yield row.name, None


def build_command(environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command that a boot runs, and the variables that select the caller's state root."""
    words = [sys.executable, "-I", "-m", "pydock_core", "system", "start-restart"]
    if environment.get(ROOT_VARIABLE):
        return words, {ROOT_VARIABLE: os.path.abspath(environment[ROOT_VARIABLE])}
    kept = environment.get("XDG_DATA_HOME")
    return words, {"XDG_DATA_HOME": kept} if kept and os.geteuid() != 0 else {}


def build_unit(words: Sequence[str], variables: Mapping[str, str], *, is_user: bool) -> str:
    """Return the text of the unit: systemd.service(5).

    The unit stays active, because its control group holds the supervisors: stopping it stops the containers in order.
    """
    quoted = " ".join(_quote(word) for word in words)
    environment = [f"Environment={_quote(f'{name}={value}')}" for name, value in variables.items()]
    network = [] if is_user else ["Wants=network-online.target", "After=network-online.target"]
    lines = [
        "[Unit]",
        "Description=PyDock: start containers by their restart policies",
        *network,
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        "Delegate=yes",
        *environment,
        f"ExecStart={quoted}",
        "",
        "[Install]",
        f"WantedBy={'default.target' if is_user else 'multi-user.target'}",
    ]
    return "\n".join(lines) + "\n"


def _quote(word: str) -> str:
    """Quote a word for a unit: systemd.syntax(7); "%" and "$" are expanded even within quotes."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def install_unit(*, remove: bool = False) -> str:
    """Install and enable this user's unit (for root, the system's), or disable and remove it.

    Returns:
        The path of the unit's file.

    Raises:
        UnsupportedError: systemd is not running; the hint is a line for cron.
        FailedError: systemctl failed; the unit is not installed.
    """
    is_user = os.geteuid() != 0
    words, variables = build_command(os.environ)
    _require_systemd(words, variables, is_user=is_user)
    path = (_user_units() if is_user else _SYSTEM_UNITS) / UNIT
    if remove:
        with suppress(FailedError):  # it was not enabled
            _systemctl("disable", UNIT, is_user=is_user)
        path.unlink(missing_ok=True)
        _systemctl("daemon-reload", is_user=is_user)
        return str(path)
    was_there = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, build_unit(words, variables, is_user=is_user).encode())
        path.chmod(0o644)
    except OSError as error:
        raise FailedError(f"cannot write {path}: {error.strerror}") from error
    try:
        _systemctl("daemon-reload", is_user=is_user)
        _systemctl("enable", UNIT, is_user=is_user)
    except FailedError:
        if not was_there:
            path.unlink(missing_ok=True)
        raise
    return str(path)


def _require_systemd(words: Sequence[str], variables: Mapping[str, str], *, is_user: bool) -> None:
    reason = ""
    if not _SYSTEMD_RUNS.is_dir():
        reason = "systemd is not the init system of this host"
    elif is_user and not Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent", "systemd").is_dir():
        reason = "systemd does not run for this user"
    if reason:
        settings = "".join(f"{name}={shlex.quote(value)} " for name, value in variables.items())
        raise UnsupportedError(
            f"cannot install {UNIT}: {reason}", f"add to `crontab -e`: @reboot {settings}{shlex.join(words)}"
        )


def _user_units() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path(os.environ.get("HOME") or "/") / ".config")
    return Path(base) / "systemd" / "user"


def _systemctl(*words: str, is_user: bool) -> None:
    command = ["systemctl", *(["--user"] if is_user else []), *words]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_SYSTEMCTL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FailedError(f"cannot run {shlex.join(command)}: {error}") from error
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise FailedError(f"{shlex.join(command)} failed: {reason}")
