"""Turns device requests (``--gpus``, DeviceRequests of the Engine API) and NVIDIA's variables into qualified names.

The choice of a driver and its capabilities is Docker's (moby, daemon/devices.go and daemon/nvidia_linux.go); the meaning of
NVIDIA_VISIBLE_DEVICES and NVIDIA_DRIVER_CAPABILITIES is that of NVIDIA's container runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydock_core.cdi import drm_driver, nvidia_driver
from pydock_core.cdi.name import QualifiedName, is_device_name, parse_qualified
from pydock_core.errors import InvalidError, NotFoundError, PyDockError, UnavailableError

VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"
DRIVER_CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
CDI_DRIVER = "cdi"
IGNORED_VARIABLES = ("NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_MIG_MONITOR_DEVICES", "NVIDIA_IMEX_CHANNELS")
"""Variables of NVIDIA's runtime that request other resources than a GPU."""

_DRIVERS: Mapping[str, tuple[str, frozenset[str]]] = {
    "nvidia": (nvidia_driver.KIND, frozenset({"gpu", "nvidia", *nvidia_driver.CAPABILITIES})),
    "amd": (drm_driver.AMD, frozenset({"gpu", "amd"})),
    "intel": (drm_driver.INTEL, frozenset({"gpu", "intel"})),
}
"""The kind and the requestable capabilities of each driver."""
_NO_GPU_HINT = "load the GPU's driver ({0} must work on the host), or leave {1} out; see dock doctor"
_DRIVER_PROGRAMS = {"nvidia": "nvidia-smi", "amd": "rocminfo", "intel": "clinfo"}


@dataclass(frozen=True, slots=True)
class Selection:
    """The devices of a container.

    Attributes:
        names: qualified names, in the order of the requests.
        capabilities: capabilities of NVIDIA's driver.
        driver_only: whether NVIDIA's libraries are requested without a device.
        env: variables to add to the container.
        ignored: requested variables that PyDock does not support.
    """

    names: tuple[QualifiedName, ...] = ()
    capabilities: frozenset[str] = frozenset(nvidia_driver.CAPABILITIES)
    driver_only: bool = False
    env: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


Names = Callable[[str], Sequence[str]]
"""Returns the names of a kind's devices; empty if there is no device."""


def select(
    requests: Iterable[Mapping[str, Any]], environment: Iterable[str], names: Names, *, nvidia_runtime: bool
) -> Selection:
    """Return the devices of a create request.

    Args:
        requests: valid DeviceRequests.
        environment: NAME=VALUE of the request and its image.
        names: returns the names of a kind's devices.
        nvidia_runtime: whether the variables are evaluated, as with ``--runtime nvidia``.

    Raises:
        UnavailableError: this host has no such GPU; exit code 125.
        NotFoundError: no such device, or fewer devices; exit code 125.
        InvalidError: an unknown driver or capability; exit code 125.
    """
    return _Selector(dict(entry.partition("=")[::2] for entry in environment), names).run(
        list(requests), nvidia_runtime=nvidia_runtime
    )


@dataclass
class _Selector:
    environment: Mapping[str, str]
    available: Names
    names: list[QualifiedName] = field(default_factory=list)
    env: list[str] = field(default_factory=list)
    requested: set[str] = field(default_factory=set)

    def run(self, requests: Sequence[Mapping[str, Any]], *, nvidia_runtime: bool) -> Selection:
        by_request = False
        for request in requests:
            if request["Driver"] == CDI_DRIVER:
                self.names += [self._qualified(text) for text in request["DeviceIDs"]]
            else:
                by_request |= self._add(request) == "nvidia"
        driver_only = False
        if nvidia_runtime and not by_request:
            driver_only = self._add_visible()
        uses_variables = by_request or nvidia_runtime
        capabilities = self._capabilities() if uses_variables else frozenset(nvidia_driver.CAPABILITIES)
        ignored = IGNORED_VARIABLES if uses_variables else ()
        return Selection(
            tuple(dict.fromkeys(self.names)),
            capabilities,
            driver_only,
            tuple(self.env),
            tuple(name for name in ignored if self.environment.get(name) not in (None, "", "void")),
        )

    # -- requests ----------------------------------------------------------------------------------------

    def _add(self, request: Mapping[str, Any]) -> str:
        """Add the devices of one request; return its driver."""
        driver, selected = self._choose_driver(request)
        kind = _DRIVERS[driver][0]
        there = self.available(kind)
        count, device_ids = request["Count"], list(request["DeviceIDs"] or ())
        if not there and (count or device_ids):
            raise no_gpu("--gpus", driver if request["Driver"] else "")
        if device_ids:
            self.names += [self._device(kind, name, there) for name in device_ids]
            visible = ",".join(device_ids)
        elif count < 0:
            self.names += _all_of(kind, there)
            visible = "all"
        else:
            self.names += self._first(kind, count, there)
            visible = ",".join(map(str, range(count))) or "void"
        if driver == "nvidia":
            self.env.append(f"{VISIBLE_DEVICES}={visible}")
            own = [name for name in selected if name in nvidia_driver.CAPABILITIES]
            if own:
                self.env.append(f"{DRIVER_CAPABILITIES}={','.join(own)}")
                self.requested |= set(own)
        return driver

    def _choose_driver(self, request: Mapping[str, Any]) -> tuple[str, list[str]]:
        """Return the driver, and the first of the request's capability lists that it supports."""
        driver_name = request["Driver"]
        if driver_name and driver_name not in _DRIVERS:
            raise InvalidError(
                f"--gpus driver={driver_name}: no such device driver",
                f"there are {', '.join((*_DRIVERS, CDI_DRIVER))}",
                exit_code=125,
            )
        lists: list[list[str]] = request["Capabilities"] or []
        fitting = [
            (driver, selected)
            for driver, (_, own) in _DRIVERS.items()
            if driver_name in ("", driver)
            for selected in [
                next((capabilities for capabilities in lists if own.issuperset(capabilities)), None)
            ]
            if selected is not None
        ]
        if not fitting:
            alternatives = " or ".join(",".join(capabilities) for capabilities in lists) or "(none)"
            known = sorted(set().union(*(own for _, own in _DRIVERS.values())))
            raise InvalidError(
                f"--gpus capabilities={alternatives}: no device driver "
                f"{driver_name + ' ' if driver_name else ''}has these capabilities",
                f"there are {', '.join(known)}",
                exit_code=125,
            )
        return next((entry for entry in fitting if self.available(_DRIVERS[entry[0]][0])), fitting[0])

    def _first(self, kind: str, count: int, there: Sequence[str]) -> list[QualifiedName]:
        numbers = sorted((name for name in there if name.isdigit()), key=int)
        if count > len(numbers):
            raise NotFoundError(
                f"--gpus {count}: this host has {len(numbers)} GPU{'' if len(numbers) == 1 else 's'} of {kind}",
                "ask for fewer, or for all",
                exit_code=125,
            )
        return [QualifiedName(kind, name) for name in numbers[:count]]

    @staticmethod
    def _device(kind: str, name: str, there: Sequence[str]) -> QualifiedName:
        if name not in there or not is_device_name(name):
            hint = f"there are {', '.join(there)}"
            if name.startswith("MIG-"):
                hint += "; a MIG device is named by its GPU and number, unless a CDI file has its UUID (nvidia-ctk cdi generate)"
            raise NotFoundError(f"GPU {name}: {kind} has no such device", hint, exit_code=125)
        return QualifiedName(kind, name)

    @staticmethod
    def _qualified(text: str) -> QualifiedName:
        name = parse_qualified(text)
        if name is None:
            raise InvalidError(
                f"CDI device {text}: not a qualified name", "write vendor.com/class=name", exit_code=125
            )
        return name

    # -- NVIDIA's variables ------------------------------------------------------------------------------

    @property
    def _is_legacy(self) -> bool:
        """Whether the image is a CUDA image from before NVIDIA_REQUIRE_CUDA."""
        return "CUDA_VERSION" in self.environment and "NVIDIA_REQUIRE_CUDA" not in self.environment

    def _add_visible(self) -> bool:
        """Add the devices of NVIDIA_VISIBLE_DEVICES; return whether only the driver is requested."""
        visible = self.environment.get(VISIBLE_DEVICES, "all" if self._is_legacy else "")
        if visible in ("", "void"):
            return False
        there = self.available(nvidia_driver.KIND)
        if visible == "none":
            return True
        if visible == "all":
            self.names += _all_of(nvidia_driver.KIND, there)
            return False
        for name in filter(None, (part.strip() for part in visible.split(","))):
            if "=" in name:
                self.names.append(self._qualified(name))
            else:
                self.names.append(self._device(nvidia_driver.KIND, name, there))
        return False

    def _capabilities(self) -> frozenset[str]:
        if self.requested:
            return frozenset(self.requested)
        text = self.environment.get(DRIVER_CAPABILITIES)
        if text is None and self._is_legacy:
            return frozenset(nvidia_driver.CAPABILITIES)
        capabilities = {part.strip() for part in (text or "").split(",")} - {""}
        if not capabilities:
            return nvidia_driver.DEFAULT_CAPABILITIES
        if "all" in capabilities:
            return frozenset(nvidia_driver.CAPABILITIES)
        unknown = capabilities - set(nvidia_driver.CAPABILITIES)
        if unknown:
            raise InvalidError(
                f"{DRIVER_CAPABILITIES}={text}: NVIDIA's driver has no capability {min(unknown)}",
                f"there are all, {', '.join(nvidia_driver.CAPABILITIES)}",
                exit_code=125,
            )
        return frozenset(capabilities)


def _all_of(kind: str, there: Sequence[str]) -> list[QualifiedName]:
    if "all" in there:
        return [QualifiedName(kind, "all")]
    numbers = [name for name in there if name.isdigit()]
    return [QualifiedName(kind, name) for name in numbers or there]


def no_gpu(option: str, driver: str = "") -> PyDockError:
    """Return the error of a host without a GPU.

    Args:
        option: the option that requests one.
        driver: the requested driver; empty for any.
    """
    names = {"nvidia": "NVIDIA GPU", "amd": "AMD GPU", "intel": "Intel GPU"}
    program = _DRIVER_PROGRAMS.get(driver, "nvidia-smi, rocminfo or clinfo")
    return UnavailableError(
        f"{option}: this host has no {names.get(driver, 'GPU')}",
        _NO_GPU_HINT.format(program, option),
        exit_code=125,
    )
