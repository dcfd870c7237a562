"""The left-hand panel over a real engine: what it lists, what its buttons do, and that a chip opens a tab."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect


def row(page: Page, name: str) -> Locator:
    return page.locator(f'.pydock-Container[data-name="{name}"]')


def press(page: Page, name: str, button: str) -> None:
    """Point at the row of a container, which shows its buttons, and press one."""
    row(page, name).hover()
    row(page, name).get_by_role("button", name=button).click()


def test_lists_containers_and_images(
    panel: Page, web: str, image: str, take_picture: Callable[..., Path]
) -> None:
    listed = row(panel, web)
    expect(listed).to_contain_text(re.compile("Up .* second"))
    expect(listed).to_have_attribute(
        "title", re.compile(f"Image: {image}\nState: running, Up .*\nPorts: 8000$")
    )
    expect(panel.get_by_role("list", name="Images")).to_contain_text(image)
    take_picture(panel, "panel")


def test_a_chip_opens_the_application_in_a_tab(
    panel: Page, web: str, take_picture: Callable[..., Path]
) -> None:
    panel.get_by_role("button", name=f"Open port 8000 of {web}").click()
    expect(panel.get_by_role("tab", name=f"{web}:8000")).to_be_visible()
    application = panel.frame_locator(".pydock-Application iframe")
    expect(application.get_by_role("heading", name="First page")).to_be_visible()
    application.get_by_role("link", name="on").click()
    expect(application.get_by_role("heading", name="Second page")).to_be_visible()
    take_picture(panel, "application")

    panel.get_by_role("button", name="Reload the application").click()
    expect(application.get_by_role("heading", name="Second page")).to_be_visible()
    with panel.context.expect_page() as opened:
        panel.get_by_role("button", name="Open in a new browser tab").click()
    expect(opened.value.get_by_role("heading", name="First page")).to_be_visible()
    assert f"/user/me/pydock/c/{web}/8000/" in opened.value.url


def test_opened_tabs_come_back_after_a_reload(panel: Page, web: str) -> None:
    panel.get_by_role("button", name=f"Open port 8000 of {web}").click()
    application = panel.frame_locator(".pydock-Application iframe")
    expect(application.get_by_role("heading", name="First page")).to_be_visible()
    with panel.expect_response(
        lambda response: "/api/workspaces/" in response.url and response.request.method == "PUT"
    ):
        press(panel, web, "Log")
    panel.wait_for_function(
        "async url => JSON.stringify(await (await fetch(url)).json()).includes('pydock-logs')",
        arg=panel.url.replace("/lab/workspaces/", "/lab/api/workspaces/"),
    )
    panel.reload()
    expect(panel.get_by_role("tab", name=f"{web}:8000")).to_be_visible()
    expect(panel.get_by_role("tab", name=f"{web} log")).to_be_visible()
    expect(panel.locator("#pydock-containers")).to_be_visible()
    expect(application.locator("h1")).to_be_attached()  # its tab is behind the other


LATE = """
import http.server, os
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
os.mkdir("/late"); os.chdir("/late"); open("index.html", "w").write("<h1>Late page</h1>")
http.server.HTTPServer(("127.0.0.1", 8123), Handler).serve_forever()
"""


def test_any_other_port(
    panel: Page, web: str, dock: Callable[..., str], take_picture: Callable[..., Path]
) -> None:
    press(panel, web, "Open another port")
    dialog = panel.get_by_role("dialog")
    expect(dialog.get_by_role("textbox")).to_have_value("8888")
    take_picture(panel, "open-port")
    dialog.get_by_role("textbox").fill("99999")
    dialog.get_by_role("button", name="Open").click()
    expect(panel.get_by_text("invalid port “99999”: type a number from 1 to 65535")).to_be_visible()
    press(panel, web, "Open another port")
    dialog.get_by_role("textbox").fill("8000")
    dialog.get_by_role("button", name="Open").click()
    expect(panel.get_by_role("tab", name=f"{web}:8000")).to_be_visible()

    # The page for a port where nothing listens yet tries again, ever more rarely, at an address with a fragment too.
    press(panel, web, "Open another port")
    dialog.get_by_role("textbox").fill("8123")
    dialog.get_by_role("button", name="Open").click()
    frame = panel.frame_locator(f"#pydock-application-{web}-8123 iframe")
    expect(frame.get_by_role("heading")).to_have_text(f"{web} does not answer on port 8123 yet")
    take_picture(panel, "not-answering")
    place = "document.querySelector('#pydock-application-web-8123 iframe').contentWindow"
    panel.evaluate(f"() => {{ {place}.location.hash = 'timeseries' }}")
    for seconds in (2, 3):
        panel.wait_for_function(
            f"seconds => JSON.parse(sessionStorage.getItem('pydock-retry ' + {place}.location.pathname))?.seconds"
            " === seconds",
            arg=seconds,
        )
    dock("exec", "-d", web, "python", "-c", LATE)
    expect(frame.get_by_role("heading")).to_have_text("Late page")
    assert panel.evaluate(f"() => {place}.location.hash") == "#timeseries"


def test_buttons_change_the_container(panel: Page, web: str, dock: Callable[..., str]) -> None:
    press(panel, web, "Stop")
    expect(row(panel, web)).to_contain_text("Exited (")
    assert dock("inspect", "--format", "{{.State.Status}}", web) == "exited"
    expect(panel.get_by_role("button", name=f"Open port 8000 of {web}")).to_have_count(0)

    press(panel, web, "Start")
    expect(row(panel, web)).to_contain_text("Up ")
    assert dock("inspect", "--format", "{{.State.Status}}", web) == "running"

    press(panel, web, "Remove")
    panel.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(row(panel, web)).to_be_visible()
    press(panel, web, "Remove")
    panel.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(row(panel, web)).to_have_count(0)
    assert web not in dock("ps", "-a", "--format", "{{.Names}}").split()


def test_log_is_followed(
    panel: Page, image: str, dock: Callable[..., str], take_picture: Callable[..., Path]
) -> None:
    name = "speaker"
    program = "import sys\nfor line in sys.stdin: print('heard', line.strip(), flush=True)"
    dock("run", "-d", "-i", "--name", name, "--network", "none", image, "python", "-c", program)
    try:
        press(panel, name, "Log")
        log = panel.get_by_role("log", name=f"Log of {name}")
        expect(log).to_be_visible()
        dock("exec", name, "python", "-c", "open('/proc/1/fd/1', 'w').write('grüße\\n')")
        expect(log).to_contain_text("grüße")
        take_picture(panel, "log")
        dock("rm", "-f", name)
        expect(panel.get_by_text(f"Container {name} no longer exists. Its log is gone too")).to_be_visible()
    finally:
        dock("rm", "-f", name, check=False)


def test_live(panel: Page, image: str, dock: Callable[..., str]) -> None:
    """What others do is shown too, without a click."""
    expect(panel.get_by_role("list", name="Images")).to_contain_text(image)
    dock("create", "--name", "late", "--network", "none", image, "true")
    expect(row(panel, "late")).to_contain_text("Created")
    dock("rm", "late")
    expect(row(panel, "late")).to_have_count(0)

    # The stream lasts as long as the panel is visible.
    tab = panel.locator('.jp-SideBar [data-id="pydock-containers"]')
    with panel.expect_event("requestfailed", lambda request: "/pydock/panel" in request.url):
        tab.click()
    dock("create", "--name", "later", "--network", "none", image, "true")
    try:
        expect(row(panel, "later")).to_have_count(0)
        tab.click()
        expect(row(panel, "later")).to_contain_text("Created")
    finally:
        dock("rm", "later")


def test_a_failing_server_is_told(panel: Page) -> None:
    panel.route(
        "**/pydock/panel?*", lambda route: route.fulfill(status=500, json={"message": "the disk is full."})
    )
    panel.get_by_role("button", name="Refresh").click()
    expect(panel.get_by_role("alert").filter(has_text="the disk is full.")).to_be_visible()
    panel.unroute("**/pydock/panel?*")
    panel.get_by_role("button", name="Refresh").click()
    expect(panel.get_by_role("alert").filter(has_text="the disk is full.")).to_have_count(0)


def test_a_server_without_pydock_is_told(panel: Page, take_picture: Callable[..., Path]) -> None:
    panel.route("**/pydock/panel?*", lambda route: route.fulfill(status=404, body="no such page"))
    panel.get_by_role("button", name="Refresh").click()
    expect(panel.get_by_text("jupyter server extension enable pydock_jupyter")).to_be_visible()
    take_picture(panel, "disabled")


def test_commands_are_in_the_palette(panel: Page, web: str) -> None:
    panel.keyboard.press("Control+Shift+C")
    palette = panel.locator("#modal-command-palette")
    palette.get_by_role("searchbox").or_(palette.locator("input")).first.fill("Open Port of a Container")
    palette.get_by_text("Open Port of a Container…").click()
    dialog = panel.get_by_role("dialog")
    expect(dialog).to_contain_text(web)
