"""Credentials of registries in Docker's own configuration: ~/.docker/config.json and credential helpers.

The file and its keys are the Docker command's (docs.docker.com, "docker login"), the protocol of the helpers is that of
github.com/docker/docker-credential-helpers: ``docker-credential-NAME get|store|erase|list``, JSON or a server's name on
standard input, JSON on standard output.  A secret is never an argument, and never in an error.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydock_core.errors import DeniedError, FailedError, InvalidError, UnavailableError
from pydock_core.images.registry.settings import HUB_DOMAIN, HUB_HOST
from pydock_core.printable import printable_line

HUB_KEY = "https://index.docker.io/v1/"
"""Docker's key of the credentials of Docker Hub."""
TOKEN_USERNAME = "<token>"
"""The user name in a helper's answer whose secret is an identity token."""
HELPER_SECONDS = 60.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HUB_NAMES = frozenset({HUB_DOMAIN, "index.docker.io", HUB_HOST})
_NOT_FOUND = "credentials not found in native keychain"


@dataclass(frozen=True, slots=True)
class Credential:
    """The credentials for a registry.

    Attributes:
        username: empty if there is only an identity token.
        password: empty if there is an identity token.
        identity_token: a token that is exchanged for others (OAuth 2's refresh token).
    """

    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def registry_domain(server: str) -> str:
    """Return the domain in a registry's name or address, without scheme and path; Docker Hub's is docker.io."""
    name = re.sub(r"^https?://", "", server.strip()).partition("/")[0]
    return HUB_DOMAIN if not name or name in _HUB_NAMES else name


def server_key(domain: str) -> str:
    """Return Docker's key of a registry's credentials."""
    return HUB_KEY if domain == HUB_DOMAIN else domain


class CredentialStore:
    """Credentials in Docker's configuration.

    Args:
        path: of the file; by default config.json in $DOCKER_CONFIG or ~/.docker.
        environment: instead of this process's.
        helper_seconds: the time limit of a helper; some ask the user.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        helper_seconds: float = HELPER_SECONDS,
    ) -> None:
        variables = os.environ if environment is None else environment
        directory = variables.get("DOCKER_CONFIG") or Path(variables.get("HOME") or "/") / ".docker"
        self.path = path or Path(directory) / "config.json"
        runtime = variables.get("XDG_RUNTIME_DIR")
        # podman's and skopeo's file, only read: a login with them serves here, too.
        self._other = Path(runtime) / "containers/auth.json" if runtime else None
        self._helper_seconds = helper_seconds

    def find(self, domain: str) -> Credential | None:
        """Return the credentials for a registry, or None.

        Raises:
            InvalidError: a file is malformed; the message names it.
            UnavailableError: a credential helper is missing, or takes too long.
        """
        document = _read(self.path)
        helper = self._helper(document, domain)
        if helper:
            for key in _keys(domain):
                found = self._ask(helper, key)
                if found is not None:
                    return found
        found = _entry(self.path, document, domain)
        if found is None and self._other is not None:
            found = _entry(self._other, _read(self._other), domain)
        return found

    def plain_file(self, domain: str) -> Path | None:
        """Return the file with a registry's unencrypted credentials; None if there are none, or a helper has them.

        Raises:
            InvalidError: the file is malformed.
        """
        # With a helper the entry exists, and is empty.
        return self.path if _entry(self.path, _read(self.path), domain) else None

    def store(self, domain: str, username: str, password: str, *, identity_token: str = "") -> None:
        """Store credentials in the helper that the file names, else in the file itself (mode 0600)."""
        key = server_key(domain)
        with self._changing() as document:
            helper = self._helper(document, domain)
            if helper:
                secret = identity_token or password
                words = {
                    "ServerURL": key,
                    "Username": TOKEN_USERNAME if identity_token else username,
                    "Secret": secret,
                }
                self._run(helper, "store", json.dumps(words), secret)
            auths = _section(document, "auths", self.path)
            for name in [name for name in auths if registry_domain(name) == domain]:
                del auths[name]
            auths[key] = {} if helper else _encoded(username, password, identity_token)
            document["auths"] = auths

    def erase(self, domain: str) -> bool:
        """Forget the credentials of a registry; return whether there were any."""
        erased = False
        with self._changing() as document:
            helper = self._helper(document, domain)
            if helper:
                for key in _keys(domain):
                    if self._ask(helper, key) is not None:
                        self._run(helper, "erase", key)
                        erased = True
            auths = _section(document, "auths", self.path)
            for name in [name for name in auths if registry_domain(name) == domain]:
                erased = erased or bool(auths[name])
                del auths[name]
            if "auths" in document:
                document["auths"] = auths
        return erased

    # -- helpers -----------------------------------------------------------------------------------------

    def _helper(self, document: Mapping[str, Any], domain: str) -> str:
        """Return the name of the helper for a registry, or ""."""
        chosen: Any = None
        for key, name in _section(document, "credHelpers", self.path).items():
            if registry_domain(key) == domain:
                chosen = name
        chosen = chosen or document.get("credsStore") or ""
        if not isinstance(chosen, str) or (chosen and not _HELPER_NAME.fullmatch(chosen)):
            raise InvalidError(
                f"{self.path}: invalid name of a credential helper", "correct credsStore and credHelpers"
            )
        return chosen

    def _ask(self, helper: str, key: str) -> Credential | None:
        output = self._run(helper, "get", key)
        if output is None:
            return None
        document = _object(output, f"docker-credential-{helper}")
        username, secret = document.get("Username"), document.get("Secret")
        if not isinstance(username, str) or not isinstance(secret, str):
            raise FailedError(
                f"docker-credential-{helper} did not send a user name and a secret", "see its documentation"
            )
        if not secret:
            return None
        return Credential("", "", secret) if username == TOKEN_USERNAME else Credential(username, secret)

    def _run(self, helper: str, verb: str, text: str, secret: str = "") -> str | None:
        """Run a helper; return its output, or None if it has no such credentials."""
        import subprocess

        program = f"docker-credential-{helper}"
        try:
            done = subprocess.run(
                [program, verb],
                input=text.encode(),
                capture_output=True,
                timeout=self._helper_seconds,
                check=False,
            )
        except FileNotFoundError:
            raise UnavailableError(
                f"{program} is not installed",
                f"install it, or remove it from {self.path} (credsStore, credHelpers)",
            ) from None
        except OSError as error:
            raise UnavailableError(
                f"cannot run {program}: {error.strerror}", f"{self.path} names it"
            ) from error
        except subprocess.TimeoutExpired:
            raise UnavailableError(
                f"{program} {verb} took longer than {self._helper_seconds:.0f} s",
                "check whether it waits for input",
            ) from None
        output = done.stdout.decode("utf-8", "replace")
        if done.returncode == 0:
            return output
        if verb in ("get", "erase") and _NOT_FOUND in output:
            return None
        reply = (output if verb != "get" else "") + done.stderr.decode("utf-8", "replace")
        if verb == "get" and not output.lstrip().startswith("{"):
            reply = output + reply
        if secret:
            reply = reply.replace(secret, "***")
        raise FailedError(
            f"{program} {verb} failed ({done.returncode})"
            + (f": {printable_line(reply)}" if reply.strip() else ""),
            f"{self.path} names it",
        )

    # -- the file ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """Yield the file's document; write it back (atomically, mode 0600) if the block has changed it."""
        path = Path(os.path.realpath(self.path))  # a link stays a link
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DeniedError(
                f"{path.parent}: {error.strerror}", "set DOCKER_CONFIG to a directory of yours"
            ) from error
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
            document = _read(self.path)
            before = json.dumps(document)
            yield document
            if json.dumps(document) != before:
                _replace(path, json.dumps(document, indent="\t", ensure_ascii=False) + "\n")
        finally:
            os.close(lock_fd)


def _replace(path: Path, text: str) -> None:
    try:
        # mkstemp makes it with mode 0600.
        fd, temporary = tempfile.mkstemp(prefix=".config.json-", dir=path.parent)
    except OSError as error:
        raise DeniedError(
            f"cannot write {path}: {error.strerror}", "set DOCKER_CONFIG to a directory of yours"
        ) from error
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise FailedError(f"cannot write {path}: {error.strerror}", "it is unchanged") from error
        raise


def _keys(domain: str) -> tuple[str, ...]:
    """Return the names that helpers may use for a registry."""
    return (HUB_KEY,) if domain == HUB_DOMAIN else (domain, f"https://{domain}")


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise DeniedError(
            f"cannot read {path}: {error.strerror}", "change its mode, or set DOCKER_CONFIG"
        ) from error
    if not data.strip():
        return {}
    return _object(data, str(path))


def _object(data: bytes | str | None, subject: str) -> dict[str, Any]:
    """Parse a JSON object; the error quotes none of it, as it may contain secrets."""
    try:
        document = json.loads(data or "{}")
    except (ValueError, RecursionError):
        raise InvalidError(f"{subject} is not valid JSON", "correct or remove it") from None
    if not isinstance(document, dict):
        raise InvalidError(f"{subject} is not a JSON object", "correct or remove it")
    return document


def _section(document: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidError(f"{path}: {key} is not a JSON object", "correct or remove it")
    return dict(value)


def _entry(path: Path, document: Mapping[str, Any], domain: str) -> Credential | None:
    """Return the credentials in a file's "auths"; Docker's own key goes before other spellings."""
    auths = _section(document, "auths", path)
    names = [name for name in auths if registry_domain(name) == domain and _is_whole_registry(name)]
    for name in sorted(names, key=lambda name: name != server_key(domain)):
        entry = auths[name]
        if not isinstance(entry, dict):
            raise InvalidError(f"{path}: the entry of {name} is not a JSON object", "log in again")
        found = _decoded(path, name, entry)
        if found is not None:
            return found
    return None


def _is_whole_registry(name: str) -> bool:
    """Whether a key is for a whole registry: podman's may end in a namespace, to which they are limited."""
    tail = re.sub(r"^https?://", "", name).partition("/")[2].strip("/")
    return tail in ("", "v1", "v2") or "://" in name


def _decoded(path: Path, name: str, entry: Mapping[str, Any]) -> Credential | None:
    texts = {key: entry.get(key) or "" for key in ("auth", "username", "password", "identitytoken")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise InvalidError(f"{path}: the entry of {name} is malformed", "log in again")
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        try:
            decoded = base64.b64decode(texts["auth"], validate=True).decode()
            username, colon, password = decoded.partition(":")
        except (binascii.Error, ValueError):
            colon = ""
        if not colon:
            raise InvalidError(
                f"{path}: the entry of {name} is malformed", f"log in again: dock login {name}"
            )
        password = password.strip("\x00")  # as Docker does
    if texts["identitytoken"]:
        return Credential(username, "", texts["identitytoken"])
    return Credential(username, password) if username and password else None


def _encoded(username: str, password: str, identity_token: str) -> dict[str, str]:
    secret = "" if identity_token else password
    entry = {"auth": base64.b64encode(f"{username}:{secret}".encode()).decode()}
    if identity_token:
        entry["identitytoken"] = identity_token
    return entry
