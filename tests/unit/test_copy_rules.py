"""Where ``cp`` puts what: Docker's rules, by the spelling of the paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.commands.copy import split_container
from pydock_core.errors import InvalidError, NotFoundError
from pydock_core.store.copy_rules import CopyEnd, absolute, names_directory, plan_copy, split_entry


@pytest.mark.parametrize(
    ("source", "is_dir", "target", "there", "expected"),
    [
        ("/s/f", False, "/t/x", "", ("/t", "x")),
        ("/s/f", False, "/t/x", "file", ("/t", "x")),
        ("/s/f", False, "/t/x", "dir", ("/t/x", "f")),
        ("/s/f", False, "/t/x/", "dir", ("/t/x/", "f")),
        ("/s/d", True, "/t/x", "", ("/t", "x")),
        ("/s/d", True, "/t/x/", "", ("/t", "x")),
        ("/s/d", True, "/t/x", "dir", ("/t/x", "d")),
        ("/s/d/", True, "/t/x", "dir", ("/t/x", "d")),
        ("/s/d/.", True, "/t/x", "", ("/t", "x")),
        ("/s/d/.", True, "/t/x", "dir", ("/t/x", ".")),
        ("/", True, "/t/x", "dir", ("/t/x", ".")),
        ("/s/f", False, "/x", "", ("/", "x")),
    ],
)
def test_where_it_goes(source: str, is_dir: bool, target: str, there: str, expected: tuple[str, str]) -> None:
    end = CopyEnd(target, bool(there), there == "dir")
    assert plan_copy(CopyEnd(source, True, is_dir), end) == expected


def test_a_followed_link_keeps_its_name() -> None:
    source = CopyEnd("/s/real", True, False, "link")
    assert plan_copy(source, CopyEnd("/t", True, True)) == ("/t", "link")
    assert plan_copy(source, CopyEnd("/t/x", False)) == ("/t", "x")


def test_what_is_refused() -> None:
    for source in ("/s/d", "/s/d/."):
        with pytest.raises(InvalidError, match="cannot copy directory"):
            plan_copy(CopyEnd(source, True, True), CopyEnd("/t/x", True, False))
    for target in ("/t/x/", "/t/x/."):
        with pytest.raises(NotFoundError, match="no such directory"):
            plan_copy(CopyEnd("/s/f"), CopyEnd(target, False))


@given(path=st.text(alphabet="ab./", min_size=1, max_size=12))
def test_absolute_paths_keep_their_spelling(path: str) -> None:
    found = absolute(path, "/here")
    assert found.startswith("/")
    assert ".." not in found.split("/")
    is_named = path.endswith("/") or path.rstrip("/").rpartition("/")[2] == "."
    assert names_directory(found) == (is_named or found == "/")
    assert absolute(found, "/elsewhere") == found
    directory, name = split_entry(found)
    assert directory.startswith("/")
    assert "/" not in name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web:/x", ("web", "/x")),
        ("web:x:y", ("web", "x:y")),
        ("web:", ("web", "")),
        ("./web:/x", None),
        ("../web:x", None),
        ("/a:b", None),
        ("plain", None),
        ("-", None),
        (":x", None),
    ],
)
def test_which_path_is_a_containers(text: str, expected: tuple[str, str] | None) -> None:
    assert split_container(text) == expected
