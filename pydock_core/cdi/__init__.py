"""Devices as the Container Device Interface describes them (CDI 1.1): files, the host's drivers, requests.

A *CDI specification* (one file) has a *kind*, "vendor.com/class", and *devices*.  A *qualified name*,
"vendor.com/class=name", selects one.  A device's *container edits* are the changes that a container needs for it: environment,
device nodes, mounts, hooks.  If no file describes a kind, a specification is derived from the driver of this host.

    request, environment --> gpu_request --> qualified names
    files (spec_directory, document), drivers (nvidia_driver, drm_driver) --> registry --> container edits
    container edits --> injection (checked against the host) --> spec/builder.py and runtime/root_edit.py
"""
