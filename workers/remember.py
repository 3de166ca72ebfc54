"""The life of a turn in a memory worker: claim its lane, store, settle."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets

from shared.errors import Blame, LeaseLost, LedgerUnavailable, Unavailable, Upstream
from shared.ledger.lanes import Lanes
from shared.ledger.records import LaneClaim, WaitingTurn
from shared.lifecycle import TurnState
from shared.names import owner_of
from shared.settings import Settings
from workers import policy
from workers.leases import Leases
from workers.ports import Added, Kept, Memories, Turn

logger = logging.getLogger(__name__)

#: Turns that one hint stores at most; then another lane has its go.
BATCH = 20

#: How long an add that mem0 works on by itself is left alone before it is asked after.
FOLLOW_S = 2.0

_OUTCOMES = {
    Kept.STORED: TurnState.STORED,
    Kept.NOTHING: TurnState.NOTHING,
    Kept.SKIPPED: TurnState.SKIPPED,
}


class Rememberer:
    """Stores the turns of one lane at a time, oldest first; every failure ends in the ledger."""

    def __init__(
        self,
        settings: Settings,
        lanes: Lanes,
        memories: Memories,
        leases: Leases,
        worker_version: str,
    ) -> None:
        """Take what a write needs."""
        self._settings = settings
        self._lanes = lanes
        self._memories = memories
        self._leases = leases
        self._worker_version = worker_version

    async def write(self, lane: str) -> None:
        """Store the oldest turns of a lane, unless someone else holds it or it has none."""
        claim = await self._lanes.claim(lane, secrets.token_hex(8), most_turns=BATCH)
        if claim is None:
            return
        try:
            async with self._leases.holding(claim.lane, claim.fence):
                await self._store_all(claim)
        except LeaseLost:
            logger.info("a lane was overtaken")

    async def _store_all(self, claim: LaneClaim) -> None:
        for turn in claim.turns:
            if not await self._store(claim, turn):
                return
        await self._lanes.release(claim)

    async def _store(self, claim: LaneClaim, turn: WaitingTurn) -> bool:
        """Store one turn; return false if the lane was let go because it has to wait."""
        unknown = await self._lanes.begin(claim, turn.id)
        try:
            added = await self._added(owner_of(claim.lane), turn, unknown=unknown)
        except asyncio.CancelledError:
            if not self._leases.lost_by(claim.lane):
                await asyncio.shield(self._wait(claim, turn, 0, counted=False, code="drained"))
            raise
        except (LeaseLost, LedgerUnavailable):
            raise
        except Exception as error:  # noqa: BLE001 judged and recorded, whatever it is
            return await self._judge(claim, turn, error)
        return await self._settle(claim, turn, added)

    async def _added(self, owner: str, turn: WaitingTurn, *, unknown: bool) -> Added:
        """Add a turn, unless an earlier attempt did or is still doing so."""
        try:
            async with asyncio.timeout(self._settings.write_timeout_s):
                earlier = await self._earlier(owner, turn) if unknown else None
                return earlier or await self._memories.add(owner, _turn(turn))
        except TimeoutError:
            raise Unavailable("write_timeout", unknown_outcome=True) from None

    async def _earlier(self, owner: str, turn: WaitingTurn) -> Added | None:
        """Return what became of an earlier attempt, None if it stored nothing.

        When that cannot be told, it stays unknown; but an add under way that is said to have
        come to nothing may be made again.
        """
        try:
            if turn.event_id is not None:
                return await self._memories.follow(owner, turn.event_id)
            ids = await self._memories.find(owner, turn.id)
        except Upstream as error:
            ended = turn.event_id is not None and error.blame is Blame.THIS
            error.unknown_outcome |= not ended
            raise
        return Added(Kept.STORED, tuple(ids)) if ids else None

    async def _settle(self, claim: LaneClaim, turn: WaitingTurn, added: Added) -> bool:
        if added.kept is Kept.PENDING:
            if added.event_id:
                await self._lanes.note_event(claim, turn.id, added.event_id)
            await self._wait(claim, turn, FOLLOW_S, counted=False, code="storing")
            return False
        await self._lanes.settle(
            claim,
            turn.id,
            _OUTCOMES[added.kept],
            memory_ids=added.memory_ids,
            why=added.reason or "",
        )
        return True

    async def _judge(self, claim: LaneClaim, turn: WaitingTurn, error: Exception) -> bool:
        attempt = turn.attempts + 1
        verdict = policy.judge(
            error,
            attempt=attempt,
            most_attempts=self._settings.max_write_attempts,
            tries=attempt + turn.snoozes,
            jitter=random.random(),  # noqa: S311 no secret
        )
        logger.warning(
            "turn %s: %s (%s, %s) -> %s after %.1f s",
            turn.id, verdict.code, type(error).__name__, verdict.blame, verdict.decision,
            verdict.delay_s,
        )  # fmt: skip
        if verdict.decision is policy.Decision.GIVE_UP:
            await self._lanes.bury(
                claim, turn.id, verdict.code, verdict.blame, self._worker_version
            )
            return True
        await self._wait(
            claim,
            turn,
            verdict.delay_s,
            counted=verdict.decision is policy.Decision.RETRY,
            code=verdict.code,
            unknown_outcome=getattr(error, "unknown_outcome", True),
        )
        return False

    async def _wait(
        self,
        claim: LaneClaim,
        turn: WaitingTurn,
        delay_s: float,
        *,
        counted: bool,
        code: str,
        unknown_outcome: bool = True,
    ) -> None:
        """Put a turn back for later; its lane waits with it, so that order is kept (I4)."""
        await self._lanes.postpone(
            claim, turn.id, delay_s, counted=counted, code=code, unknown_outcome=unknown_outcome
        )


def _turn(turn: WaitingTurn) -> Turn:
    return Turn(
        id=turn.id,
        user_text=turn.user_text,
        reply_text=turn.reply_text,
        at=turn.at,
        conversation_id=turn.conversation_id,
    )
