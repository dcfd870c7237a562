"""Widgets in a notebook's output: the panel of containers and images, progress bars."""
