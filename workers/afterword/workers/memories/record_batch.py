"""What became of a batch: recorded in the ledger, and told in an event."""

from __future__ import annotations

from afterword.shared.events import (
    BatchSplit,
    SecretsFound,
    TurnAccepted,
    TurnBuried,
    TurnPostponed,
    TurnSettled,
)
from afterword.shared.ledger.records import LaneClaim, WaitingTurn
from afterword.shared.ledger.turns import Turns
from afterword.shared.lifecycle import TurnState
from afterword.shared.observer import emit
from afterword.workers.memories.compose_turn import TurnComposer
from afterword.workers.memories.extraction_meters import ExtractionMeters
from afterword.workers.ports import NO_FACT, AddOutcome, AddResult
from afterword.workers.rules import retry_policy as policy
from afterword.workers.rules.batching import Batch
from afterword.workers.rules.remembering import reason_in
from afterword.workers.rules.retry_policy import Verdict

_OUTCOMES = {
    AddOutcome.STORED: TurnState.STORED,
    AddOutcome.NOTHING: TurnState.NOTHING,
}


class BatchRecorder:
    """Records how an attempt to store a batch ended, with what it cost; raises `LeaseLost`."""

    def __init__(
        self, lanes: Turns, composer: TurnComposer, meters: ExtractionMeters, worker_version: str
    ) -> None:
        self._lanes = lanes
        self._composer = composer
        self._meters = meters
        self._worker_version = worker_version

    async def settle(self, claim: LaneClaim, batch: Batch, added: AddResult) -> None:
        """Record what was stored of a batch, which ends its turns."""
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

    async def accepted(self, claim: LaneClaim, batch: Batch, event_id: str | None) -> None:
        """Put back a batch that mem0 has accepted and still processes."""
        if event_id:
            await self._lanes.record_event(claim, batch[0].id, event_id)
        pause_s = policy.follow_pause_s(batch[0].event_age_s)
        await self.give_back(claim, batch, pause_s, "storing")
        emit(TurnAccepted, turns=len(batch), delay_s=pause_s)

    async def bury(self, claim: LaneClaim, turn: WaitingTurn, verdict: Verdict) -> None:
        """Make a turn a dead letter."""
        code, fault = verdict.code, verdict.fault
        paid = self._meters.paid(claim)
        await self._lanes.bury(claim, turn.id, code, fault, self._worker_version, paid=paid)
        emit(TurnBuried, code=code, fault=fault)

    async def split(
        self, claim: LaneClaim, batch: Batch, verdict: Verdict, *, unknown_outcome: bool
    ) -> None:
        """Part a batch into its turns, which are stored one by one later."""
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

    async def postpone(
        self,
        claim: LaneClaim,
        batch: Batch,
        verdict: Verdict,
        *,
        counted: bool,
        unknown_outcome: bool,
    ) -> None:
        """Put a batch back for later; its lane waits too, so that order is kept (I4)."""
        code, delay_s = verdict.code, verdict.delay_s
        await self.give_back(
            claim, batch, delay_s, code, counted=counted, unknown_outcome=unknown_outcome
        )
        emit(
            TurnPostponed,
            turns=len(batch),
            code=code,
            fault=verdict.fault,
            delay_s=delay_s,
            counted=counted,
        )

    async def give_back(
        self,
        claim: LaneClaim,
        batch: Batch,
        delay_s: float,
        code: str,
        *,
        counted: bool = False,
        unknown_outcome: bool = True,
    ) -> None:
        """Put a batch back and tell nobody; unless it is `counted`, no attempt is spent."""
        await self._lanes.postpone(
            claim,
            batch[0].id,
            delay_s,
            counted=counted,
            code=code,
            unknown_outcome=unknown_outcome,
            paid=self._meters.paid(claim),
        )


def _code_of(added: AddResult, batch: Batch) -> str:
    """Return why nothing was stored; no fact is no surprise in what only asks or greets."""
    if added.code != NO_FACT.code:
        return added.code
    reasons = [reason_in(turn.user_text, pleasantries=False) for turn in batch]
    return added.code if None in reasons else str(reasons[0])
