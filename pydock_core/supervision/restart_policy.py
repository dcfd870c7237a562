"""Whether and when a container is started again after its end, by Docker's rules.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

NO = "no"
ON_FAILURE = "on-failure"
ALWAYS = "always"
UNLESS_STOPPED = "unless-stopped"
NAMES = (NO, ON_FAILURE, ALWAYS, UNLESS_STOPPED)

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 60.0
SETTLED_SECONDS = 10.0
"""The length of a run after which the delay starts from its first value again."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """A restart policy.

    Attributes:
        name: one of :data:`NAMES`.
        most: maximum number of restarts for "on-failure"; 0 for no limit.
    """

    name: str = NO
    most: int = 0

    def allows(self, exit_code: int, count: int) -> bool:
        """Whether a container that has been restarted ``count`` times is started again after this end."""
        if self.name == ON_FAILURE:
            return exit_code != 0 and (self.most == 0 or count < self.most)
        return self.name in (ALWAYS, UNLESS_STOPPED)

    def starts_at_boot(self, *, stopped_by_hand: bool) -> bool:
        """Whether a container that has run before is started after a reboot."""
        return self.name == ALWAYS or (self.name == UNLESS_STOPPED and not stopped_by_hand)

    def to_json(self) -> dict[str, Any]:
        """Return the policy as JSON types."""
        return {"name": self.name, "most": self.most}


@dataclass(frozen=True, slots=True)
class Restarts:
    """A policy and its progress.

    Attributes:
        count: the restarts so far.
        delay_seconds: the delay before the last of them; 0 before the first.
    """

    policy: RestartPolicy
    count: int = 0
    delay_seconds: float = 0.0

    def after(self, exit_code: int, ran_seconds: float) -> Restarts | None:
        """Return the progress with the next restart, due after its ``delay_seconds``; None if there is no restart.

        The delay doubles from 100 ms to one minute, and starts again after a run of 10 seconds (moby, restartmanager).
        """
        if not self.policy.allows(exit_code, self.count):
            return None
        before = 0.0 if ran_seconds >= SETTLED_SECONDS else self.delay_seconds
        delay = min(2 * before, LONGEST_DELAY_SECONDS) if before else FIRST_DELAY_SECONDS
        return replace(self, count=self.count + 1, delay_seconds=delay)

    def to_json(self) -> dict[str, Any]:
        """Return the progress as JSON types; :meth:`from_json` is the inverse."""
        return {"policy": self.policy.to_json(), "count": self.count, "delay_seconds": self.delay_seconds}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Restarts:
        """Rebuild the progress from :meth:`to_json`'s document."""
        return cls(
            RestartPolicy(**document["policy"]), int(document["count"]), float(document["delay_seconds"])
        )
