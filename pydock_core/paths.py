"""Paths of the state: one object names every published path.

Rootful state is under /var/lib/pydock and /run/pydock, rootless state under the XDG data and runtime
directories (XDG Base Directory Specification 0.8).  The environment variable PYDOCK_ROOT moves all of it
under one directory, so that several engines can run side by side.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydock_core.private_files import make_private

ROOT_VARIABLE = "PYDOCK_ROOT"
_PRIVATE_DIRECTORY = stat.S_IFDIR | 0o700


@dataclass(frozen=True, slots=True)
class StateRoot:
    """The two directories of a state root: ``data`` survives a reboot, ``run`` need not.

    Creating one touches no file; :meth:`ensure` makes the directories, each with mode 0700.
    """

    data: Path
    run: Path

    @property
    def database(self) -> Path:
        return self.data / "pydock.db"

    @property
    def reserve(self) -> Path:
        """See :mod:`pydock_core.store.reserve`."""
        return self.data / "reserve"

    @property
    def images(self) -> Path:
        """The OCI image layout: oci-layout, index.json, blobs/ALGORITHM/HEX."""
        return self.data / "images"

    @property
    def layers(self) -> Path:
        """Snapshotter state: one directory per driver, below it one per layer."""
        return self.data / "layers"

    @property
    def containers(self) -> Path:
        return self.data / "containers"

    @property
    def volumes(self) -> Path:
        return self.data / "volumes"

    @property
    def temporary(self) -> Path:
        """Unfinished files; renamed into place when complete, swept when their process is gone."""
        return self.data / "tmp"

    @property
    def trash(self) -> Path:
        """Files being deleted: renamed to this directory first, then removed."""
        return self.data / "trash"

    @property
    def cache(self) -> Path:
        """Files that can be rebuilt at any time (compiled seccomp filters)."""
        return self.data / "cache"

    def container(self, container_id: str) -> ContainerPaths:
        """Return the paths of one container, by its full id."""
        return ContainerPaths(self.containers / container_id, self.run / "c" / container_id)

    @property
    def changed(self) -> Path:
        """A file whose times are set after each change of the database."""
        return self.run / "changed"

    def network_directory(self, network_id: str) -> Path:
        """The directory of a bridge network's runtime files: its names, and the device to remove."""
        return self.run / "n" / network_id

    def zygote_socket(self) -> Path:
        return self.run / "zygote.sock"

    def network_socket(self) -> Path:
        return self.run / "network.sock"

    def ensure(self) -> None:
        """Make the directories, private to the caller; check existing ones and make them private.

        Raises:
            DeniedError: another user can change one of them, or a directory above.
            OSError: one cannot be made.
        """
        uid = os.geteuid()
        # 0700: a container's files may be set-user-id, and must be unreachable for other users.
        make_private(self.data)
        make_private(self.run)
        for path in (
            self.images,
            self.layers,
            self.containers,
            self.volumes,
            self.temporary,
            self.trash,
            self.cache,
            self.run / "c",
            self.run / "n",
        ):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                status = None
            if status is None or status.st_mode != _PRIVATE_DIRECTORY or status.st_uid != uid:
                make_private(path)
        _make_database_private(self.database)


def _make_database_private(database: Path) -> None:
    """Remove other users' access to the database of an earlier version; SQLite gives its WAL the same mode."""
    with suppress(FileNotFoundError):
        if os.lstat(database).st_mode & 0o077:
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.chmod(f"{database}{suffix}", 0o600)


@dataclass(frozen=True, slots=True)
class ContainerPaths:
    """The paths of one container.

    ``data`` (made by the engine at create, removed at rm): bundle/config.json, bundle/rootfs (an empty
    directory to mount on), upper/ and work/ (the writable layer), log.json, exit.json, hosts, hostname,
    resolv.conf.  ``run`` (made at start): plan.json, lock, state.json, control.sock, health.json.
    """

    data: Path
    run: Path

    @property
    def bundle(self) -> Path:
        return self.data / "bundle"

    @property
    def rootfs(self) -> Path:
        return self.data / "bundle" / "rootfs"

    @property
    def config_file(self) -> Path:
        return self.data / "bundle" / "config.json"

    @property
    def network_namespace(self) -> Path:
        """A file in the bundle on which the supervisor, in its own mount namespace, binds the network namespace."""
        return self.data / "bundle" / "netns"

    @property
    def user_namespace(self) -> Path:
        """A file in the bundle on which the supervisor binds the container's own user namespace, if it has one."""
        return self.data / "bundle" / "userns"

    def shared_namespace(self, kind: str) -> Path:
        """A file in the bundle on which the supervisor binds another container's namespace: "ipc" or "pid"."""
        return self.data / "bundle" / f"{kind}-namespace"

    def shared_mount(self, kind: str) -> Path:
        """A directory in the bundle for the mount that belongs to that namespace: /dev/shm or /proc."""
        return self.data / "bundle" / f"{kind}-mount"

    @property
    def upper(self) -> Path:
        return self.data / "upper"

    @property
    def work(self) -> Path:
        return self.data / "work"

    @property
    def log_file(self) -> Path:
        return self.data / "log.json"

    @property
    def exit_file(self) -> Path:
        """The exit record of the last run; replaced by rename, removed at the next start."""
        return self.data / "exit.json"

    @property
    def plan_file(self) -> Path:
        return self.run / "plan.json"

    @property
    def lock_file(self) -> Path:
        """Held (an open file description lock) by the supervisor, from before it starts the container until it has cleaned up."""
        return self.run / "lock"

    @property
    def state_file(self) -> Path:
        return self.run / "state.json"

    @property
    def health_file(self) -> Path:
        """The state of the health check; replaced by rename."""
        return self.run / "health.json"

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def names_file(self) -> Path:
        """The settings of the container's name server; missing without one."""
        return self.run / "names.json"


def default_root() -> StateRoot:
    """Return the state root of this user: PYDOCK_ROOT, else the system's (root), else the XDG directories."""
    moved = os.environ.get(ROOT_VARIABLE)
    if moved:
        base = Path(os.path.abspath(moved))
        return StateRoot(base / "data", base / "run")
    uid = os.geteuid()
    if uid == 0:
        return StateRoot(Path("/var/lib/pydock"), Path("/run/pydock"))
    home = Path(os.environ.get("HOME") or "/")
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "pydock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    run = Path(runtime) / "pydock" if runtime and os.path.isdir(runtime) else data / "run"
    return StateRoot(data, run)
