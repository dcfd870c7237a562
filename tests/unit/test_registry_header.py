"""The parsers of registries' headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.images.registry.header import (
    Challenge,
    RateLimit,
    parse_challenges,
    parse_content_range,
    parse_next_link,
    parse_rate_limit,
    parse_retry_after,
    parse_upload_range,
    spell_seconds,
)

NOW = 1_790_000_000.0
HUB = (
    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
    'scope="repository:library/busybox:pull"'
)


def test_the_challenge_of_docker_hub() -> None:
    (challenge,) = parse_challenges([HUB])
    assert challenge == Challenge(
        "bearer",
        {
            "realm": "https://auth.docker.io/token",
            "service": "registry.docker.io",
            "scope": "repository:library/busybox:pull",
        },
    )


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["Basic realm=plain"], [("basic", {"realm": "plain"})]),
        (['BASIC Realm = "a \\"quoted\\" word"'], [("basic", {"realm": 'a "quoted" word'})]),
        (['Basic realm="x", Bearer realm="y",scope="a:b:pull,push"'], None),
        (['Basic realm="x"', 'Bearer realm="y",scope="a:b:pull,push"'], None),
        (["Negotiate, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (['Bearer realm="one",realm="two"'], [("bearer", {"realm": "one"})]),
        (['Bearer realm="never ends'], [("bearer", {"realm": ""})]),
        (["", ",,,", '"', "="], []),
    ],
)
def test_challenges(values: list[str], found: list[tuple[str, dict[str, str]]] | None) -> None:
    if found is None:
        found = [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "scope": "a:b:pull,push"})]
    assert [(challenge.scheme, challenge.parameters) for challenge in parse_challenges(values)] == found


_HEADER = st.text(st.sampled_from('Bearer basic realm="\\,= ;\t<>/rel next:0-9é\x00'), max_size=200)


@given(st.lists(_HEADER | st.text(max_size=100), max_size=3))
def test_no_header_breaks_a_parser(values: list[str]) -> None:
    for challenge in parse_challenges(values):
        assert challenge.scheme == challenge.scheme.lower() != ""
    link = parse_next_link(values)
    assert link is None or ">" not in link
    for value in values:
        range_of = parse_content_range(value)
        assert range_of is None or 0 <= range_of[0] <= range_of[1]
        assert (parse_upload_range(value) or 0) >= 0
        assert (parse_retry_after(value, NOW) or 0) >= 0
        parse_rate_limit(value, value)


_WORDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["basic", "bearer", "x-other"]),
            st.dictionaries(st.sampled_from(["realm", "service", "scope"]), _WORDS, min_size=1),
        ),
        max_size=3,
    )
)
def test_challenges_that_are_written_are_read(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert [(found.scheme, found.parameters) for found in parse_challenges([header])] == challenges


def test_a_long_header_is_read_in_linear_time() -> None:
    for text in (
        'Bearer realm="' + "\\" * 60_000,
        "a=" * 30_000,
        "<" * 60_000,
        "<>;" * 20_000,
        "a " * 30_000,
    ):
        parse_challenges([text])
        parse_next_link([text])


@pytest.mark.parametrize(
    ("values", "target"),
    [
        (['</v2/a/tags/list?last=b&n=2>; rel="next"'], "/v2/a/tags/list?last=b&n=2"),
        (["<x>; rel=next"], "x"),
        (['<x>; title="a, <b>"; rel="prev next"'], "x"),
        (['<first>; rel="first", <second>;rel="NEXT"'], "second"),
        (["<first>; rel=first", "<second>; rel=next"], "second"),
        (["<x>", "<x>; rel=prev", "rel=next", "<x; rel=next", ""], None),
    ],
)
def test_links(values: list[str], target: str | None) -> None:
    assert parse_next_link(values) == target


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0-1023", 1024),
        ("bytes=0-9", 10),
        ("0-0", 0),
        ("5-9", None),
        ("0--1", None),
        ("", None),
        ("0-" + "9" * 50, None),
    ],
)
def test_ranges_of_uploads(text: str, size: int | None) -> None:
    assert parse_upload_range(text) == size


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bytes 5-9/10", (5, 9, 10)),
        ("bytes 5-9/*", (5, 9, None)),
        ("bytes 9-5/10", None),
        ("bytes 5-10/10", None),
        ("bytes */10", None),
        ("items 1-2/3", None),
    ],
)
def test_ranges_of_content(text: str, found: tuple[int, int, int | None] | None) -> None:
    assert parse_content_range(text) == found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (str(int(NOW) + 60), 60.0),
        ("Mon, 21 Sep 2026 14:14:20 GMT", 60.0),
        ("Mon, 21 Sep 2020 14:14:20 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("9" * 12, None),
    ],
)
def test_when_to_try_again(text: str, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds


def test_rate_limits() -> None:
    assert parse_rate_limit("100;w=21600", "76;w=21600") == RateLimit(100, 21600, 76)
    assert parse_rate_limit("100", None) == RateLimit(100, None, None)
    assert parse_rate_limit("many", "") == RateLimit()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 s"), (45.2, "46 s"), (119, "119 s"), (120, "2 min"), (8040, "2 h 14 min"), (21600, "6 h")],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert spell_seconds(seconds) == words
