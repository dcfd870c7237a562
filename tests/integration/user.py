"""An ordinary user for the tests: made, used and removed by them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SEEN_AT = Path("/mnt")
"""Where the user sees the repository, in a mount namespace: its own place may be below a directory of root's."""


@dataclass(frozen=True)
class OrdinaryUser:
    """A user with an empty home directory and subordinate ids."""

    name: str
    home: Path

    def run(
        self,
        words: Sequence[object],
        *,
        cwd: Path,
        seconds: float,
        resolv_conf: Path | None = None,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the user, with nothing of root's environment, and the repository at SEEN_AT.

        ``resolv_conf`` takes the place of the host's.
        """
        variables = {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            **{
                name: value
                for name, value in os.environ.items()
                if name.startswith(("PIP_", "SSL_", "REQUESTS_", "PYDOCK_PULL"))
            },
            "RESOLV_CONF": str(resolv_conf or ""),
            **environment,
        }
        script = (
            'mount --bind "$0" "$1" && '
            '{ [ -z "$RESOLV_CONF" ] || mount --bind "$RESOLV_CONF" /etc/resolv.conf; } && '
            'cd "$2" && shift 2 && exec setpriv --reuid "$1" --regid "$1" --init-groups "${@:2}"'
        )
        return subprocess.run(
            [
                "unshare",
                "--mount",
                "bash",
                "-c",
                script,
                REPOSITORY,
                SEEN_AT,
                cwd,
                self.name,
                *(str(word) for word in words),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            env=variables,
            check=False,
        )

    @property
    def python(self) -> Path:
        """The tests' interpreter, as the user sees it."""
        return SEEN_AT / Path(sys.executable).relative_to(REPOSITORY)


@contextmanager
def ordinary_user(name: str) -> Iterator[OrdinaryUser]:
    """Make a user, and remove it with its home and what of it still runs.

    Args:
        name: how the user's name begins; a number that stands for this checkout follows, so that the tests of
            two checkouts can run at once on one machine.
    """
    name = f"{name}-{zlib.crc32(bytes(REPOSITORY)) & 0xFFFF:x}"
    home = Path("/home") / name
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run(["userdel", "-f", name], capture_output=True, check=False)
    subprocess.run(
        ["useradd", "--create-home", "--home-dir", home, "--shell", "/bin/bash", name],
        check=True,
        capture_output=True,
    )
    try:
        for entry in home.iterdir():
            entry.unlink()
        yield OrdinaryUser(name, home)
    finally:
        _end_processes(pwd.getpwnam(name).pw_uid)
        subprocess.run(["userdel", "-f", name], check=True, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def _end_processes(uid: int) -> None:
    """End what the user left running (its zygote): processes of a user id that this module made."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == uid:
                    os.kill(int(entry.name), 9)
            except (FileNotFoundError, ProcessLookupError):
                continue
