"""Whether layers can be EROFS indexes here: asked of the kernel by mounting one, once after each boot.

The mount stays detached (fsmount(2)), so it is invisible to the host.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from pathlib import Path

from pydock_core.paths import StateRoot
from pydock_core.private_files import open_private
from pydock_core.runtime.process_identity import boot_id
from pydock_core.runtime.rootfs import mount_erofs
from pydock_core.store.erofs.writer import build_index
from pydock_core.store.snapshots.directory import needs_user_xattrs
from pydock_core.store.trees import remove_tree
from pydock_core.store.workspace import open_workspace

_CONTENT = b"mounted"


def probe_erofs(root: StateRoot) -> str:
    """Return the reason why EROFS layers cannot be mounted here, "" if they can.

    The result is cached in ``StateRoot.cache`` for this boot of this kernel.
    """
    if needs_user_xattrs():
        return "it needs root of the host"
    kept = root.cache / "erofs.json"
    # A state directory can be moved to another file system, which matters too.
    key = f"{os.uname().release} {boot_id()} {os.stat(root.layers).st_dev}"
    with contextlib.suppress(OSError, ValueError), open(kept, "rb") as file:
        document = json.load(file)
        if document["key"] == key:
            return str(document["reason"])
    try:
        # A workspace, which no other process sweeps during the probe.
        with open_workspace(root.temporary, "probe", lambda path: remove_tree(str(path))) as workspace:
            reason = _try(workspace.path)
    except OSError as error:
        return f"it could not be tried: {error.strerror}"  # a full disk, for example: try again next time
    with contextlib.suppress(OSError):
        scratch = kept.with_name(f"erofs-{os.getpid()}-{os.urandom(4).hex()}")
        with open(scratch, "w", encoding="utf-8", opener=open_private) as file:
            json.dump({"key": key, "reason": reason}, file)
        scratch.rename(kept)
    return reason


def _try(directory: Path) -> str:
    tar, index = f"{directory}/layer.tar", f"{directory}/index.erofs"
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("file")
        info.size = len(_CONTENT)
        archive.addfile(info, io.BytesIO(_CONTENT))
    with open(tar, "rb") as source, open(index, "wb") as target:
        build_index(source, target.fileno(), "probe")
    try:
        mount_fd = mount_erofs(index, [tar])
    except OSError as error:
        return f"this kernel or file system does not mount it: {error.strerror}"
    try:
        file_fd = os.open("file", os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount_fd)
        with open(file_fd, "rb") as file:
            return "" if file.read() == _CONTENT else "it reads wrong data"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    finally:
        os.close(mount_fd)
