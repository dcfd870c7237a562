"""Whatever a document says, it is read or refused: only errors of ours come out, one short line each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pydock_core.errors import CorruptError, InvalidError, PyDockError
from pydock_core.oci.documents import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    ImageConfig,
    Index,
    Manifest,
    decode,
    encode,
)
from pydock_core.oci.platform import choose_manifest, host_platform, normal_platform, parse_platform, runnable
from pydock_core.oci.timestamp import parse_timestamp

bounded = settings(max_examples=150, deadline=None, derandomize=True)

DIGESTS = st.one_of(
    st.integers(0, 2**256 - 1).map(lambda number: f"sha256:{number:064x}"),
    st.sampled_from(["sha256:", "sha512:" + "0" * 128, "sha256:" + "A" * 64, "sha256:../../x", "md5:0"]),
)
TYPES = st.sampled_from(
    [
        OCI_INDEX,
        OCI_MANIFEST,
        OCI_CONFIG,
        OCI_LAYER,
        DOCKER_INDEX,
        DOCKER_MANIFEST,
        OCI_LAYER + "+gzip",
        "",
        "x",
    ]
)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), DIGESTS, TYPES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def fields(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with these keys, each of which may be missing, or anything."""
    return st.fixed_dictionaries({}, optional={key: value | ANYTHING for key, value in known.items()})


DESCRIPTORS = fields(
    mediaType=TYPES,
    digest=DIGESTS,
    size=st.integers(-1, 1 << 65),
    annotations=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
    platform=fields(os=st.just("linux"), architecture=st.just("amd64"), variant=st.text(max_size=3)),
    urls=st.lists(st.text(max_size=5), max_size=2),
)
MANIFESTS = fields(
    schemaVersion=st.just(2),
    mediaType=TYPES,
    config=DESCRIPTORS,
    layers=st.lists(DESCRIPTORS, max_size=3),
    manifests=st.lists(DESCRIPTORS, max_size=3),
    annotations=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
)
CONFIGS = fields(
    architecture=st.text(max_size=4),
    os=st.text(max_size=4),
    variant=st.text(max_size=4),
    created=st.text(max_size=20),
    config=fields(Cmd=st.lists(st.text(max_size=3)), Env=st.lists(st.text(max_size=3))),
    rootfs=fields(diff_ids=st.lists(DIGESTS, max_size=3)),
    history=st.lists(fields(created=st.text(max_size=3), empty_layer=st.booleans()), max_size=2),
)

READERS: list[Callable[[Any, str], Manifest | Index | ImageConfig]] = [
    Manifest.from_json,
    Index.from_json,
    ImageConfig.from_json,
]


def read(data: bytes) -> None:
    """Read bytes as each kind of document."""
    for reader in READERS:
        try:
            document = reader(decode(data, "subject"), "subject")
        except CorruptError as error:
            assert error.message.startswith("subject")
            assert "\n" not in error.message
            assert len(error.message) < 500
            continue
        # What was read is written and read again to the same.
        data_again = encode(document.to_json())
        assert encode(reader(decode(data_again, "again"), "again").to_json()) == data_again
        if isinstance(document, Index):
            chosen = choose_manifest(document.manifests, host_platform())
            assert chosen is None or chosen in document.manifests


@given(st.one_of(ANYTHING, MANIFESTS, CONFIGS))
@settings(bounded, max_examples=400)
def test_any_document(document: Any) -> None:
    read(json.dumps(document).encode())


@given(st.binary(max_size=200))
@bounded
def test_any_bytes(data: bytes) -> None:
    read(data)


@given(MANIFESTS, st.integers(0, 400), st.binary(max_size=6))
@bounded
def test_damaged_documents(document: Any, place: int, noise: bytes) -> None:
    data = json.dumps(document).encode()
    read(data[:place] + noise + data[place + len(noise) :])


@given(st.text(max_size=30) | st.from_regex(r"[a-z0-9_]+(/[a-z0-9._-]*){0,3}", fullmatch=True))
@bounded
def test_any_platform(text: str) -> None:
    try:
        platform = parse_platform(text)
    except InvalidError as error:
        assert "\n" not in error.message
        return
    assert parse_platform(str(platform)) == platform
    assert normal_platform(platform.os, platform.architecture, platform.variant) == platform
    assert platform in runnable(platform)


@given(
    st.text(max_size=40)
    | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", fullmatch=True)
)
@bounded
def test_any_time(text: str) -> None:
    assert isinstance(parse_timestamp(text), int | None)


def test_a_document_without_end_is_refused() -> None:
    for data in (b"[" * 10**6, b'{"a":' * 10**6, b"1" * 10**5, b'"' + b"\\" * 10**5):
        try:
            decode(data, "subject")
        except PyDockError as error:
            assert len(error.message) < 500
        else:
            raise AssertionError(data[:10])
