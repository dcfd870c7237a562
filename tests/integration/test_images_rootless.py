"""Images in a user namespace: what an ordinary user's worker does, with subordinate ids and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.image_store import NEEDS_ROOT, ROOT, build_docker_archive, build_tar, digest, entry

SCRIPT = """
import json, os, subprocess, sys
from pathlib import Path
from tests.support.image_store import open_store
base, archive, work = (Path(word) for word in sys.argv[1:])
store = open_store(base)
with open(archive, "rb") as stream:
    (name,) = store.images.load(stream)
layers = store.images.layers(store.images.resolve(name).id)
(mount,) = store.snapshotter.mounts(layers, work / "upper", work / "work")
merged = work / "merged"
for path in (work / "upper", work / "work", merged):
    path.mkdir()
lower = ":".join(mount.lower)
options = [*mount.options, f"lowerdir={lower}", f"upperdir={mount.upper}", f"workdir={mount.work}"]
subprocess.run(["mount", "-t", "overlay", "overlay", "-o", ",".join(options), merged], check=True)
status = os.stat(merged / "owned")
answer = {
    "options": mount.options,
    "merged": sorted(os.listdir(merged)),
    "inside": sorted(os.listdir(merged / "dir")),
    "owner": [status.st_uid, status.st_gid],
    "hard": os.path.samefile(merged / "dir/hard", merged / "owned"),
    "implied": oct(os.stat(merged / "dir").st_mode),
    "linked": os.listdir(merged / "closed"),
    "chains": len(store.snapshotter.chains()),
}
subprocess.run(["umount", merged], check=True)
store.images.remove(name)
answer["left"] = store.contents()
store.close()
print(json.dumps(answer))
"""
LOWER = build_tar(
    [
        entry("owned", data=b"x", uid=7, gid=8),
        entry("gone", data=b"g"),
        entry("null", "char", devmajor=1, devminor=3),
        entry("dir", "dir", mode=0o500),
        entry("dir/old", data=b"o"),
        entry("closed", "dir", mode=0),
        entry("closed/inner", data=b"i", mode=0),
        entry("way", "link", linkname="/../../closed"),
    ]
)
# Without its directories, and with a hard link: applied over the other, in a mount namespace of the user's.
UPPER = build_tar(
    [
        entry(".wh.gone"),
        entry("dir/.wh..wh..opq"),
        entry("dir/new", data=b"n"),
        entry("dir/hard", "hard", linkname="owned"),
        entry("way/through", data=b"t"),
        entry("way/.wh.inner"),
    ]
)


def in_namespace(base: Path, maps: list[str]) -> dict[str, object]:
    (base / "archive").write_bytes(build_docker_archive(LOWER, UPPER))
    (base / "work").mkdir()
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [
            "unshare",
            "--user",
            *maps,
            "--mount",
            sys.executable,
            "-c",
            SCRIPT,
            base / "state",
            base / "archive",
            base / "work",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    if "unshare failed" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def check(answer: dict[str, object]) -> None:
    assert answer["options"] == ["userxattr"]
    # A user namespace has no device nodes; whiteouts and opaque directories work all the same.
    assert answer["merged"] == ["closed", "dir", "owned", "way"]
    assert answer["inside"] == ["hard", "new"]
    assert answer["hard"] is True
    assert answer["implied"] == "0o40500"
    assert answer["linked"] == ["through"]
    assert answer["chains"] == 1
    left = answer["left"]
    assert isinstance(left, list)
    assert not [path for path in left if digest(LOWER)[7:] in path]


def test_with_one_id_everything_is_the_users(tmp_path: Path) -> None:
    answer = in_namespace(tmp_path, ["--map-root-user"])
    check(answer)
    assert answer["owner"] == [0, 0]


@pytest.mark.skipif(not ROOT, reason=NEEDS_ROOT)
def test_with_subordinate_ids_owners_are_kept(tmp_path: Path) -> None:
    script = Path(tmp_path / "map")
    # Root may write any map: 0 is root, and 1 to 1000 are ids that nobody on the host has.
    script.write_text(
        "import os, subprocess, sys, time\n"
        "end = time.monotonic() + 20\n"
        "child = subprocess.Popen(['unshare', '--user', '--mount', 'sh', '-c', 'read go; exec \"$@\"', 'sh', *sys.argv[1:]],\n"
        "    stdin=subprocess.PIPE)\n"
        "while os.readlink(f'/proc/{child.pid}/ns/user') == os.readlink('/proc/self/ns/user'):\n"
        "    assert time.monotonic() < end, 'no user namespace'\n"
        "for name in ('uid_map', 'gid_map'):\n"
        "    open(f'/proc/{child.pid}/{name}', 'w').write('0 0 1\\n1 700001 1000\\n')\n"
        "child.communicate(b'go\\n')\n"
        "sys.exit(child.returncode)\n"
    )
    (tmp_path / "archive").write_bytes(build_docker_archive(LOWER, UPPER))
    (tmp_path / "work").mkdir()
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, script, sys.executable, "-c", SCRIPT]
        + [str(tmp_path / name) for name in ("state", "archive", "work")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    check(answer)
    assert answer["owner"] == [7, 8]
