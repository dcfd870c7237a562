"""A real Debian: made by mmdebstrap, saved as a docker-archive by podman, loaded and run by dock."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.peers import unmount_below
from tests.integration.conftest import Dock, wait_until
from tests.integration.test_terminal import terminal

TOOLS = ("mmdebstrap", "podman", "skopeo")
SUITE = "bookworm"

pytestmark = [
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, TOOLS)), reason=f"needs root and {', '.join(TOOLS)}"
    ),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The same Debian as podman's docker-archive and as skopeo's OCI archive, gzip-compressed layers in the latter."""
    base = tmp_path_factory.mktemp("debian")
    tar, docker, oci = base / "root.tar", base / "docker.tar", base / "oci.tar"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", SUITE, tar], check=True, timeout=300)
    name = f"localhost/debian:{SUITE}"
    settings = ["--change", "CMD=bash", "--change", "ENV=FROM=podman"]
    with tempfile.TemporaryDirectory(prefix="pd-", dir="/tmp") as run_root:  # podman refuses a long name
        podman = ["podman", "--root", base / "store", "--runroot", run_root, "--tmpdir", base / "tmp"]
        subprocess.run([*podman, "import", "--quiet", *settings, tar, name], check=True, timeout=200)
        subprocess.run(
            [*podman, "save", "--quiet", "--format", "docker-archive", "-o", docker, name],
            check=True,
            timeout=200,
        )
        unmount_below(Path(run_root))
    subprocess.run(
        ["skopeo", "copy", "--quiet", f"docker-archive:{docker}", f"oci-archive:{oci}:debian:oci"],
        check=True,
        timeout=200,
    )
    yield {"docker": docker, "oci": oci}
    unmount_below(base)
    shutil.rmtree(base)


def test_it_loads_and_runs(dock: Dock, archives: dict[str, Path]) -> None:
    assert dock.out("load", "-i", archives["docker"]) == f"Loaded image: localhost/debian:{SUITE}"
    name = f"localhost/debian:{SUITE}"
    assert f'VERSION_CODENAME="{SUITE}"'.replace('"', "") in dock.out(
        "run", "--rm", name, "cat", "/etc/os-release"
    ).replace('"', "")
    assert dock.out("run", "--rm", name, "bash", "-c", "echo $FROM") == "podman"
    script = "useradd -m someone && su someone -c 'touch ~/mine && stat -c %U ~/mine' && dpkg --audit && apt-get -v"
    assert dock.out("run", "--rm", name, "bash", "-c", script).splitlines()[0] == "someone"
    found = dock.out(
        "run", "--rm", "-u", "nobody", name, "bash", "-c", "id -un; test -u /usr/bin/su && echo setuid"
    )
    assert found.splitlines() == ["nobody", "setuid"]


def test_what_dpkg_says_of_its_files_is_so(dock: Dock, archives: dict[str, Path]) -> None:
    dock("load", "-q", "-i", archives["docker"])
    script = (
        "cd / && cat /var/lib/dpkg/info/*.md5sums | md5sum --check --quiet 2>&1 | grep -v /usr/share/ | head"
    )
    assert dock.out("run", "--rm", f"localhost/debian:{SUITE}", "bash", "-c", script) == ""


def test_a_shell_in_it(dock: Dock, archives: dict[str, Path]) -> None:
    dock("load", "-q", "-i", archives["docker"])
    with terminal(dock, "run", "-it", "--name", "tf", f"localhost/debian:{SUITE}") as person:
        person.expect("#")
        person.type("echo $((6*7)) > /root/answer; exit\r")
        assert person.end() == 0
    with terminal(dock, "start", "-i", "tf") as person:
        person.wait_for_raw_mode()
        person.type("cat /root/answer; exit 3\r")
        person.expect("42")
        assert person.end() == 3


def test_the_oci_archive_is_the_same_image(dock: Dock, archives: dict[str, Path]) -> None:
    dock("load", "-q", "-i", archives["docker"])
    loaded = dock.out("load", "-i", archives["oci"])
    reference = loaded.rpartition(": ")[2]
    layers = [
        dock.out("image", "inspect", "--format", "{{json .RootFS.Layers}}", image)
        for image in (f"localhost/debian:{SUITE}", reference)
    ]
    assert layers[0] == layers[1]
    assert dock.out("run", "--rm", reference, "cat", "/etc/debian_version")
    wait_until(lambda: dock.out("ps", "-aq") == "", "nothing is left")
