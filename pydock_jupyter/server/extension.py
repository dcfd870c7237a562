"""The Jupyter server extension: entry point, configuration, URL patterns."""

from __future__ import annotations

import os
import re
from typing import Any

from traitlets import Bool, Float, Integer, Unicode
from traitlets.config import Configurable

from pydock_core.api import (
    ARCHIVE_PATTERN,
    EngineAccess,
    build_archive_handler,
    build_handler,
    make_default_engine,
    route,
)
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
        help="A Content-Security-Policy to add to the responses of applications in containers, for example"
        " 'sandbox allow-scripts allow-forms', which prevents their pages from using Jupyter with your login"
        " (TensorBoard and JupyterLab do not work with it). Empty by default.",
    )
    pass_password_challenges = Bool(
        False,
        config=True,
        help="Pass on requests of applications that make the browser ask for a password (WWW-Authenticate: Basic,"
        " Digest and others). The dialog names Jupyter's host, and the application receives the password: for trusted"
        " applications only.",
    )
    max_requests_per_port = Integer(
        DEFAULT_LIMITS.per_port,
        config=True,
        help="The maximum number of concurrent requests to one port of a container, including WebSockets.",
    )
    max_requests = Integer(
        DEFAULT_LIMITS.total,
        config=True,
        help="The maximum number of concurrent requests to all containers, including WebSockets.",
    )
    body_idle_seconds = Float(
        DEFAULT_LIMITS.body_idle_seconds,
        config=True,
        help="The time without data from the client after which an upload is ended.",
    )


def load_extension(app: Any) -> None:
    """Add the handlers to a Jupyter ServerApp, and ``dock`` to the environment of its terminals.

    The engine is created by the first request.
    """
    program = find_program()
    put_on_path(os.environ, program)
    export_to_login_shells(os.environ, program)
    add_handlers(app.web_app, EngineAccess(make_default_engine), PyDockProxy(parent=app))
    app.log.info(
        "PyDock: container ports and API are served below %spydock/", app.web_app.settings["base_url"]
    )


def add_handlers(web_app: Any, engine: EngineAccess, config: PyDockProxy) -> None:
    """Add the handlers to a Jupyter web application.

    Args:
        web_app: the ``ServerWebApplication``.
        engine: the engine of the handlers.
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
    # The patterns have no groups: Tornado decodes groups and refuses invalid UTF-8.
    handlers: list[Any] = [
        (re.escape(base_url) + r"pydock/c/.*", ProxyHandler, {"state": state}),
        (re.escape(base_url + SHIM_SEGMENT), ShimHandler),
        (
            re.escape(f"{base_url}pydock/api") + ARCHIVE_PATTERN,
            build_archive_handler(ApiBase),
            {"engine": engine, "root": f"{base_url}pydock/api"},
        ),
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
