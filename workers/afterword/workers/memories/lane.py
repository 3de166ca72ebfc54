"""One lane in a memory worker: claim it, then store its turns or erase its user."""

from __future__ import annotations

import secrets

from afterword.shared.errors import LeaseLost
from afterword.shared.events import LaneClaimed, LaneOvertaken, LaneReleased
from afterword.shared.ledger.records import EraseClaim, LaneClaim
from afterword.shared.ledger.turns import Turns
from afterword.shared.names import lane_tag
from afterword.shared.observer import bound, emit
from afterword.workers.leases import Leases
from afterword.workers.memories.erase import Eraser
from afterword.workers.memories.store_turns import TurnWriter

#: Most turns that one hint stores; then other lanes get their turn.
BATCH = 20

#: Seconds that a lane with turns waits while this worker's memory is off.
OFF_S = 60.0


class LaneProcessor:
    """Claims lanes and does what is due: stores turns (if memory is on), or erases the user."""

    def __init__(
        self, lanes: Turns, leases: Leases, turn_writer: TurnWriter | None, eraser: Eraser
    ) -> None:
        self._lanes = lanes
        self._leases = leases
        self._turn_writer = turn_writer
        self._eraser = eraser

    async def process(self, lane: str) -> None:
        """Do what is due for a lane, unless another worker holds it or nothing is due."""
        asked_at = self._leases.now()
        claim = await self._lanes.claim_lane(lane, secrets.token_hex(8), max_turns=BATCH)
        if claim is None:
            return
        with bound(lane=lane_tag(lane)):
            turns = len(claim.turns) if isinstance(claim, LaneClaim) else 0
            emit(LaneClaimed, turns=turns)
            try:
                async with self._leases.holding(claim.lane, claim.fence, asked_at):
                    await self._work(claim)
            except LeaseLost:
                emit(LaneOvertaken)

    async def _work(self, claim: LaneClaim | EraseClaim) -> None:
        if isinstance(claim, EraseClaim):
            await self._eraser.erase(claim)
        elif self._turn_writer is not None:
            await self._turn_writer.store_all(claim)
        else:
            await self._lanes.release_lane(claim, OFF_S)
            emit(LaneReleased, code="memory_off", delay_s=OFF_S)
