"""python-on-whales, a client that drives Docker's command line, drives ``dock``."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from python_on_whales import DockerClient
from python_on_whales.exceptions import DockerException, NoSuchContainer

from tests.integration.conftest import Dock


@pytest.fixture
def client(dock: Dock, monkeypatch: pytest.MonkeyPatch) -> DockerClient:
    monkeypatch.setenv("PYDOCK_ROOT", str(dock.base))
    return DockerClient(client_call=dock.words())


def test_version_and_info(client: DockerClient) -> None:
    version, info = client.version(), client.info()
    assert version.client.os == "linux"
    assert version.server.version == version.client.version
    assert info.images == 1
    assert info.driver in ("erofs", "directory")


def test_run_with_options(client: DockerClient) -> None:
    words = "echo $A; id -u; id -g; hostname; pwd; ulimit -n; touch /x || echo read-only"
    output = client.run(
        "busybox",
        ["sh", "-c", words],
        remove=True,
        envs={"A": "b"},
        hostname="h1",
        networks=["none"],
        user="1:2",
        workdir="/tmp",
        cap_drop=["ALL"],
        read_only=True,
        tmpfs=["/scratch"],
        ulimit=["nofile=100:100"],
    )
    assert output.split("\n") == ["b", "1", "2", "h1", "/tmp", "100", "read-only"]
    with pytest.raises(DockerException) as raised:
        client.run("busybox", ["sh", "-c", "exit 7"], remove=True)
    assert raised.value.return_code == 7


def test_the_life_of_a_container(client: DockerClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host")
    container = client.run(
        "busybox",
        ["sh", "-c", "echo ready; touch /made; exec sleep 1000"],
        detach=True,
        name="whale",
        labels={"kind": "test"},
        volumes=[(tmp_path, "/mnt", "ro")],
        stop_signal="KILL",
    )
    assert [one.id for one in client.ps(filters=[("label", "kind=test")])] == [container.id]
    assert container.state.running
    assert container.state.status == "running"
    assert container.config.cmd == ["sh", "-c", "echo ready; touch /made; exec sleep 1000"]
    assert container.config.labels["kind"] == "test"
    assert container.host_config.binds == [f"{tmp_path}:/mnt:ro"]
    assert [(mount.type, str(mount.destination), mount.rw) for mount in container.mounts] == [
        ("bind", "/mnt", False)
    ]
    assert container.execute(["cat", "/mnt/file"]) == "from the host"
    assert container.execute(["sh", "-c", "echo $Q; pwd"], envs={"Q": "5"}, workdir="/tmp") == "5\n/tmp"
    with pytest.raises(DockerException) as raised:
        container.execute(["sh", "-c", "exit 3"])
    assert raised.value.return_code == 3
    assert container.logs().strip() == "ready"
    assert container.diff()["/made"] == "A"
    container.rename("whale-2")
    assert client.container.exists("whale-2")
    container.stop()
    assert client.wait("whale-2") == 137
    container.reload()
    assert (container.state.exit_code, container.state.running) == (137, False)
    container.start()
    container.restart(time=0)
    container.kill()
    archive = tmp_path / "export.tar"
    container.export(archive)
    with tarfile.open(archive) as exported:
        assert "made" in exported.getnames()
    image = container.commit("whale:1", author="a", message="m")
    assert client.run("whale:1", ["ls", "/made"], remove=True) == "/made"
    container.remove(force=True)
    with pytest.raises(NoSuchContainer):
        client.container.inspect("whale-2")
    client.image.remove(image)


def test_create_and_prune(client: DockerClient) -> None:
    made = client.create("busybox", ["true"], name="never-started")
    assert client.container.inspect("never-started").state.status == "created"
    client.container.prune(filters=[("label", "nobody=has-it")])
    assert made.exists()
    client.container.prune()
    assert not made.exists()


def test_images(client: DockerClient, tmp_path: Path) -> None:
    image = client.image.inspect("busybox")
    assert image.repo_tags == ["busybox:latest"]
    image.tag("whale:2")
    archive = tmp_path / "saved.tar"
    client.image.save("whale:2", output=archive)
    client.image.remove("whale:2")
    assert not client.image.exists("whale:2")
    assert client.image.load(archive) == ["whale:2"]
    assert {tag for one in client.image.list() for tag in one.repo_tags} == {"busybox:latest", "whale:2"}
    empty = tmp_path / "empty.tar"
    buffer = io.BytesIO()
    tarfile.open(fileobj=buffer, mode="w").close()
    empty.write_bytes(buffer.getvalue())
    assert client.image.import_(empty, tag="whale:3").repo_tags == ["whale:3"]
    client.image.remove(["whale:2", "whale:3"])
    assert client.system.disk_free().images.total_count == 1
