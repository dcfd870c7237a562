"""EROFS indexes over layer tars: metadata that the kernel mounts, while the files' data stays in the tar."""
