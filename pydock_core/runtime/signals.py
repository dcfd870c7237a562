"""Signal names and numbers."""

from __future__ import annotations

import signal

from pydock_core.errors import InvalidError

_LAST = 64


def signal_number(text: str, option: str = "signal") -> int:
    """Return the number of a signal given as "TERM", "SIGTERM", "15" or "RTMIN+3".

    Raises:
        InvalidError: there is no such signal; exit code 125.
    """
    upper = text.upper().removeprefix("SIG")
    if upper.isdigit() and 1 <= int(upper) <= _LAST:
        return int(upper)
    base, plus, offset = upper.partition("+")
    if base == "RTMIN" and plus and offset.isdigit() and signal.SIGRTMIN + int(offset) <= signal.SIGRTMAX:
        return signal.SIGRTMIN + int(offset)
    named = signal.Signals.__members__.get(f"SIG{upper}")
    if named is None:
        raise InvalidError(
            f"{option} {text}: no such signal", "name one (TERM, KILL, HUP) or give a number", exit_code=125
        )
    return named.value


def signal_name(number: int) -> str:
    """Return the name without SIG: "TERM"; a real-time signal as "RTMIN+3"."""
    if number > signal.SIGRTMIN:
        return f"RTMIN+{number - signal.SIGRTMIN}"
    return signal.Signals(number).name.removeprefix("SIG")
