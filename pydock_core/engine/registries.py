"""The use cases of registries: pull, push, search, list tags, log in and out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core.engine.image_store import ImageStore
from pydock_core.errors import ConflictError, InvalidError, NoSpaceError, NotFoundError, PyDockError
from pydock_core.images.pull import Destination, pull_image
from pydock_core.images.push import Knowledge, compressed_type, push_image
from pydock_core.oci.digest import short_id
from pydock_core.oci.documents import layer_compression
from pydock_core.oci.platform import Platform, host_platform, parse_platform
from pydock_core.oci.reference import DEFAULT_DOMAIN, Reference, parse_reference
from pydock_core.store.database import distribution
from pydock_core.store.database import images as sql
from pydock_core.store.database.images import ImageRow
from pydock_core.store.worker import Progress

if TYPE_CHECKING:
    from pydock_core.images.registry.client import RegistryClient

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_LEASE_SECONDS = 7 * 24 * 3600
"""How long what an interrupted pull has is kept for the next one."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """One image that was pulled.

    Attributes:
        reference: as it is known here: "busybox:latest", "busybox@sha256:...".
        image_id: full.
        digest: of the manifest or index that the registry has under that name.
        is_new: it was not here, or the name was another image's.
    """

    reference: str
    image_id: str
    digest: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Pushed:
    """One name that was pushed; ``digest`` and ``size_bytes`` are the manifest's."""

    reference: str
    digest: str
    size_bytes: int


class Registries:
    """Moves images between one state root and registries.

    Args:
        store: keeps the images.
        connect: returns a client of the registry of a domain; another one for tests.
    """

    def __init__(self, store: ImageStore, connect: Callable[[str], RegistryClient] | None = None) -> None:
        self._store = store
        self._database = store.database
        self._connect = connect or _connect

    # -- pull --------------------------------------------------------------------------------------------

    def pull(
        self,
        reference: str,
        *,
        all_tags: bool = False,
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> list[Pulled]:
        """Get an image, or with ``all_tags`` all of a repository.

        Args:
            reference: NAME, NAME:TAG or NAME@DIGEST.
            all_tags: the reference has neither tag nor digest.
            platform: "os[/arch[/variant]]"; this host's by default.
            progress: gets events.

        Raises:
            see :func:`pydock_core.images.pull.pull_image`; what had come by then is kept for the next pull.
            InvalidError: the reference, or a tag with ``all_tags``.
        """
        name = parse_reference(reference)
        if all_tags and (name.tag or name.digest):
            raise InvalidError(
                f"{reference}: a tag or digest cannot be given with -a", "leave it out: all tags are pulled"
            )
        wanted = parse_platform(platform) if platform else None
        with self._connect(name.domain) as client:
            tags = list(client.tags(name.path)) if all_tags else []
            # Parsed, as a registry may call anything a tag.
            names = [parse_reference(f"{name.canonical}:{tag}") for tag in tags] or [name.with_default_tag()]
            return [self._pull_one(client, one, wanted, progress) for one in names]

    def _pull_one(
        self,
        client: RegistryClient,
        reference: Reference,
        platform: Platform | None,
        progress: Progress | None,
    ) -> Pulled:
        owner = reference.canonical

        def lease(digests: Sequence[str]) -> None:
            distribution.lease(self._database, owner, digests, time.time_ns() + _LEASE_SECONDS * 10**9)

        with self._given_up(owner), self._store.adding("pull") as directory:
            pulled = pull_image(
                client,
                reference,
                platform or host_platform(),
                Destination(
                    self._store.blobs,
                    self._store.snapshotter,
                    directory,
                    lease,
                    self._store.is_pair,
                    lambda image_id: sql.by_id(self._database, image_id) is not None,
                ),
                progress,
                any_platform=platform is None,
            )
            image = pulled.image
            before = self._current(reference)
            known = sql.by_id(self._database, image.id) is not None
            if pulled.is_here:
                self._store.name(image)
            else:
                self._store.record([image], progress, are_applied=True)
            if not distribution.add_repository_digest(
                self._database, reference.repository, pulled.digest, image.id
            ):
                raise ConflictError(f"image {short_id(image.id)} was removed just now", "pull it again")
            distribution.add_blob_places(
                self._database,
                [image.id, *(layer.blob_digest for layer in image.layers)],
                reference.domain,
                reference.path,
            )
            distribution.release(self._database, owner)
        is_new = not known or (not reference.digest and before != image.id)
        _say(progress, f"Digest: {pulled.digest}")
        state = "Downloaded newer image" if is_new else "Image is up to date"
        _say(progress, f"Status: {state} for {reference.familiar}")
        return Pulled(reference.familiar, image.id, pulled.digest, is_new)

    @contextlib.contextmanager
    def _given_up(self, owner: str) -> Iterator[None]:
        """Keep nothing of a pull that has filled the disk: it is not to stay full."""
        try:
            yield
        except NoSpaceError as error:
            try:
                self._store.collect(abandoned=owner)
            except (PyDockError, OSError) as secondary:
                error.add_note(f"and tidying up failed: {secondary}")
            raise

    def _current(self, reference: Reference) -> str:
        """The id of the image that has a name now; empty where there is none."""
        row = sql.by_tag(self._database, reference.repository, reference.tag)
        return row.id if row else ""

    # -- push --------------------------------------------------------------------------------------------

    def push(
        self,
        reference: str,
        *,
        all_tags: bool = False,
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> list[Pushed]:
        """Send an image to the registry that its name names, or with ``all_tags`` all of a repository.

        Args:
            reference: NAME[:TAG] of an image that is here.
            all_tags: the reference has no tag.
            platform: where given, the image must be of that platform.
            progress: gets events.

        Raises:
            see :func:`pydock_core.images.push.push_image`.
            NotFoundError: there is no image of that name.
            InvalidError: the reference, or a tag with ``all_tags``.
        """
        name = parse_reference(reference)
        if name.digest:
            raise InvalidError(
                f"{reference}: a digest cannot be pushed to", "push a tag: the registry computes the digest"
            )
        if all_tags and name.tag:
            raise InvalidError(
                f"{reference}: a tag cannot be given with -a", "leave it out: all tags are pushed"
            )
        names = self._tagged(name) if all_tags else [name.with_default_tag()]
        rows = [(one, self._named(one)) for one in names]
        if platform:
            for one, row in rows:
                self._store.require_platform(row.id, one.familiar, platform)
        _say(progress, f"The push refers to repository [{name.domain}/{name.path}]")
        with self._connect(name.domain) as client:
            return [self._push_one(client, one, progress) for one in names]

    def _tagged(self, name: Reference) -> list[Reference]:
        tags = [tag.tag for tag in sql.all_tags(self._database) if tag.repository == name.repository]
        if not tags:
            raise NotFoundError(f"no image has a name in repository {name.repository}", "see: dock images")
        return [Reference(name.domain, name.path, tag) for tag in tags]

    def _named(self, name: Reference) -> ImageRow:
        row = sql.by_tag(self._database, name.repository, name.tag)
        if row is None:
            raise NotFoundError(
                f"no image is called {name.familiar}",
                f"see: dock images; give one the name first: dock tag IMAGE {name.familiar}",
            )
        return row

    def _push_one(self, client: RegistryClient, reference: Reference, progress: Progress | None) -> Pushed:
        with self._store.reading(), self._store.workspace("push") as directory:
            # Under the lock: before, another process may have removed the image, or given it another manifest.
            row = self._named(reference)
            knowledge = self._knowledge(row, reference.domain)
            try:
                sent = push_image(
                    client, reference, row.manifest_digest, self._store.blobs, directory, knowledge, progress
                )
            finally:
                for diff_id, form in knowledge.forms.items():
                    distribution.set_layer_form(self._database, diff_id, form)
                for digest, path in knowledge.lost:
                    distribution.delete_blob_place(self._database, digest, reference.domain, path)
            distribution.add_blob_places(self._database, sent.blobs, reference.domain, reference.path)
            distribution.add_repository_digest(self._database, reference.repository, sent.digest, row.id)
        _say(progress, f"{reference.tag}: digest: {sent.digest} size: {sent.size_bytes}")
        return Pushed(reference.familiar, sent.digest, sent.size_bytes)

    def _knowledge(self, row: ImageRow, domain: str) -> Knowledge:
        knowledge = Knowledge()
        for layer in sql.layers_of(self._database, row.id):
            digest = layer.blob_digest
            if not layer_compression(layer.media_type):
                form = distribution.layer_form(
                    self._database, layer.diff_id, compressed_type(layer.media_type)
                )
                if form is None:
                    continue
                knowledge.forms[layer.diff_id] = form
                digest = form.digest
            knowledge.places[digest] = distribution.blob_places(self._database, digest, domain)
        return knowledge

    # -- asking ------------------------------------------------------------------------------------------

    def search(
        self, term: str, *, limit: int = 25, filters: Mapping[str, Sequence[str]] | None = None
    ) -> list[dict[str, Any]]:
        """Search Docker Hub, or the catalogue of the registry that ``term`` begins with ("localhost:5000/tensor").

        Args:
            term: what to look for.
            limit: of results, 1 to 100.
            filters: is-official, is-automated (true, false), stars (a least number).

        Returns:
            ImageSearch results of the Engine API; the names are what can be pulled.
        """
        if not 1 <= limit <= 100:
            raise InvalidError(f"--limit {limit} is not between 1 and 100", "give a number in that range")
        matches = _search_filter(filters or {})
        domain, word = _search_domain(term)
        with self._connect(domain) as client:
            found = [item for item in client.search(word, limit) if matches(item)]
        if domain != DEFAULT_DOMAIN:
            found = [{**item, "name": f"{domain}/{item['name']}"} for item in found]
        return found[:limit]

    def tags(self, reference: str) -> list[str]:
        """Return the tags that a registry has of a repository, as it sorts them."""
        name = parse_reference(reference)
        with self._connect(name.domain) as client:
            return list(client.tags(name.path))

    # -- credentials -------------------------------------------------------------------------------------

    def login(self, server: str, username: str, password: str) -> str:
        """Check credentials with a registry, and store them as Docker's configuration says; return a status line.

        Raises:
            DeniedError: the registry does not accept them; nothing was stored.
        """
        from pydock_core.images.registry.credentials import CredentialStore

        domain = _server(server)
        with self._connect(domain) as client:
            token = client.check_login(username, password)
        CredentialStore().store(domain, username, password, identity_token=token)
        return "Login Succeeded"

    def relogin(self, server: str) -> str | None:
        """Log in with the credentials that are stored; return a status line, None where there is no password.

        Raises:
            DeniedError: the registry does not accept them any more.
        """
        from pydock_core.images.registry.credentials import CredentialStore

        found = CredentialStore().find(_server(server))
        if found is None or not (found.username and found.password):
            return None
        return self.login(server, found.username, found.password)

    def plain_file(self, server: str) -> Path | None:
        """Return the file that has the credentials of a registry unencrypted; None where a helper keeps them."""
        from pydock_core.images.registry.credentials import CredentialStore

        return CredentialStore().plain_file(_server(server))

    def logout(self, server: str) -> bool:
        """Forget the credentials of a registry; return whether there were any."""
        from pydock_core.images.registry.credentials import CredentialStore

        return CredentialStore().erase(_server(server))

    def credentials(self, server: str) -> str | None:
        """Return the user name that is stored for a registry; None where there is none."""
        from pydock_core.images.registry.credentials import CredentialStore

        found = CredentialStore().find(_server(server))
        return found.username if found else None


def _server(text: str) -> str:
    """Return the domain of what a person calls a registry: nothing, a host, or an address.

    Raises:
        InvalidError: no host can be called that.
    """
    from pydock_core.images.registry.credentials import registry_domain

    domain = registry_domain(text)
    parse_reference(f"{domain}/x")
    return domain


def _connect(domain: str) -> RegistryClient:
    from pydock_core.images.registry.client import RegistryClient

    return RegistryClient(domain)


def _search_domain(term: str) -> tuple[str, str]:
    """Split a term into a registry's domain, as in a reference, and what to look for there."""
    first, _, rest = term.partition("/")
    is_domain = any(mark in first for mark in ".:") or first == "localhost"
    return (_server(first), rest) if is_domain else (DEFAULT_DOMAIN, term)


def _search_filter(filters: Mapping[str, Sequence[str]]) -> Callable[[Mapping[str, Any]], bool]:
    """Return what Docker's filters ask of a result: is-official, is-automated, stars.

    Raises:
        InvalidError: an unknown key, or a malformed value.
    """
    least, flags = 0, {}
    for key, values in filters.items():
        value = str(values[-1])
        if key == "stars" and value.isdigit():
            least = int(value)
        elif key in ("is-official", "is-automated") and value.lower() in _BOOLEANS:
            flags[key.replace("-", "_")] = _BOOLEANS[value.lower()]
        elif key in ("stars", "is-official", "is-automated"):
            raise InvalidError(
                f"--filter {key}={value}: no such value", "stars is a number, the others are true or false"
            )
        else:
            raise InvalidError(f"--filter {key}: unknown key", "there are is-automated, is-official, stars")
    return lambda item: (
        item["star_count"] >= least and all(item[key] == value for key, value in flags.items())
    )


def _say(progress: Progress | None, status: str, identifier: str = "") -> None:
    if progress is not None:
        progress({"status": status, "id": identifier} if identifier else {"status": status})
