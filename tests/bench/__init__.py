"""Side-by-side measurements of PyDock and its peers: ``make bench``."""
