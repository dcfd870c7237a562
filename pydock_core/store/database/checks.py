"""The SQL of ``dock system check``: inconsistent rows, and ids that were ever in this database."""

from __future__ import annotations

from collections.abc import Iterable

from pydock_core.store.database.connection import Database


def damage(database: Database) -> str:
    """Return the first line of SQLite's complaint about the file; "" if there is none."""
    found = database.query_one("PRAGMA quick_check(1)")[0]
    if found != "ok":
        return str(found)
    broken = database.query_one("PRAGMA foreign_key_check")
    return f"a row of {broken[0]} refers to a missing row of {broken[2]}" if broken else ""


def unrecorded_volumes(database: Database) -> list[tuple[str, str]]:
    """Return (container id, volume) for each unrecorded volume of a container."""
    rows = database.query(
        "SELECT container_id, volume FROM container_volume "
        "WHERE volume NOT IN (SELECT name FROM volume) ORDER BY volume"
    )
    return [(row[0], row[1]) for row in rows]


def ownerless_endpoints(database: Database) -> list[tuple[str, str, str]]:
    """Return (network id, container id, address) of each address whose container is gone."""
    rows = database.query(
        "SELECT network_id, container_id, address FROM endpoint "
        "WHERE container_id NOT IN (SELECT id FROM container) ORDER BY address"
    )
    return [(row[0], row[1], row[2]) for row in rows]


def with_history(database: Database, kind: str, prefixes: Iterable[str]) -> dict[str, str]:
    """Return full ids from recorded events, by prefix: objects that were once in this database.

    Args:
        kind: type of the events, "container" or "network".
        prefixes: prefixes of ids.
    """
    matches = dict.fromkeys(prefixes, "")
    if matches:
        actors = [
            row[0] for row in database.query("SELECT DISTINCT actor FROM event WHERE type = ?", (kind,))
        ]
        for prefix in matches:
            matches[prefix] = next((actor for actor in actors if actor.startswith(prefix)), "")
    return {prefix: actor for prefix, actor in matches.items() if actor}
