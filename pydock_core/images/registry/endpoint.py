"""One registry host (or a mirror): its scheme, authentication, retries and redirects around each request."""

from __future__ import annotations

import threading
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from pydock_core.errors import CorruptError, PyDockError, UnavailableError
from pydock_core.images.registry.authentication import Authenticator
from pydock_core.images.registry.credentials import Credential
from pydock_core.images.registry.failures import BrokenConnectionError, TlsError
from pydock_core.images.registry.headers import parse_challenges
from pydock_core.images.registry.problem import refusal, shown
from pydock_core.images.registry.retry import ATTEMPTS, Attempts, pause_after
from pydock_core.images.registry.transport import Origin, Response, Transport

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECT_LIMIT = 10

Body = bytes | Callable[[], Iterable[bytes]]
"""A request's body: bytes, or a function that gives the pieces, as it may be sent more than once."""


class BusyError(UnavailableError):
    """The registry fails, or wants to be asked later, and the attempts are used up.

    Attributes:
        pause_seconds: to wait at least, before it may work.
    """

    def __init__(self, message: str, hint: str = "", *, pause_seconds: float = 0.0) -> None:
        super().__init__(message, hint)
        self.pause_seconds = pause_seconds


class Endpoint:
    """A host that speaks the distribution specification; thread-safe.

    Args:
        transport: carries the requests.
        name: what messages and ``dock login`` call it: "docker.io".
        host: where it is: "registry-1.docker.io", "localhost:5000".
        schemes: to try in this order: ("https",), ("https", "http") for an insecure one.
        credential: gives the credentials of this host; asked at most once.
        attempts: at each request, at most.
        probe: whether to ask for /v2/ first, as Docker does; for hosts that are no registries, False.
        offline: ask for a refresh token (a login).
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
        self._authenticator = Authenticator(transport, name, credential, login_host=name, offline=offline)

    @property
    def refresh_token(self) -> str:
        """What the token server gave at a login, or ""."""
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
        """Send a request until it is answered as expected, and return the answer with its body unread.

        Args:
            method: of HTTP.
            url: absolute, on this host or another one; only this host gets credentials.
            subject: what it is about, for messages.
            scopes: what the request needs to be allowed to.
            headers: to add.
            body: of the request.
            expected: statuses to return.
            attempts: to count in, where the caller goes on after what broke.

        Raises:
            DeniedError, NotFoundError, InvalidError, UnsupportedError, FailedError: the registry refuses.
            UnavailableError: it cannot be reached, fails or wants to be asked less often.
            CorruptError: its answers break the rules.
        """
        own = self._reach()
        counted = Attempts(self._attempts) if attempts is None else attempts
        renewed = False
        while True:
            pause: float | None
            try:
                response, sent = self._follow(method, url, scopes, headers or {}, body, own)
            except BrokenConnectionError:
                if not counted.left():
                    raise
                self._transport.wait(counted.next_pause())
                continue
            if response.status in expected:
                return response
            with response:
                data = response.read_beginning()
                if response.status == 401 and response.origin == own and not renewed:
                    renewed = True
                    challenges = parse_challenges(response.header_values("WWW-Authenticate"))
                    if self._authenticator.renew(challenges, own, scopes, sent):
                        continue
                pause = pause_after(response.status, response.headers)
                if pause is None or not counted.left():
                    error = self._refusal(response, subject, data, own)
                    raise (
                        error if pause is None else BusyError(error.message, error.hint, pause_seconds=pause)
                    )
            self._transport.wait(max(pause, counted.next_pause()))

    def _follow(
        self,
        method: str,
        url: str,
        scopes: Sequence[str],
        headers: Mapping[str, str],
        body: Body | None,
        own: Origin,
    ) -> tuple[Response, str | None]:
        """Send once, and follow redirects by hand: another host never gets ``Authorization``."""
        for _ in range(_REDIRECT_LIMIT):
            origin = Origin.of(url, self.name)
            if origin.scheme == "http" and own.scheme == "https":
                raise CorruptError(
                    f"{self.name} sends to an address without encryption: {shown(str(origin))}",
                    "the registry is misconfigured, or somebody is in between",
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
                return response, authorization  # to follow would make a GET of it
            response.close()
            url = self.resolve(url, location)
        raise CorruptError(f"{self.name} redirects without end", "the registry is misconfigured")

    def resolve(self, base: str, location: str) -> str:
        """Return the absolute address of a Location header.

        A registry behind a proxy that ends TLS may name itself without it; the connection keeps its encryption then.

        Raises:
            CorruptError: it is no address.
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
        if response.origin == own:
            return refusal(
                self.name,
                subject,
                response.status,
                response.headers,
                data,
                login_host=self.name,
                logged_in=self._authenticator.has_basic_credential,
            )
        return refusal(
            f"{self.name} ({response.origin.name})",
            subject,
            response.status,
            response.headers,
            data,
            login_host="",
        )

    def _reach(self) -> Origin:
        """Find out, once, how the host is spoken to, and how it wants to be authenticated to (GET /v2/)."""
        with self._lock:
            if self._origin is not None:
                return self._origin
            attempts = Attempts(self._attempts)
            while True:
                try:
                    self._origin = self._probe()
                    return self._origin
                except BrokenConnectionError as error:
                    if not attempts.left(was_refused=error.was_refused):
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
                # The plain connection's failure says less where nobody listens at all.
                first = first or error
                if scheme == self._schemes[-1]:
                    if isinstance(first, TlsError) and isinstance(error, BrokenConnectionError):
                        raise error from first
                    raise first from error if error is not first else None
        raise UnavailableError(f"{self.name}: no way to reach it")  # there is always a scheme
