"""Where images come from: archives, root filesystem tars, the Python environment that is running."""
