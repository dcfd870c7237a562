"""References: Docker's own table of cases, and that both forms read back as what they were made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import InvalidError
from pydock_core.oci.reference import Reference, parse_reference, parse_tagged

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "familiar", "canonical"),
    [
        ("busybox", "busybox", "docker.io/library/busybox"),
        ("busybox:1.36", "busybox:1.36", "docker.io/library/busybox:1.36"),
        ("docker.io/busybox", "busybox", "docker.io/library/busybox"),
        ("index.docker.io/library/busybox", "busybox", "docker.io/library/busybox"),
        ("bitnami/redis:7", "bitnami/redis:7", "docker.io/bitnami/redis:7"),
        ("ghcr.io/a/b/c", "ghcr.io/a/b/c", "ghcr.io/a/b/c"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        ("UPPER/x", "UPPER/x", "UPPER/x"),
        ("library/a/b", "library/a/b", "docker.io/library/a/b"),
        ("a__b/c.d--e/f_g", "a__b/c.d--e/f_g", "docker.io/a__b/c.d--e/f_g"),
        (f"x@sha256:{HEX}", f"x@sha256:{HEX}", f"docker.io/library/x@sha256:{HEX}"),
        (f"x:t@sha256:{HEX}", f"x:t@sha256:{HEX}", f"docker.io/library/x:t@sha256:{HEX}"),
        ("localhost:5000", "localhost:5000", "docker.io/library/localhost:5000"),
    ],
)
def test_parses_as_docker_does(text: str, familiar: str, canonical: str) -> None:
    reference = parse_reference(text)
    assert reference.familiar == familiar
    assert reference.canonical == canonical


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "@", "/", "a//b", "/a", "a/", "Upper", "a:", "a:b:c", "a:-x", f"a:{'t' * 129}", "a b"),
        *("a@sha256:12", "a@md5:" + "a" * 32, f"a@sha256:{'A' * 64}", HEX, "a..b", "-a", "a-", "a___b/c."),
        *("../x", "a/../b", "exa mple.com/x", "-x.com/y", "x" * 256, "é", "a\n", "localhost:port/x"),
    ],
)
def test_refuses_what_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidError) as raised:
        parse_reference(text)
    assert repr(text) in raised.value.message
    assert raised.value.hint


def test_says_that_names_are_in_lower_case() -> None:
    with pytest.raises(InvalidError) as raised:
        parse_reference("Busybox")
    assert "lower case" in raised.value.hint


def test_an_address_is_no_name() -> None:
    with pytest.raises(InvalidError) as raised:
        parse_reference("https://registry.test/box:1")
    assert "leave out https://" in raised.value.hint


def test_default_tag() -> None:
    assert parse_reference("a").with_default_tag().familiar == "a:latest"
    assert parse_reference("a:b").with_default_tag().familiar == "a:b"
    assert parse_reference(f"a@sha256:{HEX}").with_default_tag().tag == ""


def test_a_new_name_has_no_digest() -> None:
    assert parse_tagged("a").familiar == "a:latest"
    with pytest.raises(InvalidError):
        parse_tagged(f"a@sha256:{HEX}")


components = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-{1,3})[a-z0-9]+){0,2}", fullmatch=True)
domains = st.one_of(
    st.just("docker.io"),
    st.just("localhost"),
    st.from_regex(r"[a-z0-9]{1,8}(?:\.[a-z0-9]{1,8}){1,2}(?::[0-9]{1,5})?", fullmatch=True),
).filter(lambda domain: domain != "index.docker.io")
references = st.builds(
    Reference,
    domains,
    st.lists(components, min_size=2, max_size=4).map("/".join).filter(lambda path: len(path) < 200),
    st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)),
    st.one_of(st.just(""), st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)),
)


@given(references)
def test_both_forms_read_back(reference: Reference) -> None:
    # A first component that looks like a host is read as one where docker.io is left out.
    first = reference.path.partition("/")[0]
    if reference.domain != "docker.io" or not ("." in first or first == "localhost"):
        assert parse_reference(reference.familiar) == reference
    assert parse_reference(reference.canonical) == reference


@given(st.text(max_size=80))
def test_never_fails_otherwise(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidError:
        return
    assert parse_reference(reference.canonical) == reference
