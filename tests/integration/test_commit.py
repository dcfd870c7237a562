"""Commit: what becomes of a container, that its processes stand still meanwhile, and what a kill leaves."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pydock_core.engine import Engine
from pydock_core.errors import ConflictError, InvalidError, NotFoundError
from pydock_core.runtime.cgroups.freezer import find_freezer
from pydock_core.supervision.client import SupervisorClient
from pydock_core.supervision.container_status import derive_status
from pydock_core.supervision.reaper import reap_killed
from tests.integration.conftest import Dock, wait_until
from tests.support.create_request import create_request
from tests.support.process import has_ended

COUNT = "i=0; while true; do i=$((i+1)); echo $i > /count; done"


def run(engine: Engine, script: str, host: dict[str, Any] | None = None, **config: Any) -> str:
    """Run a shell script in a container to its end; return the container's id."""
    request = create_request("busybox", "sh", "-c", script, **(host or {})) | config
    made, _ = engine.containers.create(request)
    with engine.containers.start(made) as launch:
        end = launch.wait()
    assert end is not None
    assert end.exit_code == 0, script
    return made


def start(engine: Engine, script: str) -> str:
    """Start a shell script in a container; return the container's id."""
    request = create_request("busybox", "sh", "-c", script)
    made, _ = engine.containers.create(request)
    engine.containers.start(made).close()
    return made


def output(engine: Engine, image: str, *words: str) -> str:
    request = create_request(image, *words)
    made, _ = engine.containers.create(request)
    with engine.containers.start(made) as launch:
        launch.wait()
    text = b"".join(entry.data for entry in engine.containers.logs(made)).decode()
    engine.containers.remove(made)
    return text


@pytest.fixture(autouse=True)
def images_go(engine: Engine) -> Iterator[None]:
    """Remove the images that a test makes."""
    before = {image["Id"] for image in engine.images.list()}
    yield
    for image in engine.images.list():
        if image["Id"] not in before:
            engine.images.remove(image["Id"], force=True)


@pytest.fixture
def counter(engine: Engine) -> str:
    """A container that counts into /count as fast as it can."""
    made = start(engine, COUNT)
    wait_until(lambda: count(engine, made) != "", "it counts")
    return made


def count(engine: Engine, container: str) -> str:
    try:
        return (engine.root.container(container).upper / "count").read_text()
    except FileNotFoundError:
        return ""


def state_of(pid: int) -> str:
    """The state of a process, as proc_pid_stat(5) has it; X for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def goes_on(engine: Engine, container: str) -> None:
    before = count(engine, container)
    wait_until(lambda: count(engine, container) not in ("", before), "the container goes on")


# -- what it becomes ---------------------------------------------------------------------------------------


def test_a_committed_image_runs(engine: Engine) -> None:
    made = run(
        engine,
        "rm /etc/group; rm -r /root; mkdir /root; echo new > /root/file; ln /root/file /hard; ln -s /etc /link",
    )
    image = engine.filesystems.commit(made, "made:1")
    assert engine.images.inspect("made:1")["Id"] == image
    assert engine.state.snapshotter.chains() == []  # a commit has all the directories on the way
    script = "ls /etc/group 2>&1; ls /root; cat /hard; readlink /link; stat -c %h /root/file"
    # Over two layers overlayfs shows a file's number of names as the layer has it.
    assert output(engine, "made:1", "sh", "-c", script).splitlines() == [
        "ls: /etc/group: No such file or directory",
        "file",
        "new",
        "/etc",
        "2",
    ]


def test_a_file_keeps_attributes_that_are_named_as_overlayfs_s(engine: Engine) -> None:
    """Through the container's own mount, on which Linux 6.7 escapes a name that overlayfs has itself."""

    def own(container: str) -> str:
        return f"/proc/{derive_status(engine.root.container(container)).pid}/root/etc/group"

    wait = "while :; do sleep 1000; done"
    made = start(engine, wait)
    try:
        os.setxattr(own(made), "user.overlay.opaque", b"mine")
    except OSError:
        pytest.skip("needs Linux 6.7, where overlayfs escapes its own names")
    engine.filesystems.commit(made, "attributes:1")
    again, _ = engine.containers.create(create_request("attributes:1", "sh", "-c", wait))
    engine.containers.start(again).close()
    assert os.getxattr(own(again), "user.overlay.opaque") == b"mine"
    exported = io.BytesIO()
    engine.filesystems.export(again, exported)
    with tarfile.open(fileobj=io.BytesIO(exported.getvalue())) as archive:
        assert archive.getmember("etc/group").pax_headers == {"SCHILY.xattr.user.overlay.opaque": "mine"}
    engine.containers.remove(again, force=True)  # before its image


def test_what_the_image_is_like(engine: Engine) -> None:
    made = run(
        engine,
        "true",
        Env=["A=1"],
        Labels={"l": "v"},
        User="guest",
        WorkingDir="/tmp",
        ExposedPorts={"80/tcp": {}},
        Volumes={"/anonymous": {}},
        host={"Binds": ["named:/named"], "Tmpfs": {"/t": ""}},
    )
    image = engine.filesystems.commit(
        made, author="me", message="why", changes=["ENV B=2", "LABEL m=w", 'CMD ["cat"]']
    )
    config = engine.images.config(image)
    assert config["config"] == {
        "User": "guest",
        "ExposedPorts": {"80/tcp": {}},
        "Cmd": ["cat"],
        "Labels": {"l": "v", "m": "w"},
        "Env": ["PATH=/bin", "A=1", "B=2"],
        "WorkingDir": "/tmp",
        "Volumes": {"/anonymous": {}},
    }
    assert (config["author"], config["comment"]) == ("me", "why")
    parent = engine.images.config(engine.images.resolve("busybox").id)
    assert config["history"][:-1] == parent["history"]
    step = config["history"][-1]
    assert (step["created_by"], step["author"], step["comment"]) == ("sh -c true", "me", "why")
    assert step["created"] == config["created"] > parent["created"]
    seen = engine.images.inspect(image)
    assert (seen["RepoTags"], seen["Author"], seen["Comment"]) == ([], "me", "why")


def test_a_container_that_changed_nothing_adds_no_layer(engine: Engine) -> None:
    """Docker: an empty layer is none, and its step in the history says so."""
    made = run(engine, "true")
    config = engine.images.config(engine.filesystems.commit(made))
    parent = engine.images.config(engine.images.resolve("busybox").id)
    assert config["rootfs"] == parent["rootfs"]
    assert config["history"][-1]["empty_layer"] is True
    never, _ = engine.containers.create(create_request("busybox"))
    assert engine.images.config(engine.filesystems.commit(never))["rootfs"] == parent["rootfs"]


def test_the_same_container_gives_the_same_image(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(engine, "mkdir /d; for i in 1 2 3 4 5; do echo $i > /d/$i; done; rm /etc/passwd")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first, second = engine.filesystems.commit(made, "same:1"), engine.filesystems.commit(made, "same:2")
    assert first == second
    assert engine.images.config(first)["created"] == "2023-11-14T22:13:20Z"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    # An image that is here, but for its time, is that image.
    assert engine.filesystems.commit(made, "same:3") == first
    assert engine.images.inspect(first)["RepoTags"] == ["same:1", "same:2", "same:3"]
    other = engine.filesystems.commit(made, message="another")
    assert other != first
    assert engine.images.layers(other) == engine.images.layers(first)
    assert engine.filesystems.commit(made, message="another") == other
    # Without it, the layer is the same again, and the image has a time of its own.
    layers = engine.images.layers(first)
    engine.images.remove(first, force=True)
    engine.images.remove(other, force=True)
    later = engine.filesystems.commit(made)
    assert later != first
    assert engine.images.layers(later) == layers


def test_what_cannot_be_committed(engine: Engine) -> None:
    with pytest.raises(NotFoundError, match="no such container: nobody"):
        engine.filesystems.commit("nobody")
    made = run(engine, "true")
    before = [image["Id"] for image in engine.images.list()]
    with pytest.raises(InvalidError, match="RUN"):
        engine.filesystems.commit(made, changes=["RUN x"])
    with pytest.raises(InvalidError, match="invalid reference"):
        engine.filesystems.commit(made, "Not A Name")
    assert [image["Id"] for image in engine.images.list()] == before


def test_mount_points_of_the_runtime_stay_out(engine: Engine) -> None:
    made = start(engine, "echo > /mine; sleep 1000")
    wait_until(lambda: (engine.root.container(made).upper / "mine").exists(), "it has written")
    image = engine.filesystems.commit(made)
    archive = io.BytesIO()
    engine.images.save([image], archive)
    (change,) = engine.filesystems.diff(made)
    assert change == {"Path": "/mine", "Kind": 1}
    layers = engine.images.layers(image)
    assert len(layers) == 2


def test_what_is_below_is_removed_meanwhile(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    below = engine.filesystems.commit(first := run(engine, "echo x > /x"), "below:1")
    request = create_request("below:1", "sh", "-c", "echo y > /y")
    made, _ = engine.containers.create(request)
    with engine.containers.start(made) as launch:
        launch.wait()
    keep = engine.filesystems._keep_layer

    def slow(*words: Any, **keywords: Any) -> Any:
        kept = keep(*words, **keywords)
        engine.containers.remove(made)
        assert {"Deleted": below} in engine.images.remove("below:1")
        return kept

    monkeypatch.setattr(engine.filesystems, "_keep_layer", slow)
    image = engine.filesystems.commit(made)
    assert len(engine.images.layers(image)) == 3
    assert output(engine, image, "cat", "/x", "/y") == "x\ny\n"
    engine.containers.remove(first)


# -- the pause ---------------------------------------------------------------------------------------------


def test_processes_stand_still_while_they_are_held(engine: Engine, counter: str) -> None:
    paths = engine.root.container(counter)
    with SupervisorClient(paths).frozen():
        before = count(engine, counter)
        with SupervisorClient(paths).frozen():  # two at once
            pass
        # Whoever is not stopped counts some thousand times in this time.
        for _ in range(50):
            subprocess.run(["true"], check=True)
            assert count(engine, counter) == before
    goes_on(engine, counter)


def test_a_commit_takes_one_moment(engine: Engine) -> None:
    """Two files, written one after the other without a pause, are never more than one apart."""
    made = start(engine, "i=0; while true; do i=$((i+1)); echo $i > /a; echo $i > /z; done")
    wait_until(lambda: (engine.root.container(made).upper / "z").exists(), "it has written")
    for _ in range(3):
        image = engine.filesystems.commit(made)
        words = output(engine, image, "cat", "/a", "/z").split()
        # An empty one was just being written anew.
        assert len(words) < 2 or 0 <= int(words[0]) - int(words[1]) <= 1
    assert derive_status(engine.root.container(made)).is_running


def test_without_a_pause(engine: Engine, counter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: SupervisorClient) -> None:
        raise AssertionError

    monkeypatch.setattr(SupervisorClient, "frozen", refuse)
    assert len(engine.images.layers(engine.filesystems.commit(counter, pause=False))) == 2


def test_an_exec_waits_for_the_end_of_the_pause(engine: Engine, dock: Dock, counter: str) -> None:
    with SupervisorClient(engine.root.container(counter)).frozen():
        waiting = dock.start("exec", counter, "echo", "later", stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)
    assert waiting.communicate(timeout=30)[0] == b"later\n"
    assert waiting.returncode == 0


def test_a_container_that_is_stopped_while_it_is_held(engine: Engine, dock: Dock, counter: str) -> None:
    with SupervisorClient(engine.root.container(counter)).frozen():
        # Killing thaws: whoever holds the container does not keep it from its end.
        dock("stop", "-t", "0", counter, timeout=20)
    assert not derive_status(engine.root.container(counter)).is_running


def test_who_does_not_run_is_not_held(engine: Engine) -> None:
    made = run(engine, "true")
    with pytest.raises(ConflictError), SupervisorClient(engine.root.container(made)).frozen():
        pass


def test_a_start_waits_for_a_commit(engine: Engine, dock: Dock, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run(engine, "echo x > /x")
    call = engine.state.worker.call
    starting: list[subprocess.Popen[bytes]] = []

    def slow(function: str, *words: Any, **keywords: Any) -> Any:
        if function.endswith("write_upper"):
            starting.append(dock.start("start", made, stdout=subprocess.DEVNULL))
            with pytest.raises(subprocess.TimeoutExpired):
                starting[0].wait(1)
        return call(function, *words, **keywords)

    monkeypatch.setattr(engine.state.worker, "call", slow)
    engine.filesystems.commit(made)
    assert starting[0].wait(30) == 0


HOLDER = """
import os, signal, sys
from pathlib import Path
from pydock_core.paths import StateRoot
from pydock_core.supervision.client import SupervisorClient
base = Path(sys.argv[1])
with SupervisorClient(StateRoot(base / "data", base / "run").container(sys.argv[2])).frozen():
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_client_that_dies_lets_the_container_go_on(engine: Engine, dock: Dock, counter: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLDER, dock.base, counter], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"held\n")
    goes_on(engine, counter)


def test_a_supervisor_that_dies_leaves_nothing_stopped(engine: Engine, counter: str) -> None:
    paths = engine.root.container(counter)
    status = derive_status(paths)
    with SupervisorClient(paths).frozen():
        os.kill(status.supervisor_pid, signal.SIGKILL)
        wait_until(lambda: has_ended(status.supervisor_pid), "the supervisor is gone")
        assert reap_killed(paths).exit_code == 137
        wait_until(lambda: state_of(status.pid) in "ZX", "init is dead")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: an ordinary user has no control group here")
@pytest.mark.parametrize("runtime", ["embedded", "crun", "runc"])
def test_every_runtime_has_a_group_that_can_be_stopped(engine: Engine, runtime: str) -> None:
    if runtime != "embedded" and not shutil.which(runtime):
        pytest.skip(f"needs {runtime} (Debian: {runtime})")
    request = create_request("busybox", "sh", "-c", COUNT, Runtime=runtime)
    made, _ = engine.containers.create(request)
    engine.containers.start(made).close()
    wait_until(lambda: count(engine, made) != "", "it counts")
    paths = engine.root.container(made)
    assert find_freezer(derive_status(paths).pid, made) is not None
    with SupervisorClient(paths).frozen():
        before = count(engine, made)
        subprocess.run(["sleep", "0.1"], check=True)
        assert count(engine, made) == before
    goes_on(engine, made)


# -- killed ------------------------------------------------------------------------------------------------

# Dies of SIGKILL at the given call of one of the steps that change what others see.
KILLED = """
import os, signal, socket, sys
from pathlib import Path
from pydock_core.engine import Engine
from pydock_core.paths import StateRoot
base, container, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
engine = Engine(StateRoot(base / "data", base / "run"))
engine.containers
engine.state.image_store.snapshotter
def watched(function):
    def call(*words, **keywords):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*words, **keywords)
    return call
for name in ("rename", "mkdir", "rmdir", "unlink", "fsync", "open", "write"):
    setattr(os, name, watched(getattr(os, name)))
engine.filesystems.commit(container, "killed:1")
print("whole", flush=True)
"""


@pytest.mark.timeout(120)
def test_a_kill_at_any_step_lets_it_go_on_and_leaves_the_store_whole(
    engine: Engine, dock: Dock, counter: str
) -> None:
    engine.filesystems.commit(counter, "kept:1")
    layers = engine.images.layers(engine.images.resolve("kept:1").id)
    step, ended = 0, False
    while not ended:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, dock.base, counter, str(step)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        ended = done.returncode == 0
        goes_on(engine, counter)
        names = [name for image in engine.images.list() for name in image["RepoTags"]]
        assert names.count("kept:1") == 1
        if "killed:1" in names:
            # Empty where it was just being written anew.
            assert re.fullmatch(r"\d*\n?", output(engine, "killed:1", "cat", "/count"))
            engine.images.remove("killed:1")
        step += 7
    assert step > 20, "it was never killed in the middle"
    engine.state.image_store.sweep()
    engine.state.image_store.collect()
    known = {layer for image in engine.images.list() for layer in engine.images.layers(image["Id"])}
    assert set(engine.state.snapshotter.diff_ids()) == known >= set(layers)
    assert os.listdir(engine.root.temporary) == []
