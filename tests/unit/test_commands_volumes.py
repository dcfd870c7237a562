"""The commands on volumes: words, columns, filters and errors as Docker's.  No container is started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import run_command, show_error
from pydock_core.commands.natural import natural_key
from pydock_core.engine import Engine
from pydock_core.errors import ConflictError, InvalidError, PyDockError, UnsupportedError
from pydock_core.paths import StateRoot
from pydock_core.spec.volume import check_volume
from pydock_core.store.database import volumes as table
from pydock_core.store.volume_removal import restore_volume
from tests.support.commands import Output


class Volumes:
    """``dock volume`` in this process, on a state root of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.errors = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run a command that must have this exit code; return its standard output, stripped."""
        stdout, stderr = Output(), Output()
        context = Context(engine=self.engine, stdout=stdout, stderr=stderr, exact=True)
        try:
            found = run_command(words, context)
        except PyDockError as error:
            show_error(error, context)
            found = error.exit_code or 1
        self.errors = stderr.text
        assert found == code, (words, self.errors)
        return stdout.text.strip()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(StateRoot(tmp_path / "data", tmp_path / "run"))
    yield made
    made.close()


@pytest.fixture
def dock(engine: Engine) -> Volumes:
    return Volumes(engine)


def use(engine: Engine, name: str) -> None:
    """Record that a container has a volume."""
    with engine.state.database.transaction() as connection:
        connection.execute("INSERT INTO container VALUES (?, 'name', 'sha256:1', 0, '{}')", ("c" * 64,))
        connection.execute("INSERT INTO container_volume VALUES (?, ?, 0, '[]')", ("c" * 64, name))


def test_create_list_inspect_remove(dock: Volumes, engine: Engine) -> None:
    assert dock("volume", "create", "v10") == "v10"
    assert dock("volume", "create", "--label", "a=b", "--label", "c", "v2") == "v2"
    assert dock("volume", "create", "v2") == "v2"  # as Docker: it is there already
    made = dock("volume", "create")
    assert len(made) == 64
    header, *lines = dock("volume", "ls").splitlines()
    assert header == "DRIVER    VOLUME NAME"
    assert [line for line in lines if made not in line] == ["local     v2", "local     v10"]
    assert f"local     {made}" in lines
    assert dock("volume", "ls", "-q", "--filter", "name=^v").split() == ["v2", "v10"]
    assert dock("volume", "list", "-q", "--filter", "label=a=b").split() == ["v2"]
    assert dock("volume", "ls", "-q", "--filter", "label=a", "--filter", "label=c=d") == ""
    assert dock("volume", "ls", "-q", "--filter", "driver=other") == ""
    directory = str(engine.root.volumes / "v2" / "_data")
    assert json.loads(dock("volume", "ls", "--format", "json", "--filter", "name=v2")) == {
        "Availability": "N/A",
        "Driver": "local",
        "Group": "N/A",
        "Labels": "a=b,c=",
        "Links": "N/A",
        "Mountpoint": directory,
        "Name": "v2",
        "Scope": "local",
        "Size": "N/A",
        "Status": "N/A",
    }
    (shown,) = json.loads(dock("volume", "inspect", "v2"))
    created_at = shown.pop("CreatedAt")
    assert created_at == datetime.fromisoformat(created_at).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert shown == {
        "Driver": "local",
        "Labels": {"a": "b", "c": ""},
        "Mountpoint": directory,
        "Name": "v2",
        "Options": None,
        "Scope": "local",
    }
    assert Path(directory).is_dir()
    assert dock("inspect", "--type", "volume", "-f", "{{.Name}}", "v2") == "v2"
    assert dock("inspect", "-f", "{{.Driver}}", "v10") == "local"
    assert dock("volume", "inspect", "-f", "{{json .Labels}}", made) == '{"com.docker.volume.anonymous":""}'
    assert dock("volume", "rm", "v2", "v10").split() == ["v2", "v10"]
    assert not Path(directory).exists()
    assert list(engine.root.trash.iterdir()) == list(engine.root.temporary.iterdir()) == []


def test_a_volume_in_use_stays(dock: Volumes, engine: Engine) -> None:
    dock("volume", "create", "kept")
    use(engine, "kept")
    assert dock("volume", "rm", "kept", "nope", code=1) == ""
    assert (
        "it is in use by container name\nhint: remove its containers first: dock rm -f name\n" in dock.errors
    )
    assert "no such volume: nope" in dock.errors
    dock("volume", "rm", "-f", "kept", code=1)
    assert "in use" in dock.errors
    assert dock("volume", "rm", "-f", "nope") == "nope"
    assert dock("volume", "ls", "-q", "--filter", "dangling=true") == ""
    assert dock("volume", "ls", "-q", "--filter", "dangling=0") == "kept"
    assert dock("volume", "prune", "-af") == "Total reclaimed space: 0B"
    with pytest.raises(ConflictError):
        engine.volumes.remove("kept", force=True)


def test_prune_takes_what_has_no_name(dock: Volumes, engine: Engine) -> None:
    dock("volume", "create", "named")
    dock("volume", "create", "--label", "keep", "labelled")
    unnamed = dock("volume", "create")
    (engine.root.volumes / unnamed / "_data" / "file").write_text("12345")
    assert dock("volume", "prune", "-f").splitlines() == [
        "Deleted Volumes:",
        unnamed,
        "",
        "Total reclaimed space: 5B",
    ]
    assert "named" in dock("volume", "prune", "-af", "--filter", "label!=keep")
    assert dock("volume", "ls", "-q") == "labelled"
    assert "Local Volumes   1         0" in dock("system", "df")


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (("create", "-d", "convoy", "x1"), "volume driver convoy is not supported", 125),
        (("create", "a b"), "invalid volume name 'a b'", 1),
        (("create", "../x"), "invalid volume name '../x'", 1),
        (("create", "x" * 300), "invalid volume name", 1),
        (("create", "-o", "colour=red", "x1"), "unknown option colour", 1),
        (("create", "-o", "colour", "x1"), "malformed", 125),
        (("create", "-o", "o=bind", "x1"), "the option device is missing", 1),
        (("create", "-o", "device=tmpfs", "x1"), "the option type is missing", 1),
        (("create", "-o", "type=none", "-o", "o=bind", "-o", "device=a", "x1"), "not an absolute path", 1),
        (("create", "-o", "type=nfs", "-o", "device=:/x", "x1"), "address of the server is missing", 1),
        (("create", "--scope", "multi", "x1"), "cluster volumes", 125),
        (("ls", "--cluster"), "cluster volumes", 125),
        (("ls", "--filter", "colour=red"), "unknown key", 1),
        (("ls", "--filter", "dangling=maybe"), "dangling", 1),
        (("ls", "--filter", "name=("), "regular expression", 1),
        (("update", "--availability", "drain", "x1"), "cluster volumes", 1),
        (("prune", "-af", "--filter", "all=1"), "exclude each other", 1),
        (("inspect", "nope"), "no such volume: nope", 1),
    ],
)
def test_what_is_refused(dock: Volumes, words: tuple[str, ...], message: str, code: int) -> None:
    dock("volume", *words, code=code)
    assert message in dock.errors
    assert len(dock.errors.splitlines()) <= 2
    assert dock("volume", "ls", "-q") == ""


def test_an_ordinary_user_mounts_no_network_file_system() -> None:
    options = {"type": "nfs", "device": ":/x", "o": "addr=10.0.0.1"}
    check_volume("far", "local", options, rootless=False)
    with pytest.raises(UnsupportedError, match="needs root"):
        check_volume("far", "local", options, rootless=True)
    check_volume("near", "local", {"type": "tmpfs", "device": "tmpfs"}, rootless=True)
    check_volume("near", "", {"type": "none", "device": "/srv", "o": "bind,ro"}, rootless=True)
    with pytest.raises(InvalidError):
        check_volume("x1", "local", {"type": "tmpfs"}, rootless=True)


def test_names_sort_as_people_count() -> None:
    names = ["v10", "v2", "a", "v", "10", "9"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "v", "v2", "v10"]


def test_a_killed_removal_loses_nothing(engine: Engine) -> None:
    """The files are in the trash, and the row is there: they belong together again before anything else happens."""
    engine.volumes.create("kept")
    file = engine.root.volumes / "kept" / "_data" / "file"
    file.write_text("content")
    aside = engine.root.trash / "volume:kept:00000000"
    (engine.root.volumes / "kept").rename(aside)
    engine.state.remover.sweep()
    assert file.read_text() == "content"
    assert not aside.exists()
    # Of a volume that is forgotten, nothing comes back.
    (engine.root.volumes / "kept").rename(aside)
    with engine.state.database.transaction() as connection:
        connection.execute("DELETE FROM volume")
    assert not restore_volume(engine.root, engine.state.database, aside)
    engine.state.remover.sweep()
    assert not aside.exists()
    assert table.all_volumes(engine.state.database) == []
