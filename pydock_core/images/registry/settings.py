"""Configures registries: mirrors, insecure registries, certificates; with Docker's keys and layout.

A file holds a JSON object with Docker's keys "registry-mirrors" (addresses of mirrors of docker.io) and
"insecure-registries" (hosts, host:port, networks).  The first file that has a key wins:
$PYDOCK_REGISTRIES, $XDG_CONFIG_HOME/pydock/registries.json, /etc/pydock/registries.json, /etc/docker/daemon.json.
Certificates are in HOST[:PORT]/ below the directories certs.d: each file NAME.crt is a certificate authority for that host, and
NAME.cert with NAME.key is a client certificate.
"""

from __future__ import annotations

import ipaddress
import json
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydock_core.errors import DeniedError, InvalidError, NotFoundError

REGISTRIES_VARIABLE = "PYDOCK_REGISTRIES"
TIMEOUT_VARIABLE = "PYDOCK_REGISTRY_TIMEOUT"
CONNECT_SECONDS = 10.0
"""The time limit for making a connection."""
HUB_DOMAIN = "docker.io"
HUB_HOST = "registry-1.docker.io"
_DOCKER_FILE = Path("/etc/docker/daemon.json")
_HOST_CERTIFICATES = Path("/etc/pydock/certs.d")
_KEYS = ("registry-mirrors", "insecure-registries")
_DEFAULT_TIMEOUT_SECONDS = 60.0

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LOOPBACK: tuple[_Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class Certificates:
    """The certificates in certs.d for one host.

    Attributes:
        authorities: files of certificate authorities.
        client: pairs (certificate, key) for this client.
    """

    authorities: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path], ...] = ()


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The configuration of registries.

    Attributes:
        mirrors: addresses of mirrors of docker.io, "https://mirror.example:5000", in the order to try.
        insecure: hosts, hosts with ports and networks that need no (valid) certificate, in lower case.
        certificate_directories: the directories certs.d, in order of priority.
    """

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    certificate_directories: tuple[Path, ...] = ()
    _networks: tuple[_Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        networks = [network for entry in self.insecure if (network := _network(entry)) is not None]
        object.__setattr__(self, "_networks", (*_LOOPBACK, *networks))

    def mirrors_of(self, domain: str) -> tuple[str, ...]:
        """Return the addresses to try before the registry itself."""
        return self.mirrors if domain == HUB_DOMAIN else ()

    def is_insecure(self, host: str) -> bool:
        """Whether a host ("HOST" or "HOST:PORT") may use plain HTTP or any certificate.

        Loopback always may, as in Docker, unless certs.d has an authority for it.  Names are not resolved: a
        name server must not decide about encryption.
        """
        if self.certificates(host).authorities:
            return False
        host = host.lower()
        name = host_name(host)
        if host in self.insecure or name in self.insecure or name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def certificates(self, host: str) -> Certificates:
        """Return the certificates for a host ("HOST" or "HOST:PORT") from the first directory that has it.

        Raises:
            InvalidError: a certificate without its key.
        """
        for directory in self.certificate_directories:
            try:
                names = sorted(os.listdir(directory / host))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError as error:
                raise DeniedError(
                    f"cannot read {directory / host}: permission denied", "ask the administrator of this host"
                ) from error
            return _certificates(directory / host, names)
        return Certificates()

    def place_for_certificates(self) -> Path:
        """The directory certs.d that this user can write to: the host's for root."""
        if os.geteuid() == 0 or not self.certificate_directories:
            return _HOST_CERTIFICATES
        return self.certificate_directories[0]


def host_name(host: str) -> str:
    """Return the host of "HOST:PORT", "[ADDRESS]:PORT" or "HOST", without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() and ":" not in name else host


def _certificates(directory: Path, names: Sequence[str]) -> Certificates:
    authorities = tuple(directory / name for name in names if name.endswith(".crt"))
    pairs = []
    for name in names:
        if name.endswith(".cert"):
            key = directory / (name.removesuffix(".cert") + ".key")
            if not key.exists():
                raise InvalidError(f"{directory / name} has no key", f"put it into {key}")
            pairs.append((directory / name, key))
    return Certificates(authorities, tuple(pairs))


def load_settings(environment: Mapping[str, str] | None = None) -> RegistrySettings:
    """Read the files.

    Args:
        environment: instead of this process's.

    Raises:
        InvalidError: a file is malformed, or one of PyDock's own has an unknown key; the message names it.
        NotFoundError: the file that PYDOCK_REGISTRIES names does not exist.
    """
    variables = os.environ if environment is None else environment
    home = Path(variables.get("XDG_CONFIG_HOME") or Path(variables.get("HOME") or "/") / ".config")
    files = [home / "pydock/registries.json", Path("/etc/pydock/registries.json"), _DOCKER_FILE]
    named = variables.get(REGISTRIES_VARIABLE)
    if named:
        files.insert(0, Path(named))
        if not files[0].exists():
            raise NotFoundError(
                f"{named} does not exist", f"{REGISTRIES_VARIABLE} names it; make the file or unset that"
            )
    found: dict[str, tuple[str, ...]] = {}
    for file in files:
        document = _read(file)
        if file.resolve() != _DOCKER_FILE:  # which has keys of its own
            _check_keys(file, document)
        for key, check in (("registry-mirrors", _check_mirror), ("insecure-registries", _check_insecure)):
            if key in document and key not in found:
                found[key] = tuple(check(file, entry) for entry in _texts(file, key, document[key]))
    directories = (home / "pydock/certs.d", _HOST_CERTIFICATES, Path("/etc/docker/certs.d"))
    return RegistrySettings(
        found.get("registry-mirrors", ()), found.get("insecure-registries", ()), directories
    )


def timeout_seconds(environment: Mapping[str, str] | None = None) -> float:
    """Return the seconds of silence after which a registry counts as stalled: PYDOCK_REGISTRY_TIMEOUT, else 60.

    Raises:
        InvalidError: the variable has no positive number.
    """
    text = (os.environ if environment is None else environment).get(TIMEOUT_VARIABLE)
    if not text:
        return _DEFAULT_TIMEOUT_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise InvalidError(f"{TIMEOUT_VARIABLE}={text!r} is not a time", "give seconds, as in 60")
    return seconds


def _read(file: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError as error:
        if file == _DOCKER_FILE:  # another program's, read as a courtesy
            return {}
        raise DeniedError(f"cannot read {file}: permission denied", "change its mode") from error
    except OSError as error:
        raise InvalidError(f"cannot read {file}: {error.strerror}", "correct or remove it") from error
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{file} is not valid JSON: {error}", "correct or remove it") from error
    if not isinstance(document, dict):
        raise InvalidError(f"{file} is not a JSON object", 'write {"insecure-registries": ["HOST:PORT"]}')
    return document


def _check_keys(file: Path, document: Mapping[str, Any]) -> None:
    unknown = sorted(document.keys() - _KEYS)
    if unknown:
        raise InvalidError(f"{file}: unknown key {unknown[0]!r}", f"there are {', '.join(_KEYS)}")


def _texts(file: Path, key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise InvalidError(f"{file}: {key} is not a list of strings", f'write "{key}": ["..."]')
    return value


def _check_mirror(file: Path, entry: str) -> str:
    parts = _split(entry)
    if (
        parts is None
        or parts.username is not None
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        raise InvalidError(f"{file}: invalid mirror {entry!r}", "write https://HOST[:PORT], without a path")
    return entry.rstrip("/")


def _check_insecure(file: Path, entry: str) -> str:
    """Docker accepts addresses here too, and uses their host."""
    if "://" in entry:
        parts = _split(entry)
        host = parts.netloc if parts is not None and parts.username is None else ""
    else:
        host = entry if "/" not in entry or _network(entry) is not None else ""
    if not host:
        raise InvalidError(
            f"{file}: invalid insecure registry {entry!r}",
            "write HOST, HOST:PORT or a network, as in 10.0.0.0/8",
        )
    return host.lower()


def _split(address: str) -> urllib.parse.SplitResult | None:
    """Split an address of a registry; return None if it is malformed."""
    try:
        parts = urllib.parse.urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an unclosed bracket, a port that is not a number
        return None
    return parts if is_address else None


def _network(entry: str) -> _Network | None:
    if "/" not in entry:
        return None
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None
