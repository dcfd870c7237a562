"""The embedded executor's limits on unified control groups, in a virtual machine that has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.virtual_machine import NoGuestError, find_kernel, run_script

GUEST = Path(__file__).parents[1] / "support" / "cgroup_v2_guest.py"

pytestmark = pytest.mark.timeout(170)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program in the machine told, by the step's name."""
    try:
        find_kernel()
    except NoGuestError as error:
        pytest.skip(str(error))
    outcome = run_script(GUEST, tmp_path_factory.mktemp("machine"), timeout_seconds=150)
    told: dict[str, Any] = {}
    for line in outcome.output.splitlines():
        if line.startswith("RESULT "):
            document = json.loads(line.removeprefix("RESULT "))
            told[document["name"]] = document["value"]
    assert told.get("end"), (
        f"the machine did not come to its end:\n{outcome.output[-2000:]}{outcome.console[-4000:]}"
    )
    return told


def test_everything_can_be_limited(results: dict[str, Any]) -> None:
    support = results["support"]
    assert support["version"] == 2
    assert all(support[name] for name in ("available", "memory", "cpu", "cpuset", "pids", "io", "devices"))


def test_memory(results: dict[str, Any]) -> None:
    assert results["memory"]["code"] == 137
    assert results["memory"]["oom_kills"] >= 1
    assert results["memory"]["memory_limit_bytes"] == 24 << 20


def test_processes(results: dict[str, Any]) -> None:
    assert "can't fork" in results["pids"]["out"]


def test_processor_time(results: dict[str, Any]) -> None:
    assert results["cpu"]["throttled_periods"] >= 1
    assert results["cpu"]["cpu_usage_ns"] > 0
    assert results["cpu"]["code"] == 137


def test_devices(results: dict[str, Any]) -> None:
    lines = results["devices"]["out"].splitlines()
    assert [line for line in lines if " " not in line] == ["zero", "mine", "refused"]
    # Neither a device that was made inside nor one that may only be read can be opened for more.
    assert len([line for line in lines if "Operation not permitted" in line]) == 2


def test_devices_of_a_privileged_container(results: dict[str, Any]) -> None:
    assert results["devices_of_privileged"]["code"] == 0


def test_the_files_say_what_was_asked_for(results: dict[str, Any]) -> None:
    lines = results["written"]["out"].splitlines()
    assert lines == [str(64 << 20), "50000 100000", "20", "77", "0", "0::/"]


def test_the_container_s_view_is_its_own_group_and_read_only(results: dict[str, Any]) -> None:
    out = results["read_only_view"]["out"]
    assert "Read-only file system" in out
    assert "No such file" in out


def test_a_further_process_is_in_the_group(results: dict[str, Any]) -> None:
    assert results["execute_joins"]["group"] == "0::/pydock/joins\n"
    assert results["execute_joins"]["codes"] == [137, 137]


def test_deleting_kills_the_whole_group(results: dict[str, Any]) -> None:
    assert results["kill_everything"] == {"before": 3, "code": 137, "left": False}


def test_deleting_kills_what_init_left_behind(results: dict[str, Any]) -> None:
    assert results["kill_what_init_left"] == {"before": 1, "code": 0, "left": False}


def test_a_group_is_stopped_and_goes_on(results: dict[str, Any]) -> None:
    assert results["freeze"] == {
        "directory": "/sys/fs/cgroup/pydock/frozen",
        "version": 2,
        "stood": True,
        "went_on": True,
        "code": 137,
    }


def test_a_running_container_s_group_is_found_and_counts(results: dict[str, Any]) -> None:
    assert results["counted"] == {"limits": [32 << 20, 9], "pids": 1, "counts": [True, True, True]}


def test_the_limits_of_a_running_container_change_all_or_none(results: dict[str, Any]) -> None:
    updated = results["updated"]
    assert updated["after"] == [str(48 << 20), str(8 << 20), "50000 100000", "max", "0"]
    assert "cpuset.cpus" in updated["message"]
    assert updated["refused"] == updated["after"]
    assert updated["before"][:4] == [str(32 << 20), "0", "max 100000", "9"]


def test_a_limit_that_the_kernel_refuses_is_named(results: dict[str, Any]) -> None:
    assert "cpuset.cpus" in results["refused"]["message"]
    assert results["refused"]["left"] == []


def test_an_overlay_on_a_kernel_without_the_new_option(results: dict[str, Any]) -> None:
    assert results["old_overlay"] == ["file0", "file1", "file2", "new"]


def test_nothing_is_left(results: dict[str, Any]) -> None:
    assert results["left"] == {"groups": [], "mounts": [], "state": []}
