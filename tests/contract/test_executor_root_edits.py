"""The edits of a root filesystem for devices, with each executor: done by init, or by a createContainer hook."""

from __future__ import annotations

import json
import sys
from typing import Any

from pydock_core.loader_cache import CacheEntry, merge_cache, parse_cache
from pydock_core.runtime.root_edit import CUDA_COMPAT, Cover, Link, Mode, RootEdits, build_hook
from tests.support.executor_box import Box, Patch


def asking_for(box: Box, edits: RootEdits, **config: Any) -> Patch:
    """Return a patch of config.json that asks for edits."""
    file = box.base / "root-edits.json"
    file.write_text(json.dumps(edits.to_json()))
    file.chmod(0o644)

    def patch(spec: dict[str, Any]) -> None:
        spec["hooks"] = {"createContainer": [build_hook(sys.executable, str(file))]}
        spec["mounts"] += config.get("mounts", [])

    return patch


def test_all_edits_are_done_before_the_program_runs(box: Box) -> None:
    root = box.make_rootfs()
    source = box.base / "params"
    source.write_text("ModifyDeviceFiles: 0\n")
    source.chmod(0o444)
    (root / "etc" / "ld.so.cache").write_bytes(
        merge_cache(b"", [CacheEntry("libz.so.1", "/lib/libz.so.1", 0x303)])
    )
    box.give(root)
    edits = RootEdits(
        links=(Link("libcuda.so.1", "/usr/lib/libcuda.so"), Link("null", "/dev/dri/by-path/card")),
        modes=(Mode("/dev/dri", 0o711),),
        covers=(Cover(str(source), "/proc/version"), Cover(str(source), "/proc/missing")),
        update_cache=True,
        folders=("/usr/lib",),
        libraries=(("libcuda.so.1", "/usr/lib/libcuda.so.1", 0x303),),
    )
    script = (
        "readlink /usr/lib/libcuda.so; readlink /dev/dri/by-path/card; stat -c %a /dev/dri; cat /proc/version; "
        "echo x 2>/dev/null >/proc/version || echo read-only; cat /etc/ld.so.cache | wc -c"
    )
    result = box.sh(script, patch=asking_for(box, edits), host={"ReadonlyRootfs": True})
    assert result.lines[:5] == ["libcuda.so.1", "null", "711", "ModifyDeviceFiles: 0", "read-only"], result
    cache = (root / "etc" / "ld.so.cache").read_bytes()
    assert int(result.lines[5]) == len(cache)
    assert {entry.soname for entry in parse_cache(cache)} == {"libz.so.1", "libcuda.so.1"}


def test_a_link_of_the_image_does_not_lead_an_edit_into_a_volume(box: Box) -> None:
    """The user mounts a directory of the host, and the image has /etc in it: the host's loader would be led astray."""
    root = box.make_rootfs()
    host = box.base / "host"
    (host / "lib").mkdir(parents=True)
    (host / "ld.so.cache").write_bytes(b"the host's")
    box.give(host)
    (root / "usr").mkdir(exist_ok=True)
    (root / "usr" / "lib64").symlink_to("/host/lib")
    (root / "etc" / "ld.so.conf.d").symlink_to("/host/lib")
    mounts = [{"destination": "/host", "type": "bind", "source": str(host), "options": ["rbind"]}]
    for edits in (
        RootEdits(links=(Link("x", "/usr/lib64/libcuda.so"),)),
        RootEdits(links=(Link("x", "/host/lib/libcuda.so"),)),
        RootEdits(modes=(Mode("/usr/lib64", 0o777),)),
        RootEdits(update_cache=True, libraries=(("a", "/a", 0x303),), host_driver="1.1"),
    ):
        (root / "etc" / "ld.so.cache").unlink(missing_ok=True)
        (root / "etc" / "ld.so.cache").symlink_to("/host/ld.so.cache")
        error = box.fail("true", patch=asking_for(box, edits, mounts=mounts))
        if box.is_embedded:
            assert "would be written to a mount of the container" in error.message
            assert error.exit_code == 125
    assert sorted(path.name for path in host.rglob("*")) == ["ld.so.cache", "lib"]
    assert (host / "ld.so.cache").read_bytes() == b"the host's"
    assert (host / "lib").stat().st_mode & 0o777 == 0o755


def test_a_volume_in_the_compat_directorys_place_is_only_read(box: Box) -> None:
    root = box.make_rootfs()
    (root / "etc" / "ld.so.conf.d").unlink(missing_ok=True)
    compat = box.base / "compat"
    compat.mkdir()
    for name in ("libcuda.so.999.1", "libcuda.so.1"):
        (compat / name).touch()
    (root / "etc" / "ld.so.cache").unlink(missing_ok=True)
    (root / "etc" / "ld.so.cache").write_bytes(merge_cache(b"", []))
    box.give(root)
    mounts = [{"destination": CUDA_COMPAT, "type": "bind", "source": str(compat), "options": ["rbind"]}]
    edits = RootEdits(update_cache=True, host_driver="535.104.05")
    assert box.run("true", patch=asking_for(box, edits, mounts=mounts)).code == 0
    entries = parse_cache((root / "etc" / "ld.so.cache").read_bytes())
    assert [entry.path for entry in entries] == [f"{CUDA_COMPAT}/libcuda.so.1"]
    assert sorted(path.name for path in compat.iterdir()) == ["libcuda.so.1", "libcuda.so.999.1"]
