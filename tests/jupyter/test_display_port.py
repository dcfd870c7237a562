"""open_port: a link and a frame, under the server's own base URL."""

from __future__ import annotations

import pytest

import pydock_jupyter


def test_the_frame_is_under_the_servers_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/me/")
    view = pydock_jupyter.open_port("tb", 6006, "#scalars")
    assert view.url == "/user/me/pydock/c/tb/6006/#scalars"
    assert '<iframe src="/user/me/pydock/c/tb/6006/#scalars"' in view._repr_html_()
    assert "<iframe" not in pydock_jupyter.open_port("tb", 6006, height=0)._repr_html_()


def test_nothing_given_gets_out_of_its_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/")
    html = pydock_jupyter.open_port('x"><script>', 80, '"><script>')._repr_html_()
    assert "<script>" not in html


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        pydock_jupyter.open_port("tb", port)
