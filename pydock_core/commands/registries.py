"""The commands on registries: pull, push, login, logout, search."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from pydock_core.commands.context import Context
from pydock_core.commands.dialog import ask_name, ask_password
from pydock_core.commands.format import write_listing
from pydock_core.commands.progress import Reporter, reporting
from pydock_core.commands.record import shorten
from pydock_core.commands.values import parse_filters, parse_integer
from pydock_core.engine import parse_platform, parse_reference
from pydock_core.errors import DeniedError, InvalidError

_SEARCH_COLUMNS = (
    ("NAME", "Name"),
    ("DESCRIPTION", "Description"),
    ("STARS", "StarCount"),
    ("OFFICIAL", "IsOfficial"),
)
_SEARCH_HEADERS = {field: header for header, field in _SEARCH_COLUMNS} | {"IsAutomated": "AUTOMATED"}
_TAG_COLUMNS = (("NAME", "Name"), ("TAG", "Tag"))
_DESCRIPTION_WIDTH = 45
_PASSWORD_LIMIT_BYTES = 1 << 20


def pull(context: Context, words: Namespace) -> int:
    """Pull an image, and finally print its full name, as Docker does."""
    reference = getattr(words, "NAME[:TAG|@DIGEST]")
    name = parse_reference(reference)
    if words.platform:
        parse_platform(words.platform)  # errors of the words are reported first
    with reporting(context, words.progress, "pulled", quiet=words.quiet, lines=True) as report:
        if not words.all_tags and not (name.tag or name.digest):
            _say_default_tag(context, words, report)
        context.engine.registries.pull(
            reference, all_tags=words.all_tags, platform=words.platform, progress=report.progress
        )
        if words.progress != "json":
            report.result((name if words.all_tags else name.with_default_tag()).canonical)
    return 0


def push(context: Context, words: Namespace) -> int:
    """Push an image."""
    reference = getattr(words, "NAME[:TAG]")
    name = parse_reference(reference)
    if words.platform:
        parse_platform(words.platform)
    with reporting(context, words.progress, "pushed", quiet=words.quiet, lines=True) as report:
        if not words.all_tags and not name.tag and not name.digest:
            _say_default_tag(context, words, report)
        pushed = context.engine.registries.push(
            reference, all_tags=words.all_tags, platform=words.platform, progress=report.progress
        )
        if report.is_quiet and words.progress != "json":
            for one in pushed:
                report.result(parse_reference(one.reference).canonical)
    return 0


def _say_default_tag(context: Context, words: Namespace, report: Reporter) -> None:
    if not report.is_quiet and words.progress != "json":
        context.print("Using default tag: latest")


def login(context: Context, words: Namespace) -> int:
    """Log in to a registry."""
    server = words.SERVER or ""
    username, password = words.username, words.password
    if password is not None:
        context.stderr.write("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
        if words.password_stdin:
            raise InvalidError(
                "--password and --password-stdin contradict each other", "leave --password out"
            )
    if words.password_stdin:
        if not username:
            raise InvalidError("--password-stdin needs the user name", "give it with -u")
        password = _read_password(context)
    if not username and password is None and (status := _login_again(context, server)):
        return _logged_in(context, server, status)
    if not username:
        known = context.engine.registries.credentials(server)
        username = ask_name(context, f"Username ({known}): " if known else "Username: ") or known
        if not username:
            raise InvalidError("there is no user name", "give it with -u")
    if password is None:
        password = ask_password(context)
    if not password:
        raise InvalidError("the password is empty", "give the password, or an access token")
    return _logged_in(context, server, context.engine.registries.login(server, username, password))


def _login_again(context: Context, server: str) -> str | None:
    """Try the stored credentials, as Docker does before it asks; return None if there are none, or they are rejected."""
    registries = context.engine.registries
    username = registries.credentials(server)
    if not username:
        return None
    context.print(f"Authenticating with existing credentials... [Username: {username}]")
    try:
        status = registries.relogin(server)
    except DeniedError:
        context.stderr.write("Stored credentials invalid or expired\n")
        return None
    if status:
        again = " ".join(filter(None, ("dock logout", server)))
        context.print(f"To log in with a different account: {again}, and then dock login")
    return status


def _logged_in(context: Context, server: str, status: str) -> int:
    if file := context.engine.registries.plain_file(server):
        context.stderr.write(
            f"WARNING! Your credentials are stored unencrypted in '{file}'.\n"
            "Configure a credential helper to remove this warning. See\n"
            "https://docs.docker.com/go/credential-store/\n\n"
        )
    context.print(status)
    return 0


def _read_password(context: Context) -> str:
    """Read standard input without its last line break."""
    if context.stdin is None or (context.interactive and context.stdin.isatty()):
        raise InvalidError("there is no password on standard input", "pipe it in")
    data = context.stdin.read(_PASSWORD_LIMIT_BYTES)
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InvalidError("the password on standard input is not UTF-8", "pipe in a UTF-8 text") from error


def logout(context: Context, words: Namespace) -> int:
    """Remove the stored credentials of a registry."""
    server = words.SERVER or ""
    server_name = server or "https://index.docker.io/v1/"
    if context.engine.registries.logout(server):
        context.print(f"Removing login credentials for {server_name}")
    else:
        context.print(f"Not logged in to {server_name}")
    return 0


def search(context: Context, words: Namespace) -> int:
    """Search a registry, or list the tags of one of its repositories."""
    limit = parse_integer(words.limit, "--limit", 1, 100)
    scheme, mark, name = words.TERM.partition("://")
    if mark:
        raise InvalidError(f"{words.TERM}: an address is not a name", f"leave {scheme}:// out: {name}")
    if words.list_tags:
        if words.filter:
            raise InvalidError("--list-tags and --filter contradict each other", "leave one of the two out")
        repository = parse_reference(words.TERM)
        if repository.tag or repository.digest:
            raise InvalidError(
                f"--list-tags {words.TERM}: that is one image, not a repository",
                "name a repository, without a tag: HOST:PORT/NAME, or NAME on Docker Hub",
            )
        tags = context.engine.registries.tags(words.TERM)[:limit]
        listed = [{"Name": words.TERM, "Tag": tag} for tag in tags]
        write_listing(context, listed, _TAG_COLUMNS, words.format, {"Name": "NAME", "Tag": "TAG"})
        return 0
    found = context.engine.registries.search(words.TERM, limit=limit, filters=parse_filters(words.filter))
    records = [_search_record(item, whole=words.no_trunc) for item in found]
    write_listing(context, records, _SEARCH_COLUMNS, words.format, _SEARCH_HEADERS)
    return 0


def _search_record(item: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    description = str(item["description"]).replace("\n", " ").replace("\r", " ")
    return {
        "Name": item["name"],
        "Description": description if whole else shorten(description, _DESCRIPTION_WIDTH),
        "StarCount": str(item["star_count"]),
        "IsOfficial": "[OK]" if item["is_official"] else "",
        "IsAutomated": "[OK]" if item["is_automated"] else "",
    }
