"""The plan of a container's health check, its record, and the rules between them.  Pure but for reading the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydock_core.runtime.record_file import read_json, write_json

STARTING = "starting"
HEALTHY = "healthy"
UNHEALTHY = "unhealthy"
NONE = "none"
RETAINED_RESULTS = 5
OUTPUT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class HealthPlan:
    """The settings of a health check, with Docker's defaults.

    Attributes:
        words: the command of a probe.
        interval_seconds: time from the end of a probe to the next one.
        timeout_seconds: time after which a probe is killed and has failed.
        start_period_seconds: time after the start during which failures do not count, until the first success.
        start_interval_seconds: the interval within that period, until the first success.
        retries: number of consecutive failures that make the container unhealthy.
    """

    words: tuple[str, ...]
    interval_seconds: float = 30.0
    timeout_seconds: float = 30.0
    start_period_seconds: float = 0.0
    start_interval_seconds: float = 5.0
    retries: int = 3

    def with_values(self, values: Mapping[str, Any]) -> HealthPlan:
        """Return the plan with some fields changed."""
        return replace(self, **values)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON types; :meth:`from_json` is the inverse."""
        return {**asdict(self), "words": list(self.words)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> HealthPlan:
        """Rebuild a plan from :meth:`to_json`'s document."""
        return cls(**{**document, "words": tuple(document["words"])})


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One probe.

    Attributes:
        exit_code: 0 for success; -1 if it could not be executed or took too long.
        output: the beginning of standard output and standard error.
        started_at_ns, ended_at_ns: Unix time in nanoseconds.
    """

    exit_code: int
    output: str
    started_at_ns: int
    ended_at_ns: int


@dataclass(frozen=True, slots=True)
class Health:
    """health.json: the state of a running container's health check.

    Attributes:
        status: "starting", "healthy" or "unhealthy".
        failing_streak: failures since the last success.
        log: the last probes, the newest last.
    """

    status: str = STARTING
    failing_streak: int = 0
    log: tuple[ProbeResult, ...] = ()

    def after(self, result: ProbeResult, plan: HealthPlan, container_started_at_ns: int) -> Health:
        """Return the state after a probe (moby, daemon/health.go)."""
        log = (*self.log, result)[-RETAINED_RESULTS:]
        if result.exit_code == 0:
            return Health(HEALTHY, 0, log)
        since_start = (result.started_at_ns - container_started_at_ns) / 1e9
        if self.status == STARTING and since_start < plan.start_period_seconds:
            return replace(self, log=log)
        streak = self.failing_streak + 1
        return Health(UNHEALTHY if streak >= plan.retries else self.status, streak, log)

    def interval_seconds(self, plan: HealthPlan, since_start_seconds: float) -> float:
        """Return the time until the next probe."""
        if self.status == STARTING and since_start_seconds < plan.start_period_seconds:
            return plan.start_interval_seconds
        return plan.interval_seconds

    def write(self, path: Path) -> None:
        """Write the record in one step."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Health:
        """Read the record; if it is missing, no probe has ended yet."""
        document = read_json(path)
        if document is None:
            return cls()
        log = tuple(ProbeResult(**result) for result in document["log"])
        return cls(document["status"], document["failing_streak"], log)
