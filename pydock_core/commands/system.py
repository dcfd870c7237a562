"""The commands on PyDock itself: doctor, version, info."""

from __future__ import annotations

import json
from argparse import Namespace

from pydock_core.commands.context import Context
from pydock_core.commands.format import write_columns, write_fields


def doctor(context: Context, words: Namespace) -> int:
    """Show what this host offers and lacks; 1 if containers cannot run at all."""
    from pydock_core.host import examine

    checks = examine(context.engine.root)
    if words.format:
        write_fields(context, {"Checks": [check.to_json() for check in checks]}, words.format, str)
    else:
        write_columns(
            context, ["CHECK", "STATE", "FOUND"], [[check.name, check.state, check.found] for check in checks]
        )
        for check in checks:
            if check.state != "ok":
                context.print(f"\n{check.name}: {check.cost}")
                context.print(f"  mend: {check.remedy}")
    return 1 if any(check.state == "missing" and check.required for check in checks) else 0


def version(context: Context, words: Namespace) -> int:
    """Show the version."""
    document = context.engine.system.version()
    lines = [f"{name + ':':<16}{value}" for name, value in document.items() if isinstance(value, str)]
    write_fields(context, document, words.format, lambda: "\n".join(lines))
    return 0


def info(context: Context, words: Namespace) -> int:
    """Show the state of this PyDock."""
    document = context.engine.system.info()
    lines = [
        f"{name + ':':<20}{value if isinstance(value, str) else json.dumps(value)}"
        for name, value in document.items()
    ]
    write_fields(context, document, words.format, lambda: "\n".join(lines))
    return 0
