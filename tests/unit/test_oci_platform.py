"""Platforms: parsing, normal forms, and the choice in an index."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import InvalidError
from pydock_core.oci import platform
from pydock_core.oci.documents import OCI_MANIFEST, Descriptor
from pydock_core.oci.platform import Platform, choose_manifest, host_platform, parse_platform, runnable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/X86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/v8.2", "linux/arm64/v8.2"),
        ("linux/arm64/9", "linux/arm64/v9"),
        ("linux/arm64/9.0", "linux/arm64/v9"),
        ("armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("windows/amd64", "windows/amd64"),
        ("macos/arm64", "darwin/arm64"),
        ("linux/riscv64", "linux/riscv64"),
    ],
)
def test_normal_forms(text: str, shown: str) -> None:
    assert str(parse_platform(text)) == shown
    assert parse_platform(shown) == parse_platform(text)


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "a/b/c/d", "nonsense", "linux/amd64/", "linux amd64", "*"]
)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_platform(text)


@given(st.text(max_size=30))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        found = parse_platform(text)
    except InvalidError:
        return
    assert parse_platform(str(found)) == found


def test_an_operating_system_alone_is_on_this_hosts_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "host_architecture", lambda: ("arm64", "v8"))
    assert parse_platform("linux") == Platform("linux", "arm64") == host_platform()


def test_what_runs_where() -> None:
    assert [str(found) for found in runnable(parse_platform("arm"))] == [
        "linux/arm/v7",
        "linux/arm/v6",
        "linux/arm/v5",
    ]
    assert [str(found) for found in runnable(parse_platform("arm64"))][:3] == [
        "linux/arm64",
        "linux/arm/v8",
        "linux/arm/v7",
    ]
    assert [str(found) for found in runnable(parse_platform("linux/amd64/v3"))] == [
        "linux/amd64/v3",
        "linux/amd64/v2",
        "linux/amd64",
        "linux/386",
    ]
    assert [str(found) for found in runnable(parse_platform("linux/arm64/v9.1"))][:10] == [
        "linux/arm64/v9.1",
        "linux/arm64/v9",
        *[f"linux/arm64/v8.{minor}" for minor in (6, 5, 4, 3, 2, 1)],
        "linux/arm64",
        "linux/arm/v8",
    ]
    assert runnable(parse_platform("s390x")) == [Platform("linux", "s390x")]


def _entry(text: str) -> Descriptor:
    os, _, remainder = text.partition("/")
    architecture, _, variant = remainder.partition("/")
    said = {"os": os, "architecture": architecture, "variant": variant} if text else {}
    return Descriptor(
        OCI_MANIFEST, "sha256:" + "0" * 64, 1, platform={key: value for key, value in said.items() if value}
    )


@pytest.mark.parametrize(
    ("wanted", "present", "chosen"),
    [
        ("amd64", ["linux/386", "linux/amd64"], 1),
        ("amd64", ["linux/386", "windows/amd64"], 0),
        ("amd64", ["linux/amd64/v3"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("arm64", ["linux/arm/v7", "linux/arm64/v8"], 1),
        ("arm64", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm64/v7", ["linux/arm64/v8", "linux/amd64"], None),
        ("linux/arm64/v7", ["linux/arm64/v8", "linux/arm/v7"], 1),
        ("linux/arm64/v8.2", ["linux/arm64/v8.4", "linux/arm64", "linux/arm64/v8.1"], 2),
        ("linux/arm64/v9", ["linux/arm64/v8.6", "linux/arm64/v8"], 1),
        ("arm64", ["linux/arm64/v8.1", "linux/arm64/v9"], None),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], 1),
        ("arm", ["linux/arm", "linux/arm/v7"], 0),
        ("amd64", ["", "linux/amd64"], 1),
        ("s390x", ["unknown/unknown", ""], 1),
        ("windows/amd64", ["linux/amd64", "windows/amd64"], 1),
        ("amd64", [], None),
    ],
)
def test_the_choice(wanted: str, present: list[str], chosen: int | None) -> None:
    entries = [_entry(text) for text in present]
    found = choose_manifest(entries, parse_platform(wanted))
    assert found is (None if chosen is None else entries[chosen])


def test_damaged_platforms_fit_nothing() -> None:
    damaged = Descriptor(OCI_MANIFEST, "sha256:" + "0" * 64, 1, platform={"os": ["linux"], "architecture": 7})
    assert choose_manifest([damaged], parse_platform("amd64")) is None


def test_what_is_of_an_unknown_kind_is_ignored() -> None:
    """image-index.md: "An encountered mediaType that is unknown to the implementation MUST be ignored"."""
    image = _entry("linux/amd64")
    other = replace(image, media_type="application/vnd.example+json")
    assert choose_manifest([other, image], parse_platform("amd64")) is image
    assert choose_manifest([other], parse_platform("amd64")) is None
