"""The panel: containers and images live, with buttons, links to ports, and a log."""

from __future__ import annotations

import os
import threading
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets

from pydock_core.engine import Snapshot, Watcher
from pydock_core.errors import PyDockError
from pydock_jupyter.display.link import server_base_url
from pydock_jupyter.display.tables import Table
from pydock_jupyter.panel_view import ContainerRow, PanelView, build_view
from pydock_jupyter.widgets.rows import ROW_PIXELS, STYLE, ContainerLine, close_tree, image_html

LOG_LINES = 500
CONTAINER_ROWS, IMAGE_ROWS = 16, 8
"""The visible rows of each list; a longer one scrolls."""

_LOG_STYLE = (
    "background:var(--jp-layout-color2,#eee);display:flex;flex-direction:column-reverse;max-height:20em;"
    "overflow:auto;padding:4px 8px"
)
_PRE_STYLE = "line-height:1.3;margin:0;white-space:pre-wrap;overflow-wrap:anywhere"
_FAINT = "color:var(--jp-ui-font-color2,#616161)"
_ERROR = "color:var(--jp-error-color1,#d32f2f)"

_shared_lock = threading.Lock()
_shared: Watcher | None = None


def shared_watcher() -> Watcher:
    """Return the watcher of the user's own engine, which all panels of a kernel share."""
    global _shared
    with _shared_lock:
        if _shared is None:
            from pydock_core.engine import Engine

            engine = Engine()
            _shared = Watcher(lambda: engine)
        return _shared


class Panel(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets is not typed
    """Shows containers and images, updated from the first display until :meth:`close`.

    Args:
        watcher: the source of snapshots; the kernel's own by default.
        base_url: the server's base URL path; detected by default.
    """

    def __init__(self, watcher: Watcher | None = None, base_url: str | None = None) -> None:
        self._watcher = watcher or shared_watcher()
        self._base_url = base_url or _find_base_url()
        self._lock = threading.RLock()
        self._lines: dict[str, ContainerLine] = {}
        self._busy_ids: set[str] = set()
        self._snapshot: Snapshot | None = None
        self._log_name = ""
        self._note = ipywidgets.HTML()
        self._list = ipywidgets.VBox(
            layout=ipywidgets.Layout(max_height=f"{CONTAINER_ROWS * ROW_PIXELS}px", overflow="hidden auto")
        )
        self._images = ipywidgets.HTML()
        self._log = ipywidgets.HTML()
        self._log_close = ipywidgets.Button(
            description="Close log",
            icon="times",
            layout=ipywidgets.Layout(align_self="flex-start", display="none", width="auto"),
        )
        self._log_close.on_click(lambda _: self._show_log(""))
        super().__init__(
            [
                _heading("Containers", STYLE),
                self._note,
                self._list,
                self._log,
                self._log_close,
                _heading("Images"),
                self._images,
            ]
        )
        self.add_class("pydock-panel")
        self._view_count = 0  # not None: the front end then keeps the count
        self.observe(self._follow_views, "_view_count")

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> Any:
        """Start watching; a front end without widgets shows the present lists as text."""
        self._watcher.add(self.show)
        bundle = super()._repr_mimebundle_(*args, **kwargs)
        return bundle | {"text/plain": describe(build_view(self._watcher.look()))}

    def _follow_views(self, change: dict[str, Any]) -> None:
        """Pause while no page shows the panel, for example after its output is cleared."""
        if change["new"]:
            self._watcher.add(self.show)
        elif change["old"]:
            self._watcher.remove(self.show)

    def close(self) -> None:
        """Stop watching, and remove the panel from the page."""
        self._watcher.remove(self.show)
        with self._lock:
            if self.comm is None:
                return
            for line in self._lines.values():
                line.close()
            self._lines.clear()
            self._list.children = ()
            for widget in self.children:
                close_tree(widget)
            self.layout.close()
            super().close()

    # -- called in the watcher's thread

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot and the tail of the open log; only changes are sent to the browser."""
        with self._lock:
            if snapshot is not self._snapshot:
                self._snapshot = snapshot
                self._draw()
        self._refresh_log()

    def _draw(self) -> None:
        with self._lock:
            if self.comm is None or self._snapshot is None:  # closed, or not shown yet
                return
            view = build_view(self._snapshot)
            if self._snapshot.problem is not None:
                self._note.value = f'<span style="{_ERROR}">{escape(str(self._snapshot.problem))}</span>'
                return
            rows = view["containers"] or []
            ids = [row["id"] for row in rows]
            gone = [self._lines.pop(container_id) for container_id in self._lines.keys() - set(ids)]
            for row in rows:
                line = self._lines.get(row["id"]) or self._new_line(row)
                self._lines[row["id"]] = line
                line.show(row, is_busy=row["id"] in self._busy_ids)
            boxes = tuple(self._lines[container_id].box for container_id in ids)
            if self._list.children != boxes:
                self._list.children = boxes
            for line in gone:
                line.close()
            empty = "No containers yet. Start one: <code>%dock run -d IMAGE COMMAND</code>"
            self._note.value = "" if rows else f'<span style="{_FAINT}">{empty}</span>'
            self._images.value = _images_html(view)

    def _refresh_log(self) -> None:
        """Read the last lines of the open log."""
        name = self._log_name
        if not name:
            return
        try:
            entries = list(self._watcher.engine.containers.logs(name, tail=LOG_LINES))
            text = b"".join(entry.data for entry in entries).decode(errors="replace")
        except PyDockError as error:
            text = error.message
        body = f'<pre style="{_PRE_STYLE}">{escape(text) or "(empty)"}</pre>'
        with self._lock:
            if self.comm is not None and name == self._log_name:
                self._log.value = f'<b>Log of {escape(name)}</b><div style="{_LOG_STYLE}">{body}</div>'

    # -- called by the buttons, in the kernel's main thread

    def _new_line(self, row: ContainerRow) -> ContainerLine:
        container_id, name = row["id"], row["name"]
        return ContainerLine(
            name,
            self._base_url,
            act=lambda action: self._begin(action, container_id, name),
            show_log=lambda: self._show_log(name),
        )

    def _begin(self, action: str, container_id: str, name: str) -> None:
        """Run an action in a thread: a stop can take many seconds, and the kernel has other work."""
        with self._lock:
            self._busy_ids.add(container_id)
            self._note.value = ""
        self._draw()
        threading.Thread(
            target=self._act, args=(action, container_id, name), name=f"pydock-{action}", daemon=True
        ).start()

    def _act(self, action: str, container_id: str, name: str) -> None:
        problem = ""
        containers = self._watcher.engine.containers
        try:
            if action == "start":
                containers.start(container_id).close()
            elif action == "stop":
                containers.stop(container_id)
            else:
                containers.remove(container_id, force=True)
                if self._log_name == name:
                    self._show_log("")
        except PyDockError as error:
            problem = f"Could not {action} {name}: {error.message} {error.hint}".strip()
        except Exception as error:  # noqa: BLE001  # shown in the panel: a thread has no caller
            problem = f"Could not {action} {name}: {type(error).__name__}: {error}"
        with self._lock:
            self._busy_ids.discard(container_id)
        self._draw()
        if problem:
            with self._lock:
                if self.comm is not None:
                    self._note.value = f'<span style="{_ERROR}">{escape(problem)}</span>'
        else:
            self._watcher.wake()

    def _show_log(self, name: str) -> None:
        with self._lock:
            if self.comm is None:
                return
            self._log_name = name
            self._log.value = ""
            self._log_close.layout.display = None if name else "none"
        self._watcher.wake()


def _heading(text: str, style: str = "") -> ipywidgets.HTML:
    return ipywidgets.HTML(f"{style}<b>{escape(text)}</b>")


def describe(view: PanelView) -> str:
    """Return containers and images as plain text."""
    if view["problem"] is not None:
        return f"{view['problem']['message']} {view['problem']['hint']}".strip()
    rows = [(row["name"], row["image"], row["status"]) for row in view["containers"] or ()]
    containers = Table.of(("Container", "Image", "Status"), rows).text() if rows else "No containers yet."
    images = [
        (", ".join(row["names"]) or "<none>", row["id"].removeprefix("sha256:")[:12], row["size"])
        for row in view["images"] or ()
    ]
    return f"{containers}\n\n{Table.of(('Image', 'Id', 'Size'), images).text()}"


def _images_html(view: PanelView) -> str:
    if not view["images"]:
        return (
            f'<span style="{_FAINT}">No images yet. Capture this environment: '
            "<code>%dock image capture -t here</code></span>"
        )
    rows = "".join(map(image_html, view["images"]))
    return f'<div style="max-height:{IMAGE_ROWS * ROW_PIXELS}px;overflow:hidden auto">{rows}</div>'


def _find_base_url() -> str:
    from jupyter_core.paths import jupyter_runtime_dir

    return server_base_url(os.environ, Path(jupyter_runtime_dir()))
