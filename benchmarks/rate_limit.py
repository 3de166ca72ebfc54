"""The rate limit of the providers' stand-in: a bucket for each part, as Anthropic's API has it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from email.utils import format_datetime
from typing import Self

from afterword.shared.clock import utc_now

_BUDGETS = {"requests": "requests", "input": "input-tokens", "output": "output-tokens"}


@dataclass(frozen=True)
class RateLimit:
    """What a minute allows, and the share of it that is there at the beginning."""

    requests: float
    input: float
    output: float
    at_first: float = 1.0

    def as_json(self) -> str:
        """Return it as an argument of the stand-in."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Self:
        """Return what `as_json` returned."""
        return cls(**json.loads(text))


class LimitedCalls:
    """Takes calls or refuses them; all parts refill all the time. Times are seconds."""

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._limits = {"requests": limit.requests, "input": limit.input, "output": limit.output}
        self._left = {name: size * limit.at_first for name, size in self._limits.items()}
        self._at = now
        self.served = self.refused = self.extractions = 0
        self.produced = 0.0

    def takes(self, now: float, given: int, *, extracts: bool = False) -> bool:
        """Count a call with so many input tokens if there is room for it; else refuse it.

        `extractions` are those of the calls that were served whose answer nobody waits for.
        """
        self._refill(now)
        left = self._left
        if left["requests"] < 1 or left["input"] < given or left["output"] < 1:
            self.refused += 1
            return False
        left["requests"] -= 1
        left["input"] -= given
        self.served += 1
        self.extractions += extracts
        return True

    def produce(self, now: float, tokens: float) -> None:
        """Count output as it is produced."""
        self._refill(now)
        self._left["output"] -= tokens
        self.produced += tokens

    def headers(self, now: float, given: int) -> str:
        """Return what the API tells with every answer, and how long to wait for so much input."""
        self._refill(now)
        date = utc_now()
        lines = [f"date: {format_datetime(date, usegmt=True)}"]
        for name, budget in _BUDGETS.items():
            limit, left = self._limits[name], max(0.0, self._left[name])
            shown = int(left) if name == "requests" else round(left, -3)
            reset = date + timedelta(seconds=(limit - left) / limit * 60)
            lines += [
                f"anthropic-ratelimit-{budget}-limit: {limit:.0f}",
                f"anthropic-ratelimit-{budget}-remaining: {shown:.0f}",
                f"anthropic-ratelimit-{budget}-reset: {reset:%Y-%m-%dT%H:%M:%SZ}",
            ]
        wait = max(
            (need - self._left[name]) / self._limits[name] * 60
            for name, need in (("requests", 1), ("input", given), ("output", 1))
        )
        if wait > 0:
            lines.append(f"retry-after: {max(1, round(wait + 0.5))}")
        return "".join(f"{line}\r\n" for line in lines)

    def _refill(self, now: float) -> None:
        for name, limit in self._limits.items():
            self._left[name] = min(limit, self._left[name] + (now - self._at) * limit / 60)
        self._at = now
