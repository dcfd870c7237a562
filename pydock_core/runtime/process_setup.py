"""The last steps of init and of an exec'd process before execve(2): identity, capabilities, seccomp.

Limits, identity, capabilities, seccomp, environment, working directory and execve(2) of an OCI ``process``
object (config.md, "Process").  The order follows capabilities(7) and prctl(2): privileged steps come before the privileges
are given up, and the seccomp filter comes as late as possible.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydock_core import syscalls
from pydock_core.errors import (
    DeniedError,
    FailedError,
    InvalidError,
    NotFoundError,
    PyDockError,
    UnsupportedError,
)
from pydock_core.runtime import capabilities

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_COMMAND_HINT = "check the name; ls /bin /usr/bin in the container lists its programs"
_OPTION_HINT = "options come before the image or the container; the words after it are the command"
_SIGKILL = 9
_RLIMITS = {
    name: getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name not in ("RLIMIT_OFILE",)
}


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled seccomp filter and the flags to load it with."""

    program: bytes
    flags: int


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """A checked OCI ``process`` object, with everything that can be computed before the fork.

    Attributes:
        arguments, environment: as execve(2) takes them.
        cwd: working directory in the container, absolute.
        uid, gid, groups, umask: identity; the numbers are those of the container's user namespace.
        masks: the five capability sets as bit masks, or None to leave the sets alone.
        rlimits: (number, soft, hard, name).
        no_new_privileges: prctl(2), PR_SET_NO_NEW_PRIVS.
        oom_score_adj: or None.
        terminal: the process gets a pseudo-terminal, of ``console_size`` if known.
        seccomp: the compiled filter, or None.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int
    masks: Mapping[str, int] | None
    rlimits: tuple[tuple[int, int, int, str], ...]
    no_new_privileges: bool
    oom_score_adj: int | None
    terminal: bool
    console_size: Mapping[str, Any] | None
    seccomp: Filter | None

    @classmethod
    def from_config(cls, process: Mapping[str, Any], seccomp: Filter | None) -> ProcessPlan:
        """Read an OCI ``process`` object.

        Raises:
            InvalidError: malformed.
            UnsupportedError: a setting is not supported; the message names it.
        """
        arguments = tuple(str(argument) for argument in process.get("args") or ())
        if not arguments:
            raise InvalidError("process.args is empty: there is no command to run")
        cwd = str(process.get("cwd") or "")
        if not cwd.startswith("/"):
            raise InvalidError(f"process.cwd {cwd or '(none)'} is not an absolute path")
        _refuse_unsupported(process)
        environment: dict[str, str] = {}
        for entry in process.get("env") or ():
            name, _, value = str(entry).partition("=")
            environment[name] = value
        for text in (*arguments, cwd, *environment, *environment.values()):
            if "\0" in text:
                raise InvalidError("process: arguments and environment cannot hold a zero byte")
        user = process.get("user") or {}
        sets = process.get("capabilities")
        return cls(
            arguments=arguments,
            environment=environment,
            cwd=cwd,
            uid=int(user.get("uid") or 0),
            gid=int(user.get("gid") or 0),
            groups=tuple(int(gid) for gid in user.get("additionalGids") or ()),
            umask=int(user["umask"]) if user.get("umask") is not None else 0o022,
            masks=None if sets is None else capabilities.build_masks(sets),
            rlimits=tuple(_read_rlimit(entry) for entry in process.get("rlimits") or ()),
            no_new_privileges=bool(process.get("noNewPrivileges")),
            oom_score_adj=process.get("oomScoreAdj"),
            terminal=bool(process.get("terminal")),
            console_size=process.get("consoleSize"),
            seccomp=seccomp,
        )


def _refuse_unsupported(process: Mapping[str, Any]) -> None:
    profile = process.get("apparmorProfile")
    if profile and not os.path.isdir("/sys/kernel/security/apparmor"):
        raise UnsupportedError(
            f"AppArmor profile {profile}: this kernel has no AppArmor", "leave the profile out"
        )
    if profile:
        raise UnsupportedError(f"AppArmor profile {profile}: not supported yet", "use --runtime crun")
    if process.get("selinuxLabel"):
        raise UnsupportedError(
            f"SELinux label {process['selinuxLabel']}: not supported",
            "leave the label out, or use --runtime crun",
        )
    for name in ("scheduler", "ioPriority", "execCPUAffinity"):
        if process.get(name):
            raise UnsupportedError(f"process.{name} is not supported", "leave it out, or use --runtime crun")


def _read_rlimit(entry: Mapping[str, Any]) -> tuple[int, int, int, str]:
    name = str(entry["type"])
    if name not in _RLIMITS:
        raise InvalidError(f"unknown resource limit {name}", "see getrlimit(2) for the names")
    soft, hard = (_to_rlimit(int(entry[key])) for key in ("soft", "hard"))
    return _RLIMITS[name], soft, hard, name


def _to_rlimit(value: int) -> int:
    # "unlimited" is all bits set in OCI's unsigned 64 bits, and -1 in Python's module.
    return resource.RLIM_INFINITY if value < 0 or value >= 2**63 else value


def set_rlimits(plan: ProcessPlan) -> None:
    """Set the resource limits, before the privilege to raise them is given up.

    Raises:
        DeniedError: a hard limit cannot be raised.
    """
    for number, soft, hard, name in plan.rlimits:
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError) as error:
            _, current = resource.getrlimit(number)
            spelling = "unlimited" if current == resource.RLIM_INFINITY else current
            raise DeniedError(
                f"resource limit {name}: {soft}:{hard} is refused, the hard limit here is {spelling}: {error}",
                "ask for a limit at most as high, or run with CAP_SYS_RESOURCE",
            ) from error


def set_oom_score_adj(plan: ProcessPlan) -> None:
    """Set the badness of this process for the OOM killer (proc_pid_oom_score_adj(5)).

    Raises:
        DeniedError: a lower value needs CAP_SYS_RESOURCE.
    """
    if plan.oom_score_adj is None:
        return
    try:
        with open("/proc/self/oom_score_adj", "r+", encoding="utf-8") as stream:
            if int(stream.read()) != plan.oom_score_adj:
                stream.write(str(plan.oom_score_adj))
    except OSError as error:
        raise DeniedError(
            f"cannot set oomScoreAdj {plan.oom_score_adj}: {error.strerror}",
            "a value below the current one needs CAP_SYS_RESOURCE",
        ) from error


def give_stdio(uid: int, *, terminal: bool) -> None:
    """Make a user the owner of the pipes, or of the terminal, on 0, 1 and 2, so that it can open /dev/stdout again.

    runc does the same, but also to files and devices that are not the container's own.
    """
    for descriptor in (0, 1, 2):
        status = os.fstat(descriptor)
        own_terminal = terminal and stat.S_ISCHR(status.st_mode)
        if status.st_uid == uid or not (stat.S_ISFIFO(status.st_mode) or own_terminal):
            continue
        try:
            # The group of a terminal stays "tty", that of devpts.
            os.fchown(descriptor, uid, -1)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL, errno.EROFS):
                raise


def give_up_privileges(plan: ProcessPlan, parent_pidfd: int) -> None:
    """Set the process's identity, capabilities and seccomp filter, and die with the parent from here on.

    Args:
        plan: the process.
        parent_pidfd: of the process whose death kills this one; negative for none.

    Raises:
        PyDockError: the kernel refused a setting; the message names it.
    """
    if plan.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    elif plan.seccomp is not None:
        # Without no_new_privs, loading a filter needs CAP_SYS_ADMIN, which is about to be dropped: seccomp(2).
        _load(plan.seccomp)
    if plan.masks is not None:
        capabilities.drop_bounding(plan.masks["bounding"])
    _set_identity(plan)
    if plan.masks is not None:
        capabilities.apply_sets(plan.masks)
    os.umask(plan.umask)
    # A change of credentials clears the death signal, and resets the dumpable flag to fs.suid_dumpable: prctl(2).
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if parent_pidfd >= 0:
        die_with_parent(parent_pidfd)
    if plan.no_new_privileges and plan.seccomp is not None:
        _load(plan.seccomp)


def die_with_parent(parent_pidfd: int) -> None:
    """Have the kernel kill this process when its parent ends; end now if the parent has already ended."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _SIGKILL)
    if select.select([parent_pidfd], [], [], 0)[0]:
        os._exit(125)


def _load(program: Filter) -> None:
    try:
        syscalls.seccomp_load(program.program, program.flags)
    except OSError as error:
        raise FailedError(f"cannot load the seccomp filter: {error.strerror}") from error


def _set_identity(plan: ProcessPlan) -> None:
    try:
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
        if plan.groups or os.getgroups():
            _set_groups(plan)
        os.setresgid(plan.gid, plan.gid, plan.gid)
        os.setresuid(plan.uid, plan.uid, plan.uid)
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)
    except OSError as error:
        raise FailedError(
            f"cannot become user {plan.uid}:{plan.gid}: {error.strerror}",
            "in a user namespace only mapped ids can be used (see /etc/subuid)",
        ) from error


def _set_groups(plan: ProcessPlan) -> None:
    try:
        os.setgroups(list(plan.groups))
    except PermissionError:
        # A user namespace with a single id denies setgroups(2) even to who has the capability for it
        # (user_namespaces(7)); /proc/self/setgroups is not there for a process of another PID namespace.
        may_set = syscalls.capget()[0] & capabilities.build_mask(["CAP_SETGID"])
        if set(plan.groups) - {plan.gid} or not may_set:
            raise


def enter_working_directory(plan: ProcessPlan) -> None:
    """Change to the working directory, and make sure that it lies in the container (CVE-2024-21626).

    Raises:
        FailedError: it cannot be entered, or is outside the container.
    """
    try:
        os.chdir(plan.cwd)
        os.getcwd()
    except FileNotFoundError:
        raise FailedError(f"working directory {plan.cwd} does not exist in the container") from None
    except OSError as error:
        raise FailedError(f"cannot enter working directory {plan.cwd}: {error.strerror}") from error


def command_hint(command: str) -> str:
    """Return the hint for a command that is missing in the container."""
    return _OPTION_HINT if command.startswith("-") else _COMMAND_HINT


def execute_program(plan: ProcessPlan) -> PyDockError:
    """Execute the program; return only on failure, with the error.

    A name without a slash is looked up in the PATH of the process's environment, in the container.  The exit code of the
    error is 127 (not found) or 126 (cannot be executed), as in shells.
    """
    command = plan.arguments[0]
    if "/" in command:
        candidates = [command]
    else:
        search_path = plan.environment.get("PATH", DEFAULT_PATH)
        candidates = [os.path.join(entry or ".", command) for entry in search_path.split(":")]
        if not command:
            return NotFoundError('exec: "": no command', command_hint(command), exit_code=127)
    refusal: OSError | None = None
    lame: str | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, plan.arguments, plan.environment)
        except (FileNotFoundError, NotADirectoryError):
            # Also the error of a script whose interpreter is missing, or of a program whose loader is.
            if os.path.isfile(candidate) and lame is None:
                lame = candidate
        except OSError as error:
            if error.errno == errno.EACCES and os.path.isdir(candidate):
                error = IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            refusal = refusal or error
    if refusal is None and lame is not None:
        return _missing_interpreter(lame)
    if refusal is None:
        where = "no such file or directory" if "/" in command else "executable file not found in $PATH"
        return NotFoundError(f'exec: "{command}": {where}', command_hint(command), exit_code=127)
    reason = "is a directory" if refusal.errno == errno.EISDIR else (refusal.strerror or "").lower()
    hint = {
        errno.EACCES: "the file needs execute permission for the process's user",
        errno.ENOEXEC: "the file is neither a program of this machine nor a script with a #! line",
        errno.E2BIG: "the arguments and the environment are too long",
    }.get(refusal.errno or 0, "")
    return FailedError(f'exec: "{command}": {reason}', hint, exit_code=126)


def _missing_interpreter(candidate: str) -> PyDockError:
    return NotFoundError(
        f'exec: "{candidate}": no such file or directory',
        "the file is there, but the interpreter or loader that it names is not",
        exit_code=127,
    )
