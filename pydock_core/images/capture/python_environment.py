"""A Python environment on disk: its interpreter's description, and its files."""

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
from pydock_core.images.capture.host_tree import HostTree, Skip

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
_SECRETS = frozenset(
    """
    .aws .azure .bash_history .config .docker .git-credentials .gnupg .ipython .jupyter .kube .netrc
    .pgpass .pypirc .python_history .ssh .vault-token
    """.split()
)
"""Names under which tools keep passwords and keys."""
# Prefixes that contain more than Python.
_SHARED_PREFIXES = ("/usr", "/usr/local", "/")


@dataclass(frozen=True, slots=True)
class PythonEnvironment:
    """An interpreter's description of itself.

    Attributes:
        prefix, base_prefix: as in :mod:`sys`; different in a virtual environment.
        executable, base_executable: paths, links unresolved.
        version: "3.11".
        cache_tag: "cpython-311".
        standard_library: its directories.
        scripts: where console scripts are.
        path: ``sys.path``, with the entries of .pth files.
        user_site: the user's own site-packages; empty if unused.
        multiarch: "x86_64-linux-gnu"; empty if unknown.
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
        """Whether the prefix contains only this environment."""
        return os.path.realpath(self.prefix) not in _SHARED_PREFIXES

    @property
    def site_directories(self) -> list[str]:
        """The existing site-packages and dist-packages directories in use."""
        return [path for path in self.path if os.path.basename(path) in _SITE_NAMES and os.path.isdir(path)]


def probe_environment(prefix: Path) -> PythonEnvironment:
    """Query the interpreter of a prefix.

    Args:
        prefix: a virtual environment, a conda environment, or an installation's prefix (/usr).

    Raises:
        NotFoundError: the prefix has no bin/python3 or bin/python.
        FailedError: the interpreter does not run.
    """
    interpreters = [prefix / "bin" / name for name in ("python3", "python")]
    interpreter = next((path for path in interpreters if os.access(path, os.X_OK)), None)
    if interpreter is None:
        raise NotFoundError(
            f"{prefix} is not a Python environment: it has no bin/python3",
            "--prefix takes the directory of a virtual or conda environment",
        )
    # Without the caller's PYTHONPATH and the like, which are the process's and not the environment's.
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
        raise FailedError(f"{interpreter} does not run: {error}", "is the environment complete?") from error
    values: dict[str, Any] = {
        field.name: tuple(value) if isinstance(value := document[field.name], list) else value
        for field in fields(PythonEnvironment)
    }
    return PythonEnvironment(**values)


class EnvironmentCollector:
    """A collector of the files of a Python environment.

    Args:
        environment: the source.
        tree: receives the files.
        interpreter_layer, site_layer: the layers of the interpreter with its standard library, and of the rest.
    """

    def __init__(
        self, environment: PythonEnvironment, tree: HostTree, interpreter_layer: int, site_layer: int
    ) -> None:
        self._environment = environment
        self._tree = tree
        self._interpreter_layer = interpreter_layer
        self._site_layer = site_layer

    def collect(self) -> None:
        """Collect the interpreter, standard library, installed packages, and editable installations' sources."""
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
        """Add the console scripts and Jupyter data of an interpreter in /usr or /usr/local."""
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
        """Return the directories outside of the environment from which modules are imported or installed editable."""
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
                self._tree.notes.append(f"{path} is on the module path; a whole home directory is omitted")
            elif os.path.isdir(path):
                sources.append(path)
        return sources

    # -- omitted files --------------------------------------------------------------------------------

    def _is_stale(self, entry: os.DirEntry[str]) -> bool:
        """Whether a file is a compiled module of another interpreter, a half-written one, or a static library."""
        name = entry.name
        if "/__pycache__/" in entry.path:
            return f".{self._environment.cache_tag}." not in name or not name.endswith(".pyc")
        return name.endswith((".a", ".pyc.tmp"))

    def _skip_in_library(self, entry: os.DirEntry[str]) -> bool:
        # Debian, too, omits the interpreter's own tests from its standard library.
        return entry.name in (*_SITE_NAMES, "test", "ensurepip") or self._is_stale(entry)

    def _skip_in_site(self, entry: os.DirEntry[str]) -> bool:
        return self._is_stale(entry)

    def _skip_in_prefix(self, entry: os.DirEntry[str]) -> bool:
        parent = os.path.dirname(entry.path)
        if parent == self._environment.prefix:
            # pip.conf and .condarc may contain an index's password; pkgs and envs are conda's cache and other environments.
            return entry.name in ("pip.conf", ".condarc", "pkgs", "envs", ".git", "include")
        if entry.path.endswith(
            ("/share/man", "/share/doc", "/share/info", f"python{self._environment.version}/test")
        ):
            return True
        return self._is_stale(entry)

    def _skip_in_source(self, entry: os.DirEntry[str]) -> bool:
        """Omit hidden files (version control, secrets, caches) and other environments of a project's directory."""
        if entry.name.startswith(".") or entry.name == "node_modules":
            return True
        if entry.is_dir(follow_symlinks=False) and os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
            return True
        return self._is_stale(entry)


def _is_within(path: str, directory: str) -> bool:
    real, top = os.path.realpath(path), os.path.realpath(directory)
    return real == top or real.startswith(top.rstrip("/") + "/")


def _direct_urls(site: Path) -> Iterator[str]:
    """Yield the projects that are installed editable, by their records (PEP 610)."""
    for record in sorted(site.glob("*.dist-info/direct_url.json")):
        try:
            document = json.loads(record.read_bytes())
            url = urlparse(document["url"])
            if document.get("dir_info", {}).get("editable") and url.scheme == "file":
                yield unquote(url.path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # an unreadable record


def skip_secrets(notes: list[str]) -> Skip:
    """Return a filter that omits tools' password and key files from a directory that a person names."""

    def skip(entry: os.DirEntry[str]) -> bool:
        if entry.name in _SECRETS:
            notes.append(f"{entry.path} may hold secrets and is left out; name it itself to include it")
            return True
        return False

    return skip


def check_paths(paths: list[str]) -> None:
    """Check the paths that a person names.

    Raises:
        NotFoundError: a path does not exist.
        InvalidError: a path is relative, the root, or the kernel's.
    """
    for path in paths:
        if not os.path.isabs(path):
            raise InvalidError(f"{path} is not an absolute path", "a path is the same in the image")
        if os.path.realpath(path) in ("/", "/proc", "/sys", "/dev"):
            raise InvalidError(f"cannot capture {path}", "name the required files and directories")
        if not os.path.lexists(path):
            raise NotFoundError(f"{path} does not exist", "name files and directories of this host")
