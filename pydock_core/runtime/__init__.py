"""The OCI runtime: turns a bundle (config.json and a root filesystem) into processes, as runc does.

Knows nothing of images, networks or what stays with a container; :mod:`pydock_core.supervision` does.
"""
