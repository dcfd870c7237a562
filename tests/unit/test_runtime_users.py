"""Resolution of ``--user`` against an image's passwd and group files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydock_core.errors import InvalidError, NotFoundError, PyDockError
from pydock_core.spec.users import ResolvedUser, resolve_user

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n12:x:99:98::/odd:\nbad line\n#c:x:1:1::\n"
)
GROUP = b"root:x:0:\nweb:x:33:\naudio:x:29:web,other\nvideo:x:44:web\n"
FILES = {"/etc/passwd": PASSWD, "/etc/group": GROUP}


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", ResolvedUser(0, 0, (0,), "root", "/root")),
        ("0", ResolvedUser(0, 0, (0,), "root", "/root")),
        ("web", ResolvedUser(33, 33, (33, 29, 44), "web", "/var/www")),
        ("33", ResolvedUser(33, 33, (33, 29, 44), "web", "/var/www")),
        ("web:audio", ResolvedUser(33, 29, (29,), "web", "/var/www")),
        ("web:77", ResolvedUser(33, 77, (77,), "web", "/var/www")),
        ("1234", ResolvedUser(1234, 0, (0,), "", "/")),
        ("1234:5", ResolvedUser(1234, 5, (5,), "", "/")),
        ("12", ResolvedUser(99, 98, (98,), "12", "/odd")),
        (":44", ResolvedUser(0, 44, (44,), "root", "/root")),
    ],
)
def test_users(user: str, expected: ResolvedUser) -> None:
    assert resolve_user(user, FILES.get) == expected


def test_an_image_without_files_has_root() -> None:
    assert resolve_user("", {}.get) == ResolvedUser(0, 0, (0,), "", "/root")
    assert resolve_user("5:6", {}.get) == ResolvedUser(5, 6, (6,), "", "/")


@pytest.mark.parametrize("user", ["nobody", "web:nogroup"])
def test_unknown_names(user: str) -> None:
    with pytest.raises(NotFoundError, match="unable to find"):
        resolve_user(user, FILES.get)


@pytest.mark.parametrize("user", ["web:", "4294967295", "99999999999999999999", "0:4294967295"])
def test_bad_users(user: str) -> None:
    with pytest.raises(InvalidError):
        resolve_user(user, FILES.get)


@given(user=st.text(max_size=20), passwd=st.binary(max_size=200), group=st.binary(max_size=200))
def test_whatever_the_image_holds_ends_in_numbers_or_in_an_error(
    user: str, passwd: bytes, group: bytes
) -> None:
    try:
        resolved = resolve_user(user, {"/etc/passwd": passwd, "/etc/group": group}.get)
    except PyDockError:
        return
    assert 0 <= resolved.uid < 2**32 - 1
    assert 0 <= resolved.gid < 2**32 - 1
