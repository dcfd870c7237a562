"""Debian's docker-registry on loopback in a network namespace, and the token server that one variant asks for."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.support.certificates import Authority, Pair
from tests.support.network_namespace import NetworkNamespace, end
from tests.support.scripted_server import Exchange, Scripted, scripted_server

USERNAME, PASSWORD = "ann", "correct horse: battery"
SERVICE, ISSUER = "the tests' registry", "the tests' token server"


_ACCESS = re.compile(r'"([A-Z]+) (\S+) HTTP/1\.1" (\d+) (\d+) ')
_ENDED_SECONDS = 10


@dataclass(frozen=True)
class Asked:
    """A request that the registry has answered, as its access log has it."""

    method: str
    path: str
    status: int
    sent_bytes: int


@dataclass
class Registry:
    """A running docker-registry.

    Attributes:
        inside: the namespace in which it is to be reached.
        host: "127.0.0.1:PORT", the domain of references to it.
        directory: of its storage.
        log: what it wrote.
        process: may be ended by a test; :meth:`restart` starts it again.
    """

    inside: NetworkNamespace
    host: str
    directory: Path
    configuration: Path
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def port(self) -> int:
        return int(self.host.rpartition(":")[2])

    def asked(self, repository: str = "") -> list[Asked]:
        """What was asked for so far, or of one repository."""
        found = [
            Asked(method, path, int(status), int(sent))
            for method, path, status, sent in _ACCESS.findall(self.log.read_text())
        ]
        return [each for each in found if each.path.startswith(f"/v2/{repository and repository + '/'}")]

    def wait_for(self, repository: str, method: str, part: str) -> list[Asked]:
        """What was asked of a repository, once this has: a request is logged a moment after its answer has come."""
        end = time.monotonic() + _ENDED_SECONDS
        while True:
            found = self.asked(repository)
            if any(each.method == method and part in each.path for each in found):
                return found
            assert time.monotonic() < end, f"{method} {part} was never asked for"
            time.sleep(0.02)

    def restart(self) -> None:
        """Start it, and wait until it listens."""
        with open(self.log, "ab") as log:
            self.process = self.inside.start(
                "docker-registry", "serve", self.configuration, stdout=log, stderr=log
            )
        self.inside.wait_for_port(self.port, self.process)

    def stop(self) -> None:
        """End it."""
        end([self.process])


@contextmanager
def registry(
    inside: NetworkNamespace,
    directory: Path,
    port: int,
    *,
    tls: Pair | None = None,
    client_authority: Path | None = None,
    auth: dict[str, Any] | None = None,
    http: dict[str, Any] | None = None,
    foreign: str | None = None,
) -> Iterator[Registry]:
    """Run docker-registry; it is configured in JSON, which YAML includes.

    Args:
        inside: where it runs.
        directory: for its files.
        port: on 127.0.0.1.
        tls: its certificate; plain HTTP without.
        client_authority: who must have signed its clients' certificates.
        auth: the configuration's section, see :func:`basic_auth` and :func:`token_server`.
        http: more of the section "http".
        foreign: a pattern of the addresses that foreign layers may have; none by default.
    """
    if not shutil.which("docker-registry"):
        pytest.skip("needs docker-registry")
    storage = directory / "storage"
    storage.mkdir(parents=True)
    section: dict[str, Any] = {"addr": f"127.0.0.1:{port}", **(http or {})}
    if tls is not None:
        section["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
        if client_authority is not None:
            section["tls"]["clientcas"] = [str(client_authority)]
    document: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": section,
    }
    if auth is not None:
        document["auth"] = auth
    if foreign is not None:
        document["validation"] = {"manifests": {"urls": {"allow": [foreign]}}}
    configuration = directory / "config.yml"
    configuration.write_text(json.dumps(document))
    made = Registry(inside, f"127.0.0.1:{port}", storage, configuration, directory / "log")
    made.restart()
    try:
        yield made
    finally:
        made.stop()


def basic_auth(directory: Path, username: str = USERNAME, password: str = PASSWORD) -> dict[str, Any]:
    """Return the section "auth" for basic authentication; the file is htpasswd's."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "htpasswd"
    file.write_text(f"{username}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n")
    return {"htpasswd": {"realm": "tests", "path": str(file)}}


@dataclass
class TokenServer:
    """A server of tokens as the distribution's token specification has them (JWT, RS256, x5c).

    Anonymous clients may pull from public/; ann may everything.

    Attributes:
        server: what it was asked.
        auth: the section "auth" of a registry that trusts it.
        lifetime_seconds: of tokens to come.
        refresh_tokens: that it has given out.
    """

    server: Scripted
    auth: dict[str, Any]
    lifetime_seconds: int = 300
    refresh_tokens: list[str] = field(default_factory=list)


@contextmanager
def token_server(inside: NetworkNamespace, authority: Authority, tls: Pair | None) -> Iterator[TokenServer]:
    """Run one; tokens are signed by the authority itself."""
    certificate = x509.load_pem_x509_certificate(authority.pair.certificate.read_bytes())
    chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
    key = authority.pair.key.read_bytes()
    state: TokenServer

    def answer(exchange: Exchange) -> None:
        seen = exchange.seen
        user = ""
        wants_refresh = False
        if seen.method == "POST":
            form = {name: values[0] for name, values in _form(seen.body).items()}
            scopes = form.get("scope", "").split()
            if form.get("grant_type") != "refresh_token" or form["refresh_token"] not in state.refresh_tokens:
                exchange.answer(401, {"error": "invalid_grant"})
                return
            user = USERNAME
        else:
            scopes = [word for scope in seen.query.get("scope", []) for word in scope.split()]
            wants_refresh = "offline_token" in seen.query
            if "Authorization" in seen.headers:
                expected = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
                if seen.headers["Authorization"] != f"Basic {expected}":
                    exchange.answer(401, {"details": "incorrect username or password"})
                    return
                user = USERNAME
        access = [granted for scope in scopes if (granted := _grant(scope, user))]
        now = int(time.time())
        token = jwt.encode(
            {
                "iss": ISSUER,
                "sub": user,
                "aud": SERVICE,
                "exp": now + state.lifetime_seconds,
                "nbf": now - 10,
                "iat": now,
                "jti": str(uuid.uuid4()),
                "access": access,
            },
            key,
            "RS256",
            headers={"x5c": chain},
        )
        document: dict[str, Any] = {"token": token, "expires_in": state.lifetime_seconds}
        if wants_refresh and user:
            state.refresh_tokens.append(f"refresh-{uuid.uuid4()}")
            document["refresh_token"] = state.refresh_tokens[-1]
        exchange.answer(200, document, {"Content-Type": "application/json"})

    with scripted_server(inside, answer, tls) as server:
        realm = f"{server.url}/token"
        bundle = str(authority.file)
        auth = {"token": {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}}
        state = TokenServer(server, auth)
        yield state


def _form(body: bytes) -> dict[str, list[str]]:
    return urllib.parse.parse_qs(body.decode())


def _grant(scope: str, user: str) -> dict[str, Any] | None:
    kind, _, remainder = scope.partition(":")
    name, _, actions = remainder.rpartition(":")
    wanted = actions.split(",")
    if not user:
        wanted = [action for action in wanted if action == "pull" and name.startswith("public/")]
    return {"type": kind, "name": name, "actions": wanted} if wanted else None
