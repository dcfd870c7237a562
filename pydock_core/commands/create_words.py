"""Turns the words of ``run`` and ``create`` into a ContainerConfig: parsing only, no look at images."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import PurePosixPath

from pydock_core.commands.values import (
    parse_boolean,
    parse_bytes,
    parse_float,
    parse_integer,
    parse_pair,
    parse_seconds,
    parse_signal,
)
from pydock_core.engine import HOST_GATEWAY, ContainerConfig, Device, Mount, PublishedPort
from pydock_core.errors import InvalidError, NotFoundError, UnsupportedError

LOOPBACK = "127.0.0.1"
"""Where ``-p`` listens unless an address is given: a notebook host is often shared."""

_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
_PROPAGATIONS = ("rprivate", "private", "rshared", "shared", "rslave", "slave")
_ULIMITS = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()


def build_config(words: Namespace, environment: Mapping[str, str], directory: str) -> ContainerConfig:
    """Build the request of ``run`` or ``create``.

    Args:
        words: what the parser made of the command line.
        environment: the caller's environment, from which ``-e NAME`` takes its value.
        directory: the caller's working directory, which relative bind sources start from.

    Raises:
        InvalidError: a value is malformed; exit code 125.
        UnsupportedError: a value asks for what is not there.
        NotFoundError: an --env-file or --label-file is not there.
    """
    ports, exposed = parse_ports(words.publish)
    mounts = (
        *(parse_volume(text, directory) for text in words.volume),
        *(parse_mount(text, directory) for text in words.mount),
        *(parse_tmpfs(text) for text in words.tmpfs),
    )
    _refuse_duplicates(mounts)
    config = ContainerConfig(
        image=words.IMAGE,
        command=tuple(words.COMMAND) or None,
        entrypoint=None
        if words.entrypoint is None
        else tuple([words.entrypoint] if words.entrypoint else []),
        env=tuple(parse_environment(words.env_file, words.env, environment)),
        working_directory=_absolute(words.workdir, "--workdir") if words.workdir else None,
        user=words.user,
        groups=tuple(words.group_add),
        hostname=_hostname(words.hostname) if words.hostname else "",
        hosts=tuple(_host_line(text) for text in words.add_host),
        terminal=words.tty,
        open_stdin=words.interactive,
        mounts=mounts,
        ports=tuple(ports),
        exposed_ports=tuple(dict.fromkeys([*exposed, *_exposed(words.expose)])),
        network=_network(words.network),
        labels=dict(parse_labels(words.label_file, words.label)),
        shm_size_bytes=parse_bytes(words.shm_size, "--shm-size") if words.shm_size else 64 * 1024 * 1024,
        ulimits=tuple(_ulimit(text) for text in words.ulimit),
        sysctls=dict(parse_pair(text, "--sysctl") for text in words.sysctl),
        read_only=words.read_only,
        cap_add=tuple(words.cap_add),
        cap_drop=tuple(words.cap_drop),
        privileged=words.privileged,
        devices=tuple(_device(text) for text in words.device),
        stop_signal=words.stop_signal and parse_signal(words.stop_signal, "--stop-signal"),
        stop_timeout_seconds=parse_seconds(words.stop_timeout, "--stop-timeout")
        if words.stop_timeout
        else None,
        runtime=words.runtime or "embedded",
        auto_remove=words.rm,
        log_driver=words.log_driver,
        log_options=dict(parse_pair(text, "--log-opt") for text in words.log_opt),
    )
    return _with_security(_with_limits(config, words), words.security_opt)


def _with_limits(config: ContainerConfig, words: Namespace) -> ContainerConfig:
    memory = parse_bytes(words.memory, "--memory") if words.memory else None
    if memory is not None and memory < 6 * 1024 * 1024:
        raise _invalid(f"--memory {words.memory}: less than 6 MiB cannot hold a container", "give 6m or more")
    swap = words.memory_swap and (
        -1 if words.memory_swap == "-1" else parse_bytes(words.memory_swap, "--memory-swap")
    )
    if swap and swap != -1 and (memory is None or swap < memory):
        raise _invalid(
            f"--memory-swap {words.memory_swap}: it counts memory and swap together",
            "give --memory too, and no more than --memory-swap",
        )
    cpus = parse_float(words.cpus, "--cpus") if words.cpus else None
    if cpus is not None and not 0.01 <= cpus <= (os.cpu_count() or 1):
        raise _invalid(
            f"--cpus {words.cpus}: this host has {os.cpu_count()}", f"give 0.01 to {os.cpu_count()}"
        )
    return replace(
        config,
        memory_bytes=memory,
        memory_swap_bytes=swap or None,
        cpus=cpus,
        cpu_shares=parse_integer(words.cpu_shares, "--cpu-shares", 2, 262144) if words.cpu_shares else None,
        cpuset_cpus=words.cpuset_cpus or "",
        pids_limit=parse_integer(words.pids_limit, "--pids-limit", -1, 1 << 22) if words.pids_limit else None,
        oom_score_adj=parse_integer(words.oom_score_adj, "--oom-score-adj", -1000, 1000)
        if words.oom_score_adj
        else 0,
    )


def _with_security(config: ContainerConfig, options: Iterable[str]) -> ContainerConfig:
    for option in options:
        name, _, value = (
            option.replace(":", "=", 1).partition("=") if "=" not in option else option.partition("=")
        )
        if name == "no-new-privileges" and value in ("", "true", "false"):
            config = replace(config, no_new_privileges=value != "false")
        elif name == "seccomp" and value in ("unconfined", "builtin", "default"):
            config = replace(config, seccomp="unconfined" if value == "unconfined" else "default")
        elif name == "seccomp" and value:
            config = replace(config, seccomp=_read_file(value, "--security-opt seccomp"))
        elif (name, value) in (("apparmor", "unconfined"), ("label", "disable")):
            continue  # what is asked for is what is: PyDock confines by neither AppArmor nor SELinux
        else:
            raise UnsupportedError(
                f"--security-opt {option}: not known here",
                "there are no-new-privileges, seccomp=unconfined and seccomp=FILE",
                exit_code=125,
            )
    return config


# -- environment and labels ----------------------------------------------------------------------------


def parse_environment(
    files: Iterable[str], words: Iterable[str], environment: Mapping[str, str]
) -> Iterable[str]:
    """Return NAME=VALUE of ``--env-file`` and ``-e`` (later ones win at the merge); NAME alone takes the caller's value."""
    for text in [*_file_lines(files, "--env-file"), *words]:
        name, equals, _ = text.partition("=")
        if not name or any(character.isspace() for character in name):
            raise _invalid(f"-e {text}: not a name of a variable", "write -e NAME=VALUE")
        if equals:
            yield text
        elif name in environment:
            yield f"{name}={environment[name]}"


def parse_labels(files: Iterable[str], words: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Return the pairs of ``--label-file`` and ``--label``."""
    for text in [*_file_lines(files, "--label-file"), *words]:
        key, _, value = text.partition("=")
        if not key:
            raise _invalid(f"--label {text}: a label needs a key", "write --label KEY=VALUE")
        yield key, value


def _file_lines(files: Iterable[str], option: str) -> Iterable[str]:
    for name in files:
        # Not by splitlines(), which takes further characters of a value for a line's end.
        for line in _read_file(name, option).replace("\r\n", "\n").split("\n"):
            if line.strip() and not line.lstrip().startswith("#"):
                yield line.lstrip()


def _read_file(name: str, option: str) -> str:
    try:
        with open(name, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise _invalid(f"{option} {name}: not UTF-8 text", "name a text file") from error
    except OSError as error:
        raise NotFoundError(
            f"{option} {name}: {error.strerror}", "name a file that can be read", exit_code=125
        ) from error


# -- mounts --------------------------------------------------------------------------------------------


def parse_volume(text: str, directory: str) -> Mount:
    """Parse ``-v``: [SOURCE:]TARGET[:OPTIONS]; a source with a slash or a dot in front is a host path, else a volume."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise _invalid(f"-v {text}: malformed", "write -v SOURCE:TARGET[:ro]")
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    options = parts[2] if len(parts) == 3 else ""
    target = _absolute(target, f"-v {text}")
    read_only, propagation, no_copy = False, "rprivate", False
    for option in filter(None, options.split(",")):
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif option in _PROPAGATIONS:
            propagation = option
        elif option == "nocopy":
            no_copy = True
        elif option in ("z", "Z"):
            raise UnsupportedError(
                f"-v {text}: SELinux labels are not supported", "leave out z and Z", exit_code=125
            )
        else:
            raise _invalid(
                f"-v {text}: unknown option {option}", "there are ro, rw, nocopy and the propagations"
            )
    if source.startswith(("/", "./", "../", "~")) or source in (".", ".."):
        path = os.path.normpath(os.path.join(directory, os.path.expanduser(source)))
        return Mount("bind", path, target, read_only, propagation, create_source=True)
    if source and not _VOLUME_NAME.match(source):
        raise _invalid(
            f"-v {text}: {source!r} is neither a path nor a name of a volume",
            "begin a path with / or ./; a name has letters, digits, '_', '.' and '-'",
        )
    return Mount("volume", source, target, read_only, no_copy=no_copy)


def parse_mount(text: str, directory: str) -> Mount:
    """Parse ``--mount``: type=bind|volume|tmpfs,source=…,target=…[,readonly][,bind-propagation=…][,tmpfs-size=…]."""
    fields: dict[str, str] = {}
    aliases = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = aliases.get(key.strip().lower(), key.strip().lower())
        fields[key] = value if equals else "true"
    kind = fields.pop("type", "volume")
    allowed = {
        "bind": {"source", "target", "readonly", "bind-propagation"},
        "volume": {"source", "target", "readonly", "volume-nocopy"},
        "tmpfs": {"target", "readonly", "tmpfs-size", "tmpfs-mode"},
    }.get(kind)
    if allowed is None:
        raise _invalid(f"--mount {text}: unknown type {kind}", "there are bind, volume and tmpfs")
    if unknown := set(fields) - allowed:
        raise _invalid(
            f"--mount {text}: unknown key {sorted(unknown)[0]}",
            f"type {kind} has {', '.join(sorted(allowed))}",
        )
    if "target" not in fields:
        raise _invalid(f"--mount {text}: target is missing", "add target=/PATH")
    target = _absolute(fields["target"], f"--mount {text}")
    read_only = parse_boolean(fields.get("readonly", "false"), f"--mount {text}: readonly")
    if kind == "bind":
        source = fields.get("source", "")
        if not source:
            raise _invalid(f"--mount {text}: source is missing", "add source=PATH")
        propagation = fields.get("bind-propagation", "rprivate")
        if propagation not in _PROPAGATIONS:
            raise _invalid(
                f"--mount {text}: unknown propagation {propagation}", f"there are {', '.join(_PROPAGATIONS)}"
            )
        return Mount(
            "bind", os.path.normpath(os.path.join(directory, source)), target, read_only, propagation
        )
    if kind == "volume":
        name = fields.get("source", "")
        if name and not _VOLUME_NAME.match(name):
            raise _invalid(
                f"--mount {text}: {name!r} is no name of a volume", "for a host path write type=bind"
            )
        no_copy = parse_boolean(fields.get("volume-nocopy", "false"), f"--mount {text}: volume-nocopy")
        return Mount("volume", name, target, read_only, no_copy=no_copy)
    options = ["nosuid", "nodev"]
    if "tmpfs-size" in fields:
        options.append(f"size={parse_bytes(fields['tmpfs-size'], '--mount tmpfs-size')}")
    options.append(f"mode={fields.get('tmpfs-mode', '1777')}")
    return Mount("tmpfs", "", target, read_only, options=tuple(options))


def parse_tmpfs(text: str) -> Mount:
    """Parse ``--tmpfs``: TARGET[:OPTIONS], with the options of mount(8)."""
    target, _, options = text.partition(":")
    given = [option for option in options.split(",") if option]
    defaults = [name for name in ("noexec", "nosuid", "nodev") if name not in given and name[2:] not in given]
    return Mount(
        "tmpfs", "", _absolute(target, f"--tmpfs {text}"), "ro" in given, options=(*defaults, *given)
    )


def _refuse_duplicates(mounts: Iterable[Mount]) -> None:
    seen: set[str] = set()
    for mount in mounts:
        if mount.target in seen:
            raise _invalid(f"two mounts have the target {mount.target}", "give each its own target")
        seen.add(mount.target)


def _absolute(path: str, option: str) -> str:
    if not path.startswith("/"):
        raise _invalid(f"{option}: {path!r} is not an absolute path", "a path in the container begins with /")
    normal = os.path.normpath("/" + path.lstrip("/"))
    if normal == "/" and not option.startswith("--workdir"):
        raise _invalid(f"{option}: / cannot be a target", "mount below /")
    return str(PurePosixPath(normal))


# -- ports, network, names -----------------------------------------------------------------------------


def parse_ports(words: Iterable[str]) -> tuple[list[PublishedPort], list[str]]:
    """Parse ``-p``: [[ADDRESS:]HOST:]CONTAINER[/PROTOCOL], with ranges; return what is published and what is exposed."""
    published: list[PublishedPort] = []
    for text in words:
        body, _, protocol = text.partition("/")
        protocol = protocol or "tcp"
        if protocol not in ("tcp", "udp"):
            raise _invalid(f"-p {text}: unknown protocol {protocol}", "there are tcp and udp")
        address, host, container = _port_parts(text, body)
        containers = _port_range(container, text)
        hosts = _port_range(host, text) if host and host != "0" else [0] * len(containers)
        if len(hosts) != len(containers):
            raise _invalid(f"-p {text}: the two ranges differ in length", "give ranges of one length")
        published += [
            PublishedPort(address, host_port, container_port, protocol)
            for host_port, container_port in zip(hosts, containers, strict=True)
        ]
    taken: set[tuple[str, int, str]] = set()
    for port in published:
        key = (port.host_ip, port.host_port, port.protocol)
        if port.host_port and key in taken:
            raise _invalid(f"-p: {port.host_ip}:{port.host_port} is given twice", "publish each port once")
        taken.add(key)
    return published, [f"{port.container_port}/{port.protocol}" for port in published]


def _port_parts(text: str, body: str) -> tuple[str, str, str]:
    address, host = LOOPBACK, ""
    if body.startswith("["):
        address, bracket, body = body[1:].partition("]:")
        if not bracket:
            raise _invalid(f"-p {text}: the address is not closed", "write [::1]:8080:80")
        host, _, container = body.rpartition(":")
    else:
        head, _, container = body.rpartition(":")
        if ":" in head:
            address, _, host = head.rpartition(":")
        else:
            host = head
    try:
        ip_address(address)
    except ValueError:
        raise _invalid(
            f"-p {text}: {address!r} is not an address", "write an IP address of this host"
        ) from None
    return address, host, container


def _port_range(text: str, option: str) -> list[int]:
    first, dash, last = text.partition("-")
    try:
        low, high = int(first), int(last) if dash else int(first)
    except ValueError:
        raise _invalid(f"-p {option}: {text!r} is not a port", "a port is a number from 1 to 65535") from None
    if not 1 <= low <= high <= 65535:
        raise _invalid(f"-p {option}: {text} is out of range", "a port is a number from 1 to 65535")
    return list(range(low, high + 1))


def _exposed(words: Iterable[str]) -> Iterable[str]:
    for text in words:
        ports, _, protocol = text.partition("/")
        if protocol not in ("", "tcp", "udp"):
            raise _invalid(f"--expose {text}: unknown protocol {protocol}", "there are tcp and udp")
        for port in _port_range(ports, text):
            yield f"{port}/{protocol or 'tcp'}"


def _network(text: str | None) -> str | None:
    if text in (None, "none", "host", "bridge"):
        return text
    if text == "default":
        return None
    if text and text.startswith("container:") and len(text) > len("container:"):
        return text
    raise UnsupportedError(
        f"--network {text}: user-defined networks come with a later version of PyDock",
        "there are none, host, bridge and container:NAME",
        exit_code=125,
    )


def _hostname(text: str) -> str:
    if len(text) > 64 or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", text):
        raise _invalid(f"--hostname {text!r}: not a host name", "letters, digits, '-' and '.', at most 64")
    return text


def _host_line(text: str) -> str:
    host, _, address = text.replace("=", ":", 1).partition(":")
    if not _HOST.fullmatch(host):
        raise _invalid(
            f"--add-host {text}: {host!r} is not a host name", "letters, digits, '-', '_' and '.': hosts(5)"
        )
    if address == HOST_GATEWAY:
        return f"{address}\t{host}"
    try:
        plain = str(ip_address(address.strip("[]")))
    except ValueError:
        plain = ""
    if not _ADDRESS.fullmatch(plain):  # the zone of an IPv6 address may be any text
        raise _invalid(
            f"--add-host {text}: {address!r} is not an address",
            f"write --add-host NAME:ADDRESS or NAME:{HOST_GATEWAY}",
        )
    return f"{plain}\t{host}"


def _ulimit(text: str) -> tuple[str, int, int]:
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    if name not in _ULIMITS:
        raise _invalid(f"--ulimit {text}: unknown limit {name!r}", f"there are {', '.join(_ULIMITS)}")
    low = parse_integer(soft, f"--ulimit {text}", -1, (1 << 63) - 1)
    high = parse_integer(hard, f"--ulimit {text}", -1, (1 << 63) - 1) if hard else low
    if high != -1 and (low == -1 or low > high):
        raise _invalid(f"--ulimit {text}: the soft limit is above the hard one", "write SOFT:HARD")
    return name, low, high


def _device(text: str) -> Device:
    parts = text.split(":")
    permissions = "rwm"
    if len(parts) > 1 and re.fullmatch(r"[rwm]{1,3}", parts[-1]):
        permissions = parts.pop()
    if len(parts) > 2 or not all(part.startswith("/") for part in parts):
        raise _invalid(f"--device {text}: malformed", "write --device /dev/HOST[:/dev/CONTAINER[:rwm]]")
    return Device(parts[0], parts[-1], permissions)


def _invalid(message: str, hint: str) -> InvalidError:
    return InvalidError(message, hint, exit_code=125)
