"""The lines of the panel: a container with its state, links and buttons; an image with its size.

They look as in JupyterLab's side panel (labextension/src/rows.tsx): 26 pixels high, a long name cut in its middle, a
shape for each state.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

import ipywidgets

from pydock_jupyter.display.link import port_link

if TYPE_CHECKING:
    from pydock_jupyter.panel_view import ContainerRow, ImageRow, Look

ROW_PIXELS = 26

_FAINT_COLOUR = "var(--jp-ui-font-color2,#616161)"
_FAINT = f"color:{_FAINT_COLOUR}"
# Shape and colour: colour alone never tells states apart.
_SHAPES: dict[Look, tuple[str, str]] = {
    "running": ("\N{BLACK CIRCLE}", "var(--jp-success-color1,#388e3c)"),
    "paused": ("\N{DOUBLE VERTICAL BAR}", "var(--jp-warn-color0,#e65100)"),
    "changing": ("\N{CIRCLE WITH LEFT HALF BLACK}", "var(--jp-warn-color0,#e65100)"),
    "failed": ("\N{MULTIPLICATION X}", "var(--jp-error-color1,#d32f2f)"),
    "ended": ("\N{WHITE CIRCLE}", _FAINT_COLOUR),
    "created": ("\N{DOTTED CIRCLE}", _FAINT_COLOUR),
}
STYLE = """<style>
.pydock-panel .pydock-line:hover,.pydock-panel .pydock-line:focus-within{background:var(--jp-layout-color2,#eee)}
.pydock-panel .pydock-line:hover .pydock-faint{color:var(--jp-ui-font-color1,#212121)!important}
[data-jp-theme-light='false'] .pydock-panel .pydock-failed{color:var(--jp-error-color2,#e57373)!important}
.pydock-panel .pydock-icon{align-items:center;background:none;display:inline-flex;font-size:0;justify-content:center}
.pydock-panel .pydock-icon:hover:enabled{background:var(--jp-layout-color3,#bdbdbd)}
.pydock-panel .pydock-icon i{font-size:14px;margin:0}
</style>"""
"""Rules that no style attribute can express.  A button with an icon keeps its label for screen readers."""
_SMALL = f"{_FAINT};flex:0 0 auto;font-size:85%"
_LINE = f"align-items:center;display:flex;gap:8px;line-height:{ROW_PIXELS}px;white-space:nowrap;min-width:0"
# As .pydock-Name in labextension/style/base.css: the head shrinks, then wraps onto a hidden line.
_NAME = (
    f"align-content:flex-end;display:flex;flex:0 1 auto;flex-wrap:wrap-reverse;height:{ROW_PIXELS}px;"
    "justify-content:flex-end;max-width:100%;min-width:0;overflow:hidden;white-space:pre"
)
_HEAD = "flex:1 1 1.8em;max-width:max-content;min-width:0;overflow:hidden;text-overflow:ellipsis"


def name_html(label: tuple[str, str]) -> str:
    """Return the HTML of a name on one line; the browser cuts its head if space is short."""
    head, tail = label
    return (
        f'<span style="{_NAME}"><span style="{_HEAD}">{escape(head)}</span>'
        f'<span class="pydock-tail" style="flex:0 0 auto">{escape(tail)}</span></span>'
    )


def container_html(row: ContainerRow) -> str:
    """Return the HTML of a container's state, name and status."""
    shape, colour = _SHAPES[row["look"]]
    mark = ' class="pydock-failed"' if row["look"] == "failed" else ""
    return (
        f'<div class="pydock-row" data-name="{escape(row["name"])}" title="{escape(row["title"])}" style="{_LINE}">'
        f'<span{mark} role="img" aria-label="{escape(row["state"])}"'
        f' style="color:{colour};flex:0 0 1em;text-align:center">{shape}</span>{name_html(row["label"])}'
        f'<span class="pydock-faint" style="{_SMALL};margin-left:auto">{escape(row["status"])}</span></div>'
    )


def image_html(row: ImageRow) -> str:
    """Return the HTML of an image's first name, the number of further names, and its size."""
    others = len(row["names"]) - 1
    more = f'<span class="pydock-faint" style="{_SMALL}">+{others}</span>' if others > 0 else ""
    return (
        f'<div class="pydock-row pydock-line" title="{escape(row["title"])}" style="{_LINE}">{name_html(row["label"])}'
        f'{more}<span class="pydock-faint" style="{_SMALL};margin-left:auto">{escape(row["size"])}</span></div>'
    )


def ports_html(row: ContainerRow, base_url: str) -> str:
    """Return the HTML of a link to each port."""
    name = row["name"]
    links = []
    for port in row["ports"]:
        published = f" (published at {port['published']})" if port["published"] else ""
        title = f"Open port {port['number']} of {name}{published}"
        links.append(port_link(base_url, name, port["number"], title))
    style = f"line-height:{ROW_PIXELS}px;white-space:nowrap"
    return f'<div style="{style}">{" ".join(links)}</div>' if links else ""


class ContainerLine:
    """The widgets of one container, reused while it is listed.

    Args:
        name: the container's name, for the labels of the buttons.
        base_url: the server's base URL path.
        act: called with "start", "stop" or "remove"; "remove" is confirmed first.
        show_log: called when the log button is pressed.
    """

    def __init__(
        self, name: str, base_url: str, act: Callable[[str], None], show_log: Callable[[], None]
    ) -> None:
        self._base_url = base_url
        self._text = ipywidgets.HTML(layout=_layout(flex="1 1 0", min_width="0"))
        self._ports = ipywidgets.HTML(layout=_layout(flex="0 0 auto"))
        self._start = _icon_button(f"Start {name}", "play", lambda: act("start"))
        self._stop = _icon_button(f"Stop {name}", "stop", lambda: act("stop"))
        log = _icon_button(f"Log of {name}", "file-text-o", show_log)
        self._remove = _icon_button(f"Remove {name}", "trash", lambda: self._show_question(True))
        confirm = _button("Remove it", "trash", lambda: self._confirm(act), style="danger")
        cancel = _button("Keep it", "", lambda: self._show_question(False))
        self._actions = (self._start, self._stop, log, self._remove)
        self._question = (confirm, cancel)
        self._buttons = ipywidgets.HBox(layout=_layout(flex="0 0 auto"))
        self.box = ipywidgets.HBox(
            [self._text, self._ports, self._buttons],
            layout=_layout(align_items="center", flex="0 0 auto", grid_gap="8px", height=f"{ROW_PIXELS}px"),
        )
        self.box.add_class("pydock-line")
        self._show_question(False)

    def show(self, row: ContainerRow, *, is_busy: bool) -> None:
        """Draw a row; only changed traits are sent to the browser."""
        self._text.value = container_html(row)
        self._ports.value = ports_html(row, self._base_url)
        self._start.disabled = is_busy or row["up"]
        self._stop.disabled = is_busy or not row["up"]
        self._remove.disabled = is_busy

    def close(self) -> None:
        """Close every widget of the line, in the browser too."""
        self._buttons.children = self._actions + self._question
        close_tree(self.box)

    def _show_question(self, is_asking: bool) -> None:
        """Show the buttons that confirm a removal, or the usual ones."""
        self._buttons.children = self._question if is_asking else self._actions

    def _confirm(self, act: Callable[[str], None]) -> None:
        self._show_question(False)
        act("remove")


def close_tree(widget: ipywidgets.DOMWidget) -> None:
    """Close a widget with its children, layout and style, which would outlive it."""
    for child in getattr(widget, "children", ()):
        close_tree(child)
    for part in (widget, widget.layout, getattr(widget, "style", None)):
        if part is not None:
            part.close()


def _layout(**traits: str) -> ipywidgets.Layout:
    """Return a layout without the margin that ipywidgets adds by default."""
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
