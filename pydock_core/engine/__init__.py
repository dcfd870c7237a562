"""The engine: what every front end (program, magics, widgets, HTTP) calls, and the only thing they call."""

from pydock_core.engine.facade import Engine

__all__ = ["Engine"]
