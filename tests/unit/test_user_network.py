"""The record of an ordinary user's shared network namespace."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pydock_core.errors import CorruptError, UnavailableError
from pydock_core.runtime.process_identity import ProcessIdentity
from pydock_core.supervision import user_network
from pydock_core.supervision.user_network import UserNetwork


def write(run: Path, network: UserNetwork) -> None:
    user_network.record_file(run).write_text(json.dumps(network.to_json()))


def test_a_record_is_believed_while_its_holder_lives(tmp_path: Path) -> None:
    assert user_network.read(tmp_path) is None
    own = ProcessIdentity.of(os.getpid())
    network = UserNetwork(own, replace(own, start_ticks=1))
    write(tmp_path, network)
    assert user_network.read(tmp_path) == network
    assert not network.uplink.is_running()
    assert "lo" in network.devices()
    write(tmp_path, UserNetwork(replace(own, start_ticks=1), own))
    assert user_network.read(tmp_path) is None
    with pytest.raises(UnavailableError, match="network namespace of this user's containers is gone"):
        user_network.enter(tmp_path)
    assert user_network.join_user_namespace(tmp_path) is False


def test_a_zombie_holds_no_namespace(tmp_path: Path) -> None:
    """Its parent may never reap it: the first process of many containers does not."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    identity = ProcessIdentity.of(child.pid)
    assert identity.is_running()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identity.is_alive()
    assert not identity.is_running()
    write(tmp_path, UserNetwork(identity, identity))
    assert user_network.read(tmp_path) is None
    child.communicate()
    assert not identity.is_running()


def test_a_malformed_record_is_named(tmp_path: Path) -> None:
    user_network.record_file(tmp_path).write_text('{"holder": {}}')
    with pytest.raises(CorruptError, match=r"user-network\.json is malformed"):
        user_network.read(tmp_path)
