"""The commands on registries and archives, on an engine double: words, questions, progress, and what failures leave."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import run_command
from pydock_core.commands.parser import Parsed, parse
from pydock_core.engine.registries import Pulled, Pushed
from pydock_core.errors import DeniedError, FailedError
from tests.support.commands import Output

ID = "sha256:" + "a" * 64
DIGEST = "sha256:" + "d" * 64
Show = Callable[[Mapping[str, Any]], None]


class FakeRegistries:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.failure: Exception | None = None

    def pull(
        self,
        reference: str,
        *,
        all_tags: bool = False,
        platform: str | None = None,
        progress: Show | None = None,
    ) -> list[Pulled]:
        self.calls.append(("pull", reference, all_tags, platform))
        for event in (
            {"status": "Pulling from library/box", "id": "latest"},
            {"status": "Pulling fs layer", "id": "0123456789ab"},
            {"status": "Downloading", "id": "0123456789ab", "current": 5, "total": 10},
            {"status": "Downloading", "id": "0123456789ab", "current": 10, "total": 10},
            {"status": "Pull complete", "id": "0123456789ab"},
            {"status": f"Digest: {DIGEST}"},
            {"status": "Status: Downloaded newer image for box:latest"},
        ):
            if self.failure and event["status"] == "Pull complete":
                raise self.failure
            if progress:
                progress(event)
        return [Pulled("box:latest", ID, DIGEST, True)]

    def push(
        self,
        reference: str,
        *,
        all_tags: bool = False,
        platform: str | None = None,
        progress: Show | None = None,
    ) -> list[Pushed]:
        self.calls.append(("push", reference, all_tags, platform))
        if progress:
            progress({"status": f"latest: digest: {DIGEST} size: 528"})
        return [Pushed("registry.test/box:latest", DIGEST, 528)]

    def login(self, server: str, username: str, password: str) -> str:
        self.calls.append(("login", server, username, password))
        return "Login Succeeded"

    def relogin(self, server: str) -> str | None:
        self.calls.append(("relogin", server))
        if self.failure:
            raise self.failure
        return "Login Succeeded"

    def plain_file(self, server: str) -> Path | None:
        return Path("/home/ann/config.json") if server == "registry.test" else None

    def logout(self, server: str) -> bool:
        return server == "registry.test"

    def credentials(self, server: str) -> str | None:
        return "ann" if server == "registry.test" else None

    def search(
        self, term: str, *, limit: int = 25, filters: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        self.calls.append(("search", term, limit, dict(filters or {})))
        words = {"name": "box", "description": "A\nvery " + "long " * 20, "star_count": 3}
        return [{**words, "is_official": True, "is_automated": False}]

    def tags(self, reference: str) -> list[str]:
        return ["1", "2", "3"]


class FakeImages:
    def __init__(self) -> None:
        self.failure: Exception | None = None

    def save(
        self,
        references: Sequence[str],
        stream: BinaryIO,
        progress: Show | None = None,
        platform: str | None = None,
    ) -> None:
        stream.write(b"half")
        if self.failure:
            raise self.failure
        stream.write(f" and half of {references}".encode())


class Front:
    """A front end without a terminal, its output and its engine double."""

    def __init__(self) -> None:
        self.out, self.err = Output(), Output()
        self.registries, self.images = FakeRegistries(), FakeImages()
        engine: Any = SimpleNamespace(registries=self.registries, images=self.images, copies=None)
        self.context = Context(engine=engine, stdout=self.out, stderr=self.err)

    def run(self, *words: str, code: int = 0, stdin: bytes | None = None) -> list[str]:
        self.out.clear()
        self.err.clear()
        self.context.stdin = None if stdin is None else io.BytesIO(stdin)
        assert run_command(words, self.context) == code, self.err.text
        return self.out.text.splitlines()


@pytest.fixture
def front() -> Front:
    return Front()


# -- pull and push -----------------------------------------------------------------------------------------


def test_pull_writes_dockers_lines_each_once(front: Front) -> None:
    assert front.run("pull", "box") == [
        "Using default tag: latest",
        "latest: Pulling from library/box",
        "0123456789ab: Pulling fs layer",
        "0123456789ab: Downloading",
        "0123456789ab: Pull complete",
        f"Digest: {DIGEST}",
        "Status: Downloaded newer image for box:latest",
        "docker.io/library/box:latest",
    ]
    assert front.run("image", "pull", "-q", "box:latest") == ["docker.io/library/box:latest"]
    front.run("pull", "-a", "--platform", "linux/arm64", "box")
    assert front.registries.calls[-1] == ("pull", "box", True, "linux/arm64")


def test_json_is_a_message_per_line_and_ends_with_the_error(front: Front) -> None:
    messages = [json.loads(line) for line in front.run("pull", "--progress", "json", "box")]
    assert messages[2] == {
        "status": "Downloading",
        "id": "0123456789ab",
        "progressDetail": {"current": 5, "total": 10},
    }
    front.registries.failure = DeniedError("registry.test: box is denied", "log in")
    last = json.loads(front.run("pull", "--progress", "json", "box", code=1)[-1])
    assert last == {
        "error": "registry.test: box is denied",
        "errorDetail": {"message": "registry.test: box is denied"},
    }
    assert front.err.text.startswith("error: registry.test: box is denied")


def test_push_quiet_prints_the_name_only(front: Front) -> None:
    assert front.run("push", "registry.test/box:latest") == [f"latest: digest: {DIGEST} size: 528"]
    assert front.run("push", "-q", "registry.test/box:latest") == ["registry.test/box:latest"]


def test_content_trust_is_refused_with_the_reason(front: Front) -> None:
    front.run("pull", "--disable-content-trust", "box")
    front.run("pull", "--disable-content-trust=true", "box")
    front.run("pull", "--disable-content-trust=false", "box", code=125)
    assert "Notary" in front.err.text


def test_an_unknown_kind_of_progress_is_refused(front: Front) -> None:
    front.run("pull", "--progress", "fancy", "box", code=125)
    assert "auto, plain, json, quiet" in front.err.text
    assert front.out.text == ""
    front.run("pull", "--platform", "a/b/c/d", "box", code=1)
    assert front.out.text == ""


def test_a_front_ends_own_display_gets_layers_and_not_lines(front: Front) -> None:
    class Display:
        events: list[Mapping[str, Any]]
        ends: list[bool]

        def __init__(self, done: str) -> None:
            self.events, self.ends = [], []
            assert done == "pulled"
            displays.append(self)

        def show(self, event: Mapping[str, Any]) -> None:
            self.events.append(event)

        def close(self, *, succeeded: bool) -> None:
            self.ends.append(succeeded)

    displays: list[Display] = []
    front.context.progress = Display
    lines = front.run("pull", "box:latest")
    first, second = displays  # the second for what would come below the lines
    assert {event["id"] for event in first.events} == {"0123456789ab"}
    assert (second.events, first.ends, second.ends) == ([], [True], [True])
    assert lines[0] == "latest: Pulling from library/box"
    assert lines[-1] == "docker.io/library/box:latest"
    front.registries.failure = FailedError("no")
    front.run("pull", "box", code=1)
    assert displays[2].ends == [False]
    front.registries.failure = None
    front.context.progress = lambda done: None  # it has none now: text
    assert "0123456789ab: Pull complete" in front.run("pull", "box:latest")


# -- login, logout, search ---------------------------------------------------------------------------------


def test_login_takes_the_password_from_standard_input(front: Front) -> None:
    words = ("login", "-u", "ann", "--password-stdin", "registry.test")
    assert front.run(*words, stdin=b"secret \r\n") == ["Login Succeeded"]
    assert front.registries.calls == [("login", "registry.test", "ann", "secret ")]


def test_a_password_on_the_command_line_is_warned_of(front: Front) -> None:
    assert front.run("login", "-u", "ann", "-p", "secret") == ["Login Succeeded"]
    assert front.err.text == "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
    assert front.registries.calls == [("login", "", "ann", "secret")]


@pytest.mark.parametrize(
    ("words", "stdin", "message"),
    [
        (("-u", "ann"), None, "--password-stdin"),
        ((), None, "give it with -u"),
        (("--password-stdin",), b"x", "give it with -u"),
        (("-u", "ann", "--password-stdin"), b"", "password is empty"),
        (("-u", "ann", "-p", "x", "--password-stdin"), b"x", "contradict"),
        (("-u", "ann", "--password-stdin"), None, "no password on standard input"),
    ],
)
def test_login_without_a_person_asks_nothing(
    front: Front, words: tuple[str, ...], stdin: bytes | None, message: str
) -> None:
    front.run("login", *words, code=1, stdin=stdin)
    assert message in front.err.text
    assert front.registries.calls == []


def test_login_with_what_is_stored_asks_nothing(front: Front) -> None:
    assert front.run("login", "registry.test") == [
        "Authenticating with existing credentials... [Username: ann]",
        "To log in with a different account: dock logout registry.test, and then dock login",
        "Login Succeeded",
    ]
    assert front.registries.calls == [("relogin", "registry.test")]
    assert "stored unencrypted in '/home/ann/config.json'" in front.err.text


def test_login_asks_in_a_notebook(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    front.registries.failure = DeniedError("registry.test: no", "log in")  # what is stored is out of date
    front.context.notebook = True
    asked = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "")
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or "secret")
    front.run("login", "registry.test")
    assert "Stored credentials invalid or expired" in front.err.text
    assert asked == ["Username (ann): ", "Password: "]
    assert front.registries.calls[1:] == [("login", "registry.test", "ann", "secret")]


@pytest.mark.parametrize("asks", ["builtins.input", "getpass.getpass"])
def test_an_interrupted_question_leaves_its_line(
    front: Front, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    def interrupt(prompt: str) -> str:
        raise KeyboardInterrupt

    front.context.notebook = True
    monkeypatch.setattr("builtins.input", lambda prompt: "ann")
    monkeypatch.setattr(asks, interrupt)
    with pytest.raises(KeyboardInterrupt):
        front.run("login", "localhost:5000")
    assert front.out.text == "\n"


def test_logout_says_whether_there_was_something(front: Front) -> None:
    assert front.run("logout", "registry.test") == ["Removing login credentials for registry.test"]
    assert front.run("logout") == ["Not logged in to https://index.docker.io/v1/"]


def test_search(front: Front) -> None:
    lines = front.run("search", "--limit", "7", "-f", "stars=3", "-f", "is-official=true", "box")
    assert front.registries.calls == [("search", "box", 7, {"stars": ["3"], "is-official": ["true"]})]
    assert lines == [
        "NAME      DESCRIPTION                                     STARS     OFFICIAL",
        "box       A very long long long long long long long lo…   3         [OK]",
    ]
    assert len(front.run("search", "--no-trunc", "--format", "{{.Description}}", "box")[0]) > 100
    assert front.run("search", "--list-tags", "--limit", "2", "registry.test/box") == [
        "NAME                TAG",
        "registry.test/box   1",
        "registry.test/box   2",
    ]
    front.run("search", "--limit", "101", "box", code=125)


@pytest.mark.parametrize("more", [(), ("--list-tags",)])
def test_an_address_is_no_term(front: Front, more: tuple[str, ...]) -> None:
    front.run("search", *more, "http://registry.test/box", code=1)
    assert front.err.text == (
        "error: http://registry.test/box: an address is not a name\nhint: leave http:// out: registry.test/box\n"
    )


@pytest.mark.parametrize("term", ["registry.test/box:1", f"box@{DIGEST}", "localhost:5000"])
def test_tags_are_those_of_a_repository(front: Front, term: str) -> None:
    """ "localhost:5000" too: it is the tag 5000 of a repository, and was asked for at Docker Hub."""
    front.run("search", "--list-tags", term, code=1)
    assert f"--list-tags {term}: that is one image" in front.err.text
    assert "hint: name a repository, without a tag" in front.err.text


# -- archives ----------------------------------------------------------------------------------------------


def test_save_to_a_file_appears_whole(front: Front, tmp_path: Path) -> None:
    target = tmp_path / "box.tar"
    front.run("save", "-o", str(target), "a", "b")
    assert target.read_bytes() == b"half and half of ['a', 'b']"
    assert front.run("save", "a") == ["half and half of ['a']"]


@pytest.mark.parametrize(
    "failure", [FailedError("no"), OSError(28, "No space left on device"), KeyboardInterrupt()]
)
def test_a_failing_save_leaves_what_was_there(front: Front, tmp_path: Path, failure: Exception) -> None:
    target = tmp_path / "box.tar"
    target.write_text("old")
    front.images.failure = failure
    if isinstance(failure, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            front.run("save", "-o", str(target), "a")
    else:
        front.run("save", "-o", str(target), "a", code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["box.tar"]
    assert target.read_text() == "old"


def test_save_through_a_link_and_into_nowhere(front: Front, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.tar"
    link.symlink_to(tmp_path / "real" / "box.tar")
    front.run("save", "-o", str(link), "a")
    assert link.is_symlink()
    assert (tmp_path / "real" / "box.tar").exists()
    front.run("save", "-o", str(tmp_path / "nowhere" / "box.tar"), "a", code=1)
    assert "nowhere/box.tar: No such file or directory" in front.err.text
    front.run("save", "-o", "x" * 300, "a", code=1)  # the first look at it fails
    assert "File name too long" in front.err.text
    front.run("save", "-o", str(tmp_path), "a", code=1)
    assert "is a directory" in front.err.text


def test_a_directory_is_no_archive(front: Front, tmp_path: Path) -> None:
    front.run("load", "-i", str(tmp_path), code=1)
    assert "is a directory" in front.err.text
    (tmp_path / "oci-layout").touch()
    front.run("load", "-i", str(tmp_path), code=1)
    assert f"tar -C {tmp_path} -cf - . | dock load" in front.err.text


def test_an_archive_goes_to_no_cell_and_json_not_into_an_archive(front: Front) -> None:
    front.run("save", "--progress", "json", "a", code=1)
    assert "mixed with the archive" in front.err.text
    front.context.notebook = True
    front.run("save", "a", code=1)
    assert "cannot write an archive to a cell\nhint: write to a file with -o" in front.err.text
    front.run("cp", "box:/x", "-", code=1)
    assert "cannot write an archive to a cell\nhint: name a file or directory in place of -" in front.err.text


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("load",), "give a file with -i, or pipe one in"),
        (("import", "-"), "name a file: dock import FILE, or pipe one in"),
    ],
)
def test_without_an_archive_the_command_s_own_form_is_named(
    front: Front, words: tuple[str, ...], hint: str
) -> None:
    front.run(*words, code=1)
    assert front.err.text == f"error: there is no archive on standard input\nhint: {hint}\n"


def test_an_address_is_not_imported_from(front: Front) -> None:
    front.run("import", "https://host/root.tar", code=1)
    assert "download it first" in front.err.text


# -- flags that are set by default -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("commit box", "pause", True),
        ("commit -p=false box", "pause", False),
        ("commit --pause=0 box", "pause", False),
        ("commit --pause box", "pause", True),
        ("history box", "human", True),
        ("history -H=false box", "human", False),
        ("rmi --force=false box", "force", False),
        ("rmi --force=T box", "force", True),
        ("rmi -f box", "force", True),
    ],
)
def test_flags_take_gos_booleans(line: str, name: str, value: bool) -> None:
    parsed = parse(line.split())
    assert isinstance(parsed, Parsed)
    assert getattr(parsed.words, name) is value


def test_a_word_for_the_container_is_no_flag() -> None:
    parsed = parse("run box prog --rm=false".split())
    assert isinstance(parsed, Parsed)
    assert parsed.words.COMMAND == ["prog", "--rm=false"]
    assert parsed.words.rm is False
