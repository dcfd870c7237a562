"""Fixtures of the contract suites."""

from tests.support.executor_fixtures import box, drivers

__all__ = ["box", "drivers"]
