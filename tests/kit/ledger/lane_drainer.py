"""A memory worker without a memory: it settles what stands in the lanes, or buries it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Self

from afterword.shared.errors import Fault
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import LaneClaim
from afterword.shared.lifecycle import TurnState

_tokens = (f"drainer-{number}" for number in itertools.count(1))
_LOOK_S = 0.005


class LaneDrainer:
    """Writes the lanes of these users while the context is open; `added` counts each turn."""

    def __init__(
        self, ledger: Ledger, lanes: Iterable[str], rejects: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._ledger = ledger
        self._lanes = list(lanes)
        self.rejects = rejects
        self.added: Counter[str] = Counter()
        self._enough = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def write_all(self) -> None:
        """Write what there is now."""
        for lane in self._lanes:
            claim = await self._ledger.turns.claim_lane(lane, next(_tokens), max_turns=20)
            if isinstance(claim, LaneClaim):
                for turn in claim.turns:
                    await self._write(claim, turn.id)
                await self._ledger.turns.release_lane(claim)

    async def _write(self, claim: LaneClaim, turn_id: str) -> None:
        await self._ledger.turns.begin(claim, turn_id)
        if self.rejects(turn_id):
            await self._ledger.turns.bury(claim, turn_id, "rejected", Fault.REQUEST, "0.1.0")
        else:
            self.added[turn_id] += 1
            await self._ledger.turns.settle(claim, turn_id, TurnState.STORED)

    async def _go_on(self) -> None:
        while not self._enough.is_set():
            await self.write_all()
            await asyncio.sleep(_LOOK_S)  # noqa: TID251 it looks around, as a worker does

    async def __aenter__(self) -> Self:
        self._enough.clear()
        self._task = asyncio.create_task(self._go_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._enough.set()
        await self._task
