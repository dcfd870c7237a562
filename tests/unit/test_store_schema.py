"""A state database of an earlier version becomes one of the present version, and says the same."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import pytest

from pydock_core.errors import CorruptError
from pydock_core.store.database import Database, schema
from tests.support.image_store import build_config, build_docker_archive, build_tar, digest, entry, open_store

LAYER = build_tar([entry("a", data=b"a")])


def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with sqlite3.connect(path) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {table: connection.execute(f"PRAGMA table_info({table})").fetchall() for table in tables}
    connection.close()
    # (position, name, type, not null, default, key): the default only fills what an upgrade adds.
    return {table: [(*row[:4], row[5]) for row in rows] for table, rows in found.items()}


def downgrade(path: Path) -> None:
    """Take away what versions 3 and 4 brought."""
    connection = sqlite3.connect(path)
    for table in ("repository_digest", "layer_form", "blob_place", "lease"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("ALTER TABLE image DROP COLUMN labels")
    connection.execute("ALTER TABLE image DROP COLUMN tagged_ns")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()


def test_an_upgraded_database_has_the_present_schema(tmp_path: Path) -> None:
    Database(tmp_path / "new").query("SELECT * FROM image")
    Database(tmp_path / "old").query("SELECT * FROM image")
    downgrade(tmp_path / "old")
    Database(tmp_path / "old").query("SELECT labels FROM image")
    assert columns(tmp_path / "old") == columns(tmp_path / "new")


def test_images_of_an_earlier_version_keep_their_labels(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    config = build_config(digest(LAYER), Labels={"a": "1"})
    store.images.load(io.BytesIO(build_docker_archive(LAYER, tags=["old:1"], config=config)))
    store.close()
    downgrade(store.root.database)
    again = open_store(tmp_path)
    (summary,) = again.images.list(filters={"label": ["a=1"]})
    assert summary["RepoTags"] == ["old:1"]
    assert again.images.inspect("old:1")["Metadata"] == {"LastTagTime": None}  # it is not known
    again.images.tag("old:1", "new:1")
    assert again.images.inspect("old:1")["Metadata"]["LastTagTime"].startswith("20")
    again.close()


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    Database(tmp_path / "db").query("SELECT 1")
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.commit()
    connection.close()
    with pytest.raises(CorruptError, match=f"version {schema.VERSION + 1}"):
        Database(tmp_path / "db").query("SELECT 1")
