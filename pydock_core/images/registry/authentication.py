"""The authentication of requests to one registry: basic, or tokens from the server that the registry names.

Docker Registry v2 authentication (distribution.github.io/distribution/spec/auth: token, OAuth 2).  An authenticator
belongs to one registry: it sends credentials only to that registry (basic) and to the token server that was named over a
connection to that registry.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydock_core.errors import CorruptError, DeniedError
from pydock_core.images.registry.credentials import Credential
from pydock_core.images.registry.failure import refusal
from pydock_core.images.registry.header import Challenge
from pydock_core.images.registry.retry import REFUSED_ATTEMPTS, Attempts, exchange
from pydock_core.images.registry.transport import Origin, Response, Transport
from pydock_core.printable import printable_line

CLIENT_ID = "pydock"
_TOKEN_LIMIT_BYTES = 1 << 20
_LEAST_SECONDS = 60
"""The lifetime of a token whose server states none, or a shorter one (the token specification)."""
_MOST_SECONDS = 86400
_SLACK_SECONDS = 10
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


def repository_scope(path: str, actions: str) -> str:
    """Return the scope of a repository; ``actions`` is "pull" or "pull,push"."""
    return f"repository:{path}:{actions}"


CATALOGUE_SCOPE = "registry:catalog:*"


@dataclass(frozen=True, slots=True)
class _TokenServer:
    realm: str
    service: str


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    expires_seconds: float


class Authenticator:
    """The source of ``Authorization`` headers for one registry; thread-safe.

    Args:
        transport: for the token server.
        host: the registry's name, for messages and ``dock login``.
        credential: returns the registry's credentials; called at most once.
        offline: request a refresh token as well (a login).
    """

    def __init__(
        self,
        transport: Transport,
        host: str,
        credential: Callable[[], Credential | None],
        *,
        offline: bool = False,
    ) -> None:
        self._transport = transport
        self._host = host
        self._ask_credential = credential
        self._offline = offline
        self._lock = threading.RLock()
        self._credential: Credential | None = None
        self._asked = False
        self._basic = False
        self._server: _TokenServer | None = None
        self._extra_scopes: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._tokens: dict[tuple[str, ...], _Token] = {}
        self.refresh_token = ""

    def header(self, scopes: Sequence[str]) -> str | None:
        """Return the value of ``Authorization`` for a request that needs ``scopes``; None before a challenge.

        Raises:
            DeniedError: the token server refuses.
            UnavailableError: it cannot be reached.
        """
        with self._lock:
            if self._basic:
                return self._basic_header()
            if self._server is None:
                return None
            return f"Bearer {self._token(self._server, tuple(scopes))}"

    def learn(self, challenges: Iterable[Challenge], origin: Origin) -> None:
        """Record the challenges of the registry at ``origin``.

        Raises:
            DeniedError: the registry names an untrustworthy token server.
        """
        with self._lock:
            by_scheme: dict[str, Challenge] = {}
            for challenge in challenges:
                by_scheme.setdefault(challenge.scheme, challenge)
            bearer = by_scheme.get("bearer")
            if bearer is not None and bearer.parameters.get("realm"):
                server = _TokenServer(
                    self._checked_realm(bearer.parameters["realm"], origin),
                    bearer.parameters.get("service", ""),
                )
                if server != self._server:
                    self._tokens.clear()
                self._server, self._basic = server, False
            elif "basic" in by_scheme:
                self._basic, self._server = True, None

    def renew(
        self, challenges: Sequence[Challenge], origin: Origin, scopes: Sequence[str], rejected: str | None
    ) -> bool:
        """After a 401: return whether another attempt, with :meth:`header`, may succeed."""
        with self._lock:
            self.learn(challenges, origin)
            key = tuple(scopes)
            for challenge in challenges:
                if challenge.scheme == "bearer" and challenge.parameters.get("scope"):
                    requested = tuple(challenge.parameters["scope"].split()[:16])
                    self._extra_scopes[key] = tuple(scope for scope in requested if scope not in key)
            token = self._tokens.get(key)
            if token is not None and rejected == f"Bearer {token.value}":
                del self._tokens[key]
            header = self.header(scopes)
            return header is not None and header != rejected

    # -- credentials -------------------------------------------------------------------------------------

    def credential(self) -> Credential | None:
        """Return the registry's credentials, or None."""
        with self._lock:
            if not self._asked:
                self._credential = self._ask_credential()
                self._asked = True
            return self._credential

    @property
    def has_basic_credential(self) -> bool:
        """Whether a user name and a password are sent to the registry itself."""
        with self._lock:
            return self._basic and self._basic_header() is not None

    def _basic_header(self) -> str | None:
        credential = self.credential()
        if credential is None or not credential.username:
            return None
        return _basic(credential)

    # -- tokens ------------------------------------------------------------------------------------------

    def _checked_realm(self, realm: str, origin: Origin) -> str:
        parts = urllib.parse.urlsplit(realm)
        try:
            there = Origin.of(realm, self._host)
        except CorruptError as error:
            raise DeniedError(
                f"{self._host} names no usable token server", "the registry is misconfigured"
            ) from error
        if parts.username is not None:
            raise DeniedError(f"{self._host} names no usable token server", "the registry is misconfigured")
        if there.scheme != "https" and origin.scheme == "https":
            raise DeniedError(
                f"{self._host} names a token server without encryption: {printable_line(str(there))}",
                "credentials would be sent in clear; the registry is misconfigured, or the connection is intercepted",
            )
        return realm

    def _token(self, server: _TokenServer, key: tuple[str, ...]) -> str:
        token = self._tokens.get(key)
        if token is None or token.expires_seconds <= time.monotonic():
            token = self._fetch(server, (*key, *self._extra_scopes.get(key, ())))
            self._tokens[key] = token
        return token.value

    def _fetch(self, server: _TokenServer, scopes: tuple[str, ...]) -> _Token:
        credential = self.credential()
        fields = [("service", server.service)] if server.service else []
        headers: dict[str, str] = {}
        body: bytes | None = None
        url = server.realm.partition("#")[0]
        if credential is not None and credential.identity_token:
            form = [
                *fields,
                ("client_id", CLIENT_ID),
                ("grant_type", "refresh_token"),
                ("refresh_token", credential.identity_token),
                *([("scope", " ".join(scopes))] if scopes else []),
            ]
            body = urllib.parse.urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            if credential is not None:
                headers["Authorization"] = _basic(credential)
                fields.append(("account", credential.username))
                if self._offline:
                    fields += [("client_id", CLIENT_ID), ("offline_token", "true")]
            fields += [("scope", scope) for scope in scopes]
            url += ("&" if "?" in url else "?") + urllib.parse.urlencode(fields) if fields else ""
        data = self._exchange("GET" if body is None else "POST", url, headers, body, credential)
        return self._read_token(data)

    def _exchange(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        credential: Credential | None,
    ) -> bytes:
        """Ask the token server.  Redirects are not followed: the credentials are for the named server only."""
        host = Origin.of(url, self._host).name
        owner = f"credentials for {self._host}" if credential else f"a token for {self._host}"

        def accept(response: Response) -> bytes | None:
            if response.status != 200:
                return None
            with response:
                return response.read_document(_TOKEN_LIMIT_BYTES, f"{host}: the token")

        return exchange(
            self._transport,
            Attempts(refused_limit=REFUSED_ATTEMPTS),
            lambda: self._transport.send(method, url, headers, body),
            accept,
            lambda response, data: refusal(
                host,
                owner,
                response.status,
                response.headers,
                data,
                login_host=self._host,
                logged_in=credential is not None,
            ),
        )

    def _read_token(self, data: bytes) -> _Token:
        subject = f"the token server of {self._host}"
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise CorruptError(f"{subject} did not send JSON", "is its address right?") from error
        if not isinstance(document, dict):
            raise CorruptError(f"{subject} did not send a JSON object", "is its address right?")
        value = document.get("token") or document.get("access_token")
        if not isinstance(value, str) or not _HEADER_SAFE.fullmatch(value):
            raise CorruptError(f"{subject} sent no token", "is its address right?")
        refresh = document.get("refresh_token")
        if isinstance(refresh, str):
            self.refresh_token = refresh
        seconds = document.get("expires_in")
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            seconds = _LEAST_SECONDS
        # A comparison that treats NaN, which Python reads in JSON, as a missing value.
        holds = float(min(seconds, _MOST_SECONDS)) if seconds > _LEAST_SECONDS else _LEAST_SECONDS
        return _Token(value, time.monotonic() + holds - _SLACK_SECONDS)


def _basic(credential: Credential) -> str:
    return "Basic " + base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()
