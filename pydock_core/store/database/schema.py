"""The schema of the state database, and the upgrades from earlier versions.  Pure data."""

from __future__ import annotations

from collections.abc import Mapping

VERSION = 5
"""Kept in the file as its user_version; 0 is an empty file."""

_DISTRIBUTION = """
CREATE TABLE repository_digest ( -- under what digest a repository has an image: after a pull or a push
    repository TEXT NOT NULL,   -- familiar form
    digest TEXT NOT NULL,       -- of the manifest, or of the index that it was chosen from
    image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
    PRIMARY KEY (repository, digest)
) STRICT;
CREATE INDEX repository_digest_image ON repository_digest(image_id);
CREATE TABLE layer_form (       -- what a plain layer becomes when it is compressed for a push
    diff_id TEXT NOT NULL,
    media_type TEXT NOT NULL,
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (diff_id, media_type)
) STRICT;
CREATE TABLE blob_place (       -- where a blob was seen, for mounting it across repositories
    digest TEXT NOT NULL,
    domain TEXT NOT NULL,
    path TEXT NOT NULL,
    PRIMARY KEY (digest, domain, path)
) STRICT;
CREATE TABLE lease (            -- what an interrupted pull has, kept so that it can go on
    owner TEXT NOT NULL,        -- the full reference that is pulled
    digest TEXT NOT NULL,       -- of a blob, or a diff id
    expires_ns INTEGER NOT NULL,
    PRIMARY KEY (owner, digest)
) STRICT;
"""

_ALL = """
CREATE TABLE image (            -- one row per image config, the id is the config blob's digest
    id TEXT PRIMARY KEY,        -- "sha256:..."
    manifest_digest TEXT NOT NULL,
    manifest_type TEXT NOT NULL, -- its media type
    created_ns INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, -- contents of all layers
    labels TEXT NOT NULL,       -- JSON object: the config's, so that a listing reads no config; '' until it is read
    tagged_ns INTEGER NOT NULL  -- when it was last given a name here; 0: never
) STRICT;
CREATE TABLE image_layer (
    image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,  -- 0 is the bottom
    diff_id TEXT NOT NULL,
    blob_digest TEXT NOT NULL,  -- as stored, maybe compressed
    media_type TEXT NOT NULL,
    PRIMARY KEY (image_id, position)
) STRICT;
CREATE INDEX image_layer_diff ON image_layer(diff_id);
CREATE TABLE tag (
    repository TEXT NOT NULL,   -- familiar form: "busybox", "ghcr.io/a/b"
    tag TEXT NOT NULL,
    image_id TEXT NOT NULL REFERENCES image(id),
    PRIMARY KEY (repository, tag)
) STRICT;
CREATE INDEX tag_image ON tag(image_id);
CREATE TABLE container (
    id TEXT PRIMARY KEY,        -- 64 hexadecimal digits
    name TEXT NOT NULL UNIQUE,
    image_id TEXT NOT NULL,     -- kept while the container is there
    created_ns INTEGER NOT NULL,
    definition TEXT NOT NULL    -- JSON, pydock_core/spec/definition.py
) STRICT;
CREATE INDEX container_image ON container(image_id);
CREATE TABLE network (          -- bridge networks; what lives of them is on the host
    name TEXT PRIMARY KEY,
    bridge TEXT NOT NULL,       -- the host's device
    subnet TEXT NOT NULL        -- "172.30.0.0/16"; the first address is the bridge's
) STRICT;
CREATE TABLE address (          -- addresses on bridge networks, given out at start
    network TEXT NOT NULL,
    address TEXT NOT NULL,
    container_id TEXT NOT NULL,
    PRIMARY KEY (network, address)
) STRICT;
CREATE TABLE volume (
    name TEXT PRIMARY KEY,
    created_ns INTEGER NOT NULL,
    anonymous INTEGER NOT NULL  -- 1: made for one container, and removed with it by rm -v or --rm
) STRICT;
CREATE TABLE container_volume (
    container_id TEXT NOT NULL REFERENCES container(id) ON DELETE CASCADE,
    volume TEXT NOT NULL,
    PRIMARY KEY (container_id, volume)
) STRICT;
"""

CREATE = _ALL + _DISTRIBUTION
"""Creates the current schema."""

UPGRADES: Mapping[int, str] = {
    2: "ALTER TABLE image ADD COLUMN labels TEXT NOT NULL DEFAULT '';" + _DISTRIBUTION,
    3: "ALTER TABLE image ADD COLUMN tagged_ns INTEGER NOT NULL DEFAULT 0;",
    4: "ALTER TABLE container RENAME COLUMN config TO definition;"
    "\nUPDATE container SET definition = convert_definition(definition);",
}
"""The scripts from each earlier version to the next; ``convert_definition`` is
:func:`pydock_core.store.database.definition_upgrade.convert`."""
