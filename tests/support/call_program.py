"""A static x86-64 program that makes system calls by each of the kernel's doors and reports what they return."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

_BASE = 0x400000  # below 4 GiB, for pointers of 32-bit calls
_HEADERS = 64 + 56
_MOVES = {
    # mov REGISTER, imm64, in the order of a call's arguments (syscall(2))
    "syscall": ("48bf", "48be", "48ba", "49ba", "49b8", "49b9"),  # rdi rsi rdx r10 r8 r9
    "int80": ("48bb", "48b9", "48ba", "48be", "48bf", "48bd"),  # rbx rcx rdx rsi rdi rbp
}
_ENTER = {"syscall": "0f05", "int80": "cd80"}
X32 = 0x40000000
"""Added to a number, it makes an x32 call of the 64-bit door."""


@dataclass(frozen=True)
class Call:
    """One system call.

    Attributes:
        door: "syscall" (64-bit numbers, or x32's) or "int80" (32-bit numbers, from the same 64-bit program).
        number, arguments: as the door has them; bytes stand for a pointer to them.
    """

    door: str
    number: int
    arguments: tuple[int | bytes, ...] = ()


def build_program(calls: Sequence[Call]) -> bytes:
    """Return an ELF file that makes the calls in turn and writes their results, 8 bytes each, to standard output."""
    # Two passes: the addresses of the data follow the code, whose length does not depend on them.
    length = len(_build_code(calls, _BASE))
    data_at = _BASE + _HEADERS + length
    code = _build_code(calls, data_at)
    data = bytes(8 * len(calls)) + b"".join(_pointed(calls))
    size = _HEADERS + len(code) + len(data)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code + data


def read_results(written: bytes) -> list[int]:
    """Return what the calls returned: a negative errno, or what they gave."""
    # The 32-bit door leaves 32 bits of meaning.
    return [value if value >= 0 else max(value, -4096) for (value,) in struct.iter_unpack("<i4x", written)]


def _pointed(calls: Sequence[Call]) -> list[bytes]:
    return [argument for call in calls for argument in call.arguments if isinstance(argument, bytes)]


def _build_code(calls: Sequence[Call], data_at: int) -> bytes:
    code = bytearray()
    pointer = data_at + 8 * len(calls)
    for index, call in enumerate(calls):
        padded = (*call.arguments, *(0,) * (6 - len(call.arguments)))
        for move, argument in zip(_MOVES[call.door], padded, strict=True):
            value = argument if isinstance(argument, int) else pointer
            if isinstance(argument, bytes):
                pointer += len(argument)
            code += bytes.fromhex(move) + struct.pack("<Q", value & (2**64 - 1))
        code += b"\x48\xb8" + struct.pack("<Q", call.number) + bytes.fromhex(_ENTER[call.door])
        code += b"\x48\xa3" + struct.pack("<Q", data_at + 8 * index)  # mov [address], rax
    for move, value in zip(_MOVES["syscall"], (1, data_at, 8 * len(calls)), strict=False):
        code += bytes.fromhex(move) + struct.pack("<Q", value)
    code += b"\x48\xb8" + struct.pack("<Q", 1) + b"\x0f\x05"  # write
    code += b"\x48\xbf" + bytes(8) + b"\x48\xb8" + struct.pack("<Q", 231) + b"\x0f\x05"  # exit_group
    return bytes(code)
