"""The commands on PyDock itself: doctor, version, info."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from pydock_core.commands.context import Context
from pydock_core.commands.dispatch import show_error
from pydock_core.commands.format import write_columns, write_fields, write_listing
from pydock_core.commands.record import Record


def doctor(context: Context, words: Namespace) -> int:
    """Show this host's features; return 1 if containers cannot run at all."""
    checks = context.engine.system.examine()
    if words.format:
        write_fields(context, {"Checks": [check.to_json() for check in checks]}, words.format, str)
    else:
        write_columns(
            context, ["CHECK", "STATE", "FOUND"], [[check.name, check.state, check.found] for check in checks]
        )
        for check in checks:
            if check.state != "ok":
                context.print(f"\n{check.name}: {check.cost}")
                context.print(f"  hint: {check.remedy}")
    return 1 if any(check.state == "missing" and check.required for check in checks) else 0


def check(context: Context, words: Namespace) -> int:
    """Show the inconsistencies of the state root, and repair them on request; return 1 if any is left."""
    findings = context.engine.system.check(repair=words.repair)
    records: list[Record] = [
        {
            "Kind": finding.kind,
            "Name": finding.name,
            "Problem": finding.problem,
            "Repair": finding.remedy,
            "CanRepair": finding.can_repair,
            "State": finding.state,
            "Error": finding.error,
        }
        for finding in findings
    ]
    headers = {"Kind": "KIND", "Name": "NAME", "Problem": "FOUND", "Repair": "REPAIR", "State": "STATE"}
    if records or words.format:
        columns = [(headers[name], name) for name in headers if name != "State" or words.repair]
        write_listing(context, records, columns, words.format, headers)
    else:
        context.print("no inconsistencies found")
    for finding in findings:
        if finding.error:
            context.warn(f"{finding.kind} {finding.name} could not be repaired: {finding.error}")
    left = [finding for finding in findings if finding.state == "found"]
    if not words.repair and any(finding.can_repair for finding in left):
        context.stderr.write("hint: dock system check --repair repairs what can be repaired\n")
    return 1 if left else 0


def version(context: Context, words: Namespace) -> int:
    """Show the version."""
    document = context.engine.system.version()
    lines = [f"{name + ':':<16}{value}" for name, value in document.items() if isinstance(value, str)]
    # Docker's command has a client and a server; here one program is both.
    document |= {"Client": dict(document), "Server": dict(document)}
    write_fields(context, document, words.format, lambda: "\n".join(lines))
    return 0


def info(context: Context, words: Namespace) -> int:
    """Show the state of this PyDock."""
    document = context.engine.system.info()
    write_fields(context, document, words.format, lambda: "\n".join(info_lines(document)))
    for warning in () if words.format else document["Warnings"]:
        context.warn(warning)
    return 0


def install_restart(context: Context, words: Namespace) -> int:
    """Install the unit that starts containers after a boot, or remove it."""
    path = context.engine.system.install_restart(remove=words.remove)
    if words.remove:
        context.print(f"Removed {path}")
        return 0
    context.print(f"Installed {path}")
    if os.geteuid() != 0:
        context.print("It runs at log-in; to have it run at boot: loginctl enable-linger")
    return 0


def start_restart(context: Context, words: Namespace) -> int:
    """Start containers by their restart policies; print their names."""
    code = 0
    for name, error in context.engine.system.start_by_policy():
        if error is None:
            context.print(name)
        else:
            show_error(error, context)
            code = 1
    return code


def info_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a SystemInfo as Docker prints them: pairs, with their details indented."""
    yield f"Containers: {document['Containers']}"
    for state in ("Running", "Paused", "Stopped"):
        yield f" {state}: {document['Containers' + state]}"
    yield f"Images: {document['Images']}"
    yield f"Server Version: {document['ServerVersion']}"
    yield f"Storage Driver: {document['Driver']}"
    for name, value in document["DriverStatus"]:
        yield f" {name}: {value}"
    yield f"Default Runtime: {document['DefaultRuntime']}"
    if document.get("CDISpecDirs"):
        yield "CDI spec directories:"
        yield from (f"  {directory}" for directory in document["CDISpecDirs"])
    yield "Security Options:"
    for option in document["SecurityOptions"]:
        # "name=seccomp,profile=builtin", as the Engine API has them
        pairs = dict(pair.partition("=")[::2] for pair in option.split(","))
        yield f" {pairs.pop('name')}"
        for name, value in pairs.items():
            yield f"  {name.capitalize()}: {value}"
    yield f"Kernel Version: {document['KernelVersion']}"
    yield f"OSType: {document['OSType']}"
    yield f"Architecture: {document['Architecture']}"
    yield f"CPUs: {document['NCPU']}"
    yield f"Total Memory: {document['MemTotal'] / (1 << 30):.4g}GiB"
    yield f"Name: {document['Name']}"
    yield f"ID: {document['ID']}"
    yield f"Docker Root Dir: {document['DockerRootDir']}"
