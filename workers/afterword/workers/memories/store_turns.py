"""Storing the turns of a lane in mem0, batch by batch: add, settle, or retry later."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from afterword.shared.errors import (
    Fault,
    LeaseLost,
    LedgerUnavailable,
    ProviderError,
    Rejected,
    Unavailable,
)
from afterword.shared.events import (
    BatchSplit,
    LaneReleased,
    SecretsFound,
    StoreAnswered,
    TurnAccepted,
    TurnBegun,
    TurnBuried,
    TurnPostponed,
    TurnReturned,
    TurnSettled,
)
from afterword.shared.ledger.records import LaneClaim, WaitingTurn
from afterword.shared.ledger.spending import Spending
from afterword.shared.ledger.turns import Turns
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import owner_of, user_of
from afterword.shared.observer import bound, emit, emit_internal_error
from afterword.shared.settings import Settings
from afterword.shared.tenant_classes import class_of
from afterword.shared.trace_context import trace_of
from afterword.workers.gate import REMEMBER, GateClient, GateShut, Permit
from afterword.workers.kept_text import KeptText
from afterword.workers.leases import Leases
from afterword.workers.memories.compose_turn import TurnComposer
from afterword.workers.memories.extraction_meters import ExtractionMeters
from afterword.workers.ports import (
    NO_FACT,
    AddOutcome,
    AddResult,
    EventFailed,
    EventGone,
    Memories,
)
from afterword.workers.quotas import BUDGET, MESSAGE_BATCH, NotAdmitted
from afterword.workers.rules import retry_policy as policy
from afterword.workers.rules.batching import Batch, Bounds, batches
from afterword.workers.rules.remembering import reason_in
from afterword.workers.rules.retry_policy import Verdict

#: The code of an add that mem0 accepted and does not finish.
TOO_LONG = "pending_too_long"

#: How long a turn waits, at most, until it is looked whether its budget allows it.
LOOK_AGAIN_S = 900.0

#: The code of a turn of whose message nothing is the user's own.
QUOTED_ONLY = "quoted_only"

_OUTCOMES = {
    AddOutcome.STORED: TurnState.STORED,
    AddOutcome.NOTHING: TurnState.NOTHING,
}


class TurnWriter:
    """Stores the turns of a lane, oldest first; every outcome is recorded in the ledger.

    While the model's rate limit `has_room` for much more, each batch that is stored wakes lanes
    that wait for it.
    """

    def __init__(  # noqa: PLR0913 what a write needs
        self,
        settings: Settings,
        lanes: Turns,
        memories: Memories,
        leases: Leases,
        worker_version: str,
        gates: GateClient,
        *,
        worker_name: str = "",
        spending: Spending | None = None,
        has_room: Callable[[], bool] = lambda: False,
    ) -> None:
        self._has_room = has_room
        self._spending = spending
        self._settings = settings
        self._lanes = lanes
        self._memories = memories
        self._leases = leases
        self._worker_version = worker_version
        self._worker_name = worker_name
        self._gates = gates
        self._meters = ExtractionMeters(settings.model_prices)
        self._composer = TurnComposer(
            lanes,
            KeptText.of(settings),
            self._meters,
            pins=settings.pin_extraction,
            stored_by=worker_name,
        )
        self._bounds = Bounds(settings.coalesce_turns if memories.takes_batches else 1)

    async def store_all(self, claim: LaneClaim) -> None:
        """Store the turns of a claimed lane; raise `LeaseLost` if another worker took over."""
        kind = class_of(user_of(claim.lane)[0], self._settings.tenant_classes)
        for batch in batches(claim.turns, self._bounds):
            first = batch[0]
            trace = self._trace_of(first)
            with bound(job_id=first.id, attempt=first.attempts + 1, trace=trace, tenant_class=kind):
                if not await self._pass_and_store(claim, batch):
                    return
        await self._lanes.release_lane(claim)

    def _trace_of(self, turn: WaitingTurn) -> str:
        """Return the trace that a turn's job belonged to; '' if it had none, and traces are off."""
        return turn.trace or (trace_of(turn.id).stored if self._settings.traces else "")

    async def _pass_and_store(self, claim: LaneClaim, batch: Batch) -> bool:
        """Store one batch unless mem0's gate is shut; return false if the lane was released."""
        await self._gates.yield_to_recall()
        try:
            permit = await self._gates.enter(REMEMBER, canary_s=self._settings.write_timeout_s + 1)
        except GateShut as shut:
            await self._lanes.release_lane(claim, shut.retry_after_s, shut.code)
            emit(LaneReleased, code=shut.code, delay_s=shut.retry_after_s)
            return False
        try:
            with self._meters.measuring(claim):
                return await self._store(claim, batch, permit)
        finally:
            permit.release()

    async def _store(self, claim: LaneClaim, batch: Batch, permit: Permit) -> bool:
        """Store one batch; return false if the lane was released because it has to wait."""
        ids = [turn.id for turn in batch]
        unknown = await self._lanes.begin(claim, *ids, worker=self._worker_name)
        steps = _steps(batch) if self._settings.traces else ""
        emit(TurnBegun, turns=len(batch), unknown_outcome=unknown, steps=steps)
        if batch[0].attempts >= self._settings.max_write_attempts:  # the last had no end (I3)
            lost = Rejected("crashed_too_often", unknown_outcome=unknown)
            return await self._judge(claim, batch, lost, None)
        try:
            added = await _timed(self._added(claim, batch, unknown=unknown, canary=permit.canary))
        except asyncio.CancelledError:
            if not self._leases.lost_by(claim.lane):
                await asyncio.shield(self._give_back(claim, batch, 0, "drained"))
                emit(TurnReturned, turns=len(batch))
            raise
        except (LeaseLost, LedgerUnavailable):
            raise
        except NotAdmitted as held:
            return await self._hold(claim, batch, held, permit)
        except Exception as error:  # noqa: BLE001 every error is judged and recorded
            shut = await self._report(permit, batch, error)
            return await self._judge(claim, batch, error, shut)
        if added.outcome is not AddOutcome.PENDING:  # to accept an add is no success yet
            permit.report_success()
        return await self._settle(claim, batch, added)

    async def _hold(
        self, claim: LaneClaim, batch: Batch, held: NotAdmitted, permit: Permit
    ) -> bool:
        """Postpone a batch that the model does not extract now: nobody failed."""
        if held.code == MESSAGE_BATCH:  # memory itself could be searched
            permit.report_success()
        verdict = Verdict(policy.Decision.SNOOZE, held.code, held.fault, held.retry_after_s or 0.0)
        await self._postpone(claim, batch, verdict, counted=False, unknown_outcome=False)
        return False

    async def _report(self, permit: Permit, batch: Batch, error: Exception) -> GateShut | None:
        """Report a failure to mem0's gate; return a `GateShut` if it is shut now.

        What became of an event of an earlier attempt does not tell a canary how mem0 is now. If an
        outage cost thousands of events, each of them would keep the gate shut for another pause.
        Its lane is back soon: the gate waits for nothing but the next canary.
        """
        if not isinstance(error, ProviderError):
            return None
        lost = isinstance(error, (EventGone, EventFailed)) and batch[0].event_id is not None
        if lost and permit.canary:
            return GateShut(REMEMBER, policy.FIRST_PAUSE_S, error.code)
        return await permit.report_failure(error)

    async def _added(
        self, claim: LaneClaim, batch: Batch, *, unknown: bool, canary: bool
    ) -> AddResult:
        """Add a batch, unless an earlier attempt has added it or is still being processed.

        A canary waits until mem0 has processed what it accepted: only that opens the gate.
        """
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

    async def _settle(self, claim: LaneClaim, batch: Batch, added: AddResult) -> bool:
        if added.outcome is AddOutcome.PENDING:
            if added.event_id:
                await self._lanes.record_event(claim, batch[0].id, added.event_id)
            pause_s = policy.follow_pause_s(batch[0].event_age_s)
            await self._give_back(claim, batch, pause_s, "storing")
            emit(TurnAccepted, turns=len(batch), delay_s=pause_s)
            return False
        outcome, code = _OUTCOMES[added.outcome], _code_of(added, batch)
        secrets = self._composer.secrets_in(claim, batch)
        await self._lanes.settle(
            claim,
            batch[0].id,
            outcome,
            code=code,
            memory_ids=added.memory_ids,
            secrets=secrets,
            paid=self._meters.paid(claim),
        )
        for kind, count in secrets.items():
            emit(SecretsFound, kind=kind, count=count)
        emit(
            TurnSettled,
            outcome=outcome,
            code=code,
            turns=len(batch),
            memories=len(added.memory_ids),
            age_s=max(turn.age_s for turn in batch),
        )
        if self._has_room():
            await self._lanes.wake_next(claim.lane)
        return True

    async def _judge(
        self, claim: LaneClaim, batch: Batch, error: Exception, shut: GateShut | None
    ) -> bool:
        """Decide about a failed attempt and record it; return whether the lane goes on."""
        if not isinstance(error, ProviderError):
            emit_internal_error(error)
        verdict = self._verdict(batch[0], error, shut)
        single = len(batch) == 1
        if verdict.decision is policy.Decision.GIVE_UP and single:
            await self._bury(claim, batch[0], verdict)
            return True
        unknown = getattr(error, "unknown_outcome", True)
        if unknown:
            verdict = replace(verdict, delay_s=max(verdict.delay_s, self._settings.visible_s))
        counts = verdict.decision is not policy.Decision.SNOOZE
        # While mem0 may have stored a batch, it stays whole: its turns would be stored twice. But
        # if every attempt crashed before it could tell, one of its turns must be why.
        crashed = batch[0].attempts >= self._settings.max_write_attempts
        if not single and counts and (crashed or not unknown):
            await self._split(claim, batch, verdict, unknown_outcome=unknown)
        else:
            counted = counts and (single or not batch[0].attempts)
            await self._postpone(claim, batch, verdict, counted=counted, unknown_outcome=unknown)
        return False

    def _verdict(self, turn: WaitingTurn, error: Exception, shut: GateShut | None) -> Verdict:
        attempt = turn.attempts + 1
        verdict = policy.judge(
            error,
            attempt=attempt,
            most_attempts=self._settings.max_write_attempts,
            tries=attempt + turn.snoozes,
            jitter=random.random(),  # noqa: S311 no secret
            pause_cap_s=self._settings.pause_cap_s,
        )
        return verdict if shut is None else replace(verdict, delay_s=shut.retry_after_s)

    async def _bury(self, claim: LaneClaim, turn: WaitingTurn, verdict: Verdict) -> None:
        code, fault = verdict.code, verdict.fault
        paid = self._meters.paid(claim)
        await self._lanes.bury(claim, turn.id, code, fault, self._worker_version, paid=paid)
        emit(TurnBuried, code=code, fault=fault)

    async def _split(
        self, claim: LaneClaim, batch: Batch, verdict: Verdict, *, unknown_outcome: bool
    ) -> None:
        code, delay_s = verdict.code, verdict.delay_s
        await self._lanes.split_batch(
            claim,
            batch[0].id,
            delay_s,
            code=code,
            unknown_outcome=unknown_outcome,
            paid=self._meters.paid(claim),
        )
        emit(BatchSplit, turns=len(batch), code=code, fault=verdict.fault, delay_s=delay_s)

    async def _postpone(
        self,
        claim: LaneClaim,
        batch: Batch,
        verdict: Verdict,
        *,
        counted: bool,
        unknown_outcome: bool,
    ) -> None:
        """Put a batch back for later; its lane waits too, so that order is kept (I4)."""
        await self._lanes.postpone(
            claim,
            batch[0].id,
            verdict.delay_s,
            counted=counted,
            code=verdict.code,
            unknown_outcome=unknown_outcome,
            paid=self._meters.paid(claim),
        )
        emit(
            TurnPostponed,
            turns=len(batch),
            code=verdict.code,
            fault=verdict.fault,
            delay_s=verdict.delay_s,
            counted=counted,
        )

    async def _give_back(self, claim: LaneClaim, batch: Batch, delay_s: float, code: str) -> None:
        """Put a batch back without a failure: no attempt is spent."""
        await self._lanes.postpone(
            claim,
            batch[0].id,
            delay_s,
            counted=False,
            code=code,
            unknown_outcome=True,
            paid=self._meters.paid(claim),
        )


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


def _code_of(added: AddResult, batch: Batch) -> str:
    """Return why nothing was stored; no fact is no surprise in what only asks or greets."""
    if added.code != NO_FACT.code:
        return added.code
    reasons = [reason_in(turn.user_text, pleasantries=False) for turn in batch]
    return added.code if None in reasons else str(reasons[0])


def _steps(batch: Batch) -> str:
    """Return what put the turns into their lane: the reply, or the submit if there was none."""
    return " ".join(
        f"{'publish' if turn.reply_text else 'send'}/{turn.id}/{turn.trace.partition(' ')[0]}"
        for turn in batch
        if not turn.imported
    )
