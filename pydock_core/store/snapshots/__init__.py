"""Snapshot drivers: how an image's layers become a root filesystem."""
