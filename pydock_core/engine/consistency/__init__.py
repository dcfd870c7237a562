"""Looks for what contradicts itself in a state root, and mends it (``dock system check``)."""
