"""Rehearses a start on an empty bundle, so that a spare process has copied its pages before it is needed.

A forked process copies each page that it writes to, and Python writes to every object that it uses (reference counts).
The rehearsal makes these copies while no client is waiting.
"""

from __future__ import annotations

import _pickle
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydock_core.errors import PyDockError
from pydock_core.runtime.container_config import build_plan
from pydock_core.runtime.container_state import ContainerRecord, build_oci_state
from pydock_core.runtime.creation import plan_group
from pydock_core.runtime.init_process import InitTask
from pydock_core.runtime.inside import make_inside, opened_inside
from pydock_core.runtime.mounts import make_tmpfs, mask_paths
from pydock_core.runtime.process_identity import ProcessIdentity

_CAPABILITIES = ["CAP_CHOWN", "CAP_KILL"]
_BUNDLE: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs"},
    "hostname": "rehearsal",
    "process": {
        "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
        "args": ["true"],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
        "oomScoreAdj": 0,
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {
            "destination": "/etc/hosts",
            "type": "bind",
            "source": "/etc/hosts",
            "options": ["rbind", "rprivate"],
        },
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")],
        "cgroupsPath": "/pydock/rehearsal",
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
    },
}


def rehearse() -> None:
    """Read a bundle, send it through a socket, plan its control group and set up a root; leave nothing behind."""
    with suppress(PyDockError, OSError):  # the real start reports what this host lacks
        document = json.loads(json.dumps(_BUNDLE))
        plan = build_plan(Path("/"), document, None)
        group = plan_group(plan, "rehearsal")
        record = ContainerRecord(
            "rehearsal", "/", None, tuple(plan.namespaces.new), group.directories if group is not None else {}
        )
        record = record.with_init(ProcessIdentity.of(os.getpid()))
        task = InitTask(plan, build_oci_state(record, "creating", document), record.cgroup, False)
        _pickle.loads(_pickle.dumps((task, True), 5))
        json.dumps(record.to_json())
        root_fd = make_tmpfs(0, size="64k", mode="755")
        try:
            os.close(make_inside(root_fd, "/a/b", directory=True))
            with opened_inside(root_fd, "/a/b"):
                mask_paths(root_fd, ("/none",))
        finally:
            os.close(root_fd)
