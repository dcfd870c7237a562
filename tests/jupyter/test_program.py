"""The program ``dock`` in what a Jupyter server and a kernel start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pydock_jupyter.program import FUNCTION, export_to_login_shells, find_program, put_on_path

BASH = shutil.which("bash")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that says where it is, in a directory with a name that has to be quoted."""
    directory = tmp_path / "an environment" / "bin"
    directory.mkdir(parents=True)
    made = directory / "dock"
    made.write_text('#!/bin/sh\necho "$0" "$@"\n')
    made.chmod(0o755)
    return made


def test_it_is_that_of_this_environment() -> None:
    assert find_program() == Path(sys.executable).parent / "dock"


def test_its_directory_is_the_last_of_the_path(program: Path, tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin:/bin"}
    put_on_path(environ, program)
    assert environ == {"PATH": f"/usr/bin:/bin:{program.parent}"}
    put_on_path(environ, tmp_path / "another" / "dock")
    put_on_path(environ, None)
    assert environ == {"PATH": f"/usr/bin:/bin:{program.parent}"}
    without: dict[str, str] = {}
    put_on_path(without, program)
    assert without["PATH"] == f"{os.defpath}:{program.parent}"


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_a_login_shell_that_sets_its_path_anew_finds_it(program: Path, tmp_path: Path) -> None:
    """~/.bash_profile stands for Debian's /etc/profile."""
    assert BASH is not None
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    put_on_path(environ, program)
    export_to_login_shells(environ, program)
    (tmp_path / ".bash_profile").write_text("PATH=/usr/bin:/bin\n")

    def say(*words: str) -> str:
        done = subprocess.run([BASH, *words], env=environ, capture_output=True, text=True, check=True)
        return done.stdout

    assert say("-l", "-c", 'dock run "two words"') == f"{program} run two words\n"
    own = tmp_path / "own" / "dock"
    own.parent.mkdir()
    shutil.copy(program, own)
    assert say("-l", "-c", f"PATH=$PATH:{own.parent}; dock ps") == f"{own} ps\n"
    export_to_login_shells(environ, own)
    assert str(program) in environ[FUNCTION]  # what a person has exported stays


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_an_interactive_login_sh_that_sets_its_path_anew_finds_it(
    shell: str, program: Path, tmp_path: Path
) -> None:
    """A service manager or JupyterHub sets no SHELL: a terminal is then ``sh -l``, which is dash on Debian."""
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"needs {shell}")
    (tmp_path / "sh").symlink_to(path)
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "TERM": "dumb"}
    export_to_login_shells(environ, program)
    (tmp_path / ".profile").write_text("PATH=/usr/bin:/bin\n")

    def say(text: str) -> str:
        command = [tmp_path / "sh", "-l", "-i"]
        done = subprocess.run(
            command, env=environ, input=text, capture_output=True, text=True, start_new_session=True
        )
        return done.stdout

    assert say("dock run 'two words'\n") == f"{program} run two words\n"
    own = tmp_path / "own" / "dock"
    own.parent.mkdir()
    shutil.copy(program, own)
    (tmp_path / ".profile").write_text(f"PATH=/usr/bin:/bin:{own.parent}\n")
    assert say("dock ps\n") == f"{own} ps\n"


def test_an_env_file_that_a_person_has_set_stays(program: Path) -> None:
    environ = {"ENV": "/home/me/.shrc"}
    export_to_login_shells(environ, program)
    assert environ["ENV"] == "/home/me/.shrc"
    assert "PYDOCK_PROGRAM" not in environ
