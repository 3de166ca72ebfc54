"""Quotas that say what a test tells them, for those who only need an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from afterword.shared.ledger.quota_records import QuotaChange, QuotaLevel, Refused, Reserved


@dataclass(frozen=True, slots=True)
class Asked:
    """One question for room."""

    name: str
    input: int
    output: int
    reply: bool
    returning: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """What was told at once."""

    changes: tuple[QuotaChange, ...]
    told: tuple[QuotaLevel, ...]
    number: int


class FakeQuotas:
    """Stands in for the ledger's `Quotas`."""

    def __init__(self) -> None:
        self.says: Reserved | Refused | None = None
        self.asked: list[Asked] = []
        self.settled: list[Settled] = []
        self.trouble: Exception | None = None
        self.holds: asyncio.Event | None = None

    async def reserve(
        self, name: str, input_tokens: int, output_tokens: int, *, reply: bool, returning: bool
    ) -> Reserved | Refused | None:
        """Say what the test says."""
        self.asked.append(Asked(name, input_tokens, output_tokens, reply, returning))
        if self.holds is not None:
            await self.holds.wait()
        if self.trouble is not None:
            raise self.trouble
        return self.says

    async def settle(
        self,
        name: str,
        changes: Sequence[QuotaChange],
        told: Sequence[QuotaLevel] = (),
        number: int = 0,
    ) -> None:
        """Take note."""
        assert name
        self.settled.append(Settled(tuple(changes), tuple(told), number))
