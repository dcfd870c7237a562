"""A Python environment on disk: what an interpreter says of itself, and which files belong to it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from pydock_core.errors import FailedError, InvalidError, NotFoundError
from pydock_core.images.host_tree import HostTree, Skip

_PROBE_SECONDS = 60
_PROBE = """
import json, site, sys, sysconfig
try:
    import ssl
    paths = ssl.get_default_verify_paths()
    certificates = [paths.openssl_cafile, paths.openssl_capath]
except ImportError:
    certificates = []
print(json.dumps({
    "prefix": sys.prefix,
    "base_prefix": sys.base_prefix,
    "executable": sys.executable,
    "base_executable": getattr(sys, "_base_executable", sys.executable),
    "version": "%d.%d" % sys.version_info[:2],
    "cache_tag": sys.implementation.cache_tag,
    "standard_library": sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
        | {sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix})}),
    "scripts": sysconfig.get_path("scripts"),
    "path": sys.path,
    "user_site": site.getusersitepackages() if site.ENABLE_USER_SITE else "",
    "multiarch": sysconfig.get_config_var("MULTIARCH") or "",
    "certificates": certificates,
}))
"""
_SITE_NAMES = ("site-packages", "dist-packages")
# Prefixes that hold much more than Python.
_SHARED_PREFIXES = ("/usr", "/usr/local", "/")


@dataclass(frozen=True, slots=True)
class PythonEnvironment:
    """What an interpreter says of itself.

    Attributes:
        prefix, base_prefix: as in :mod:`sys`; different in a virtual environment.
        executable, base_executable: paths, links unresolved.
        version: "3.11".
        cache_tag: "cpython-311".
        standard_library: its directories.
        scripts: where console scripts are.
        path: ``sys.path``, .pth files carried out.
        user_site: the user's own site-packages, empty where not in use.
        multiarch: "x86_64-linux-gnu"; empty where not known.
        certificates: OpenSSL's default file and directory.
    """

    prefix: str
    base_prefix: str
    executable: str
    base_executable: str
    version: str
    cache_tag: str
    standard_library: tuple[str, ...]
    scripts: str
    path: tuple[str, ...]
    user_site: str
    multiarch: str
    certificates: tuple[str, ...]

    @property
    def is_virtual(self) -> bool:
        return self.prefix != self.base_prefix

    @property
    def has_own_prefix(self) -> bool:
        """Whether the prefix holds nothing but this environment."""
        return os.path.realpath(self.prefix) not in _SHARED_PREFIXES

    @property
    def site_directories(self) -> list[str]:
        """The existing site-packages and dist-packages directories that are in use."""
        return [path for path in self.path if os.path.basename(path) in _SITE_NAMES and os.path.isdir(path)]


def probe_environment(prefix: Path) -> PythonEnvironment:
    """Ask the interpreter of a prefix about itself.

    Args:
        prefix: a virtual environment, a conda environment, or an installation's prefix (/usr).

    Raises:
        NotFoundError: it has no bin/python3 or bin/python.
        FailedError: the interpreter does not run.
    """
    interpreters = [prefix / "bin" / name for name in ("python3", "python")]
    interpreter = next((path for path in interpreters if os.access(path, os.X_OK)), None)
    if interpreter is None:
        raise NotFoundError(
            f"{prefix} is no Python environment: it has no bin/python3",
            "--prefix takes the directory of a virtual or conda environment",
        )
    # Not the caller's PYTHONPATH and the like: what the process was told is not the environment.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    try:
        done = subprocess.run(
            [interpreter, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_PROBE_SECONDS,
            cwd="/",
            env={**environment, "PYTHONSAFEPATH": "1"},
        )
        document: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise FailedError(f"{interpreter} does not run: {error}", "is the environment whole?") from error
    values: dict[str, Any] = {
        field.name: tuple(value) if isinstance(value := document[field.name], list) else value
        for field in fields(PythonEnvironment)
    }
    return PythonEnvironment(**values)


class EnvironmentCollector:
    """Puts the files of a Python environment into a tree.

    Args:
        environment: what to collect.
        tree: takes the files.
        interpreter_layer, site_layer: numbers of the layers for interpreter and standard library, and for the
        rest.
    """

    def __init__(
        self, environment: PythonEnvironment, tree: HostTree, interpreter_layer: int, site_layer: int
    ) -> None:
        self._environment = environment
        self._tree = tree
        self._interpreter_layer = interpreter_layer
        self._site_layer = site_layer

    def collect(self) -> None:
        """Collect interpreter, standard library, installed packages, and sources that are installed
        editable.
        """
        self._add_interpreter()
        environment = self._environment
        sites = environment.site_directories
        if environment.has_own_prefix:
            self._tree.add_tree(environment.prefix, self._site_layer, self._skip_in_prefix)
        else:
            self._add_shared_prefix()
        for site in sites:
            self._tree.add_tree(site, self._site_layer, self._skip_in_site)
        for source in self._editable_sources(sites):
            self._tree.add_tree(source, self._site_layer, self._skip_in_source)

    def _add_interpreter(self) -> None:
        environment, layer = self._environment, self._interpreter_layer
        names = ("python", "python3", f"python{environment.version}")
        base = os.path.join(environment.base_prefix, "bin")
        executables = [environment.executable, environment.base_executable]
        for path in (*executables, *(os.path.join(base, name) for name in names)):
            if os.path.exists(path):
                self._tree.add(path, layer)
        for directory in environment.standard_library:
            if os.path.isdir(directory):
                self._tree.add_tree(directory, layer, self._skip_in_library)

    def _add_shared_prefix(self) -> None:
        """An interpreter in /usr or /usr/local: its console scripts, and what Jupyter looks for beside
        them.
        """
        tree, layer = self._tree, self._site_layer
        for directory in ("/usr/local/bin", self._environment.scripts):
            for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
                if self._is_python_script(os.path.join(directory, name)):
                    tree.add(os.path.join(directory, name), layer)
        for prefix in ("/usr/local", self._environment.prefix):
            for part in ("share/jupyter", "etc/jupyter"):
                tree.add_tree(os.path.join(prefix, part), layer, self._skip_in_site)

    def _is_python_script(self, path: str) -> bool:
        try:
            with open(path, "rb") as file:
                line = file.readline(256)
        except OSError:
            return False
        return line.startswith(b"#!") and b"python" in line

    def _editable_sources(self, sites: list[str]) -> list[str]:
        """Directories outside of the environment that modules are imported from, or installed editable
        from.
        """
        known = [*sites, *self._environment.standard_library]
        if self._environment.has_own_prefix:
            known.append(self._environment.prefix)
        found = [path for path in self._environment.path if os.path.isdir(path)]
        for site in sites:
            found += _direct_urls(Path(site))
        home = os.path.expanduser("~")
        sources = []
        for path in dict.fromkeys(os.path.realpath(path) for path in found):
            if any(_is_within(path, directory) for directory in known):
                continue
            if _is_within(home, path):
                self._tree.notes.append(f"{path} is on the module path; a whole home directory is left out")
            elif os.path.isdir(path):
                sources.append(path)
        return sources

    # -- what is left out --------------------------------------------------------------------------------

    def _is_stale(self, entry: os.DirEntry[str]) -> bool:
        """Compiled modules of other interpreters, half-written ones, and static libraries."""
        name = entry.name
        if "/__pycache__/" in entry.path:
            return f".{self._environment.cache_tag}." not in name or not name.endswith(".pyc")
        return name.endswith((".a", ".pyc.tmp"))

    def _skip_in_library(self, entry: os.DirEntry[str]) -> bool:
        # Debian leaves the interpreter's own tests out of its standard library too.
        return entry.name in (*_SITE_NAMES, "test", "ensurepip") or self._is_stale(entry)

    def _skip_in_site(self, entry: os.DirEntry[str]) -> bool:
        return self._is_stale(entry)

    def _skip_in_prefix(self, entry: os.DirEntry[str]) -> bool:
        parent = os.path.dirname(entry.path)
        if parent == self._environment.prefix:
            # pip.conf and .condarc may hold an index's password; pkgs and envs are conda's cache and
            # neighbours.
            return entry.name in ("pip.conf", ".condarc", "pkgs", "envs", ".git", "include")
        if entry.path.endswith(
            ("/share/man", "/share/doc", "/share/info", f"python{self._environment.version}/test")
        ):
            return True
        return self._is_stale(entry)

    def _skip_in_source(self, entry: os.DirEntry[str]) -> bool:
        """A project's own directory: no hidden files (version control, secrets, caches), no other
        environments.
        """
        if entry.name.startswith(".") or entry.name == "node_modules":
            return True
        if entry.is_dir(follow_symlinks=False) and os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
            return True
        return self._is_stale(entry)


def _is_within(path: str, directory: str) -> bool:
    real, top = os.path.realpath(path), os.path.realpath(directory)
    return real == top or real.startswith(top.rstrip("/") + "/")


def _direct_urls(site: Path) -> Iterator[str]:
    """The projects that are installed editable, by their records (PEP 610)."""
    for record in sorted(site.glob("*.dist-info/direct_url.json")):
        try:
            document = json.loads(record.read_bytes())
            url = urlparse(document["url"])
            if document.get("dir_info", {}).get("editable") and url.scheme == "file":
                yield unquote(url.path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a record that nothing can be read from says nothing


def skip_secrets(notes: list[str]) -> Skip:
    """Return a filter for directories that a person names: what tools keep passwords and keys in is left
    out.
    """

    def skip(entry: os.DirEntry[str]) -> bool:
        if entry.name in _SECRETS:
            notes.append(f"{entry.path} may hold secrets and is left out; name it itself to take it along")
            return True
        return False

    return skip


_SECRETS = frozenset(
    [
        ".aws",
        ".azure",
        ".bash_history",
        ".config",
        ".docker",
        ".git-credentials",
        ".gnupg",
        ".ipython",
        ".jupyter",
        ".kube",
        ".netrc",
        ".pgpass",
        ".pypirc",
        ".python_history",
        ".ssh",
        ".vault-token",
    ]
)


def check_paths(paths: list[str]) -> None:
    """Check what a person wants to take along.

    Raises:
        NotFoundError: a path is not there.
        InvalidError: a path is relative, or the root, or of the kernel.
    """
    for path in paths:
        if not os.path.isabs(path):
            raise InvalidError(f"{path} is no absolute path", "paths are taken along at the same place")
        if os.path.realpath(path) in ("/", "/proc", "/sys", "/dev"):
            raise InvalidError(
                f"{path} cannot be taken along", "name the files and directories that are needed"
            )
        if not os.path.lexists(path):
            raise NotFoundError(f"{path} does not exist", "name files and directories of this host")
