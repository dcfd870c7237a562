"""The client of one registry: manifests, blobs, tags, in the distribution specification's verbs."""

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
from pydock_core.images.registry.blob import BlobSink, Upload, download
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
from pydock_core.store.layer_blob import Arrival

_MANIFEST_LIMIT_BYTES = 4 << 20
"""A manifest of this size every registry should take (distribution specification, "Pushing Manifests")."""
_TYPES = (*sorted(MANIFEST_TYPES), *sorted(INDEX_TYPES))
_SCHEMA_1 = re.compile(r"application/vnd\.docker\.distribution\.manifest\.v1\+(json|(pretty)?jws)")
_MIRROR_ATTEMPTS = 2
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest or an index as a registry has it.

    Attributes:
        media_type: one of the OCI or Docker types, or that of another artifact.
        digest: of ``data``, computed.
        data: the document's bytes.
    """

    media_type: str
    digest: str
    data: bytes


class RegistryClient:
    """Speaks to one registry; thread-safe, so that several blobs can be on their way.  A context manager.

    Args:
        domain: as references have it: "docker.io", "localhost:5000".
        settings: mirrors, insecure registries, certificates; read from the files by default.
        credentials: where user names and passwords are; Docker's configuration by default.
        timeout_seconds: after so long without a byte the registry counts as stalled; PYDOCK_REGISTRY_TIMEOUT by default.

    All methods raise UnavailableError (not reached, stalled, rate limit), DeniedError (credentials), NotFoundError,
    CorruptError (what came is not what it should be), and InvalidError or UnsupportedError where the registry says so.
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
        """Fetch a manifest or an index by tag or digest; its digest is computed, and compared with what was said."""
        return self._from_any(lambda endpoint: self._manifest(endpoint, path, reference))

    def fetch_blob(self, path: str, descriptor: Descriptor, sink: BlobSink) -> None:
        """Fetch a blob into ``sink``, from where it is; what breaks is resumed, and the size is checked.

        The sink computes the digest.  Where the registry has no such blob, the descriptor's own addresses are tried,
        without credentials (layers that must not be distributed; descriptor.md, "urls").

        Raises:
            CorruptError: it has another size.
            UnavailableError: it broke too often without progress; ``sink`` keeps what came.
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
        """Have the registry take a blob over from another of its repositories; whether it did."""
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
            return False  # no right to read the other repository, or it has gone
        if session:
            # An upload has begun instead, which is not wanted.
            with contextlib.suppress(PyDockError):
                self._own.open(
                    "DELETE",
                    session,
                    subject=path,
                    scopes=_push_scopes(path),
                    headers={"Content-Length": "0"},
                    attempts=Attempts(1),
                    expected=(200, 202, 204),
                ).close()
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
            arrival: tells how much of the file is there; None where it is whole.
            digest: gives the blob's digest, asked when the file is whole.
            report: is told the position in the file, now and then; it goes back where something is sent again.

        Raises:
            what ``arrival`` failed with.
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
            told = response.headers.get("Docker-Content-Digest")
        if told and told != digest:
            raise CorruptError(
                f"{self.domain} took {path}@{digest} for {told}", "push again; the registry may be broken"
            )
        return digest

    # -- looking -----------------------------------------------------------------------------------------

    def tags(self, path: str) -> Iterator[str]:
        """Yield the tags of a repository, in the registry's order; from a mirror, if one answers."""
        target = f"/v2/{urllib.parse.quote(path)}/tags/list"
        scopes = (repository_scope(path, "pull"),)

        def ask(endpoint: Endpoint) -> Iterator[str]:
            names = list_names(endpoint, target, "tags", subject=path, scopes=scopes)
            first = list(itertools.islice(names, 1))  # here, so that a mirror that fails is passed over
            return itertools.chain(first, names)

        return self._from_any(ask)

    def catalogue(self) -> Iterator[str]:
        """Yield the repositories of the registry, as far as it tells."""
        return list_names(
            self._own, "/v2/_catalog", "repositories", subject="catalogue", scopes=(CATALOGUE_SCOPE,)
        )

    def search(self, term: str, limit: int = 25) -> list[dict[str, Any]]:
        """Search: Docker Hub by its search, another registry by the names in its catalogue.

        Returns:
            at most ``limit`` of the Engine API's ImageSearch results: name, description, star_count, is_official,
            is_automated.
        """
        if self.domain == HUB_DOMAIN:
            return search_hub(self._transport, term, limit)
        return search_catalogue(self.catalogue(), term, limit)

    def check_login(self, username: str, password: str) -> str:
        """Ask the registry whether credentials are right; return an identity token to keep instead, or "".

        Raises:
            DeniedError: they are not.
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

    # -- inside ------------------------------------------------------------------------------------------

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
        """Ask the mirrors, then the registry itself; a mirror that cannot be reached is not asked again.

        Where the registry itself fails, the error has a note for each mirror that failed, too.
        """
        failures: dict[str, str] = {}
        for mirror in tuple(self._mirrors):
            try:
                return ask(mirror)
            except UnavailableError as error:
                self._transport.wait(0)  # raises where this client was closed
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
            said, told = response.content_type, response.headers.get("Docker-Content-Digest", "")
            data = response.read_document(
                _MANIFEST_LIMIT_BYTES, f"{endpoint.name}: the manifest of {subject}"
            )
        if is_web_page(said, data):
            raise web_page_error(endpoint.name)
        digest = digest_of(data)
        expected = reference if is_digest(reference) else told if is_digest(told) else digest
        if digest != expected:
            raise CorruptError(
                f"{endpoint.name}: the manifest of {subject} has the digest {digest}, not {expected}",
                "the registry's copy is damaged, or somebody is in between",
            )
        return FetchedManifest(_media_type(f"{endpoint.name}: {subject}", said, data), digest, data)

    def _fetch_elsewhere(self, descriptor: Descriptor, sink: BlobSink) -> None:
        failure: PyDockError | None = None
        for url in descriptor.urls:
            try:
                parts = urllib.parse.urlsplit(url)
                if parts.scheme not in ("http", "https") or not parts.hostname:
                    continue
                # The address is the image's, not the registry's: nobody's credentials go there.
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
            f"{self.domain} has no blob {descriptor.digest}, and the image names no address where it is to be had"
        )


def _push_scopes(path: str) -> tuple[str, ...]:
    return (repository_scope(path, "pull,push"),)


def _named(path: str, reference: str) -> str:
    return f"{path}@{reference}" if is_digest(reference) else f"{path}:{reference}"


def _manifest_target(path: str, reference: str) -> str:
    return f"/v2/{urllib.parse.quote(path)}/manifests/{urllib.parse.quote(reference, safe=':')}"


def _media_type(subject: str, said: str, data: bytes) -> str:
    """The media type of a manifest: what the answer and the document say, which must agree."""
    document = decode(data, f"{subject}: the manifest")
    if not isinstance(document, dict):
        raise CorruptError(f"{subject}: the manifest is no JSON object", "the registry's copy is damaged")
    if _SCHEMA_1.fullmatch(said) or document.get("schemaVersion") == 1:
        raise UnsupportedError(
            f"{subject} is in the image format of 2014 (manifest schema 1)",
            "registries and tools have given it up; have the image pushed anew",
        )
    written = document.get("mediaType")
    if isinstance(written, str) and written:
        if said in _TYPES and said != written:
            raise CorruptError(f"{subject}: the manifest is sent as {said} and calls itself {written}")
        return written
    if said in _TYPES:
        return said
    # OCI 1.0 documents need no mediaType, and some registries give all as JSON: their form tells.
    if isinstance(document.get("manifests"), list):
        return "application/vnd.oci.image.index.v1+json"
    if isinstance(document.get("layers"), list):
        return "application/vnd.oci.image.manifest.v1+json"
    return said
