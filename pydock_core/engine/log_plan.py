"""The parts of a launch plan that depend on a log's driver and options.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydock_core.spec.definition import SHORT_ID_DIGITS, Definition
from pydock_core.spec.log_option import JOURNALD, build_attributes, parse_buffer_bytes
from pydock_core.store.database.containers import ContainerRow


def build_log_fields(definition: Definition, row: ContainerRow) -> dict[str, Any]:
    """Return the plan's fields for the attributes of each entry, and for the journal."""
    log = definition.host["LogConfig"]
    attributes = build_attributes(definition.request, row.id, row.name, row.image_id)
    if log["Type"] != JOURNALD:
        return {"log_attributes": attributes or None}
    tag = attributes.pop("tag")
    return {
        "journal_fields": {
            "CONTAINER_ID": row.id[:SHORT_ID_DIGITS],
            "CONTAINER_ID_FULL": row.id,
            "CONTAINER_NAME": row.name,
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": definition.request["Image"],
            "SYSLOG_IDENTIFIER": tag,
            **_journal_names(attributes),
        },
        "journal_bytes": parse_buffer_bytes(log["Config"]),
    }


def _journal_names(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes under names that the journal accepts, converted as in Docker (sanitizeKeyMod)."""
    named = {re.sub("[^A-Z0-9]", "_", name.upper()).lstrip("_"): text for name, text in attributes.items()}
    return {name: text for name, text in named.items() if name and not name[0].isdigit()}
