"""Snapshot drivers: turn an image's layers into a root filesystem."""
