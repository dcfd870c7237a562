"""The panel: containers and images live, with buttons, links to ports, and a log."""

from __future__ import annotations

import os
import threading
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets

from pydock_core.errors import PyDockError
from pydock_jupyter.display.tables import Table
from pydock_jupyter.widgets.links import server_base_url
from pydock_jupyter.widgets.rows import (
    ROW_PIXELS,
    STYLE,
    ContainerRow,
    close_tree,
    container_name,
    describe_image,
    tail_length,
)
from pydock_jupyter.widgets.watcher import Snapshot, Watcher

LOG_LINES = 500
CONTAINER_ROWS, IMAGE_ROWS = 16, 8
"""So many rows are seen at once; a longer list scrolls."""

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
    """Return the kernel's one watcher, over an engine of the user's own state root."""
    global _shared
    with _shared_lock:
        if _shared is None:
            from pydock_core.engine import Engine

            engine = Engine()
            _shared = Watcher(lambda: engine)
        return _shared


class Panel(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets is not typed
    """Shows containers and images from when it is displayed until :meth:`close`.

    Args:
        watcher: what tells it of changes; the kernel's own by default.
        base_url: the server's base URL path; found out by default.
    """

    def __init__(self, watcher: Watcher | None = None, base_url: str | None = None) -> None:
        self._watcher = watcher or shared_watcher()
        self._base_url = base_url or _find_base_url()
        self._lock = threading.RLock()
        self._rows: dict[str, ContainerRow] = {}
        self._busy: set[str] = set()
        self._snapshot = Snapshot()
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
        self._view_count = 0  # from now on the front end counts
        self.observe(self._follow_views, "_view_count")

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> Any:
        """Being displayed is what starts it; where no front end shows widgets, the lists as they are now."""
        self._watcher.add(self)
        bundle = super()._repr_mimebundle_(*args, **kwargs)
        return bundle | {"text/plain": describe(self._watcher.look())}

    def _follow_views(self, change: dict[str, Any]) -> None:
        """Rest while no page shows it (its output was cleared, say), and go on when one does again."""
        if change["new"]:
            self._watcher.add(self)
        elif change["old"]:
            self._watcher.remove(self)

    def close(self) -> None:
        """Stop, and remove the panel from the page."""
        self._watcher.remove(self)
        with self._lock:
            if self.comm is None:
                return
            for row in self._rows.values():
                row.close()
            self._rows.clear()
            self._list.children = ()
            for widget in self.children:
                close_tree(widget)
            self.layout.close()
            super().close()

    # -- told by the watcher, in its thread ---------------------------------------------------------------

    def show(self, snapshot: Snapshot) -> None:
        """Show the lists; only what differs goes to the browser."""
        with self._lock:
            if self.comm is None:  # closed meanwhile
                return
            self._snapshot = snapshot
            if snapshot.problem:
                self._note.value = f'<span style="{_ERROR}">{escape(snapshot.problem)}</span>'
                return
            listed = {str(container["Id"]): container for container in snapshot.containers}
            gone = [
                self._rows.pop(container_id)
                for container_id in list(self._rows)
                if container_id not in listed
            ]
            tail = tail_length(map(container_name, listed.values()))
            for container_id, container in listed.items():
                row = self._rows.get(container_id) or self._new_row(container)
                self._rows[container_id] = row
                row.show(container, tail=tail, is_busy=container_id in self._busy)
            boxes = tuple(self._rows[container_id].box for container_id in listed)
            if self._list.children != boxes:
                self._list.children = boxes
            for row in gone:
                row.close()
            empty = "No containers yet. Start one: <code>%dock run -d IMAGE COMMAND</code>"
            self._note.value = "" if listed else f'<span style="{_FAINT}">{empty}</span>'
            self._images.value = _images_html(snapshot.images)

    def refresh_log(self) -> None:
        """Read the log's last lines again, while it is shown."""
        name = self._log_name
        if not name:
            return
        try:
            entries = list(self._watcher.engine.containers.logs(name, tail=LOG_LINES))
            text = b"".join(entry.data for entry in entries).decode(errors="replace")
        except PyDockError as error:
            text = error.message
        shown = escape(text) or "(nothing yet)"
        with self._lock:
            if self.comm is not None and name == self._log_name:
                body = f'<pre style="{_PRE_STYLE}">{shown}</pre>'
                self._log.value = f'<b>Log of {escape(name)}</b><div style="{_LOG_STYLE}">{body}</div>'

    # -- told by the person, in the kernel's main thread --------------------------------------------------

    def _new_row(self, container: dict[str, Any]) -> ContainerRow:
        container_id, name = str(container["Id"]), container_name(container)
        return ContainerRow(
            name,
            self._base_url,
            act=lambda action: self._act(action, container_id, name),
            show_log=lambda: self._show_log(name),
        )

    def _act(self, action: str, container_id: str, name: str) -> None:
        """Do it in a thread: stopping takes as long as the container takes, and the kernel has other work."""
        with self._lock:
            self._busy.add(container_id)
            self._note.value = ""
        self.show(self._snapshot)
        threading.Thread(
            target=self._act_and_tell, args=(action, container_id, name), name=f"pydock-{action}", daemon=True
        ).start()

    def _act_and_tell(self, action: str, container_id: str, name: str) -> None:
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
        except Exception as error:  # noqa: BLE001  # a thread has nobody else to tell
            problem = f"Could not {action} {name}: {type(error).__name__}: {error}"
        with self._lock:
            self._busy.discard(container_id)
        self.show(self._snapshot)
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


def describe(snapshot: Snapshot) -> str:
    """Return containers and images as plain text."""
    if snapshot.problem:
        return snapshot.problem
    rows = [
        (container_name(container), str(container["Image"]), str(container["Status"] or container["State"]))
        for container in snapshot.containers
    ]
    containers = Table.of(("Container", "Image", "Status"), rows).text() if rows else "No containers yet."
    return f"{containers}\n\n{_images_table(snapshot.images).text()}"


def _images_table(images: tuple[dict[str, Any], ...]) -> Table:
    from pydock_core.spelling import human_size

    rows = [
        (
            ", ".join(image.get("RepoTags") or ()) or "<none>",
            str(image["Id"]).removeprefix("sha256:")[:12],
            human_size(image["Size"]),
        )
        for image in images
    ]
    return Table.of(("Image", "Id", "Size"), rows)


def _images_html(images: tuple[dict[str, Any], ...]) -> str:
    if not images:
        return (
            f'<span style="{_FAINT}">No images yet. Make one of this environment: '
            "<code>%dock image capture -t here</code></span>"
        )
    tail = tail_length(str(name) for image in images for name in (image.get("RepoTags") or ())[:1])
    rows = "".join(describe_image(image, tail) for image in images)
    return f'<div style="max-height:{IMAGE_ROWS * ROW_PIXELS}px;overflow:hidden auto">{rows}</div>'


def _find_base_url() -> str:
    from jupyter_core.paths import jupyter_runtime_dir

    return server_base_url(os.environ, Path(jupyter_runtime_dir()))
