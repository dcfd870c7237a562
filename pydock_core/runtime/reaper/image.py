"""The init of ``--init``: a program of some 400 bytes that forwards signals, reaps children and ends as the main one does.

It is machine code, assembled from the two listings beside this file, in an ELF file that this module builds.  A Python process
could do the same, but a container with CAP_SYS_PTRACE could read its memory and its interpreter, and it would hold 3 MiB.
A program of the host (tini) would have to be installed.  The program has two forms:

- The embedded executor forks the main child itself, so that an error of its execve(2) is reported as without ``--init``.
  The image contains the child's pid and replaces the first process, which discards that process's memory.
- An OCI runtime program gets a file, bind-mounted into the container.  The pid in it is 0: the program forks the child, which
  executes the first existing path before ``--`` (:func:`build_words` searches PATH beforehand).

The main child leads a process group, which is the terminal's foreground group, so that ctrl-c does not come twice.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import os
import struct
from collections.abc import Mapping, Sequence

from pydock_core.errors import FailedError, UnsupportedError

PLACE = "/dev/init"
"""The program in the container of an OCI runtime program."""

_X86_64 = (
    "TI1kJAhIg+wgSMcEJP////9BvQEAAAC4nQAAAL8PAAAASI01YwEAAA8Fix1gAQAAhdt1NLgOAAAAvwIAAABIieZIjVQk"
    "CEG6CAAAAA8FuDkAAAAPBYnDhcAPhIEAAAB5B799AAAA6z24PQAAAEjHx/////9IjXQkEESJ6kUx0g8FhcB+JznYdd+L"
    "fCQQifiD4H90CI24gAAAAOsJwe8Igef/AAAAuOcAAAAPBbiAAAAASInnMfYx0kG6CAAAAA8Fg/gRdKOFwH8Kg/j8dJpF"
    "Me3rlYnGid+4PgAAAA8F68y4bQAAADH/MfYPBbgnAAAADwWJRCQQuBAAAAAx/74QVAAASI1UJBAPBbgOAAAAvwIAAABI"
    "jXQkCDHSQboIAAAADwVBv38AAABNieVJg8UISYtFAEiFwHRLZoE4LS117IB4AgB15k2J7kmDxghJgz4AdfZJg8YISYPE"
    "CE057HQkuDsAAABJizwkSY11CEyJ8g8Fg/j+dOCD+Ox020G/fgAAAOvTRIn/6Rr///9pbml0AAAAAAA="
)
_AARCH64 = (
    "8yMAkf+DANEAAICS4AMA+TUAgFLoFIDS4AGA0qENABABAADUoQ0AEDQAQLmUAgA16BCA0kAAgNLhAwCR4iMAkQMBgNIB"
    "AADUiBuA0iACgNIBAIDSAgCA0gMAgNIEAIDSAQAA1PQDACpABQA0HwAAcWwAAFSgD4BSEQAAFIgggNIAAICS4UMAkeID"
    "FSoDAIDSAQAA1B8AAHFtAQBUHwAUa+H+/1ThE0C5IBgAcmAAAFQAAAIRAgAAFCA8CFPIC4DSAQAA1CgRgNLgAwCRAQCA"
    "0gIAgNIDAYDSAQAA1B9EAHHg/P9UHwAAcawAAFQfEAAxYPz/VBUAgFLh//8X4QMAKuADFCooEIDSAQAA1O7//xdIE4DS"
    "AACA0gEAgNIBAADUiBWA0gEAANTgEwC5qAOA0gAAgNIBgorS4kMAkQEAANToEIDSQACA0uEjAJECAIDSAwGA0gEAANT2"
    "D4BS9wMTqrmlhVLgjkD4AAMAtAEAQHk/ABlrgf//VAEIQDlB//81+AMXqgCPQPjg//+1GCMAkXMiAJF/AhfrgAEAVKgb"
    "gNJgAkD54SIAkeIDGKoBAADUHwgAMeD+/1QfUAAxoP7/VNYPgFLz//8X4AMWKrz//xdpbml0AAAAAAAAAAA="
)
_MACHINES: Mapping[str, tuple[int, str]] = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
"""``uname -m`` to e_machine of elf(5) and the code, in base64; its last four bytes are the main child's pid."""
_BASE = 0x400000
_HEADERS_BYTES = 64 + 2 * 56
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_EXEC = 1, 2, 16
_SEALS = 1 | 2 | 4 | 8  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE: fcntl(2)
_ADD_SEALS = 1033  # F_ADD_SEALS


def build_image(machine: str, main_pid: int = 0) -> bytes:
    """Return the program as an ELF file.

    Args:
        machine: as ``uname -m``.
        main_pid: pid of the main child; 0 makes the program fork one.

    Raises:
        UnsupportedError: there is no code for the machine; exit code 125.
    """
    if machine not in _MACHINES:
        raise UnsupportedError(
            f"--init: there is no init for {machine}",
            "use an image with an init of its own, such as tini",
            exit_code=125,
        )
    number, text = _MACHINES[machine]
    code = base64.b64decode(text)[:-4] + main_pid.to_bytes(4, "little")
    size = _HEADERS_BYTES + len(code)
    identification = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = identification + struct.pack(
        "<HHIQQQIHHHHHH", 2, number, 1, _BASE + _HEADERS_BYTES, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # PT_LOAD, read and execute
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)  # PT_GNU_STACK, not executable
    return header + load + stack + code


def open_image() -> int:
    """Return a descriptor to execute; :func:`finish_image` completes the file.

    Raises:
        FailedError: the kernel refuses an executable file in memory.
    """
    flags = _MFD_CLOEXEC | _MFD_ALLOW_SEALING
    try:
        try:
            return os.memfd_create("init", flags | _MFD_EXEC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return os.memfd_create("init", flags)  # before Linux 6.3
    except OSError as error:
        raise FailedError(
            f"--init: the kernel refuses an executable file in memory: {error.strerror}",
            "see /proc/sys/vm/memfd_noexec; or leave --init out",
        ) from error


def finish_image(image_fd: int, main_pid: int) -> None:
    """Write the program, and seal it against changes."""
    os.write(image_fd, build_image(os.uname().machine, main_pid))
    fcntl.fcntl(image_fd, _ADD_SEALS, _SEALS)


def build_words(words: Sequence[str], search_path: str) -> list[str]:
    """Return the command line with the program in front, for an OCI runtime program.

    Args:
        words: the container's command, not empty.
        search_path: the PATH of its environment.
    """
    command = words[0]
    places = (
        [command] if "/" in command else [f"{entry or '.'}/{command}" for entry in search_path.split(":")]
    )
    return [PLACE, *places, "--", *words]
