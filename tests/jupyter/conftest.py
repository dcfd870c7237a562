"""Fixtures of the server side."""

from tests.support.jupyter_fixtures import backend, backends, hub_like, jupyter

__all__ = ["backend", "backends", "hub_like", "jupyter"]
