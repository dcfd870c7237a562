"""The capture of a Python environment of this host as an image."""
