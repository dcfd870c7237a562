"""Docker's profile format resolved into the runtime specification's."""

from __future__ import annotations

from typing import Any

import pytest

from pydock_core.errors import InvalidError
from pydock_core.spec.defaults import CAPABILITIES
from pydock_core.spec.seccomp_profile import parse_kernel_release, read_default_profile, resolve_profile


def allowed(profile: dict[str, Any]) -> set[str]:
    """Calls that are allowed whatever their arguments."""
    return {
        name
        for rule in profile["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
        for name in rule["names"]
    }


def resolve(
    capabilities: tuple[str, ...] = CAPABILITIES, machine: str = "x86_64", kernel: tuple[int, int] = (6, 1)
) -> dict[str, Any]:
    return resolve_profile(read_default_profile(), capabilities, machine, kernel)


def test_the_default_profile_refuses_and_says_so_with_eperm() -> None:
    profile = resolve()
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert {"read", "execve", "openat2"} <= allowed(profile)
    assert not {"mount", "setns", "bpf", "kexec_load", "init_module"} & allowed(profile)


def test_capabilities_open_calls() -> None:
    assert {"mount", "setns", "unshare"} <= allowed(resolve((*CAPABILITIES, "CAP_SYS_ADMIN")))
    assert "init_module" in allowed(resolve(("CAP_SYS_MODULE",)))
    assert "chroot" not in allowed(resolve(()))


def test_clone3_is_not_there_without_the_right_to_make_namespaces() -> None:
    rules = [rule for rule in resolve()["syscalls"] if rule["names"] == ["clone3"]]
    assert rules == [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]
    assert "clone3" in allowed(resolve(("CAP_SYS_ADMIN",)))


def test_architectures() -> None:
    assert resolve()["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert resolve(machine="aarch64")["architectures"][0] == "SCMP_ARCH_AARCH64"
    assert "arch_prctl" in allowed(resolve())
    assert "arch_prctl" not in allowed(resolve(machine="aarch64"))


def test_the_kernel_s_version_decides() -> None:
    assert "ptrace" in allowed(resolve(kernel=(4, 8)))
    assert "ptrace" not in allowed(resolve(kernel=(4, 7)))


def test_a_profile_of_the_specification_s_own_form_comes_out_as_it_was() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0}],
    }
    assert resolve_profile(profile, (), "x86_64", (6, 1)) == profile


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"defaultAction": 5},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["x"], "action": "y", "includes": {"minKernel": "new"}}],
        },
    ],
)
def test_malformed_profiles(profile: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        resolve_profile(profile, (), "x86_64", (6, 1))


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.1.0-56-amd64", (6, 1)), ("5.15+", (5, 15)), ("6.18.44-x", (6, 18)), ("odd", (0, 0))],
)
def test_kernel_releases(release: str, expected: tuple[int, int]) -> None:
    assert parse_kernel_release(release) == expected
