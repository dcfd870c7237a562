"""Builds OCI runtime configurations (config.json): pure functions."""
