"""The use cases of registries: pull, push, search, list tags, log in and out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydock_core.engine.image_filters import parse_boolean
from pydock_core.errors import InvalidError, NotFoundError, UnavailableError
from pydock_core.images.image_store import ImageStore
from pydock_core.images.pull import Pulled, pull_image
from pydock_core.images.push import Pushed, find_tagged, push_image
from pydock_core.oci.platform import parse_platform
from pydock_core.oci.reference import DEFAULT_DOMAIN, Reference, parse_reference
from pydock_core.progress import Progress
from pydock_core.store.database import images as sql

if TYPE_CHECKING:
    from pydock_core.images.registry.client import RegistryClient


class Registries:
    """Moves images between one state root and registries.

    Args:
        store: of the images.
        connect: returns a client of a domain's registry; tests replace it.
    """

    def __init__(self, store: ImageStore, connect: Callable[[str], RegistryClient] | None = None) -> None:
        self._store = store
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
        """Pull an image, or with ``all_tags`` all of a repository.

        Args:
            reference: NAME, NAME:TAG or NAME@DIGEST.
            all_tags: the reference has neither tag nor digest.
            platform: "os[/arch[/variant]]"; this host's by default.
            progress: receives events.

        Raises:
            InvalidError: the reference is malformed, or has a tag with ``all_tags``.
            PyDockError: as in :func:`pydock_core.images.pull.pull_image`.
        """
        name = parse_reference(reference)
        if all_tags and (name.tag or name.digest):
            raise InvalidError(
                f"{reference}: -a does not take a tag or digest", "leave it out: all tags are pulled"
            )
        chosen = parse_platform(platform) if platform else None
        try:
            with self._connect(name.domain) as client:
                tags = list(client.tags(name.path)) if all_tags else []
                # Parsed, because a registry may return any text as a tag.
                names = [parse_reference(f"{name.canonical}:{tag}") for tag in tags] or [
                    name.with_default_tag()
                ]
                return [pull_image(self._store, client, one, chosen, progress) for one in names]
        except UnavailableError as error:
            from pydock_core.images.registry.failure import UnknownHostError  # late, with its HTTP library

            if isinstance(error.__cause__, UnknownHostError):  # after the last attempt
                error.hint += "; without a network: dock load -i FILE, or dock image capture"
            raise

    # -- push --------------------------------------------------------------------------------------------

    def push(
        self,
        reference: str,
        *,
        all_tags: bool = False,
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> list[Pushed]:
        """Send an image to the registry in its name, or with ``all_tags`` all of a repository.

        Args:
            reference: NAME[:TAG] of a local image.
            all_tags: the reference has no tag.
            platform: "os[/arch[/variant]]" that the image must be for; any by default.
            progress: receives events.

        Raises:
            InvalidError: the reference is malformed, has a digest, or has a tag with ``all_tags``.
            NotFoundError: there is no image of that name.
            PyDockError: as in :func:`pydock_core.images.push.push_image`.
        """
        name = parse_reference(reference)
        if name.digest:
            raise InvalidError(
                f"cannot push to a digest: {reference}", "push a tag: the registry computes the digest"
            )
        if all_tags and name.tag:
            raise InvalidError(f"{reference}: -a does not take a tag", "leave it out: all tags are pushed")
        names = self._tagged(name) if all_tags else [name.with_default_tag()]
        rows = [(one, find_tagged(self._store.database, one)) for one in names]
        if platform:
            for one, row in rows:
                self._store.require_platform(row.id, one.familiar, platform)
        if progress is not None:
            progress({"status": f"The push refers to repository [{name.domain}/{name.path}]"})
        with self._connect(name.domain) as client:
            return [push_image(self._store, client, one, progress) for one in names]

    def _tagged(self, name: Reference) -> list[Reference]:
        tags = [tag.tag for tag in sql.all_tags(self._store.database) if tag.repository == name.repository]
        if not tags:
            raise NotFoundError(f"no image has a name in repository {name.repository}", "see: dock images")
        return [Reference(name.domain, name.path, tag) for tag in tags]

    # -- asking ------------------------------------------------------------------------------------------

    def search(
        self, term: str, *, limit: int = 25, filters: Mapping[str, Sequence[str]] | None = None
    ) -> list[dict[str, Any]]:
        """Search Docker Hub, or the catalogue of the registry that ``term`` begins with ("localhost:5000/tensor").

        Args:
            term: a part of a name.
            limit: of results, 1 to 100.
            filters: is-official, is-automated (true, false), stars (a least number).

        Returns:
            ImageSearch results of the Engine API, with names that can be pulled.
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
        """Return the tags of a registry's repository, in the registry's order."""
        name = parse_reference(reference)
        with self._connect(name.domain) as client:
            return list(client.tags(name.path))

    # -- credentials -------------------------------------------------------------------------------------

    def login(self, server: str, username: str, password: str) -> str:
        """Check credentials with a registry, and store them in Docker's configuration; return a status line.

        Raises:
            DeniedError: the registry rejects them; nothing was stored.
        """
        from pydock_core.images.registry.credentials import CredentialStore

        domain = _server(server)
        with self._connect(domain) as client:
            token = client.check_login(username, password)
        CredentialStore().store(domain, username, password, identity_token=token)
        return "Login Succeeded"

    def relogin(self, server: str) -> str | None:
        """Log in with the stored credentials; return a status line, or None if no password is stored.

        Raises:
            DeniedError: the registry rejects them.
        """
        from pydock_core.images.registry.credentials import CredentialStore

        found = CredentialStore().find(_server(server))
        if found is None or not (found.username and found.password):
            return None
        return self.login(server, found.username, found.password)

    def plain_file(self, server: str) -> Path | None:
        """Return the file with a registry's unencrypted credentials; None if a helper keeps them."""
        from pydock_core.images.registry.credentials import CredentialStore

        return CredentialStore().plain_file(_server(server))

    def logout(self, server: str) -> bool:
        """Remove the stored credentials of a registry; return whether there were any."""
        from pydock_core.images.registry.credentials import CredentialStore

        return CredentialStore().erase(_server(server))

    def credentials(self, server: str) -> str | None:
        """Return the stored user name for a registry, or None."""
        from pydock_core.images.registry.credentials import CredentialStore

        found = CredentialStore().find(_server(server))
        return found.username if found else None


def _server(text: str) -> str:
    """Return the domain of a registry, given as a host, a URL, or nothing (Docker Hub).

    Raises:
        InvalidError: the host is malformed.
    """
    from pydock_core.images.registry.credentials import registry_domain

    domain = registry_domain(text)
    parse_reference(f"{domain}/x")
    return domain


def _connect(domain: str) -> RegistryClient:
    from pydock_core.images.registry.client import RegistryClient

    return RegistryClient(domain)


def _search_domain(term: str) -> tuple[str, str]:
    """Split a search term into a registry's domain, as in a reference, and the rest."""
    first, _, rest = term.partition("/")
    is_domain = any(mark in first for mark in ".:") or first == "localhost"
    return (_server(first), rest) if is_domain else (DEFAULT_DOMAIN, term)


def _search_filter(filters: Mapping[str, Sequence[str]]) -> Callable[[Mapping[str, Any]], bool]:
    """Return the predicate of Docker's search filters: is-official, is-automated, stars.

    Raises:
        InvalidError: an unknown key, or a malformed value.
    """
    least, flags = 0, {}
    for key, values in filters.items():
        value = str(values[-1])
        if key == "stars" and value.isdigit():
            least = int(value)
        elif key in ("is-official", "is-automated"):
            flags[key.replace("-", "_")] = parse_boolean(value, key)
        elif key == "stars":
            raise InvalidError(f"--filter stars={value}: not a number", "write stars=10")
        else:
            raise InvalidError(f"--filter {key}: unknown key", "there are is-automated, is-official, stars")
    return lambda item: (
        item["star_count"] >= least and all(item[key] == value for key, value in flags.items())
    )
