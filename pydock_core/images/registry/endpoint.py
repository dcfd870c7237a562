"""One registry host (or a mirror): its scheme, authentication, retries and redirects around each request."""

from __future__ import annotations

import threading
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from pydock_core.errors import CorruptError, PyDockError, UnavailableError
from pydock_core.images.registry.authentication import Authenticator
from pydock_core.images.registry.credentials import Credential
from pydock_core.images.registry.failure import BrokenConnectionError, TlsError, refusal
from pydock_core.images.registry.header import parse_challenges
from pydock_core.images.registry.retry import ATTEMPTS, REFUSED_ATTEMPTS, Attempts, exchange
from pydock_core.images.registry.transport import Origin, Response, Transport
from pydock_core.printable import printable_line

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECT_LIMIT = 10

Body = bytes | Callable[[], Iterable[bytes]]
"""A request's body: bytes, or a function that returns the pieces for each attempt."""


class Endpoint:
    """A host that speaks the distribution specification; thread-safe.

    Args:
        transport: carries the requests.
        name: the name in messages and for ``dock login``: "docker.io".
        host: the address: "registry-1.docker.io", "localhost:5000".
        schemes: to try in this order: ("https",), ("https", "http") for an insecure registry.
        credential: returns the credentials of this host; called at most once.
        attempts: the most attempts at each request.
        probe: request /v2/ first, as Docker does; False for a host that is not a registry.
        offline: request a refresh token (a login).
    """

    def __init__(
        self,
        transport: Transport,
        name: str,
        host: str,
        schemes: Sequence[str],
        credential: Callable[[], Credential | None],
        *,
        attempts: int = ATTEMPTS,
        offline: bool = False,
        probe: bool = True,
    ) -> None:
        self.name = name
        self._host = host
        self._transport = transport
        self._schemes = schemes
        self._attempts = attempts
        self._lock = threading.Lock()
        self._origin = None if probe else Origin.of(f"{schemes[0]}://{host}", name)
        self._authenticator = Authenticator(transport, name, credential, offline=offline)

    @property
    def refresh_token(self) -> str:
        """The refresh token that the token server issued at a login, or ""."""
        return self._authenticator.refresh_token

    def url(self, target: str) -> str:
        """Return the address of a path ("/v2/...") of this host."""
        return f"{self._reach()}{target}"

    def open(
        self,
        method: str,
        url: str,
        *,
        subject: str,
        scopes: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        expected: Collection[int] = (200,),
        attempts: Attempts | None = None,
    ) -> Response:
        """Send a request until its answer is an expected one; return it with its body unread.

        Args:
            method: of HTTP.
            url: absolute, on this host or another one; only this host receives credentials.
            subject: the object of the request, for messages.
            scopes: the permissions that the request needs.
            headers: additional ones.
            body: of the request.
            expected: statuses to return.
            attempts: to count in, if the caller resumes after a break.

        Raises:
            DeniedError, NotFoundError, InvalidError, UnsupportedError, FailedError: the registry refuses.
            UnavailableError: the registry cannot be reached, fails or limits the rate.
            CorruptError: its answers break the rules.
        """
        own = self._reach()
        sent: str | None = None
        is_renewed = False

        def send() -> Response:
            nonlocal sent
            response, sent = self._follow(method, url, scopes, headers or {}, body, own)
            return response

        def refuse(response: Response, data: bytes) -> PyDockError | None:
            nonlocal is_renewed
            if response.status == 401 and response.origin == own and not is_renewed:
                is_renewed = True
                challenges = parse_challenges(response.header_values("WWW-Authenticate"))
                if self._authenticator.renew(challenges, own, scopes, sent):
                    return None
            return self._refusal(response, subject, data, own)

        return exchange(
            self._transport,
            attempts or Attempts(self._attempts),
            send,
            lambda response: response if response.status in expected else None,
            refuse,
        )

    def _follow(
        self,
        method: str,
        url: str,
        scopes: Sequence[str],
        headers: Mapping[str, str],
        body: Body | None,
        own: Origin,
    ) -> tuple[Response, str | None]:
        """Send once, and follow redirects by hand: another host never receives ``Authorization``."""
        for _ in range(_REDIRECT_LIMIT):
            origin = Origin.of(url, self.name)
            if origin.scheme == "http" and own.scheme == "https":
                raise CorruptError(
                    f"{self.name} sends to an address without encryption: {printable_line(str(origin))}",
                    "the registry is misconfigured, or the connection is intercepted",
                )
            authorization = self._authenticator.header(scopes) if origin == own else None
            added = {"Authorization": authorization} if authorization else {}
            response = self._transport.send(
                method, url, {**headers, **added}, body() if callable(body) else body
            )
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response, authorization
            if method not in ("GET", "HEAD") and response.status not in (307, 308):
                return response, authorization  # following it would make it a GET
            response.close()
            url = self.resolve(url, location)
        raise CorruptError(f"{self.name} redirects without end", "the registry is misconfigured")

    def resolve(self, base: str, location: str) -> str:
        """Return the absolute address of a Location header.

        A registry behind a proxy that terminates TLS may give its plain address; the encryption is kept then.

        Raises:
            CorruptError: the address is invalid.
        """
        try:
            url = urllib.parse.urljoin(base, location)
        except ValueError as error:
            raise CorruptError(f"{self.name} gave an invalid address") from error
        origin, here = Origin.of(url, self.name), Origin.of(base, self.name)
        downgraded = origin.scheme == "http" and here.scheme == "https" and origin.host == here.host
        if downgraded and origin.port in (80, here.port):
            parts = urllib.parse.urlsplit(url)
            return urllib.parse.urlunsplit(("https", here.name, parts.path, parts.query, ""))
        return url

    def _refusal(self, response: Response, subject: str, data: bytes, own: Origin) -> PyDockError:
        is_own = response.origin == own
        return refusal(
            self.name if is_own else f"{self.name} ({response.origin.name})",
            subject,
            response.status,
            response.headers,
            data,
            login_host=self.name if is_own else "",
            logged_in=is_own and self._authenticator.has_basic_credential,
        )

    def _reach(self) -> Origin:
        """Determine, once, the host's scheme and its authentication (GET /v2/)."""
        with self._lock:
            if self._origin is not None:
                return self._origin
            attempts = Attempts(self._attempts, REFUSED_ATTEMPTS)
            while True:
                try:
                    self._origin = self._probe()
                    return self._origin
                except BrokenConnectionError as error:
                    if not attempts.are_left(error):
                        # Of another class, so that no caller tries again.
                        raise UnavailableError(error.message, error.hint) from error
                self._transport.wait(attempts.next_pause())

    def _probe(self) -> Origin:
        first: UnavailableError | None = None
        for scheme in self._schemes:
            url = f"{scheme}://{self._host}/v2/"
            origin = Origin.of(url, self.name)
            try:
                with self._transport.send("GET", url, {}) as response:
                    if response.status == 401:
                        challenges = parse_challenges(response.header_values("WWW-Authenticate"))
                        self._authenticator.learn(challenges, origin)
                    response.read_beginning(4096)
                    return origin
            except (BrokenConnectionError, TlsError) as error:
                # If nothing listens at all, the plain connection's failure is less informative.
                first = first or error
                if scheme == self._schemes[-1]:
                    if isinstance(first, TlsError) and isinstance(error, BrokenConnectionError):
                        raise error from first
                    raise first from error if error is not first else None
        raise UnavailableError(f"{self.name}: no way to reach it")  # there is always a scheme
