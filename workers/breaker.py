"""A switch that stops asking who does not answer, and lets one probe through now and then."""

from __future__ import annotations

from dataclasses import dataclass

#: Failures in a row that open the breaker.
FAILURES = 5

#: How long an open breaker refuses before it lets one call through.
OPEN_S = 5.0


@dataclass(slots=True)
class Breaker:
    """Counts failures in a row; the caller brings the time, in seconds of one clock."""

    failures: int = 0
    retry_at: float = 0.0

    def allows(self, now: float) -> bool:
        """Return whether a call may be made; an open breaker allows one per `OPEN_S`."""
        if self.failures < FAILURES:
            return True
        if now < self.retry_at:
            return False
        self.retry_at = now + OPEN_S
        return True

    def succeeded(self) -> None:
        """Close the breaker."""
        self.failures = 0

    def failed(self, now: float) -> None:
        """Count a failure; enough of them in a row open the breaker."""
        self.failures += 1
        self.retry_at = now + OPEN_S
