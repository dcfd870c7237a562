"""The schema of the state database, and the upgrades from earlier versions.  Pure data."""

from __future__ import annotations

from collections.abc import Mapping

VERSION = 6
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

_EVENTS = """
CREATE TABLE event (            -- what verbs did and what happened to containers; the newest are kept (events.py)
    id INTEGER PRIMARY KEY,     -- the order of recording
    time_ns INTEGER NOT NULL,
    type TEXT NOT NULL,         -- "container", "image", "network", "volume", "daemon"
    action TEXT NOT NULL,       -- Docker's word, with its argument: "die", "exec_start: sh"
    actor TEXT NOT NULL,        -- an id or a name
    attributes TEXT NOT NULL    -- JSON object of texts
) STRICT;
CREATE INDEX event_time ON event(time_ns);
"""

_NETWORKS = """
CREATE TABLE network (          -- what was defined; what lives of it is on the host
    id TEXT PRIMARY KEY,        -- 64 hexadecimal digits
    name TEXT NOT NULL UNIQUE,
    driver TEXT NOT NULL,       -- bridge, host, null
    created_ns INTEGER NOT NULL,
    bridge TEXT NOT NULL,       -- the host's device; '' until it is chosen
    subnet TEXT NOT NULL,       -- "172.30.0.0/16"; '' until it is chosen
    subnet6 TEXT NOT NULL,      -- '' without IPv6
    definition TEXT NOT NULL    -- JSON, pydock_core/spec/network.py
) STRICT;
CREATE TABLE endpoint (         -- the addresses of a container on a bridge network, from its first start
    network_id TEXT NOT NULL REFERENCES network(id) ON DELETE CASCADE,
    container_id TEXT NOT NULL,
    address TEXT NOT NULL,      -- with prefix length
    address6 TEXT NOT NULL,     -- '' without IPv6
    PRIMARY KEY (network_id, container_id)
) STRICT;
CREATE UNIQUE INDEX endpoint_address ON endpoint(network_id, address);
CREATE INDEX endpoint_container ON endpoint(container_id);
INSERT INTO network SELECT lower(hex(randomblob(32))), name, driver,
    CAST(strftime('%s', 'now') AS INTEGER) * 1000000000, '', '', '', '{}'
    FROM (SELECT 'bridge' AS name, 'bridge' AS driver UNION SELECT 'host', 'host' UNION SELECT 'none', 'null');
"""

_NETWORKS_OF_5 = (
    "ALTER TABLE network RENAME TO network_5;\n"
    + _NETWORKS
    + """
UPDATE network SET (bridge, subnet) = (SELECT bridge, subnet FROM network_5 WHERE network_5.name = network.name)
    WHERE name IN (SELECT name FROM network_5);
INSERT INTO endpoint SELECT network.id, container_id, address, ''
    FROM address JOIN network ON network.name = address.network;
DROP TABLE address;
DROP TABLE network_5;
"""
)

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
CREATE TABLE volume (
    name TEXT PRIMARY KEY,
    created_ns INTEGER NOT NULL,
    anonymous INTEGER NOT NULL, -- 1: made without a name
    labels TEXT NOT NULL,       -- JSON object
    options TEXT NOT NULL       -- JSON object: of the local driver
) STRICT;
CREATE TABLE container_volume (
    container_id TEXT NOT NULL REFERENCES container(id) ON DELETE CASCADE,
    volume TEXT NOT NULL,
    anonymous INTEGER NOT NULL, -- 1: the container did not name it; rm -v and --rm remove it
    targets TEXT NOT NULL,      -- JSON list of [path in the container, whether it can write there]
    PRIMARY KEY (container_id, volume)
) STRICT;
CREATE TABLE mounted_image (  -- images that a container mounts, beside its own
    container_id TEXT NOT NULL REFERENCES container(id) ON DELETE CASCADE,
    image_id TEXT NOT NULL,
    PRIMARY KEY (container_id, image_id)
) STRICT;
CREATE INDEX mounted_image_image ON mounted_image(image_id);
"""

_VOLUMES_6 = """
ALTER TABLE volume ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE volume ADD COLUMN options TEXT NOT NULL DEFAULT '{}';
ALTER TABLE container_volume ADD COLUMN anonymous INTEGER NOT NULL DEFAULT 0;
ALTER TABLE container_volume ADD COLUMN targets TEXT NOT NULL DEFAULT '[]';
UPDATE container_volume SET anonymous = coalesce((SELECT anonymous FROM volume WHERE name = volume), 0);
CREATE TABLE mounted_image (
    container_id TEXT NOT NULL REFERENCES container(id) ON DELETE CASCADE,
    image_id TEXT NOT NULL,
    PRIMARY KEY (container_id, image_id)
) STRICT;
CREATE INDEX mounted_image_image ON mounted_image(image_id);
"""

CREATE = _ALL + _DISTRIBUTION + _EVENTS + _NETWORKS
"""Makes the current schema."""

UPGRADES: Mapping[int, str] = {
    2: "ALTER TABLE image ADD COLUMN labels TEXT NOT NULL DEFAULT '';" + _DISTRIBUTION,
    3: "ALTER TABLE image ADD COLUMN tagged_ns INTEGER NOT NULL DEFAULT 0;",
    4: "ALTER TABLE container RENAME COLUMN config TO definition;"
    "\nUPDATE container SET definition = convert_definition(definition);",
    5: _EVENTS + _VOLUMES_6 + _NETWORKS_OF_5,
}
"""The scripts from each earlier version to the next; ``convert_definition`` is
:func:`pydock_core.store.database.definition_upgrade.convert`."""
