"""Storing the turns of a lane in mem0, batch by batch: add, settle, or retry later."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

from afterword.shared.errors import (
    LeaseLost,
    LedgerUnavailable,
    ProviderError,
    Rejected,
)
from afterword.shared.events import (
    LaneReleased,
    TurnBegun,
    TurnReturned,
)
from afterword.shared.ledger.records import LaneClaim, WaitingTurn
from afterword.shared.ledger.spending import Spending
from afterword.shared.ledger.turns import Turns
from afterword.shared.names import REMEMBER_GATE, user_of
from afterword.shared.observer import bound, emit, emit_internal_error
from afterword.shared.settings import Settings
from afterword.shared.tenant_classes import class_of
from afterword.shared.trace_context import trace_of
from afterword.workers.gate import GateClient, GateShut, Permit
from afterword.workers.kept_text import KeptText
from afterword.workers.leases import Leases
from afterword.workers.memories.add_batch import BatchAdder
from afterword.workers.memories.compose_turn import TurnComposer
from afterword.workers.memories.extraction_meters import ExtractionMeters
from afterword.workers.memories.record_batch import BatchRecorder
from afterword.workers.ports import (
    AddOutcome,
    AddResult,
    EventFailed,
    EventGone,
    Memories,
)
from afterword.workers.quotas import MESSAGE_BATCH, NotAdmitted
from afterword.workers.rules import retry_policy as policy
from afterword.workers.rules.batching import Batch, Bounds, batches
from afterword.workers.rules.retry_policy import Verdict


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
        self._settings = settings
        self._lanes = lanes
        self._leases = leases
        self._gates = gates
        self._worker_name = worker_name
        self._has_room = has_room
        self._bounds = Bounds(settings.coalesce_turns if memories.takes_batches else 1)
        self._meters = ExtractionMeters(settings.model_prices)
        composer = TurnComposer(
            lanes,
            KeptText.of(settings),
            self._meters,
            pins=settings.pin_extraction,
            stored_by=worker_name,
        )
        self._adder = BatchAdder(settings, lanes, memories, leases, composer, spending)
        self._recorder = BatchRecorder(lanes, composer, self._meters, worker_version)

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
            permit = await self._gates.enter(
                REMEMBER_GATE, canary_s=self._settings.write_timeout_s + 1
            )
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
            added = await self._adder.add(claim, batch, unknown=unknown, canary=permit.canary)
        except asyncio.CancelledError:
            if not self._leases.lost_by(claim.lane):
                await asyncio.shield(self._recorder.give_back(claim, batch, 0, "drained"))
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
        await self._recorder.postpone(claim, batch, verdict, counted=False, unknown_outcome=False)
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
            return GateShut(REMEMBER_GATE, policy.FIRST_PAUSE_S, error.code)
        return await permit.report_failure(error)

    async def _settle(self, claim: LaneClaim, batch: Batch, added: AddResult) -> bool:
        if added.outcome is AddOutcome.PENDING:
            await self._recorder.accepted(claim, batch, added.event_id)
            return False
        await self._recorder.settle(claim, batch, added)
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
            await self._recorder.bury(claim, batch[0], verdict)
            return True
        unknown = getattr(error, "unknown_outcome", True)
        if unknown:
            verdict = replace(verdict, delay_s=max(verdict.delay_s, self._settings.visible_s))
        counts = verdict.decision is not policy.Decision.SNOOZE
        # While mem0 may have stored a batch, it stays whole: its turns would be stored twice. But
        # if every attempt crashed before it could tell, one of its turns must be why.
        crashed = batch[0].attempts >= self._settings.max_write_attempts
        if not single and counts and (crashed or not unknown):
            await self._recorder.split(claim, batch, verdict, unknown_outcome=unknown)
        else:
            counted = counts and (single or not batch[0].attempts)
            await self._recorder.postpone(
                claim, batch, verdict, counted=counted, unknown_outcome=unknown
            )
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


def _steps(batch: Batch) -> str:
    """Return what put the turns into their lane: the reply, or the submit if there was none."""
    return " ".join(
        f"{'publish' if turn.reply_text else 'send'}/{turn.id}/{turn.trace.partition(' ')[0]}"
        for turn in batch
        if not turn.imported
    )
