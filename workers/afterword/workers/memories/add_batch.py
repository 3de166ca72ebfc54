"""Adding a batch of turns to mem0, or finding out what an earlier attempt has added."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable

from afterword.shared.errors import Fault, ProviderError, Rejected, Unavailable
from afterword.shared.events import StoreAnswered
from afterword.shared.ledger.records import LaneClaim, WaitingTurn
from afterword.shared.ledger.spending import Spending
from afterword.shared.ledger.turns import Turns
from afterword.shared.names import owner_of
from afterword.shared.observer import emit
from afterword.shared.settings import Settings
from afterword.workers.leases import Leases
from afterword.workers.memories.compose_turn import TurnComposer
from afterword.workers.ports import NO_FACT, AddOutcome, AddResult, EventGone, Memories
from afterword.workers.quotas import BUDGET, NotAdmitted
from afterword.workers.rules import retry_policy as policy
from afterword.workers.rules.batching import Batch
from afterword.workers.rules.remembering import reason_in

#: The code of an add that mem0 accepted and does not finish.
TOO_LONG = "pending_too_long"

#: How long a turn waits, at most, until it is looked whether its budget allows it.
LOOK_AGAIN_S = 900.0

#: The code of a turn of whose message nothing is the user's own.
QUOTED_ONLY = "quoted_only"


class BatchAdder:
    """Adds batches to mem0, each once, as far as mem0 can tell what it has of an earlier attempt.

    Without `spending`, budgets are not looked at.
    """

    def __init__(
        self,
        settings: Settings,
        lanes: Turns,
        memories: Memories,
        leases: Leases,
        composer: TurnComposer,
        spending: Spending | None,
    ) -> None:
        self._settings = settings
        self._lanes = lanes
        self._memories = memories
        self._leases = leases
        self._composer = composer
        self._spending = spending

    async def add(
        self, claim: LaneClaim, batch: Batch, *, unknown: bool, canary: bool
    ) -> AddResult:
        """Add a batch, unless an earlier attempt has added it or is still being processed.

        `unknown` is whether there may be such an attempt. A canary waits until mem0 has processed
        what it accepted: only that opens the gate. Raises a `ProviderError` within the time limit
        of a write, `NotAdmitted` if the batch is not to be extracted now, and `LeaseLost`.
        """
        return await _timed(self._added(claim, batch, unknown=unknown, canary=canary))

    async def _added(
        self, claim: LaneClaim, batch: Batch, *, unknown: bool, canary: bool
    ) -> AddResult:
        """Add a batch within the time limit of a write."""
        accepted = False
        try:
            async with asyncio.timeout(self._settings.write_timeout_s):
                added = await self._earlier(claim, batch) if unknown else None
                if added is None:
                    added = await self._add(claim, batch)
                accepted = added.outcome is AddOutcome.PENDING
                return await self._ended(claim, batch, added) if canary else added
        except TimeoutError:
            code = TOO_LONG if accepted else "write_timeout"
            raise Unavailable(code, unknown_outcome=True) from None

    async def _add(self, claim: LaneClaim, batch: Batch) -> AddResult:
        """Add a batch; one that has failed as a batch is not added as one again."""
        if len(batch) > 1 and batch[0].attempts:
            raise Rejected("batch_failed")
        if reason := self._says_nothing(batch):
            return AddResult(AddOutcome.NOTHING, code=reason)
        turn = self._composer.turn_of(claim, batch)
        if turn is None:
            return AddResult(AddOutcome.NOTHING, code=QUOTED_ONLY)
        if not turn.facts:  # those are paid for
            await self._check_budget(claim)
        self._leases.require(claim.lane)
        return await self._memories.add(owner_of(claim.lane), turn)

    async def _check_budget(self, claim: LaneClaim) -> None:
        """Raise `NotAdmitted` if so much is spent that what is left is for replies."""
        settings = self._settings
        extracts = settings.backend in ("hosted", "selfhosted")
        if self._spending is None or not extracts:
            return
        spent = await self._spending.past(claim.lane, settings.budget_soft)
        if spent.over:
            spread = 0.5 + random.random() / 2  # noqa: S311 no secret
            raise NotAdmitted(LOOK_AGAIN_S * spread, code=BUDGET)

    def _says_nothing(self, batch: Batch) -> str | None:
        """Return why a batch says nothing, if it is one message that no worker has judged."""
        turn, *others = batch
        if others or (turn.reply_text and not turn.imported):
            return None
        return reason_in(
            turn.user_text,
            pleasantries=not self._settings.skip_pleasantries,
        )

    async def _ended(self, claim: LaneClaim, batch: Batch, added: AddResult) -> AddResult:
        """Return the result of an add once mem0 has processed it."""
        while added.outcome is AddOutcome.PENDING and added.event_id:
            await self._lanes.record_event(claim, batch[0].id, added.event_id)
            await asyncio.sleep(policy.FOLLOW_S)
            added = await self._followed(claim, batch, added.event_id)
        return added

    async def _earlier(self, claim: LaneClaim, batch: Batch) -> AddResult | None:
        """Return the result of an earlier attempt, or None if mem0 has nothing of it.

        If mem0 cannot say, the outcome stays unknown.
        """
        turn = batch[0]
        if turn.event_id is not None:
            return await self._followed(claim, batch, turn.event_id)
        return await self._found(claim, turn)

    async def _followed(self, claim: LaneClaim, batch: Batch, event_id: str) -> AddResult:
        """Return the result of an add that mem0 processes in the background.

        If the event failed or mem0 no longer knows it, the add may have been stored all the same:
        it is not followed any more, and the next attempt searches before it adds. An event that
        takes too long is an outage of mem0, and stays open: nothing is added again.
        """
        turn = batch[0]
        try:
            added = await self._memories.follow(owner_of(claim.lane), event_id)
        except ProviderError as error:
            failed = error.fault is Fault.REQUEST and not error.unknown_outcome
            if failed or isinstance(error, EventGone):
                await self._lanes.record_event(claim, turn.id, "")
            error.unknown_outcome = True
            raise
        if added.outcome is AddOutcome.STORED and not added.memory_ids:
            return await self._found(claim, turn) or NO_FACT
        if added.outcome is AddOutcome.PENDING and turn.event_age_s >= self._settings.pending_s:
            found = await self._found(claim, turn)  # the state of its event may be wrong
            if found is None:
                raise Unavailable(TOO_LONG, unknown_outcome=True)
            return found
        return added

    async def _found(self, claim: LaneClaim, turn: WaitingTurn) -> AddResult | None:
        """Return what mem0 holds of a turn, None if it holds nothing."""
        try:
            ids = await self._memories.find(owner_of(claim.lane), turn.id)
        except ProviderError as error:
            error.unknown_outcome = True
            raise
        return AddResult(AddOutcome.STORED, tuple(ids)) if ids else None


async def _timed(answer: Awaitable[AddResult]) -> AddResult:
    """Tell how long mem0 took to answer or to fail. It is not asked what is not admitted."""
    began = time.monotonic()
    try:
        added = await answer
    except ProviderError as error:
        if not isinstance(error, NotAdmitted):
            emit(StoreAnswered, outcome="failed", duration_s=time.monotonic() - began)
        raise
    emit(StoreAnswered, outcome=added.outcome, duration_s=time.monotonic() - began)
    return added
