"""The client of registries (OCI distribution specification 1.1, Docker's token authentication).

Nothing is imported here: ``client`` loads an HTTP library, which only commands that speak to a registry should pay for.
"""
