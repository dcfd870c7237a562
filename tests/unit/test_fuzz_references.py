"""References: the round trips hold for all, Docker's own examples are read as Docker reads them, nothing else comes out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydock_core.errors import InvalidError
from pydock_core.oci.reference import parse_reference, parse_tagged

bounded = settings(max_examples=300, deadline=None, derandomize=True)

DIGEST = "sha256:" + "0123456789abcdef" * 4

# From the tests of github.com/distribution/reference (normalize_test.go): text, familiar, full name, domain.
DOCKER = [
    ("fooo/bar", "fooo/bar", "docker.io/fooo/bar", "docker.io"),
    ("fooo", "fooo", "docker.io/library/fooo", "docker.io"),
    ("library/fooo", "fooo", "docker.io/library/fooo", "docker.io"),
    ("docker.io/library/fooo", "fooo", "docker.io/library/fooo", "docker.io"),
    ("index.docker.io/library/fooo", "fooo", "docker.io/library/fooo", "docker.io"),
    ("index.docker.io/fooo", "fooo", "docker.io/library/fooo", "docker.io"),
    ("docker.io/fooo", "fooo", "docker.io/library/fooo", "docker.io"),
    ("127.0.0.1:8000/fooo/bar", "127.0.0.1:8000/fooo/bar", "127.0.0.1:8000/fooo/bar", "127.0.0.1:8000"),
    ("localhost:5000/fooo", "localhost:5000/fooo", "localhost:5000/fooo", "localhost:5000"),
    ("localhost/fooo", "localhost/fooo", "localhost/fooo", "localhost"),
    ("foo-bar.com/fooo", "foo-bar.com/fooo", "foo-bar.com/fooo", "foo-bar.com"),
    ("ALLCAPS/fooo", "ALLCAPS/fooo", "ALLCAPS/fooo", "ALLCAPS"),
    ("[2001:db8::1]:5000/repo", "[2001:db8::1]:5000/repo", "[2001:db8::1]:5000/repo", "[2001:db8::1]:5000"),
    ("foo_bar", "foo_bar", "docker.io/library/foo_bar", "docker.io"),
    ("foo__bar/a", "foo__bar/a", "docker.io/foo__bar/a", "docker.io"),
    ("a-----b", "a-----b", "docker.io/library/a-----b", "docker.io"),
]
DOCKER_REFUSES = [
    "", "https://github.com/docker/docker", "docker/Docker", "-docker", "-docker/docker", "-docker.io/docker/docker",
    "docker///docker", "docker.io/docker/Docker", "docker.io/docker///docker", "1a3f5e7d9c1b3a5f" * 4,
    "a//b", "/a", "a/", "a:", "a@", "a@sha256:", "a:b:c", "a..b", "a.", "foo___bar", "_foo", "a" * 256, "a:" + "t" * 129,
    "[fe80::1%eth0]/repo", "aa/asdf$$^/aa", "a b", "a\n", "a\0b", "\ud800", "validname@" + "sha512:" + "0" * 127,
]  # fmt: skip


@pytest.mark.parametrize(("text", "familiar", "full", "domain"), DOCKER)
@pytest.mark.parametrize("suffix", ["", ":tag", f"@{DIGEST}", f":tag@{DIGEST}"])
def test_names_as_docker_reads_them(text: str, familiar: str, full: str, domain: str, suffix: str) -> None:
    reference = parse_reference(text + suffix)
    assert (reference.familiar, reference.canonical) == (familiar + suffix, full + suffix)
    assert reference.domain == domain
    assert parse_reference(reference.familiar) == parse_reference(reference.canonical) == reference


@pytest.mark.parametrize("text", DOCKER_REFUSES)
def test_names_that_docker_refuses(text: str) -> None:
    with pytest.raises(InvalidError, match="invalid reference format") as raised:
        parse_reference(text)
    assert "\n" not in raised.value.message
    assert raised.value.hint


WORDS = st.text("aB0.-_:/@[]% \n", max_size=24)
LIKELY = st.from_regex(
    r"([a-zA-Z0-9.-]{1,8}(:[0-9]{1,4})?/)?[a-z0-9._-]{1,8}(/[a-z0-9._-]{1,6}){0,3}(:[\w.-]{1,8})?(@sha256:[0-9a-f]{64})?",
    fullmatch=True,
)


@given(WORDS | LIKELY | st.text(max_size=20))
@bounded
def test_any_text(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidError as error:
        assert "\n" not in error.message
        return
    assert parse_reference(reference.familiar) == parse_reference(reference.canonical) == reference
    assert reference.familiar.endswith(reference.repository + reference.familiar[len(reference.repository) :])
    assert ".." not in reference.path.split("/")
    if not reference.digest:
        assert parse_tagged(text).tag


def test_long_names_are_refused_at_once() -> None:
    for text in (
        "a" * 10**6,
        "a/" * 10**5 + "a",
        "a-" * 10**5 + "a",
        "a." * 10**5 + "/b",
        ":" * 10**5,
        "@" * 10**5,
    ):
        with pytest.raises(InvalidError) as raised:
            parse_reference(text)
        assert raised.value.hint
