"""The client of one registry: manifests, blobs and tags, by the distribution specification."""

from __future__ import annotations

import contextlib
import itertools
import re
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pydock_core.errors import (
    CorruptError,
    DeniedError,
    NotFoundError,
    PyDockError,
    UnavailableError,
    UnsupportedError,
)
from pydock_core.images.registry.authentication import CATALOGUE_SCOPE, repository_scope
from pydock_core.images.registry.blob import BlobSink, Upload, cancel_upload, download
from pydock_core.images.registry.credentials import Credential, CredentialStore
from pydock_core.images.registry.endpoint import Endpoint
from pydock_core.images.registry.failure import is_web_page, web_page_error
from pydock_core.images.registry.listing import list_names, search_catalogue, search_hub
from pydock_core.images.registry.retry import ATTEMPTS, Attempts
from pydock_core.images.registry.settings import HUB_DOMAIN, HUB_HOST, RegistrySettings, load_settings
from pydock_core.images.registry.settings import timeout_seconds as configured_timeout_seconds
from pydock_core.images.registry.transport import Response, Transport
from pydock_core.oci.digest import digest_of, is_digest
from pydock_core.oci.documents import INDEX_TYPES, MANIFEST_TYPES, Descriptor, decode
from pydock_core.store.growing_file import Arrival

_MANIFEST_LIMIT_BYTES = 4 << 20
"""The size that every registry should accept (distribution specification, "Pushing Manifests")."""
_TYPES = (*sorted(MANIFEST_TYPES), *sorted(INDEX_TYPES))
_SCHEMA_1 = re.compile(r"application/vnd\.docker\.distribution\.manifest\.v1\+(json|(pretty)?jws)")
_MIRROR_ATTEMPTS = 2
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A registry's manifest or index.

    Attributes:
        media_type: one of the OCI or Docker types, or that of another artifact.
        digest: computed from ``data``.
        data: the document's bytes.
    """

    media_type: str
    digest: str
    data: bytes


class RegistryClient:
    """A client of one registry; thread-safe, so that several blobs can be in transfer.  A context manager.

    Args:
        domain: as in references: "docker.io", "localhost:5000".
        settings: mirrors, insecure registries, certificates; from the files by default.
        credentials: user names and passwords; Docker's configuration by default.
        timeout_seconds: the limit for silence, after which the registry counts as stalled; PYDOCK_REGISTRY_TIMEOUT by
            default.

    All methods raise UnavailableError (not reached, stalled, rate limit), DeniedError (credentials), NotFoundError,
    CorruptError (unexpected content), and InvalidError or UnsupportedError by the registry's refusal.
    """

    def __init__(
        self,
        domain: str,
        *,
        settings: RegistrySettings | None = None,
        credentials: CredentialStore | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        self.domain = domain
        self._settings = load_settings() if settings is None else settings
        self._credentials = credentials or CredentialStore()
        self._transport = Transport(
            self._settings, configured_timeout_seconds() if timeout_seconds is None else timeout_seconds
        )
        self._own = self._endpoint(lambda: self._credentials.find(domain))
        self._mirrors = [self._mirror(address) for address in self._settings.mirrors_of(domain)]
        self._unreachable: dict[str, str] = {}

    # -- pull --------------------------------------------------------------------------------------------

    def manifest(self, path: str, reference: str) -> FetchedManifest:
        """Fetch a manifest or an index by tag or digest; its digest is computed and compared with the expected one."""
        return self._from_any(lambda endpoint: self._manifest(endpoint, path, reference))

    def fetch_blob(self, path: str, descriptor: Descriptor, sink: BlobSink) -> None:
        """Fetch a blob into ``sink``, from its position on; a break is resumed, and the size is checked.

        The sink computes the digest.  If the registry does not have the blob, the descriptor's own addresses are tried,
        without credentials (layers that must not be distributed; descriptor.md, "urls").

        Raises:
            CorruptError: the blob has another size.
            UnavailableError: the download broke too often without progress; ``sink`` keeps the received bytes.
        """
        target = f"/v2/{urllib.parse.quote(path)}/blobs/{descriptor.digest}"
        scopes = (repository_scope(path, "pull"),)

        def fetch(endpoint: Endpoint) -> None:
            def opener(headers: dict[str, str], attempts: Attempts) -> Response:
                return endpoint.open(
                    "GET",
                    endpoint.url(target),
                    subject=f"{path}@{descriptor.digest}",
                    scopes=scopes,
                    headers=headers,
                    expected=(200, 206, 416) if headers else (200,),
                    attempts=attempts,
                )

            attempts = Attempts(ATTEMPTS if endpoint is self._own else _MIRROR_ATTEMPTS)
            try:
                download(self._transport, endpoint.name, descriptor, sink, opener, attempts)
            except CorruptError:
                if endpoint is not self._own and sink.position:
                    sink.restart()
                raise

        try:
            self._from_any(fetch)
        except NotFoundError:
            if not descriptor.urls:
                raise
            self._fetch_elsewhere(descriptor, sink)

    # -- push --------------------------------------------------------------------------------------------

    def has_blob(self, path: str, digest: str) -> bool:
        """Whether a repository has a blob."""
        url = self._own.url(f"/v2/{urllib.parse.quote(path)}/blobs/{digest}")
        with self._own.open(
            "HEAD", url, subject=f"{path}@{digest}", scopes=_push_scopes(path), expected=(200, 404)
        ) as response:
            return response.status == 200

    def mount_blob(self, path: str, digest: str, from_path: str) -> bool:
        """Ask the registry to mount a blob from another of its repositories; return whether it did."""
        query = urllib.parse.urlencode({"mount": digest, "from": from_path}, safe=":/")
        url = self._own.url(f"/v2/{urllib.parse.quote(path)}/blobs/uploads/?{query}")
        scopes = (*_push_scopes(path), repository_scope(from_path, "pull"))
        try:
            with self._own.open(
                "POST", url, subject=path, scopes=scopes, headers={"Content-Length": "0"}, expected=(201, 202)
            ) as response:
                if response.status == 201:
                    return True
                location = response.headers.get("Location")
                session = self._own.resolve(url, location) if location else ""
        except (DeniedError, NotFoundError):
            return False  # the other repository is not readable, or gone
        if session:
            cancel_upload(
                self._own, session, path, _push_scopes(path)
            )  # an unwanted upload has begun instead
        return False

    def upload_blob(
        self,
        path: str,
        file: Path,
        arrival: Arrival | None,
        digest: Callable[[], str],
        report: Callable[[int], None] | None = None,
    ) -> None:
        """Upload a file that may still be growing.

        Args:
            path: of the repository.
            file: with the blob's bytes.
            arrival: the growth of the file; None if the file is complete.
            digest: returns the blob's digest, called when the file is complete.
            report: receives the position in the file, which goes back if bytes are sent again.

        Raises:
            the failure of ``arrival``.
        """
        Upload(self._own, self._transport, path, _push_scopes(path), file, arrival, digest, report).run()

    def put_manifest(self, path: str, reference: str, media_type: str, data: bytes) -> str:
        """Store a manifest or an index under a tag or its digest; return its digest."""
        digest = digest_of(data)
        url = self._own.url(_manifest_target(path, reference))
        headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
        with self._own.open(
            "PUT",
            url,
            subject=f"{path}:{reference}",
            scopes=_push_scopes(path),
            headers=headers,
            body=data,
            expected=(201, 200, 202),
        ) as response:
            stated = response.headers.get("Docker-Content-Digest")
        if stated and stated != digest:
            raise CorruptError(
                f"{self.domain} took {path}@{digest} for {stated}", "push again; the registry may be broken"
            )
        return digest

    # -- queries -----------------------------------------------------------------------------------------

    def tags(self, path: str) -> Iterator[str]:
        """Yield the tags of a repository, in the registry's order; from a mirror, if one answers."""
        target = f"/v2/{urllib.parse.quote(path)}/tags/list"
        scopes = (repository_scope(path, "pull"),)

        def ask(endpoint: Endpoint) -> Iterator[str]:
            names = list_names(endpoint, target, "tags", subject=path, scopes=scopes)
            first = list(itertools.islice(names, 1))  # here, so that a failing mirror is skipped
            return itertools.chain(first, names)

        return self._from_any(ask)

    def catalogue(self) -> Iterator[str]:
        """Yield the repositories that the registry lists."""
        return list_names(
            self._own, "/v2/_catalog", "repositories", subject="catalogue", scopes=(CATALOGUE_SCOPE,)
        )

    def search(self, term: str, limit: int = 25) -> list[dict[str, Any]]:
        """Search Docker Hub by its own search, another registry by the names in its catalogue.

        Returns:
            at most ``limit`` of the Engine API's ImageSearch results: name, description, star_count, is_official,
            is_automated.
        """
        if self.domain == HUB_DOMAIN:
            return search_hub(self._transport, term, limit)
        return search_catalogue(self.catalogue(), term, limit)

    def check_login(self, username: str, password: str) -> str:
        """Check credentials with the registry; return an identity token to store in their place, or "".

        Raises:
            DeniedError: the registry rejects them.
        """
        endpoint = self._endpoint(lambda: Credential(username, password), offline=True)
        try:
            with endpoint.open("GET", endpoint.url("/v2/"), subject="login") as response:
                data = response.read_beginning()
                if is_web_page(response.content_type, data):
                    raise web_page_error(self.domain)
        except DeniedError as error:
            raise DeniedError(
                error.message, "check the user name and the password; some want a token instead"
            ) from error
        return endpoint.refresh_token

    def close(self) -> None:
        """Close all connections; threads that wait for one get an UnavailableError."""
        self._transport.close()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- endpoints -----------------------------------------------------------------------------------------

    def _endpoint(self, credential: Callable[[], Credential | None], *, offline: bool = False) -> Endpoint:
        host = HUB_HOST if self.domain == HUB_DOMAIN else self.domain
        schemes = ("https", "http") if self._settings.is_insecure(host) else ("https",)
        return Endpoint(self._transport, self.domain, host, schemes, credential, offline=offline)

    def _mirror(self, address: str) -> Endpoint:
        scheme, _, host = address.partition("://")
        return Endpoint(
            self._transport,
            host,
            host,
            (scheme,),
            lambda: self._credentials.find(host),
            attempts=_MIRROR_ATTEMPTS,
        )

    def _from_any(self, ask: Callable[[Endpoint], _T]) -> _T:
        """Ask the mirrors, then the registry itself; an unreachable mirror is not asked again.

        If the registry fails, the error has a note for each failed mirror.
        """
        failures: dict[str, str] = {}
        for mirror in tuple(self._mirrors):
            try:
                return ask(mirror)
            except UnavailableError as error:
                self._transport.wait(0)  # raises if this client was closed
                self._unreachable[mirror.name] = error.message
                with contextlib.suppress(ValueError):
                    self._mirrors.remove(mirror)
            except PyDockError as error:
                failures[mirror.name] = error.message
        try:
            return ask(self._own)
        except PyDockError as error:
            for name, message in {**self._unreachable, **failures}.items():
                error.add_note(f"mirror {message if message.startswith(name) else f'{name}: {message}'}")
            raise

    def _manifest(self, endpoint: Endpoint, path: str, reference: str) -> FetchedManifest:
        subject = _named(path, reference)
        with endpoint.open(
            "GET",
            endpoint.url(_manifest_target(path, reference)),
            subject=subject,
            scopes=(repository_scope(path, "pull"),),
            headers={"Accept": ", ".join(_TYPES)},
        ) as response:
            content_type, stated = response.content_type, response.headers.get("Docker-Content-Digest", "")
            data = response.read_document(
                _MANIFEST_LIMIT_BYTES, f"{endpoint.name}: the manifest of {subject}"
            )
        if is_web_page(content_type, data):
            raise web_page_error(endpoint.name)
        digest = digest_of(data)
        expected = reference if is_digest(reference) else stated if is_digest(stated) else digest
        if digest != expected:
            raise CorruptError(
                f"{endpoint.name}: the manifest of {subject} has the digest {digest}, not {expected}",
                "the registry's copy is damaged, or the connection is intercepted",
            )
        return FetchedManifest(_media_type(f"{endpoint.name}: {subject}", content_type, data), digest, data)

    def _fetch_elsewhere(self, descriptor: Descriptor, sink: BlobSink) -> None:
        failure: PyDockError | None = None
        for url in descriptor.urls:
            try:
                parts = urllib.parse.urlsplit(url)
                if parts.scheme not in ("http", "https") or not parts.hostname:
                    continue
                # The address is the image's, not the registry's: it receives no credentials.
                place = Endpoint(
                    self._transport, parts.hostname, parts.netloc, (parts.scheme,), lambda: None, probe=False
                )

                def opener(
                    headers: dict[str, str], attempts: Attempts, place: Endpoint = place, url: str = url
                ) -> Response:
                    return place.open(
                        "GET",
                        url,
                        subject=descriptor.digest,
                        headers=headers,
                        attempts=attempts,
                        expected=(200, 206, 416) if headers else (200,),
                    )

                download(self._transport, place.name, descriptor, sink, opener, Attempts())
                return
            except PyDockError as error:
                self._transport.wait(0)
                failure = error
        raise failure or UnsupportedError(
            f"{self.domain} has no blob {descriptor.digest}, and the image names no other address for it"
        )


def _push_scopes(path: str) -> tuple[str, ...]:
    return (repository_scope(path, "pull,push"),)


def _named(path: str, reference: str) -> str:
    return f"{path}@{reference}" if is_digest(reference) else f"{path}:{reference}"


def _manifest_target(path: str, reference: str) -> str:
    return f"/v2/{urllib.parse.quote(path)}/manifests/{urllib.parse.quote(reference, safe=':')}"


def _media_type(subject: str, sent: str, data: bytes) -> str:
    """Return the media type of a manifest, on which the answer and the document must agree."""
    document = decode(data, f"{subject}: the manifest")
    if not isinstance(document, dict):
        raise CorruptError(f"{subject}: the manifest is not a JSON object", "the registry's copy is damaged")
    if _SCHEMA_1.fullmatch(sent) or document.get("schemaVersion") == 1:
        raise UnsupportedError(
            f"{subject} is in the image format of 2014 (manifest schema 1)",
            "registries and tools no longer support it; ask its owner to push the image again",
        )
    stated = document.get("mediaType")
    if isinstance(stated, str) and stated:
        if sent in _TYPES and sent != stated:
            raise CorruptError(f"{subject}: the manifest is sent as {sent} and calls itself {stated}")
        return stated
    if sent in _TYPES:
        return sent
    # OCI 1.0 documents need no mediaType, and some registries send all as JSON: the form decides.
    if isinstance(document.get("manifests"), list):
        return "application/vnd.oci.image.index.v1+json"
    if isinstance(document.get("layers"), list):
        return "application/vnd.oci.image.manifest.v1+json"
    return sent
