"""An application that lives at "/" and says so in its scripts, in each way that real ones do; runs in a container.

Like Gradio it takes the root of its addresses from X-Forwarded-Host, like Dash and FastAPI's documentation it
asks for ``/…`` from scripts, and like hardened ones it forbids inline scripts.
"""

import asyncio
from pathlib import Path

from tornado import web, websocket

import pydock_jupyter.server

PORT = 7860

SCRIPT = """
const root = document.body.dataset.root;
const own = 'http://localhost:7860';
const text = async response => (await response).text();
const once = (target, name) => new Promise((done, fail) => {
  target.addEventListener(name, done, {once: true});
  target.addEventListener('error', fail, {once: true});
});
const append = (name, set) => {
  const element = document.createElement(name);
  const loaded = once(element, 'load');
  set(element);
  document.head.append(element);
  return loaded;
};
const cases = {
  'fetch': () => text(fetch('/a')),
  'fetch of a URL': () => text(fetch(new URL('/a', location.origin))),
  'fetch of a Request': () => text(fetch(new Request('/a', {method: 'POST', body: 'x'}))),
  'forwarded host': () => text(fetch(root + '/a')),
  'own address': () => text(fetch(own + '/a')),
  'XMLHttpRequest': async () => {
    const request = new XMLHttpRequest();
    request.open('GET', '/a');
    request.send();
    await once(request, 'load');
    return request.responseText;
  },
  'WebSocket': async () => (await once(new WebSocket(root.replace('http', 'ws') + '/socket'), 'message')).data,
  'EventSource': async () => (await once(new EventSource('/events'), 'message')).data,
  'Worker': async () => (await once(new Worker('/worker.js'), 'message')).data,
  'script': () => append('script', element => { element.src = '/late.js'; }).then(() => window.late),
  'stylesheet': () => append('link', element => {
    element.rel = 'stylesheet';
    element.href = root + '/late.css';
  }).then(() => getComputedStyle(document.body).getPropertyValue('--late')),
  'setAttribute': async () => {
    const image = new Image();
    const loaded = once(image, 'load');
    image.setAttribute('src', '/dot.svg');
    await loaded;
    return '/' + image.src.split('/').pop();
  },
  'sendBeacon': async () => { navigator.sendBeacon('/beacon', 'x'); return text(fetch('/beacons')); },
  'relative': () => text(fetch('a')),
  'with the prefix': () => text(fetch(location.pathname + 'a')),
  'history': async () => {
    const before = location.pathname;
    history.pushState(null, '', '/page');
    const after = location.pathname;
    history.back();
    return after === before + 'page' ? '/page' : after;
  }
};
(async () => {
  for (const [name, run] of Object.entries(cases)) {
    const item = document.createElement('li');
    item.textContent = name + ': ' + await Promise.resolve().then(run).catch(error => 'failed ' + error);
    document.querySelector('ul').append(item);
  }
  document.querySelector('h1').textContent = 'done';
})();
"""

PAGE = """<!doctype html><html><head><title>Absolute</title></head>
<body data-root="{root}"><h1>running</h1><ul></ul>
<script src="{root}/app.js"></script></body></html>"""

NESTED = """<!doctype html><title>Nested</title>
<script src="/shim.js" data-prefix="/inner/c/web/80" data-authority="localhost"></script>
<h1>running</h1><script src="/nested.js"></script>"""
NESTED_SCRIPT = (
    "fetch('/a').then(r => r.text()).then(t => { document.querySelector('h1').textContent = t; });"
)

FILES = {
    "/app.js": ("text/javascript", SCRIPT),
    "/late.js": ("text/javascript", "window.late = '/late.js'"),
    "/worker.js": ("text/javascript", "postMessage('/worker.js')"),
    "/late.css": ("text/css", "body { --late: /late.css }"),
    "/dot.svg": ("image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'),
    "/shim.js": (
        "text/javascript",
        Path(pydock_jupyter.server.__file__).with_name("shim.js").read_text(),
    ),
    "/nested.js": ("text/javascript", NESTED_SCRIPT),
}


class Echo(web.RequestHandler):
    """Answers with a file, a page, or the path that was asked for."""

    beaten = asyncio.Event()

    async def get(self) -> None:
        path = self.request.path
        root = f"{self.request.headers['X-Forwarded-Proto']}://{self.request.headers['X-Forwarded-Host']}"
        if path in FILES:
            kind, text = FILES[path]
        elif path == "/":
            kind, text = "text/html", PAGE.format(root=root)
            self.set_header("Content-Security-Policy", "default-src 'self'; connect-src 'self' ws:")
        elif path == "/inner/c/web/80/":
            kind, text = "text/html", NESTED
        elif path == "/events":
            kind, text = "text/event-stream", "data: /events\n\n"
        else:
            if path == "/beacons":
                await self.beaten.wait()
            kind, text = "text/plain", path
        self.set_header("Content-Type", kind)
        self.write(text)

    def post(self) -> None:
        if self.request.path == "/beacon":
            self.beaten.set()
        self.write(self.request.path)


class Socket(websocket.WebSocketHandler):
    """Says what it was opened with."""

    def open(self, *_arguments: str) -> None:
        self.write_message(self.request.path)


async def main() -> None:
    application = web.Application([("/socket", Socket), ("/.*", Echo)])
    application.listen(PORT, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
