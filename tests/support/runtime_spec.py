"""Validates OCI configurations against the runtime specification's own schema."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import referencing
from referencing.jsonschema import DRAFT4

SCHEMAS = Path(__file__).with_name("runtime-spec-schema")
"""Unchanged from opencontainers/runtime-spec (Apache License 2.0)."""


def check_spec(spec: dict[str, Any]) -> None:
    """Raise unless the schema accepts a config.json."""
    _validator().validate(json.loads(json.dumps(spec)))


@functools.cache
def _validator() -> jsonschema.Draft4Validator:
    documents = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    resources = [(name, DRAFT4.create_resource(document)) for name, document in documents.items()]
    registry = referencing.Registry().with_resources(resources)
    return jsonschema.Draft4Validator(documents["config-schema.json"], registry=registry)
