"""Sources of images: registries, archives, root filesystem tars and the running Python environment."""
