"""The id maps of ``--userns keep-id``, and the caller's entries in passwd and group."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import InvalidError
from pydock_core.spec.keep_id import (
    KeptIds,
    add_group_entry,
    add_passwd_entry,
    build_id_map,
    parse_keep_id,
    root_place,
)
from pydock_core.store.snapshots.owned import swap_ids


def map_of(kept: int, *extents: int) -> list[tuple[int, ...]]:
    return [tuple(line.values()) for line in build_id_map(kept, extents)]


def test_the_kept_id_and_root_change_places() -> None:
    assert map_of(1000, 1, 65536) == [(1000, 0, 1), (0, 1000, 1), (1, 1, 999), (1001, 1001, 64536)]


def test_an_id_beyond_the_subordinate_ids() -> None:
    assert map_of(100000, 1, 65536) == [(100000, 0, 1), (0, 65536, 1), (1, 1, 65535)]


def test_root_kept_is_the_plain_map() -> None:
    assert map_of(0, 1, 65536) == [(0, 0, 1), (1, 1, 65536)]


def test_a_single_id() -> None:
    assert map_of(1000, 1) == [(1000, 0, 1)]
    assert root_place(1000, 1) is None


@given(st.integers(0, 300), st.lists(st.integers(1, 100), min_size=1, max_size=4))
def test_every_outer_id_has_one_place(kept: int, sizes: list[int]) -> None:
    """Each line lies in one extent of the outer namespace, as the kernel demands, and no id is lost or doubled."""
    extents = [1, *sizes]
    lines = map_of(kept, *extents)
    borders = {sum(extents[:count]) for count in range(len(extents) + 1)}
    for _, outside, size in lines:
        assert not any(outside < border < outside + size for border in borders)
    inside = sorted(first + offset for first, _, size in lines for offset in range(size))
    outside = sorted(first + offset for _, first, size in lines for offset in range(size))
    assert all(low < high for low, high in pairwise(inside))
    assert outside == list(range(sum(extents)))
    assert {kept, 0} <= set(inside)


@pytest.mark.parametrize(
    ("mode", "ids"),
    [
        ("keep-id", (7, 8)),
        ("keep-id:uid=1000", (1000, 8)),
        ("keep-id:uid=1000,gid=50", (1000, 50)),
        ("keep-id:gid=0", (7, 0)),
    ],
)
def test_the_ids_of_a_mode(mode: str, ids: tuple[int, int]) -> None:
    assert parse_keep_id(mode, 7, 8) == ids


@pytest.mark.parametrize(
    "mode", ["keep-id:", "keep-id:uid", "keep-id:uid=x", "keep-id:size=9", "keep-id:uid=4294967295"]
)
def test_malformed_modes(mode: str) -> None:
    with pytest.raises(InvalidError, match="invalid --userns keep-id:") as caught:
        parse_keep_id(mode, 7, 8)
    assert caught.value.exit_code == 125


def test_entries_only_for_missing_ids() -> None:
    kept = KeptIds.build(1000, 100, (1, 65536), (1, 65536))
    assert kept.root == (1000, 100)
    assert add_passwd_entry(b"root:x:0:0::/:/bin/sh", kept, "ann", "/w") == (
        b"root:x:0:0::/:/bin/sh\nann:*:1000:100:ann:/w:/bin/sh\n"
    )
    assert add_passwd_entry(b"node:x:1000:1000::/home/node:/bin/sh\n", kept, "ann", "/w") is None
    assert add_group_entry(b"", kept, "staff", "ann") == b"staff:x:100:ann\n"
    assert add_group_entry(b"users:x:100:\n", kept, "staff", "ann") is None


def test_owners_that_change_places() -> None:
    swap = swap_ids((1000, 50))
    assert swap(0, 0) == (1000, 50)
    assert swap(1000, 50) == (0, 0)
    assert swap(33, 1000) == (33, 1000)
