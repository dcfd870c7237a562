"""Executes a notebook for real and says what happened: ``make demo``; ``execute.py [NAME.ipynb]``.

A notebook is named from this directory; without a name it is the quickstart.  The executed copy, with its outputs, is
written beside it as NAME.executed.ipynb (ignored by git); the notebook itself stays as it is.  Its last cell, tagged
"tidy-up", is commented out, so that "Run All" leaves something to look at: nobody looks here, and it is executed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
CELL_SECONDS = 300
TIDY_UP = "tidy-up"


def text_of(output: nbformat.NotebookNode) -> str:
    """The text of one output, or ""."""
    if output.output_type == "stream":
        return str(output.text)
    return str(output.get("data", {}).get("text/plain", ""))


def uncomment(source: str) -> str:
    """Take the "# " away from the beginning of each line."""
    return "".join(line.removeprefix("# ") for line in source.splitlines(keepends=True))


def execute(path: Path) -> int:
    """Execute a notebook cell by cell, printing each; return 0 if all went well."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    )
    started = time.monotonic()
    failed = ""
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code":
                continue
            if TIDY_UP in cell.metadata.get("tags", ()):
                cell.source = uncomment(cell.source)
            print("\n>>> " + cell.source.replace("\n", "\n... "), flush=True)
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as error:
                failed = str(error)
            for output in cell.outputs:
                print(text_of(output), end="" if output.output_type == "stream" else "\n", flush=True)
            if failed:
                break
    executed = path.with_suffix(".executed.ipynb")
    nbformat.write(notebook, executed)
    if failed:
        print(f"\n{path.name} failed:\n{failed}", file=sys.stderr)
        return 1
    print(
        f"\n{path.name} ran from beginning to end in {time.monotonic() - started:.0f} s; its outputs are in {executed.name}."
    )
    print("To open it in the browser:  make lab")
    return 0


if __name__ == "__main__":
    sys.exit(execute(HERE / (sys.argv[1] if len(sys.argv) > 1 else "quickstart.ipynb")))
