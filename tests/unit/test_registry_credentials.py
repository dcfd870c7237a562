"""Docker's configuration: what is read, what is written, what helpers are asked; and the settings of registries."""

from __future__ import annotations

import base64
import json
import os
import ssl
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydock_core.errors import FailedError, InvalidError, NotFoundError, PyDockError, UnavailableError
from pydock_core.images.registry.credentials import Credential, CredentialStore, registry_domain
from pydock_core.images.registry.failure import tls_hint
from pydock_core.images.registry.settings import RegistrySettings, host_name, load_settings, timeout_seconds
from pydock_core.images.registry.transport import Origin, proxy_for

SECRET = "s3cr3t: with a colon"


def auth(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


@pytest.fixture
def store(tmp_path: Path) -> CredentialStore:
    return CredentialStore(
        environment={"DOCKER_CONFIG": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    )


def write(store: CredentialStore, document: object) -> None:
    store.path.write_text(document if isinstance(document, str) else json.dumps(document))


@pytest.mark.parametrize(
    ("server", "domain"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("", "docker.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("http://localhost:5000/v2/", "localhost:5000"),
        ("quay.io/organisation", "quay.io"),
    ],
)
def test_names_of_registries(server: str, domain: str) -> None:
    assert registry_domain(server) == domain


def test_there_and_back(store: CredentialStore) -> None:
    assert store.find("ghcr.io") is None
    assert store.erase("ghcr.io") is False
    store.store("ghcr.io", "ann", SECRET)
    store.store("docker.io", "bob", "", identity_token="token")
    assert store.find("ghcr.io") == Credential("ann", SECRET)
    assert store.find("docker.io") == Credential("bob", "", "token")
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    document = json.loads(store.path.read_text())
    assert document["auths"]["https://index.docker.io/v1/"] == {
        "auth": auth("bob", ""),
        "identitytoken": "token",
    }
    assert SECRET not in repr(store.find("ghcr.io"))
    assert store.erase("ghcr.io") is True
    assert store.find("ghcr.io") is None
    assert [path.name for path in store.path.parent.iterdir()] == ["config.json"]


def test_what_others_wrote_is_kept_and_their_spellings_are_read(store: CredentialStore) -> None:
    write(
        store,
        {
            "HttpHeaders": {"X": "y"},
            "auths": {
                "https://ghcr.io/v2/": {"auth": auth("ann", SECRET)},
                "old.example": {"username": "u", "password": "p"},
                "empty.example": {},
            },
        },
    )
    assert store.find("ghcr.io") == Credential("ann", SECRET)
    assert store.find("old.example") == Credential("u", "p")
    assert store.find("empty.example") is None
    store.store("ghcr.io", "new", "x")
    document = json.loads(store.path.read_text())
    assert document["HttpHeaders"] == {"X": "y"}
    assert set(document["auths"]) == {"ghcr.io", "old.example", "empty.example"}


def test_a_link_stays_a_link(store: CredentialStore, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.json"
    target.write_text("{}")
    store.path.symlink_to(target)
    store.store("ghcr.io", "ann", SECRET)
    assert store.path.is_symlink()
    assert "ghcr.io" in json.loads(target.read_text())["auths"]


def test_the_login_of_podman_is_read(store: CredentialStore, tmp_path: Path) -> None:
    file = tmp_path / "run/containers/auth.json"
    file.parent.mkdir(parents=True)
    entries = {"quay.io": {"auth": auth("ann", SECRET)}, "ghcr.io/only/this": {"auth": auth("no", "no")}}
    file.write_text(json.dumps({"auths": entries}))
    assert store.find("quay.io") == Credential("ann", SECRET)
    assert store.find("ghcr.io") is None


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        {"auths": []},
        {"auths": {"ghcr.io": "x"}},
        {"auths": {"ghcr.io": {"auth": SECRET}}},
        {"auths": {"ghcr.io": {"auth": base64.b64encode(b"no colon").decode()}}},
        {"auths": {"ghcr.io": {"auth": 7}}},
        {"credHelpers": 7},
        {"credHelpers": {"ghcr.io": "../evil"}},
        {"credsStore": ["x"]},
    ],
)
def test_a_malformed_file_is_named(store: CredentialStore, document: object) -> None:
    write(store, document)
    with pytest.raises(InvalidError) as caught:
        store.find("ghcr.io")
    assert str(store.path) in caught.value.message
    assert SECRET not in str(caught.value.to_json())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["auths", "auth", "username", "identitytoken", "ghcr.io", "credsStore", "credHelpers"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(_JSON | st.binary(max_size=50))
def test_no_file_breaks_the_reader(store: CredentialStore, document: object) -> None:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    store.path.write_bytes(data)
    try:
        found = store.find("ghcr.io")
    except PyDockError:
        return
    assert found is None or isinstance(found, Credential)


HELPER = """#!/usr/bin/env python3
import json, os, sys
state = os.path.join(os.path.dirname(__file__), "state.json")
known = json.load(open(state)) if os.path.exists(state) else {}
verb, text = sys.argv[1], sys.stdin.read()
assert len(sys.argv) == 2
if verb == "get":
    if text not in known:
        print("credentials not found in native keychain")
        sys.exit(1)
    print(json.dumps(known[text]))
elif verb == "store":
    entry = json.loads(text)
    if entry["Username"] == "fail":
        print("cannot store " + entry["Secret"])
        sys.exit(3)
    known[entry["ServerURL"]] = entry
elif verb == "erase":
    known.pop(text, None)
json.dump(known, open(state, "w"))
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "docker-credential-test"
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")
    return program


def test_a_helper_keeps_the_secrets(store: CredentialStore, helper: Path) -> None:
    write(store, {"credsStore": "test"})
    assert store.find("docker.io") is None
    store.store("docker.io", "ann", SECRET)
    store.store("ghcr.io", "bob", "", identity_token="token")
    assert SECRET not in store.path.read_text()
    assert json.loads(store.path.read_text())["auths"] == {"https://index.docker.io/v1/": {}, "ghcr.io": {}}
    assert store.find("docker.io") == Credential("ann", SECRET)
    assert store.find("ghcr.io") == Credential("", "", "token")
    assert store.erase("docker.io") is True
    assert store.erase("docker.io") is False
    assert store.find("docker.io") is None


def test_a_helper_for_one_registry(store: CredentialStore, helper: Path) -> None:
    write(store, {"credHelpers": {"ghcr.io": "test"}})
    store.store("ghcr.io", "ann", SECRET)
    store.store("quay.io", "bob", SECRET)
    assert "auth" not in json.loads(store.path.read_text())["auths"]["ghcr.io"]
    assert store.find("ghcr.io") == Credential("ann", SECRET)
    assert store.find("quay.io") == Credential("bob", SECRET)


def test_helpers_that_fail(store: CredentialStore, helper: Path, tmp_path: Path) -> None:
    write(store, {"credsStore": "test"})
    with pytest.raises(FailedError, match="cannot store") as caught:
        store.store("ghcr.io", "fail", SECRET)
    assert SECRET not in str(caught.value.to_json())
    assert "auths" not in json.loads(store.path.read_text())
    write(store, {"credsStore": "missing"})
    with pytest.raises(UnavailableError, match="docker-credential-missing is not installed"):
        store.find("ghcr.io")
    write(store, {"credsStore": "test"})
    helper.write_text("#!/bin/sh\necho nonsense\n")
    with pytest.raises(InvalidError, match="docker-credential-test"):
        store.find("ghcr.io")
    helper.write_text("#!/bin/sh\nexec sleep 60\n")
    impatient = CredentialStore(store.path, helper_seconds=0.2)
    with pytest.raises(UnavailableError, match="took longer"):
        impatient.find("ghcr.io")


# -- settings --------------------------------------------------------------------------------------------


def test_the_first_file_that_has_a_key_decides(tmp_path: Path) -> None:
    named, own = tmp_path / "named.json", tmp_path / "pydock/registries.json"
    own.parent.mkdir()
    named.write_text(
        json.dumps({"insecure-registries": ["a.example:5000", "10.0.0.0/8", "http://b.example/"]})
    )
    own.write_text(json.dumps({"insecure-registries": ["c"], "registry-mirrors": ["https://m.example/"]}))
    found = load_settings({"PYDOCK_REGISTRIES": str(named), "XDG_CONFIG_HOME": str(tmp_path)})
    assert found.insecure == ("a.example:5000", "10.0.0.0/8", "b.example")
    assert found.mirrors_of("docker.io") == ("https://m.example",)
    assert found.mirrors_of("ghcr.io") == ()
    with pytest.raises(NotFoundError, match="gone does not exist"):
        load_settings({"PYDOCK_REGISTRIES": str(tmp_path / "gone")})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"insecure-registries": "x"}',
        '{"insecure-registries": [1]}',
        '{"insecure-registries": ["10.0.0.0/99"]}',
        '{"registry-mirrors": ["ftp://x"]}',
        '{"registry-mirrors": ["https://user:secret@x"]}',
        '{"registry-mirrors": ["https://x/path"]}',
        '{"registry-mirrors": ["https://[::1"]}',
        '{"registry-mirrors": ["https://x:y"]}',
        '{"registry-mirrors": ["https://x:70000"]}',
        '{"insecure-registries": ["http://[::1"]}',
        '{"insecure-registries": ["http://"]}',
        '{"insecure-registries": ["http://user@x"]}',
        '{"insecure_registries": ["x"]}',
    ],
)
def test_malformed_settings_are_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "registries.json"
    file.write_text(text)
    with pytest.raises(InvalidError, match=r"registries\.json"):
        load_settings({"PYDOCK_REGISTRIES": str(file)})


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("LocalHost:5000", True),
        ("127.5.0.1:80", True),
        ("[::1]:5000", True),
        ("10.1.2.3:5000", True),
        ("11.1.2.3", False),
        ("named.example:5000", True),
        ("named.example", False),
        ("any.example:7", True),
        ("localhost.example", False),
    ],
)
def test_what_is_insecure(host: str, insecure: bool) -> None:
    found = RegistrySettings(insecure=("10.0.0.0/8", "named.example:5000", "any.example"))
    assert found.is_insecure(host) is insecure


def test_capitals_in_the_settings_make_no_difference(tmp_path: Path) -> None:
    file = tmp_path / "registries.json"
    file.write_text(json.dumps({"insecure-registries": ["Named.Example:5000", "http://Other.Example"]}))
    found = load_settings({"PYDOCK_REGISTRIES": str(file)})
    for host in ("Named.Example:5000", "named.example:5000", "OTHER.example", "other.example:7"):
        assert found.is_insecure(host), host


def test_an_authority_makes_loopback_secure(tmp_path: Path) -> None:
    found = RegistrySettings(certificate_directories=(tmp_path / "none", tmp_path))
    place = tmp_path / "localhost:5000"
    place.mkdir()
    assert found.is_insecure("localhost:5000")
    (place / "ca.crt").touch()
    assert not found.is_insecure("localhost:5000")
    assert found.is_insecure("localhost:5001")
    (place / "client.cert").touch()
    with pytest.raises(InvalidError, match=r"client\.cert has no key"):
        found.certificates("localhost:5000")


@pytest.mark.parametrize(
    "address", ["http://[::1", "proxy:port", "http://proxy:70000", "http://", "http://me:secret@a b:1"]
)
def test_a_proxy_without_a_valid_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("https_proxy", address)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(InvalidError, match="proxy for https") as caught:
        proxy_for(Origin("https", "registry.example", 443))
    assert "secret" not in caught.value.line
    assert "HTTPS_PROXY" in caught.value.hint


def test_a_proxy_with_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "me:p%40ss@[::1]:3128")
    found = proxy_for(Origin("https", "registry.example", 443))
    assert found == {
        "proxy_url": "http://[::1]:3128",
        "proxy_headers": {"proxy-authorization": "Basic bWU6cEBzcw=="},
    }


def test_hosts_and_times() -> None:
    assert [host_name(host) for host in ("a:1", "[::1]:2", "::1", "a")] == ["a", "::1", "::1", "a"]
    assert timeout_seconds({}) == 60
    assert timeout_seconds({"PYDOCK_REGISTRY_TIMEOUT": "0.5"}) == 0.5
    for wrong in ("0", "-1", "nan", "soon"):
        with pytest.raises(InvalidError, match="PYDOCK_REGISTRY_TIMEOUT"):
            timeout_seconds({"PYDOCK_REGISTRY_TIMEOUT": wrong})


def test_where_a_certificate_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = RegistrySettings(certificate_directories=(tmp_path, Path("/etc/pydock/certs.d")))
    error = ssl.SSLCertVerificationError("CERTIFICATE_VERIFY_FAILED")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "into /etc/pydock/certs.d/a:5000/ca.crt" in tls_hint("a:5000", error, found)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert f"into {tmp_path}/a:5000/ca.crt" in tls_hint("a:5000", error, found)
    (tmp_path / "a:5000").mkdir()
    (tmp_path / "a:5000" / "ca.crt").touch()
    assert f"not signed by {tmp_path}/a:5000/ca.crt" in tls_hint("a:5000", error, found)
