"""tests/debian-packages.sh on a machine whose dpkg was interrupted."""

from __future__ import annotations

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "debian-packages.sh"
AUDIT = """The following packages are only half configured, probably due to problems
configuring them the first time.  The configuration should be retried using
dpkg --configure <package> or the configure menu option in dselect:
 broken-one           a package
 broken-two:amd64     another
"""


def test_an_interrupted_installation_is_told_in_one_line(tmp_path: Path) -> None:
    for name, body in {
        "dpkg-query": "exit 1",
        "dpkg": f"cat <<'END'\n{AUDIT}END",
        "id": "echo 0",
        "apt-get": f"touch {tmp_path}/called",
    }.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    done = subprocess.run(
        ["sh", SCRIPT], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True
    )
    error, hint = done.stderr.splitlines()
    assert (done.returncode, hint) == (1, "hint: dpkg --configure -a")
    assert error.startswith("error: dpkg cannot install: ")
    assert error.endswith("as an earlier installation was interrupted: broken-one broken-two:amd64 ")
    assert not (tmp_path / "called").exists()
