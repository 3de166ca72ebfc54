"""The rules of `admission/reserve.lua` and `admission/settle.lua` in Python, for the simulation.

`tests/ledger/test_quotas.py` compares them with the scripts, step by step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SLOT_MS, SLOT_LIFE_MS = 5_000, 120_000
KEPT_FOR_REPLIES, KEPT_FOR_WAITING = 0.2, 0.1
SHORTEST_MS, SHORTEST_OF_MEMORY_MS, LONGEST_MS = 100, 5_000, 900_000
LONGEST_REFILL_MS = 60_000


@dataclass
class Part:
    """One part of a limit: what it may hold, what it has left, ms to refill all of it."""

    limit: float
    level: float
    refill_ms: float = 60_000


@dataclass
class QuotaRules:
    """One quota, as the scripts keep it in its hash; times are ms."""

    parts: dict[str, Part] = field(default_factory=dict)
    at: float = 0
    calls: int = 0
    newest: int = 0
    refused: int = 0
    queues: dict[str, float] = field(default_factory=dict)
    open: dict[tuple[int, str], float] = field(default_factory=dict)

    def _refill(self, now: float) -> None:
        passed = max(0.0, now - self.at)
        for part in self.parts.values():
            part.level = min(part.limit, part.level + passed * part.limit / part.refill_ms)
        self.at = now

    def reserve(
        self, now: float, given: int, got: int, *, reply: bool = True, returning: bool = False
    ) -> tuple[int, int] | float | None:
        """Return the number and the slot of a call, or ms to wait, or None without a limit.

        A limit that has no room for longer than `LONGEST_REFILL_MS` is left to the gate.
        """
        if not self.parts:
            return None
        self._refill(now)
        amounts = {"requests": 1, "input": given, "output": got, "tokens": given + got}
        queued = self.queues.get("fresh", 0) > now
        kept = 0.0
        if not reply:
            kept = KEPT_FOR_REPLIES
        elif queued and not returning:
            kept = KEPT_FOR_WAITING
        wait = each = 0.0
        for name, part in self.parts.items():
            need = min(amounts[name], part.limit * (1 - KEPT_FOR_REPLIES))
            takes = (need - part.level) * part.refill_ms / part.limit
            if min(part.refill_ms, takes) > LONGEST_REFILL_MS:
                return None
            missing = need + kept * part.limit - part.level
            wait = max(wait, missing * part.refill_ms / part.limit)
            each = max(each, need * part.refill_ms / part.limit)
        if wait > 0:
            return self._own_time(now, wait, each, reply=reply, returning=returning)
        slot = int(now // SLOT_MS)
        for name, part in self.parts.items():
            part.level -= amounts[name]
            self.open[slot, name] = self.open.get((slot, name), 0) + amounts[name]
        self.calls += 1
        return self.calls, slot

    def _own_time(
        self, now: float, wait: float, each: float, *, reply: bool, returning: bool
    ) -> float:
        line = ("returning" if returning else "fresh") if reply else "memory"
        shortest = SHORTEST_MS if reply else SHORTEST_OF_MEMORY_MS
        at = max(self.queues.get(line, 0), now + max(wait, shortest))
        if at > now + LONGEST_MS:
            self.refused += 1
            at = now + LONGEST_MS * (1 + self.refused % 64 / 64) / 2
        else:
            self.queues[line] = at + each
        return math.ceil(at - now)

    def settle(
        self,
        now: float,
        changes: Sequence[tuple[int, str, float, float]] = (),
        told: Mapping[str, tuple[float, float, float]] | None = None,
        number: int = 0,
    ) -> None:
        """Apply (slot, part, less, back), then (limit, remaining, ms to refill) of each part."""
        if not self.parts and not told:
            return
        self._refill(now)
        for slot, name, less, back in changes:
            if name in self.parts:
                part = self.parts[name]
                part.level = min(part.limit, part.level + back)
                self.open[slot, name] = self.open.get((slot, name), 0) - less
        if not told or number < self.newest:
            return
        sums = self._still_open(now)
        self.parts = {
            name: Part(limit, min(limit, remaining) - sums.get(name, 0), refill_ms)
            for name, (limit, remaining, refill_ms) in told.items()
        }
        self.newest = number

    def _still_open(self, now: float) -> dict[str, float]:
        sums: dict[str, float] = {}
        for (slot, name), amount in list(self.open.items()):
            young = 1 - max(0, now - slot * SLOT_MS) / SLOT_LIFE_MS
            if young <= 0:
                del self.open[slot, name]
            else:
                sums[name] = sums.get(name, 0) + young * max(0, amount)
        return sums
