"""Completion after %dock, from the command table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pydock_jupyter.magics.completion import EngineSource, complete, split_at_cursor


class FakeSource:
    def containers(self, running: bool) -> Sequence[str]:
        return ["web", "worker"] if running else ["web", "worker", "was"]

    def images(self) -> Sequence[str]:
        return ["debian:12", "demo", "demo:latest"]

    def networks(self) -> Sequence[str]:
        return ["bridge", "host", "none", "web"]

    def volumes(self) -> Sequence[str]:
        return ["cache", "data"]

    def paths(self, prefix: str) -> Sequence[str]:
        return [name for name in ("data/", "Tensorflow/", "notes.txt") if name.startswith(prefix)]


def candidates(text: str) -> list[str]:
    return list(complete(text, FakeSource()).candidates)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stop w", ["web", "worker"]),
        ("stop web wo", ["worker"]),
        ("rm w", ["web", "worker", "was"]),
        ("logs -f wa", ["was"]),
        ("logs --tail 5 wa", ["was"]),
        ("exec -it we", ["web"]),
        ("run de", ["debian:12", "demo", "demo:latest"]),
        ("run -it --rm -e A=1 deb", ["debian:12"]),
        ("run debian:12 d", []),
        ("run debian:12 ls -", []),
        ("run --net h", ["host"]),
        ("run --network=h", ["host"]),
        ("run -v da", ["data/"]),
        ("run -itv da", ["data/"]),
        ("run -v data/:/d", []),
        ("volume rm ca", ["cache"]),
        ("volume inspect cache da", ["data"]),
        ("cp w", ["web:", "worker:", "was:"]),
        ("cp web:/x da", ["data/"]),
        ("cp web:/x", []),
        ("load -i no", ["notes.txt"]),
        ("image cap", ["capture"]),
        ("image inspect deb", ["debian:12"]),
        ("container sto", ["stop"]),
        ("ima", ["image", "images"]),
        ("help pull", ["pull"]),
        ("help stop", ["stop"]),
        ("nonsense ", []),
        ("kill -s TE", ["TERM"]),
        ("run -- deb", ["debian:12"]),
        ("--no", ["--no-raise"]),
        ("--no-raise --debug sto", ["stop"]),
    ],
)
def test_candidates(text: str, expected: list[str]) -> None:
    assert candidates(text) == expected


def test_flags_are_the_tables() -> None:
    flags = candidates("run --")
    assert {"--rm", "--name", "--volume", "--help"} <= set(flags)
    assert "--name" not in candidates("run --name x --")
    assert "--env" in candidates("run --env A=1 --")
    assert candidates("ps --al") == ["--all"]


def test_all_commands_are_offered() -> None:
    assert {"run", "ps", "images", "image", "container", "exec", "doctor", "help"} <= set(candidates(""))


def test_words_at_the_cursor() -> None:
    assert split_at_cursor("run -e 'A=1 2' de") == (["run", "-e", "A=1 2"], "de")
    assert split_at_cursor("run ") == (["run"], "")
    assert split_at_cursor("run my\\ dir") == (["run"], "my dir")
    assert split_at_cursor('run "my di') == (["run"], "my di")


def test_paths_of_the_file_system(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "da file").touch()
    (tmp_path / ".hidden").touch()
    source = EngineSource(lambda: None)
    assert source.paths(f"{tmp_path}/") == [f"{tmp_path}/da file", f"{tmp_path}/data/"]
    assert f"{tmp_path}/.hidden" in source.paths(f"{tmp_path}/.")
    assert source.paths(f"{tmp_path}/missing/") == []


def test_a_failing_engine_completes_nothing() -> None:
    def broken() -> object:
        raise RuntimeError("no engine")

    source = EngineSource(broken)
    assert source.containers(running=True) == []
    assert source.images() == []
    assert source.volumes() == []
