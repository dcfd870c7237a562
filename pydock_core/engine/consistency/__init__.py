"""Finds and repairs inconsistencies in a state root (``dock system check``)."""
