from jupyter_servers import Backend, JupyterServer


def test_get(jupyter: JupyterServer, backend: Backend) -> None:
    answer = jupyter.request("GET", jupyter.proxied(backend.port, "/a%2Fb/../c?x=1&y=%20"))
    print(answer, backend.last.head.decode())
    assert answer.status == 200
