"""Fixtures of the attack tests."""

from tests.support.executor_fixtures import box, drivers

__all__ = ["box", "drivers"]
