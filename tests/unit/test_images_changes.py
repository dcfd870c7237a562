"""Dockerfile instructions of import --change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import InvalidError
from pydock_core.images.changes import apply_changes


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ('CMD ["a", "b c"]', {"Cmd": ["a", "b c"]}),
        ("cmd a b", {"Cmd": ["/bin/sh", "-c", "a b"]}),
        ("CMD [not json", {"Cmd": ["/bin/sh", "-c", "[not json"]}),
        ('ENTRYPOINT ["e"]', {"Entrypoint": ["e"]}),
        ("ENV A=1", {"Env": ["OLD=x", "A=1"]}),
        ("ENV A=1 B=\"2 3\" C='4'", {"Env": ["OLD=x", "A=1", "B=2 3", "C=4"]}),
        ("ENV A one two", {"Env": ["OLD=x", "A=one two"]}),
        ("ENV OLD=new", {"Env": ["OLD=new"]}),
        ("WORKDIR /w", {"WorkingDir": "/w"}),
        ("WORKDIR w", {"WorkingDir": "/w"}),
        ("USER me:us", {"User": "me:us"}),
        (
            "EXPOSE 80 53/udp 7000-7002/tcp",
            {"ExposedPorts": {port: {} for port in ("80/tcp", "53/udp", "7000/tcp", "7001/tcp", "7002/tcp")}},
        ),
        ('LABEL a=b c="d e"', {"Labels": {"a": "b", "c": "d e"}}),
        ('VOLUME ["/a", "/b"]', {"Volumes": {"/a": {}, "/b": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ("STOPSIGNAL SIGINT", {"StopSignal": "SIGINT"}),
        ("ONBUILD RUN make", {"OnBuild": ["RUN make"]}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "HEALTHCHECK --interval=1m30s --timeout=1.5s --retries=2 CMD curl -f localhost",
            {
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "curl -f localhost"],
                    "Interval": 90 * 10**9,
                    "Timeout": 1_500_000_000,
                    "Retries": 2,
                }
            },
        ),
        ('HEALTHCHECK CMD ["a", "b"]', {"Healthcheck": {"Test": ["CMD", "a", "b"]}}),
    ],
)
def test_instructions(change: str, expected: dict[str, Any]) -> None:
    assert apply_changes({"Env": ["OLD=x"]}, [change]) == {"Env": ["OLD=x"], **expected}


@pytest.mark.parametrize(
    "change",
    [
        "",
        "RUN x",
        "CMD",
        "ENV A",
        "ENV =x",
        'ENV A="x',
        "EXPOSE 0",
        "EXPOSE 9-8",
        "EXPOSE x",
        "VOLUME a",
        "LABEL a=b c",
        "ONBUILD ONBUILD RUN x",
        "ONBUILD FROM x",
        "HEALTHCHECK CMD",
        "HEALTHCHECK --interval=1 CMD x",
        "HEALTHCHECK --often CMD x",
        "HEALTHCHECK RUN x",
    ],
)
def test_what_is_malformed_is_named(change: str) -> None:
    with pytest.raises(InvalidError) as raised:
        apply_changes({}, [change])
    assert repr(change) in raised.value.message
    assert raised.value.hint


def test_an_entry_point_drops_the_command_that_was_there() -> None:
    config = {"Cmd": ["old"]}
    assert apply_changes(config, ['ENTRYPOINT ["e"]']) == {"Entrypoint": ["e"]}
    both = ["CMD a", 'ENTRYPOINT ["e"]']
    assert apply_changes(config, both) == {"Entrypoint": ["e"], "Cmd": ["/bin/sh", "-c", "a"]}


@given(st.text(max_size=40))
def test_never_fails_otherwise(text: str) -> None:
    for word in ("CMD", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "VOLUME"):
        try:
            apply_changes({}, [f"{word} {text}"])
        except InvalidError as error:
            assert error.message
