"""One line of the panel each: a container with its state, links and buttons; an image with its size.

The look is that of JupyterLab's side panel (labextension/src/rows.tsx), by the same rules: a line of 24 pixels, the
middle of a long name left out and its end kept, each state a shape of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

import ipywidgets

from pydock_core.spelling import human_size
from pydock_jupyter.widgets.links import port_link

ROW_PIXELS = 26
MIN_TAIL, MAX_TAIL = 10, 16
"""So many characters at the end of a name always stay visible."""

# A shape and a colour: no state is told by its colour alone.
_RUNNING = ("\N{BLACK CIRCLE}", "var(--jp-success-color1,#388e3c)")
_WAITING = ("\N{CIRCLE WITH LEFT HALF BLACK}", "var(--jp-warn-color0,#e65100)")
_FAILED = ("\N{MULTIPLICATION X}", "var(--jp-error-color1,#d32f2f)")
_FAINT = "color:var(--jp-ui-font-color2,#616161)"
_ENDED = ("\N{WHITE CIRCLE}", "var(--jp-ui-font-color2,#616161)")
_SHAPES = {
    "running": _RUNNING,
    "paused": ("\N{DOUBLE VERTICAL BAR}", _WAITING[1]),
    "restarting": _WAITING,
    "removing": _WAITING,
    "dead": _FAILED,
    "created": ("\N{DOTTED CIRCLE}", _ENDED[1]),
}
STYLE = """<style>
.pydock-panel .pydock-line:hover,.pydock-panel .pydock-line:focus-within{background:var(--jp-layout-color2,#eee)}
.pydock-panel .pydock-line:hover .pydock-faint{color:var(--jp-ui-font-color1,#212121)!important}
[data-jp-theme-light='false'] .pydock-panel .pydock-failed{color:var(--jp-error-color2,#e57373)!important}
.pydock-panel .pydock-icon{align-items:center;background:none;display:inline-flex;font-size:0;justify-content:center}
.pydock-panel .pydock-icon:hover:enabled{background:var(--jp-layout-color3,#bdbdbd)}
.pydock-panel .pydock-icon i{font-size:14px;margin:0}
</style>"""
"""For what no attribute says.  A button's label stays for those who hear it, where the icon is what is seen."""
_SMALL = f"{_FAINT};flex:0 0 auto;font-size:85%"
_LINE = f"align-items:center;display:flex;gap:8px;line-height:{ROW_PIXELS}px;white-space:nowrap;min-width:0"
# As .pydock-Name in labextension/style/base.css: the head shrinks, then goes to a line that is not shown.
_NAME = (
    f"align-content:flex-end;display:flex;flex:0 1 auto;flex-wrap:wrap-reverse;height:{ROW_PIXELS}px;"
    "justify-content:flex-end;max-width:100%;min-width:0;overflow:hidden;white-space:pre"
)
_HEAD = "flex:1 1 1.8em;max-width:max-content;min-width:0;overflow:hidden;text-overflow:ellipsis"


def container_name(container: dict[str, Any]) -> str:
    """The name that a person gave it; the Engine API writes it with a leading slash."""
    return str(container["Names"][0]).removeprefix("/") if container["Names"] else str(container["Id"])[:12]


def is_up(container: dict[str, Any]) -> bool:
    return container["State"] in ("running", "paused", "restarting")


def tail_length(names: Iterable[str]) -> int:
    """Return how many characters at the end of each name stay visible: enough that all ends differ, 10 to 16."""
    different = set(names)
    for length in range(MIN_TAIL, MAX_TAIL):
        if len({name[-length:] for name in different}) == len(different):
            return length
    return MAX_TAIL


def shorten_name(name: str, tail: int) -> str:
    """Return the HTML of a name on one line; the browser leaves out its middle when the room is short."""
    cut = len(name) - min(tail, len(name) // 2)
    return (
        f'<span style="{_NAME}"><span style="{_HEAD}">{escape(name[:cut])}</span>'
        f'<span class="pydock-tail" style="flex:0 0 auto">{escape(name[cut:])}</span></span>'
    )


def describe(container: dict[str, Any], tail: int) -> str:
    """Return the HTML of state and name, with all else in the tooltip; all text escaped."""
    state, status = str(container["State"]), str(container["Status"])
    in_words = (status or state) if status.lower().startswith(state) or not status else f"{state}, {status}"
    name = container_name(container)
    hint = f"{name} ({str(container['Id'])[:12]})\nImage: {container['Image']}\nState: {in_words}"
    shape, colour = _SHAPES.get(state, _ENDED if status.startswith("Exited (0)") else _FAILED)
    mark = ' class="pydock-failed"' if shape == _FAILED[0] else ""
    return (
        f'<div class="pydock-row" data-name="{escape(name)}" title="{escape(hint)}" style="{_LINE}">'
        f'<span{mark} role="img" aria-label="{escape(state)}" style="color:{colour};flex:0 0 1em;text-align:center">'
        f"{shape}</span>{shorten_name(name, tail)}"
        f'<span class="pydock-faint" style="{_SMALL};margin-left:auto">{escape(status or state)}</span></div>'
    )


def describe_image(image: dict[str, Any], tail: int) -> str:
    """Return the HTML of an image's first name and its size, with the other names and the id in the tooltip."""
    names = list(image.get("RepoTags") or ())
    short_id = str(image["Id"]).removeprefix("sha256:")[:12]
    size = human_size(image["Size"])
    hint = "\n".join([*names, f"{short_id} · {size}"])
    more = f'<span class="pydock-faint" style="{_SMALL}">+{len(names) - 1}</span>' if len(names) > 1 else ""
    return (
        f'<div class="pydock-row pydock-line" title="{escape(hint)}" style="{_LINE}">{shorten_name([*names, short_id][0], tail)}'
        f'{more}<span class="pydock-faint" style="{_SMALL};margin-left:auto">{escape(size)}</span></div>'
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
    links = " ".join(
        port_link(base_url, name, number, f"Open port {number} of {name}{where}")
        for number, where in sorted(published.items())
    )
    return f'<div style="line-height:{ROW_PIXELS}px;white-space:nowrap">{links}</div>' if links else ""


class ContainerRow:
    """The widgets of one container; the same ones for as long as it is listed.

    Args:
        name: of the container, for the buttons' labels.
        act: called with "start", "stop" or "remove" when the person has said so (removing is confirmed).
        show_log: called when the log is asked for.
    """

    def __init__(
        self, name: str, base_url: str, act: Callable[[str], None], show_log: Callable[[], None]
    ) -> None:
        self._base_url = base_url
        self._text = ipywidgets.HTML(layout=_layout(flex="1 1 0", min_width="0"))
        self._ports = ipywidgets.HTML(layout=_layout(flex="0 0 auto"))
        self._start = _icon_button(f"Start {name}", "play", lambda: act("start"))
        self._stop = _icon_button(f"Stop {name}", "stop", lambda: act("stop"))
        self._show = _icon_button(f"Log of {name}", "file-text-o", show_log)
        self._remove = _icon_button(f"Remove {name}", "trash", lambda: self._ask(True))
        self._confirm = _button("Remove it", "trash", lambda: self._confirmed(act), style="danger")
        self._cancel = _button("Keep it", "", lambda: self._ask(False))
        self._usual = (self._start, self._stop, self._show, self._remove)
        self._asking = (self._confirm, self._cancel)
        self._buttons = ipywidgets.HBox(layout=_layout(flex="0 0 auto"))
        self.box = ipywidgets.HBox(
            [self._text, self._ports, self._buttons],
            layout=_layout(align_items="center", flex="0 0 auto", grid_gap="8px", height=f"{ROW_PIXELS}px"),
        )
        self.box.add_class("pydock-line")
        self._ask(False)

    def show(self, container: dict[str, Any], *, tail: int, is_busy: bool) -> None:
        """Show how the container stands; traits that stay the same send nothing to the browser."""
        self._text.value = describe(container, tail)
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


def _layout(**traits: str) -> ipywidgets.Layout:
    """Without the margin that ipywidgets gives everything: rows lie close to each other."""
    return ipywidgets.Layout(**{"margin": "0", **traits})


def _icon_button(label: str, icon: str, action: Callable[[], object]) -> ipywidgets.Button:
    button = ipywidgets.Button(
        description=label,
        tooltip=label,
        icon=icon,
        layout=_layout(height="24px", padding="0", width="26px"),
    )
    button.add_class("pydock-icon")
    button.on_click(lambda _: action())
    return button


def _button(label: str, icon: str, action: Callable[[], object], style: str = "") -> ipywidgets.Button:
    button = ipywidgets.Button(
        description=label,
        icon=icon,
        button_style=style,
        layout=_layout(height="24px", padding="0 8px", width="auto"),
    )
    button.style.font_size = "12px"
    button.on_click(lambda _: action())
    return button
