"""The paged lists of a registry: tags, repositories, and search results."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydock_core.errors import CorruptError
from pydock_core.images.registry.endpoint import Endpoint
from pydock_core.images.registry.failure import is_web_page, web_page_error
from pydock_core.images.registry.header import parse_next_link
from pydock_core.images.registry.settings import HUB_DOMAIN
from pydock_core.images.registry.transport import Origin, Transport
from pydock_core.printable import printable_line

HUB_SEARCH_HOST = "index.docker.io"
PAGE_SIZE = 1000
PAGE_LIMIT = 1000
_PAGE_LIMIT_BYTES = 4 << 20
_HUB_PAGE_SIZE = 100
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,254}")


def list_names(
    endpoint: Endpoint, target: str, key: str, *, subject: str, scopes: Sequence[str]
) -> Iterator[str]:
    """Yield names from page after page (distribution specification, "Listing Tags"); invalid names are left out.

    Args:
        endpoint: of the registry.
        target: the list's path.
        key: of the list in each page: "tags", "repositories".
        subject: the listed things, for messages.
        scopes: that allow it.

    Raises:
        CorruptError: a page is malformed, or the pages do not end.
    """
    url = endpoint.url(f"{target}?n={PAGE_SIZE}")
    own = Origin.of(url, endpoint.name)
    seen = {url}
    for _ in range(PAGE_LIMIT):
        with endpoint.open(
            "GET", url, subject=subject, scopes=scopes, headers={"Accept": "application/json"}
        ) as response:
            data = response.read_document(_PAGE_LIMIT_BYTES, f"{endpoint.name}: the list of {subject}")
            following = parse_next_link(response.header_values("Link"))
            if is_web_page(response.content_type, data):
                raise web_page_error(endpoint.name)
        yield from _names(_document(data, endpoint.name), key, endpoint.name)
        if following is None:
            return
        url = endpoint.resolve(url, following)
        if Origin.of(url, endpoint.name) != own:
            raise CorruptError(
                f"{endpoint.name} continues its list on another host", "the registry is misconfigured"
            )
        if url in seen:
            break
        seen.add(url)
    raise CorruptError(
        f"{endpoint.name}: the list of {subject} does not end", "the registry is misconfigured"
    )


def search_catalogue(names: Iterable[str], term: str, limit: int) -> list[dict[str, Any]]:
    """Return the repositories whose name contains ``term``, as the Engine API's ImageSearch results."""
    found: list[dict[str, Any]] = []
    for name in names:
        if term.lower() in name.lower():
            found.append(_result(name))
            if len(found) == limit:
                break
    return found


def search_hub(transport: Transport, term: str, limit: int) -> list[dict[str, Any]]:
    """Search Docker Hub (GET /v1/search, as Docker does), anonymously; official images come as "busybox"."""
    endpoint = Endpoint(transport, HUB_DOMAIN, HUB_SEARCH_HOST, ("https",), lambda: None, probe=False)
    found: list[dict[str, Any]] = []
    word = term.removeprefix("library/")
    size = min(max(limit, 1), _HUB_PAGE_SIZE)
    for page in range(1, PAGE_LIMIT):
        query = urllib.parse.urlencode({"q": word, "n": size, "page": page})
        with endpoint.open(
            "GET", endpoint.url(f"/v1/search?{query}"), subject=f"search for {printable_line(term)}"
        ) as response:
            data = response.read_document(_PAGE_LIMIT_BYTES, f"{HUB_DOMAIN}: the search result")
            if is_web_page(response.content_type, data):
                raise web_page_error(HUB_DOMAIN)
        document = _document(data, HUB_DOMAIN)
        results = document.get("results") or []
        if not isinstance(results, list):
            raise CorruptError(f"{HUB_DOMAIN}: the answer to a search is malformed", "try again later")
        found += [_hub_result(item) for item in results if isinstance(item, dict)]
        pages = document.get("num_pages")
        if len(found) >= limit or not results or not isinstance(pages, int) or page >= pages:
            break
    return found[:limit]


def _hub_result(item: dict[str, Any]) -> dict[str, Any]:
    stars = item.get("star_count")
    return _result(
        printable_line(str(item.get("name") or "")),
        " ".join(str(item.get("description") or "").split()),
        stars if isinstance(stars, int) else 0,
        bool(item.get("is_official")),
        bool(item.get("is_automated")),
    )


def _result(
    name: str, description: str = "", stars: int = 0, official: bool = False, automated: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "star_count": stars,
        "is_official": official,
        "is_automated": automated,
    }


def _names(document: dict[str, Any], key: str, host: str) -> list[str]:
    values = document.get(key)
    if values is None:  # Go writes an empty slice as null
        return []
    if not isinstance(values, list):
        raise CorruptError(f"{host}: {key} is not a list", "the registry is broken")
    return [value for value in values if isinstance(value, str) and _NAME.fullmatch(value)]


def _document(data: bytes, host: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{host}: the list is not valid JSON", "the registry is broken") from error
    if not isinstance(document, dict):
        raise CorruptError(f"{host}: the list is not a JSON object", "the registry is broken")
    return document
