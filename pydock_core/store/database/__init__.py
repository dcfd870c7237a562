"""The only code that writes SQL: one connection per thread, one short transaction per change."""

from pydock_core.store.database.connection import Database

__all__ = ["Database"]
