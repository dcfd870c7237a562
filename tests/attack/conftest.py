"""Fixtures of the attack tests."""

from tests.support.executor_fixtures import box, drivers
from tests.support.jupyter_fixtures import backend, backends, jupyter

__all__ = ["backend", "backends", "box", "drivers", "jupyter"]
