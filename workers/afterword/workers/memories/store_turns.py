"""The life of a batch of turns in a memory worker: store, settle, or try again."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from functools import partial

from afterword.shared.errors import (
    BadAnswer,
    Fault,
    LeaseLost,
    LedgerUnavailable,
    ProviderError,
    Rejected,
    Unavailable,
)
from afterword.shared.ledger.records import LaneClaim
from afterword.shared.ledger.turns import Turns
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import owner_of
from afterword.shared.settings import Settings
from afterword.workers.gate import REMEMBER, GateClient, GateShut, Permit
from afterword.workers.leases import Leases
from afterword.workers.ports import Added, Exchange, Kept, Memories, Turn
from afterword.workers.rules import retry_policy as policy
from afterword.workers.rules.batching import Batch, Bounds, batches

logger = logging.getLogger(__name__)

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
        lanes: Turns,
        memories: Memories,
        leases: Leases,
        worker_version: str,
        gates: GateClient,
    ) -> None:
        """Take what a write needs."""
        self._settings = settings
        self._lanes = lanes
        self._memories = memories
        self._leases = leases
        self._worker_version = worker_version
        self._gates = gates
        self._bounds = Bounds(settings.coalesce_turns if memories.takes_batches else 1)

    async def store_all(self, claim: LaneClaim) -> None:
        """Store the turns of a lane that is held; raise `LeaseLost` if overtaken."""
        for batch in batches(claim.turns, self._bounds):
            try:
                permit = await self._gates.ask(
                    REMEMBER, canary_s=self._settings.write_timeout_s + 1
                )
            except GateShut as shut:
                await self._lanes.release_lane(claim, shut.retry_after_s)
                return
            try:
                if not await self._store(claim, batch, permit):
                    return
            finally:
                permit.left()
        await self._lanes.release_lane(claim)

    async def _store(self, claim: LaneClaim, batch: Batch, permit: Permit) -> bool:
        """Store one batch; return false if the lane was let go because it has to wait."""
        unknown = await self._lanes.begin(claim, *(turn.id for turn in batch))
        if batch[0].attempts >= self._settings.max_write_attempts:  # the last had no end (I3)
            lost = Rejected("crashed_too_often", unknown_outcome=unknown)
            return await self._judge(claim, batch, lost, None)
        try:
            added = await self._added(claim, batch, unknown=unknown)
        except asyncio.CancelledError:
            if not self._leases.lost_by(claim.lane):
                await asyncio.shield(self._wait(claim, batch, 0, counted=False, code="drained"))
            raise
        except (LeaseLost, LedgerUnavailable):
            raise
        except Exception as error:  # noqa: BLE001 judged and recorded, whatever it is
            shut = await permit.failed(error) if isinstance(error, ProviderError) else None
            return await self._judge(claim, batch, error, shut)
        permit.worked()
        return await self._settle(claim, batch, added)

    async def _added(self, claim: LaneClaim, batch: Batch, *, unknown: bool) -> Added:
        """Add a batch, unless an earlier attempt did or is still doing so.

        A batch that spent an attempt is not added again: one of its turns may be to blame.
        """
        try:
            async with asyncio.timeout(self._settings.write_timeout_s):
                earlier = await self._earlier(claim, batch) if unknown else None
                if earlier is not None:
                    return earlier
                if len(batch) > 1 and batch[0].attempts:
                    raise Rejected("batch_failed")
                self._leases.assure(claim.lane)
                return await self._memories.add(owner_of(claim.lane), self._turn(claim, batch))
        except TimeoutError:
            raise Unavailable("write_timeout", unknown_outcome=True) from None

    async def _earlier(self, claim: LaneClaim, batch: Batch) -> Added | None:
        """Return what became of an earlier attempt, None if nothing of it can be found.

        When that cannot be told, it stays unknown.
        """
        turn = batch[0]
        try:
            if turn.event_id is not None:
                return await self._followed(claim, batch, turn.event_id)
            ids = await self._memories.find(owner_of(claim.lane), turn.id)
        except ProviderError as error:
            error.unknown_outcome = True
            raise
        return Added(Kept.STORED, tuple(ids)) if ids else None

    async def _followed(self, claim: LaneClaim, batch: Batch, event_id: str) -> Added:
        """Return what became of an add that mem0 works on by itself.

        An event that failed, is forgotten or takes for ever may have stored all the same: it is
        followed no more, and the next attempt looks for the batch before it adds anything.
        """
        turn = batch[0]
        try:
            added = await self._memories.follow(owner_of(claim.lane), event_id)
            if added.kept is Kept.PENDING and turn.event_age_s >= self._settings.pending_s:
                raise BadAnswer("pending_too_long")
        except ProviderError as error:
            if error.fault is Fault.REQUEST and not error.unknown_outcome:
                await self._lanes.record_event(claim, turn.id, "")
            raise
        return added

    async def _settle(self, claim: LaneClaim, batch: Batch, added: Added) -> bool:
        if added.kept is Kept.PENDING:
            if added.event_id:
                await self._lanes.record_event(claim, batch[0].id, added.event_id)
            pause_s = policy.follow_pause_s(batch[0].event_age_s)
            await self._wait(claim, batch, pause_s, counted=False, code="storing")
            return False
        await self._lanes.settle(
            claim,
            batch[0].id,
            _OUTCOMES[added.kept],
            memory_ids=added.memory_ids,
            why=added.reason or "",
        )
        return True

    async def _judge(
        self, claim: LaneClaim, batch: Batch, error: Exception, shut: GateShut | None
    ) -> bool:
        turn, others = batch[0], len(batch) - 1
        attempt = turn.attempts + 1
        verdict = policy.judge(
            error,
            attempt=attempt,
            most_attempts=self._settings.max_write_attempts,
            tries=attempt + turn.snoozes,
            jitter=random.random(),  # noqa: S311 no secret
        )
        if shut is not None:
            verdict = replace(verdict, delay_s=shut.retry_after_s)
        logger.warning(
            "turn %s and %d more: %s (%s, %s) -> %s after %.1f s",
            turn.id, others, verdict.code, type(error).__name__, verdict.fault,
            verdict.decision, verdict.delay_s,
        )  # fmt: skip
        if verdict.decision is policy.Decision.GIVE_UP and not others:
            await self._lanes.bury(
                claim, turn.id, verdict.code, verdict.fault, self._worker_version
            )
            return True
        unknown = getattr(error, "unknown_outcome", True)
        delay_s = max(verdict.delay_s, self._settings.visible_s if unknown else 0)
        # While mem0 may have it, a batch is whole: taken apart, it would be stored a second time.
        # If its writers died of asking, too, one of its turns must be to blame all the same.
        crashed = turn.attempts >= self._settings.max_write_attempts
        if others and verdict.fault is Fault.REQUEST and (crashed or not unknown):
            await self._lanes.split_batch(
                claim, turn.id, delay_s, code=verdict.code, unknown_outcome=unknown
            )
            return False
        await self._wait(
            claim,
            batch,
            delay_s,
            counted=verdict.fault is Fault.REQUEST and not (others and turn.attempts),
            code=verdict.code,
            unknown_outcome=unknown,
        )
        return False

    async def _wait(
        self,
        claim: LaneClaim,
        batch: Batch,
        delay_s: float,
        *,
        counted: bool,
        code: str,
        unknown_outcome: bool = True,
    ) -> None:
        """Put a batch back for later; its lane waits with it, so that order is kept (I4)."""
        await self._lanes.postpone(
            claim,
            batch[0].id,
            delay_s,
            counted=counted,
            code=code,
            unknown_outcome=unknown_outcome,
        )

    def _turn(self, claim: LaneClaim, batch: Batch) -> Turn:
        turn, others = batch[0], batch[1:]
        alike = {each.conversation_id for each in batch} == {turn.conversation_id}
        pins = self._settings.pin_extraction
        return Turn(
            id=turn.id,
            user_text=turn.user_text,
            reply_text=turn.reply_text,
            at=turn.at,
            conversation_id=turn.conversation_id if alike else None,
            attempt=claim.fence,
            facts=turn.facts if pins else "",
            note_facts=partial(self._lanes.record_facts, claim, turn.id) if pins else None,
            followed_by=tuple(Exchange(each.user_text, each.reply_text) for each in others),
        )
