"""Wiring: what ``jupyter server`` loads, its configuration, and the URL patterns."""

from __future__ import annotations

import os
import re
from typing import Any

from traitlets import Bool, Float, Integer, Unicode
from traitlets.config import Configurable

from pydock_core.api import EngineAccess, build_handler, make_default_engine, route
from pydock_jupyter.program import export_to_login_shells, find_program, put_on_path
from pydock_jupyter.server.api import ApiBase
from pydock_jupyter.server.backend import Pool
from pydock_jupyter.server.limit import DEFAULT_LIMITS, Gate, Limits
from pydock_jupyter.server.panel import build_operation
from pydock_jupyter.server.proxy import ProxyHandler, ProxyState
from pydock_jupyter.server.shim import SHIM_SEGMENT, ShimHandler


class PyDockProxy(Configurable):  # type: ignore[misc]  # pyproject has mypy skip traitlets
    """Configuration of the port proxy, as ``c.PyDockProxy.…`` in jupyter_server_config.py."""

    content_security_policy = Unicode(
        "",
        config=True,
        help="A Content-Security-Policy to add to everything that containers' applications send, for example"
        " 'sandbox allow-scripts allow-forms', which keeps their pages from using Jupyter with your login"
        " (and TensorBoard and JupyterLab from working). Empty by default.",
    )
    pass_password_challenges = Bool(
        False,
        config=True,
        help="Let applications have the browser ask for a password (WWW-Authenticate: Basic and the like). The"
        " dialog names Jupyter's host, and the application gets what is typed: for trusted applications only.",
    )
    max_requests_per_port = Integer(
        DEFAULT_LIMITS.per_port,
        config=True,
        help="Requests under way to one port of a container, WebSockets included.",
    )
    max_requests = Integer(
        DEFAULT_LIMITS.total, config=True, help="Requests under way to all containers, WebSockets included."
    )
    body_idle_seconds = Float(
        DEFAULT_LIMITS.body_idle_seconds,
        config=True,
        help="How long a client may send nothing in the middle of an upload before the request is ended.",
    )


def load_extension(app: Any) -> None:
    """Add the handlers to a Jupyter ServerApp, and ``dock`` to the environment of its terminals.

    Nothing else happens before the first request.
    """
    program = find_program()
    put_on_path(os.environ, program)
    export_to_login_shells(os.environ, program)
    add_handlers(app.web_app, EngineAccess(make_default_engine), PyDockProxy(parent=app))
    app.log.info(
        "PyDock: container ports and API are served below %spydock/", app.web_app.settings["base_url"]
    )


def add_handlers(web_app: Any, engine: EngineAccess, config: PyDockProxy) -> None:
    """Add the handlers to a Jupyter web application, for a given engine.

    Args:
        web_app: the ``ServerWebApplication``.
        engine: what the handlers work with.
        config: the proxy's configuration.
    """
    base_url = web_app.settings["base_url"]

    def dial(container_id: str, port: int) -> Any:
        return engine.get().containers.dial(container_id, port)

    limits = Limits(config.max_requests_per_port, config.max_requests, config.body_idle_seconds)
    state = ProxyState(
        engine,
        Pool(dial, engine.executor),
        limits,
        Gate(limits),
        str(config.content_security_policy),
        bool(config.pass_password_challenges),
    )
    # The pattern captures nothing: Tornado would decode what it captures, and refuse what is not UTF-8.
    handlers: list[Any] = [
        (re.escape(base_url) + r"pydock/c/.*", ProxyHandler, {"state": state}),
        (re.escape(base_url + SHIM_SEGMENT), ShimHandler),
        (
            re.escape(base_url) + r"pydock/api/.*",
            build_handler(ApiBase),
            {"engine": engine, "root": f"{base_url}pydock/api"},
        ),
        (
            re.escape(f"{base_url}pydock/panel"),
            build_handler(ApiBase, (route("GET", "/panel", build_operation(engine)),)),
            {"engine": engine, "root": f"{base_url}pydock"},
        ),
    ]
    web_app.add_handlers(".*$", handlers)
