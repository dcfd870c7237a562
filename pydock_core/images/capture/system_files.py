"""The system part of a captured image: a shell and tools, certificates, locale, terminals, and files of /etc."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pydock_core.images.capture.elf import LibraryFinder, configured_directories, default_directories
from pydock_core.images.capture.host_tree import HostTree
from pydock_core.loader_cache import CacheEntry, build_cache, parse_cache

_TOOLS = """
sh bash dash ls cat cp mv rm mkdir rmdir ln touch chmod chown chgrp install env printenv id whoami
groups sleep true false echo printf pwd test [ expr date uname hostname grep egrep fgrep sed awk
head tail sort uniq wc cut tr tee xargs find which tar gzip gunzip zcat xz bzip2 unzip kill mount
umount df du stat dirname basename readlink realpath mktemp seq yes tty stty nproc nohup timeout
md5sum sha256sum base64 od diff cmp less more clear tput ps free top pgrep pkill uptime ip getent
locale ldconfig ldd
""".split()
_TOOL_DIRECTORIES = ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin")
# Opened by name at run time (dlopen), so that no header names them: name services, thread cancellation, bindings.
_OPENED = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1", "libseccomp.so.2")
_TERMINALS = (
    *("ansi", "dumb", "linux", "screen", "screen-256color", "tmux", "tmux-256color", "vt100"),
    *("xterm", "xterm-256color", "xterm-color"),
)
_TERMINFO = ("/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo", "/usr/lib/terminfo")
_COPIED = (
    *("/etc/os-release", "/etc/protocols", "/etc/services", "/etc/mime.types", "/etc/ssl/openssl.cnf"),
    *("/etc/debian_version", "/etc/alpine-release", "/usr/share/zoneinfo/UTC", "/usr/share/zoneinfo/Etc/UTC"),
)
_CERTIFICATES = (
    *("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"),
    "/etc/ssl/ca-bundle.pem",
)
_LOCALES = ("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8")
_DIRECTORIES = {
    **dict.fromkeys(("/dev", "/etc", "/home", "/mnt", "/opt", "/proc", "/run", "/srv", "/sys"), 0o755),
    **dict.fromkeys(("/usr/local/bin", "/var/cache", "/var/lib", "/var/log"), 0o755),
    "/root": 0o700,
    "/tmp": 0o1777,
    "/var/tmp": 0o1777,
}
_FILES = {
    "/etc/passwd": (
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "/etc/group": "root:x:0:\ntty:x:5:\nstaff:x:50:\nusers:x:100:\nnogroup:x:65534:\n",
    "/etc/shells": "/bin/sh\n/bin/bash\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    "/etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "/etc/host.conf": "multi on\n",
}
_CACHE = "/etc/ld.so.cache"


def add_skeleton(tree: HostTree, layer: int) -> None:
    """Add the directories and files of every system, without this host's users."""
    for path, mode in _DIRECTORIES.items():
        tree.put_directory(path, layer, mode)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}"):
            target = os.readlink(f"/{name}")
            tree.put_link(f"/{name}", layer, target)
            tree.put_directory(os.path.normpath(os.path.join("/", target)), layer)
    for path, text in _FILES.items():
        tree.put_file(path, layer, text.encode())
    tree.put_link("/var/run", layer, "/run")
    tree.put_link("/var/lock", layer, "/run/lock")
    tree.put_link("/etc/localtime", layer, "/usr/share/zoneinfo/Etc/UTC")


def add_tools(tree: HostTree, layer: int) -> None:
    """Add a shell and this host's basic tools."""
    for name in _TOOLS:
        for directory in _TOOL_DIRECTORIES:
            if os.access(os.path.join(directory, name), os.X_OK):
                tree.add(os.path.join(directory, name), layer)
                break
        else:
            if name in ("sh", "ls", "cat"):
                tree.notes.append(f"this host has no {name}, so the image has none")


def add_data(tree: HostTree, layer: int, certificates: Iterable[str]) -> None:
    """Add certificates of authorities, the C.UTF-8 locale, terminal descriptions, and small tables of /etc.

    Args:
        certificates: additional files and directories, the interpreter's OpenSSL defaults.
    """
    for path in (*_COPIED, *_CERTIFICATES):
        tree.add(path, layer)
    for path in certificates:
        real = os.path.realpath(path)
        if os.path.isdir(real):
            tree.add_tree(path, layer)
            # The directory's links lead to the certificates themselves (/usr/share/ca-certificates).
            for entry in sorted(os.listdir(real)):
                tree.add(os.path.join(real, entry), layer)
        elif path:
            tree.add(path, layer)
    for path in _LOCALES:
        if os.path.isdir(path):
            tree.add_tree(path, layer)
    for terminal in _TERMINALS:
        for directory in _TERMINFO:
            for letter in (terminal[0], f"{ord(terminal[0]):x}"):
                tree.add(os.path.join(directory, letter, terminal), layer)


class LibraryCollector:
    """A collector of the shared libraries that the tree's programs and libraries need.

    Args:
        tree: has the programs; receives the libraries.
        layer: for libraries that are not in the tree yet.
        multiarch: Debian's name of the architecture, as in /usr/lib/x86_64-linux-gnu; may be empty.
    """

    def __init__(self, tree: HostTree, layer: int, multiarch: str) -> None:
        self._tree = tree
        self._layer = layer
        self._cache = _read_cache()
        cached: dict[str, list[str]] = {}
        for entry in self._cache:
            cached.setdefault(entry.soname, []).append(entry.path)
        directories = [*configured_directories(), *default_directories(multiarch)]
        self._finder = LibraryFinder(cached, directories)

    def collect(self) -> None:
        """Follow the headers of every ELF file until no library is new; then write the loader's cache."""
        missing: dict[str, str] = {}
        tree = self._tree
        position = 0
        opened = False
        while position < len(tree.binaries) or not opened:
            if position == len(tree.binaries):
                self._add_opened()
                opened = True
                continue
            path = tree.binaries[position]
            position += 1
            elf = self._finder.read(path)
            if elf is None:
                continue
            if elf.interpreter:
                tree.add(elf.interpreter, self._layer)
            for soname in elf.needed:
                found = self._finder.find(soname, elf)
                if found is None:
                    missing.setdefault(soname, path)
                else:
                    tree.add(found, self._layer)
        self._note_missing(missing)
        if self._cache:
            tree.put_file(_CACHE, self._layer, build_cache(self._cache, self._is_there))

    def _add_opened(self) -> None:
        for path in list(self._tree.binaries):
            elf = self._finder.read(path)
            if elf is not None and elf.interpreter:
                for soname in _OPENED:
                    found = self._finder.find(soname, elf)
                    if found is not None:
                        self._tree.add(found, self._layer)
                return

    def _is_there(self, path: str) -> bool:
        directory, name = os.path.split(path)
        return os.path.join(os.path.realpath(directory), name) in self._tree

    def _note_missing(self, missing: dict[str, str]) -> None:
        # A library beside another one of the environment is found once that one is loaded.
        brought = {os.path.basename(path) for path in self._tree.items}
        for soname, wanted_by in sorted(missing.items()):
            if soname not in brought:
                self._tree.notes.append(f"{soname}, which {wanted_by} needs, is not on this host")


def _read_cache() -> list[CacheEntry]:
    try:
        with open(_CACHE, "rb") as file:
            return parse_cache(file.read())
    except OSError:
        return []
