"""One container in the panel: its text, its links and its buttons."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets

from pydock_jupyter.widgets.links import port_link

_DOTS = {
    "running": "var(--jp-success-color1,#388e3c)",
    "paused": "var(--jp-warn-color1,#f57c00)",
    "restarting": "var(--jp-warn-color1,#f57c00)",
    "dead": "var(--jp-error-color1,#d32f2f)",
}
_GREY = "var(--jp-layout-color4,#757575)"
_FAINT = "color:var(--jp-ui-font-color2,#616161)"
_MONOSPACE = "font-family:var(--jp-code-font-family,monospace)"


def container_name(container: dict[str, Any]) -> str:
    """The name that a person gave it; the Engine API writes it with a leading slash."""
    return str(container["Names"][0]).removeprefix("/") if container["Names"] else str(container["Id"])[:12]


def is_up(container: dict[str, Any]) -> bool:
    return container["State"] in ("running", "paused", "restarting")


def describe(container: dict[str, Any]) -> str:
    """Return the HTML of name, image and state; all text escaped."""
    state = str(container["State"])
    status = str(container["Status"]) or state
    text = status if status.lower().startswith(state) else f"{state} · {status}"
    dot = f"background:{_DOTS.get(state, _GREY)};border-radius:50%;display:inline-block;height:8px;width:8px"
    return (
        f'<div style="line-height:1.5"><span style="{dot}"></span> '
        f"<b>{escape(container_name(container))}</b> "
        f'<span style="{_FAINT};{_MONOSPACE};font-size:90%">{escape(str(container["Image"]))}</span><br>'
        f'<span style="{_FAINT};font-size:90%;padding-left:12px">{escape(text)}</span></div>'
    )


def describe_ports(container: dict[str, Any], base_url: str) -> str:
    """Return the HTML of a link per TCP port; nothing while the container does not run."""
    if not is_up(container):
        return ""
    name = container_name(container)
    published: dict[int, str] = {}
    for port in container["Ports"]:
        if port["Type"] == "tcp":
            where = (
                f" (published at {port.get('IP', '')}:{port['PublicPort']})" if port.get("PublicPort") else ""
            )
            published[port["PrivatePort"]] = published.get(port["PrivatePort"], "") or where
    return " ".join(
        port_link(base_url, name, number, f"Open port {number} of {name}{where}")
        for number, where in sorted(published.items())
    )


class ContainerRow:
    """The widgets of one container; the same ones for as long as it is listed.

    Args:
        act: called with "start", "stop" or "remove" when the person has said so (removing is confirmed).
        show_log: called when the log is asked for.
    """

    def __init__(self, base_url: str, act: Callable[[str], None], show_log: Callable[[], None]) -> None:
        self._base_url = base_url
        self._text = ipywidgets.HTML(layout=ipywidgets.Layout(flex="1 1 auto", min_width="12em"))
        self._ports = ipywidgets.HTML(layout=ipywidgets.Layout(flex="0 1 auto", margin="0 8px"))
        self._start = _button("Start", "play", lambda: act("start"))
        self._stop = _button("Stop", "stop", lambda: act("stop"))
        self._show = _button("Log", "file-text-o", show_log)
        self._remove = _button("Remove", "trash", lambda: self._ask(True))
        self._confirm = _button("Remove it", "trash", lambda: self._confirmed(act), style="danger")
        self._cancel = _button("Keep it", "", lambda: self._ask(False))
        self._usual = (self._start, self._stop, self._show, self._remove)
        self._asking = (self._confirm, self._cancel)
        self._buttons = ipywidgets.HBox(layout=ipywidgets.Layout(flex="0 0 auto"))
        self.box = ipywidgets.HBox(
            [self._text, self._ports, self._buttons],
            layout=ipywidgets.Layout(
                align_items="center",
                border_bottom="1px solid var(--jp-border-color2,#e0e0e0)",
                padding="4px 0",
            ),
        )
        self._ask(False)

    def show(self, container: dict[str, Any], *, is_busy: bool) -> None:
        """Show how the container stands; traits that stay the same send nothing to the browser."""
        self._text.value = describe(container)
        self._ports.value = describe_ports(container, self._base_url)
        self._start.disabled = is_busy or is_up(container)
        self._stop.disabled = is_busy or not is_up(container)
        self._remove.disabled = is_busy

    def close(self) -> None:
        """Close every widget of the row, in the browser too."""
        self._buttons.children = self._usual + self._asking
        close_tree(self.box)

    def _ask(self, is_asking: bool) -> None:
        """Show the question whether to remove it, or the usual buttons."""
        self._buttons.children = self._asking if is_asking else self._usual

    def _confirmed(self, act: Callable[[str], None]) -> None:
        self._ask(False)
        act("remove")


def close_tree(widget: ipywidgets.DOMWidget) -> None:
    """Close a widget with its children, its layout and its style, which outlive it otherwise."""
    for child in getattr(widget, "children", ()):
        close_tree(child)
    for part in (widget, widget.layout, getattr(widget, "style", None)):
        if part is not None:
            part.close()


def _button(label: str, icon: str, action: Callable[[], object], style: str = "") -> ipywidgets.Button:
    button = ipywidgets.Button(
        description=label, icon=icon, button_style=style, layout=ipywidgets.Layout(width="auto")
    )
    button.on_click(lambda _: action())
    return button
