"""Containers' own applications in the page, at their usual commands and ports, through the proxy alone."""

from __future__ import annotations

import io
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import FrameLocator, Locator, Page, expect
from tensorboard.summary import Writer

START_SECONDS = 60
STEPS = 40
RATES = {"slow": 0.05, "fast": 0.15}


def loss(rate: float, step: int) -> float:
    return math.exp(-rate * step)


def accuracy(rate: float, step: int) -> float:
    return 1 - 0.9 * math.exp(-rate * step)


@pytest.fixture
def logs(home: Path) -> Path:
    """Event files with two runs of two scalars, written by TensorBoard's own writer."""
    directory = home / "logs"
    for run, rate in RATES.items():
        writer = Writer(str(directory / run))
        for step in range(STEPS):
            writer.add_scalar("loss", loss(rate, step), step)
            writer.add_scalar("accuracy", accuracy(rate, step), step)
        writer.close()
    return directory


@pytest.fixture
def tensorboard(dock: Callable[..., str], image: str, logs: Path) -> Iterator[str]:
    """TensorBoard as its manual starts it: on the container's loopback, port 6006."""
    name = "tensorboard"
    mount = f"{logs}:/logs:ro"
    dock(
        "run",
        "-d",
        "--name",
        name,
        "--expose",
        "6006",
        "-v",
        mount,
        image,
        "tensorboard",
        "--logdir",
        "/logs",
    )
    yield name
    dock("rm", "-f", name, check=False)


@pytest.fixture
def notebook(dock: Callable[..., str], image: str, quiet_settings: Path) -> Iterator[tuple[str, str]]:
    """JupyterLab as its manual starts it in a container; returns the name and the token from its log."""
    name = "notebook"
    command = ("jupyter", "lab", "--ip=0.0.0.0", "--allow-root", "--no-browser")
    settings = f"{quiet_settings}:/root/.jupyter/lab/user-settings:ro"
    dock("run", "-d", "--name", name, "--expose", "8888", "-w", "/root", "-v", settings, image, *command)
    deadline = time.monotonic() + START_SECONDS
    while not (found := re.search(r"[?&]token=([0-9a-f]+)", dock("logs", name, both=True))):
        assert time.monotonic() < deadline, dock("logs", name, both=True)
        time.sleep(0.2)  # the server says its token when it is ready
    yield name, found.group(1)
    print(dock("logs", name, both=True))  # shown when the test fails
    dock("rm", "-f", name, check=False)


def open_port(page: Page, name: str, port: int) -> FrameLocator:
    page.get_by_role("button", name=f"Open port {port} of {name}").click()
    expect(page.get_by_role("tab", name=f"{name}:{port}")).to_be_visible()
    return page.frame_locator(f"#pydock-application-{name}-{port} iframe")


def await_listening(dock: Callable[..., str], name: str, port: int) -> None:
    """Wait until the application listens; it takes its time to start, and tells nobody but who connects."""
    probe = f"import socket; socket.create_connection(('127.0.0.1', {port})).close()"
    deadline = time.monotonic() + START_SECONDS
    while dock("exec", name, "python", "-c", f"{probe}; print('listens')", check=False) != "listens":
        assert time.monotonic() < deadline, dock("logs", name, both=True)
        time.sleep(0.2)


def test_tensorboard_draws_its_scalars(
    tensorboard: str, panel: Page, dock: Callable[..., str], take_picture: Callable[..., Path]
) -> None:
    await_listening(dock, tensorboard, 6006)
    board = open_port(panel, tensorboard, 6006)
    for tag, last in (("accuracy", accuracy), ("loss", loss)):
        card = board.locator("scalar-card").filter(has_text=tag).first
        card.scroll_into_view_if_needed(timeout=60_000)
        for rate in RATES.values():  # the table below the chart: the values at the last step
            expect(card).to_contain_text(f"{last(rate, STEPS - 1):.4f}".rstrip("0"))
        chart = card.locator("line-chart")
        await_condition(lambda chart=chart: len(drawn_runs(chart.screenshot())) == len(RATES))
    take_picture(panel, "tensorboard")


def drawn_runs(png: bytes) -> set[str]:
    """Which of the two runs' lines, by TensorBoard's colours for them, cross at least half of the chart."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    columns: dict[str, set[int]] = {"fast": set(), "slow": set()}
    for x in range(image.width):
        for y in range(image.height):
            red, green, blue = image.getpixel((x, y))
            if red < 90 and green > 140 and blue > 150:  # 12b5cb
                columns["fast"].add(x)
            elif 50 < red < 100 and 20 < blue - red < 60:  # 425066
                columns["slow"].add(x)
    return {run for run, found in columns.items() if len(found) > image.width / 2}


def await_condition(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)  # a picture tells nobody that it has changed


def test_jupyterlab_runs_a_cell(
    notebook: tuple[str, str], panel: Page, take_picture: Callable[..., Path]
) -> None:
    name, token = notebook
    inner = open_port(panel, name, 8888)
    inner.get_by_label("Password or token").first.fill(token)
    inner.get_by_role("button", name="Log in").first.click()
    inner.locator('.jp-LauncherCard[data-category="Notebook"]').first.click(timeout=60_000)
    # JupyterLab drops what is run before the kernel is connected; its toolbar says idle even then, its status bar not.
    expect(inner.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)
    inner.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    panel.keyboard.type("import socket; print(6 * 7, socket.gethostname())")
    panel.keyboard.press("Shift+Enter")
    expect(inner.locator(".jp-OutputArea-output").first).to_contain_text(
        re.compile(r"42 \w+"), timeout=60_000
    )
    take_picture(panel, "jupyterlab")


def test_the_page_of_the_readme(
    tensorboard: str,
    panel: Page,
    run_notebook: Callable[..., Locator],
    run_command: Callable[..., None],
    image: str,
    dock: Callable[..., str],
    take_picture: Callable[..., Path],
) -> None:
    """All of it in one picture: the panel, a notebook that runs containers, and TensorBoard beside it."""
    panel.set_viewport_size({"width": 1680, "height": 900})
    await_listening(dock, tensorboard, 6006)
    short = image.removesuffix(":latest")
    cells = (
        "%load_ext pydock_jupyter",
        "%dock ps --format 'table {{.Names}}\\t{{.Status}}'",
        f"%dock run --rm -m 64m {short} python -V",
        f"%%dock run --rm --network none {short} python -\n"
        'import os\nprint(f"process {os.getpid()} of {os.uname()[1]}")',
    )
    shown = run_notebook(*cells, name="demo.ipynb")
    expect(shown.nth(3)).to_contain_text(re.compile("process 1 of [0-9a-f]{12}"), timeout=60_000)
    panel.get_by_role("tab", name="Launcher").locator(".lm-TabBar-tabCloseIcon").click()
    run_command(panel, "pydock:open-port", {"name": tensorboard, "port": 6006, "mode": "split-right"})
    # TensorBoard needs room for its settings, or the click that closes them scrolls its page to the side.
    widen_right_tab(panel, 150)
    board = panel.frame_locator(".pydock-Application iframe")
    chart = board.locator("scalar-card line-chart").first
    expect(chart).to_be_visible(timeout=60_000)
    board.get_by_role("button", name="Settings").last.click()
    expect(board.locator("metrics-dashboard-settings-component")).to_have_count(0)
    shown.nth(0).locator(".jp-InputPrompt").click()  # a selected cell's toolbar covers its first line
    await_condition(lambda: len(drawn_runs(chart.screenshot())) == len(RATES))
    take_picture(panel, "lab", for_readme=True)


def widen_right_tab(page: Page, pixels: int) -> None:
    """Drag the bar between two tabs that are side by side to the left."""
    bar = page.locator(".lm-DockPanel-handle[data-orientation='horizontal']:not(.lm-mod-hidden)")
    box = bar.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - pixels, y, steps=5)
    page.mouse.up()
