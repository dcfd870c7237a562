"""The client of registries (OCI distribution specification 1.1, Docker's token authentication).

This module imports nothing: ``client`` loads an HTTP library, and only commands that use a registry should pay for it.
"""
