"""Manifests, indexes, configs, digests and times: round trips, and one clear error for everything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import CorruptError, InvalidError, UnsupportedError
from pydock_core.oci.digest import digest_hex, digest_of, is_digest, parse_digest, short_id
from pydock_core.oci.documents import (
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    decode,
    encode,
    layer_compression,
    layer_media_type,
)
from pydock_core.oci.platform import choose_manifest, normal_platform
from pydock_core.oci.timestamp import format_timestamp, parse_timestamp

digests = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
descriptors = st.builds(
    Descriptor,
    names,
    digests,
    st.integers(0, 2**62),
    st.dictionaries(names, names, max_size=3),
    st.fixed_dictionaries({}, optional={"os": st.just("linux"), "architecture": names}),
)
configs = st.builds(
    ImageConfig,
    architecture=names,
    os=names,
    diff_ids=st.lists(digests, max_size=4).map(tuple),
    config=st.fixed_dictionaries(
        {}, optional={"Env": st.lists(names), "Labels": st.dictionaries(names, names)}
    ),
    history=st.lists(st.fixed_dictionaries({"created_by": names}), max_size=3).map(tuple),
    created=names,
    author=names,
    comment=names,
    variant=names,
)


@given(st.builds(Manifest, descriptors, st.lists(descriptors, max_size=4).map(tuple)))
def test_manifest_round_trip(manifest: Manifest) -> None:
    assert Manifest.from_json(decode(encode(manifest.to_json()), "manifest")) == manifest


@given(st.builds(Index, st.lists(descriptors, max_size=4).map(tuple)))
def test_index_round_trip(index: Index) -> None:
    assert Index.from_json(decode(encode(index.to_json()), "index")) == index


@given(configs)
def test_config_round_trip(config: ImageConfig) -> None:
    assert ImageConfig.from_json(decode(encode(config.to_json()), "config")) == config


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["schemaVersion", "config", "layers", "manifests", "digest", "size", "rootfs", "diff_ids"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(json_values)
def test_hostile_documents_are_corrupt_and_nothing_else(document: object) -> None:
    for kind in (Manifest, Index, ImageConfig, Descriptor):
        try:
            kind.from_json(document)
        except CorruptError as error:
            assert error.hint


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000])
def test_no_json(data: bytes) -> None:
    with pytest.raises(CorruptError, match="the manifest"):
        decode(data, "the manifest")


def test_go_writes_empty_lists_as_null() -> None:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"diff_ids": None},
        "history": None,
        "config": None,
    }
    assert ImageConfig.from_json(document).diff_ids == ()


def test_layer_types() -> None:
    assert layer_media_type("") == OCI_LAYER
    for compression in ("", "gzip", "zstd"):
        assert layer_compression(layer_media_type(compression)) == compression
    assert layer_compression("application/vnd.docker.image.rootfs.diff.tar.gzip") == "gzip"
    assert layer_compression("application/json") is None


def test_digests() -> None:
    value = digest_of(b"x")
    assert is_digest(value)
    assert parse_digest(value) == value
    assert short_id(value) == digest_hex(value)[:12]
    for wrong in ("sha256:", "sha256:" + "A" * 64, "md5:" + "a" * 32, value + "\n", "../" + value):
        assert not is_digest(wrong)
        with pytest.raises(InvalidError):
            digest_hex(wrong)


def _platform(architecture: str, variant: str = "", os: str = "linux") -> dict[str, str]:
    return {"os": os, "architecture": architecture, **({"variant": variant} if variant else {})}


def test_the_manifest_of_this_platform_is_chosen() -> None:
    def entry(number: int, platform: dict[str, str]) -> Descriptor:
        return Descriptor(OCI_MANIFEST, f"sha256:{number:064}", 1, platform=platform)

    entries = [
        entry(0, _platform("unknown", os="unknown")),
        entry(1, _platform("amd64", os="windows")),
        entry(2, _platform("arm", "v6")),
        entry(3, _platform("arm", "v7")),
        entry(4, _platform("amd64")),
    ]
    assert choose_manifest(entries, normal_platform("linux", "amd64", "")) is entries[4]
    assert choose_manifest(entries, normal_platform("linux", "arm", "v7")) is entries[3]
    assert choose_manifest(entries, normal_platform("linux", "arm", "v8")) is entries[3]
    assert choose_manifest(entries, normal_platform("linux", "riscv64", "")) is None
    assert choose_manifest([entry(5, {})], normal_platform("linux", "riscv64", "")) is not None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_documents_are_in_utf_8(encoding: str) -> None:
    """What another tool cannot read, or reads otherwise, is not a document (RFC 8259, 8.1)."""
    with pytest.raises(CorruptError, match="is not valid JSON"):
        decode('{"schemaVersion": 2}'.encode(encoding), "manifest")


def test_digests_of_another_algorithm() -> None:
    """An index is of use without the entries that have them; a manifest is not."""
    other = Descriptor(OCI_LAYER, "sha512:" + "a" * 128, 5).to_json()
    known = Descriptor(OCI_MANIFEST, digest_of(b"x"), 1)
    index = Index.from_json({"schemaVersion": 2, "manifests": [other, known.to_json()]})
    assert index.manifests == (known,)
    with pytest.raises(UnsupportedError, match="layer 0 has a digest of the algorithm sha512"):
        Manifest.from_json({"schemaVersion": 2, "config": known.to_json(), "layers": [other]})
    with pytest.raises(CorruptError, match="is not a SHA-256 digest"):
        Index.from_json({"schemaVersion": 2, "manifests": [{**other, "digest": "sha256:a"}]})


@given(st.integers(0, 253_402_300_799 * 10**9))
def test_times_round_trip(nanoseconds: int) -> None:
    assert parse_timestamp(format_timestamp(nanoseconds)) == nanoseconds


def test_times_of_others() -> None:
    assert parse_timestamp("1970-01-01T01:00:00+01:00") == 0
    assert parse_timestamp("1970-01-01T00:00:00.25-00:01") == 60_250_000_000
    assert parse_timestamp("2024-02-30T00:00:00Z") is None
    assert parse_timestamp("yesterday") is None
    assert json.loads(encode({"a": "\u00e9"})) == {"a": "é"}
