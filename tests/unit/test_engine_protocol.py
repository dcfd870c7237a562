"""The engine's seam: this host's engine and every double in the tests have the methods that the protocol declares."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator
from typing import Any

import pytest

import pydock_core.engine
from pydock_core.change_watch import ChangeWatch
from pydock_core.engine import protocol
from pydock_core.engine.containers import Containers
from pydock_core.engine.events import Events, EventStream
from pydock_core.engine.filesystems import Filesystems
from pydock_core.engine.images import Images
from pydock_core.engine.processes import Processes
from pydock_core.engine.registries import Registries
from pydock_core.engine.system import System
from pydock_core.engine.usage import Usage
from tests.jupyter import test_widgets_panel
from tests.support import fake_engine
from tests.unit import test_commands_registries

PARTS = [
    (Containers, protocol.ContainersProtocol),
    (Images, protocol.ImagesProtocol),
    (Registries, protocol.RegistriesProtocol),
    (Filesystems, protocol.FilesystemsProtocol),
    (Usage, protocol.UsageProtocol),
    (System, protocol.SystemProtocol),
    (Events, protocol.EventsProtocol),
    (Processes, protocol.ProcessesProtocol),
    (EventStream, protocol.EventStreamProtocol),
    (ChangeWatch, protocol.ChangesProtocol),
    (pydock_core.engine.Engine, protocol.EngineProtocol),
]
DOUBLES = [
    (fake_engine.FakeContainers, protocol.ContainersProtocol),
    (fake_engine.FakeImages, protocol.ImagesProtocol),
    (fake_engine.FakeSystem, protocol.SystemProtocol),
    (test_widgets_panel.FakeContainers, protocol.ContainersProtocol),
    (test_widgets_panel.FakeImages, protocol.ImagesProtocol),
    (fake_engine.FakeEvents, protocol.EventsProtocol),
    (fake_engine.FakeChanges, protocol.ChangesProtocol),
    (test_commands_registries.FakeRegistries, protocol.RegistriesProtocol),
    (test_commands_registries.FakeImages, protocol.ImagesProtocol),
]


def methods(owner: type) -> Iterator[tuple[str, list[inspect.Parameter]]]:
    for name, member in vars(owner).items():
        if not name.startswith("_") and inspect.isfunction(member):
            yield name, list(inspect.signature(member).parameters.values())[1:]


def shape(parameter: inspect.Parameter) -> tuple[str, Any, Any]:
    return parameter.name, parameter.kind, parameter.default


@pytest.mark.parametrize(("part", "declared"), PARTS, ids=lambda item: item.__name__)
def test_this_hosts_engine_is_what_the_protocol_declares(part: type, declared: type) -> None:
    """mypy checks the types; the names and defaults of parameters are compared here."""
    own = dict(methods(part))
    for name, parameters in methods(declared):
        assert [shape(one) for one in own[name]] == [shape(one) for one in parameters], name


@pytest.mark.parametrize(
    ("double", "declared"), DOUBLES, ids=lambda item: f"{item.__module__.rsplit('.', 1)[-1]}.{item.__name__}"
)
def test_a_double_has_only_declared_methods_with_their_parameters(double: type, declared: type) -> None:
    known = dict(methods(declared))
    for name, parameters in methods(double):
        assert name in known, name
        assert [shape(one) for one in parameters] == [shape(one) for one in known[name]], name


def test_every_public_name_is_there() -> None:
    for name in pydock_core.engine.__all__:
        assert getattr(pydock_core.engine, name) is not None
    assert set(pydock_core.engine.__all__) == set(pydock_core.engine._HOME_OF)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        operator.attrgetter("nothing")(pydock_core.engine)
