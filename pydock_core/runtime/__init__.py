"""The OCI runtime: turns a bundle (config.json and a root filesystem) into processes, as runc does.

It knows nothing of images, networks and supervision (:mod:`pydock_core.supervision`).
"""
