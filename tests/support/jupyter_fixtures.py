"""Fixtures of what runs a Jupyter server: see jupyter_servers.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.jupyter_servers import Backend, Backends, JupyterServer, run_jupyter


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A server at "/", on the engine double."""
    with run_jupyter(tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture(scope="session")
def hub_like(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A server at /user/me/, as JupyterHub starts them."""
    with run_jupyter(tmp_path_factory.mktemp("hub_like"), "/user/me/") as server:
        yield server


@pytest.fixture(scope="session")
def backends() -> Iterator[Backends]:
    running = Backends()
    yield running
    running.close()


@pytest.fixture
def backend(backends: Backends) -> Backend:
    """A recording backend that says hello."""
    return backends.record()
