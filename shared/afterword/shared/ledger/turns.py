"""The steps of a turn's life in its user's lane; each is one script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import Fault, IllegalStep, LeaseLost
from afterword.shared.ledger import steps
from afterword.shared.ledger.records import (
    NOBODY,
    DuplicateCheck,
    EraseClaim,
    ErasureState,
    LaneClaim,
    WaitingTurn,
    said_at,
    text_of,
)
from afterword.shared.ledger.shard import Shards, fields_of, milliseconds
from afterword.shared.ledger.spending import ExtractionCost, paid_argument
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import Keys
from afterword.shared.transport.signatures import Arguments

#: How long a lane waits for its message batch, unless that wakes it: longer than one may take.
LONGEST_WAIT_S = 90_000.0

#: Most lanes that one stored batch wakes: so their number grows as fast as there is room for them.
MAX_WOKEN = 3

#: Most duplicate checks of one shard that are given out at a time.
MAX_DUE = 20


class Turns:
    """Claim a lane; begin, settle, postpone or bury its turns; release it.

    Turns that are begun together are a batch from then on: every further step names the first of
    them and is done for all. Each step raises `LeaseLost` once someone newer holds the lane. With
    `paid`, all that the attempt has paid for extraction so far, a step counts what is new of it.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def claim_lane(
        self, lane: str, token: str, *, max_turns: int
    ) -> LaneClaim | EraseClaim | None:
        """Claim a lane with its oldest turns; return None if there is nothing to do.

        A batch that was begun comes whole, at the place of its first turn. An `EraseClaim` comes
        before all turns: its user is to be erased. `token` names this claim: a retry with it after
        a lost reply returns the same claim.
        """
        arguments = steps.ClaimLane(
            lane=lane,
            token=token,
            lease_ms=milliseconds(self._shards.settings.lease_s),
            max_turns=max_turns,
            known_version=RECORD_VERSION,
            batch_ms=milliseconds(LONGEST_WAIT_S),
        )
        answer = await self._shards.run_script(self._shards.keys_of(lane), arguments)
        match answer:
            case ["claimed", fence, turns]:
                return LaneClaim(lane, fence, tuple(_turn(fields_of(turn)) for turn in turns))
            case ["erase", fence, state]:
                return EraseClaim(lane, fence, ErasureState(state))
        return None

    async def begin(self, claim: LaneClaim, turn_id: str, *others: str, worker: str = "") -> bool:
        """Record the intent to store a batch; return whether it may be stored already.

        Raises `IllegalStep` if the first turn was begun before, with other turns.
        """
        word = await self._run_fenced(
            steps.BeginBatch(
                lane=claim.lane,
                fence=claim.fence,
                worker=worker or NOBODY,
                ids=(turn_id, *others),
            )
        )
        if word == "regrouped":
            raise IllegalStep("a batch keeps its turns")
        return word == "unknown"

    async def record_event(self, claim: LaneClaim, turn_id: str, event_id: str) -> None:
        """Keep mem0's event id of an add in progress; an empty one says that it is over."""
        await self._run_fenced(
            steps.RecordEvent(lane=claim.lane, fence=claim.fence, id=turn_id, event=event_id)
        )

    async def record_facts(
        self, claim: LaneClaim, turn_id: str, facts: str, *, paid: ExtractionCost | None = None
    ) -> None:
        """Keep what was extracted from a batch until it is settled."""
        await self._run_fenced(
            steps.RecordFacts(
                lane=claim.lane,
                fence=claim.fence,
                id=turn_id,
                facts=facts,
                paid=self._paid(paid),
            )
        )

    async def settle(  # noqa: PLR0913 what is known of its end
        self,
        claim: LaneClaim,
        turn_id: str,
        outcome: TurnState,
        *,
        code: str = "",
        memory_ids: Sequence[str] = (),
        secrets: Mapping[str, int] | None = None,
        paid: ExtractionCost | None = None,
    ) -> None:
        """Record that a batch is stored, or why nothing of it is.

        `secrets` is how many of each kind its texts held.
        """
        settings = self._shards.settings
        await self._run_fenced(
            steps.SettleBatch(
                lane=claim.lane,
                fence=claim.fence,
                id=turn_id,
                state=outcome,
                code=code,
                memory_ids=json.dumps(list(memory_ids)),
                retention_ms=milliseconds(settings.retention_s),
                story_ms=milliseconds(settings.story_s),
                check_after_ms=milliseconds(settings.repair_s),
                paid=self._paid(paid),
                secrets=list((secrets or {}).items()),
            )
        )

    async def postpone(  # noqa: PLR0913 what is known of its end
        self,
        claim: LaneClaim,
        turn_id: str,
        delay_s: float,
        *,
        counted: bool,
        code: str,
        unknown_outcome: bool,
        split: bool = False,
        paid: ExtractionCost | None = None,
    ) -> None:
        """Put a batch back and release its lane until later: a retry if counted, else a snooze."""
        await self._run_fenced(
            steps.PostponeBatch(
                lane=claim.lane,
                fence=claim.fence,
                id=turn_id,
                delay_ms=milliseconds(delay_s),
                counted=counted,
                code=code,
                may_be_stored=unknown_outcome,
                split=split,
                paid=self._paid(paid),
            )
        )

    async def split_batch(
        self,
        claim: LaneClaim,
        turn_id: str,
        delay_s: float,
        *,
        code: str,
        unknown_outcome: bool,
        paid: ExtractionCost | None = None,
    ) -> None:
        """Put a batch back so that its turns are stored one by one, each with all its attempts.

        If the batch may have been stored, duplicates are looked for once its first turn is stored.
        """
        await self.postpone(
            claim,
            turn_id,
            delay_s,
            counted=False,
            code=code,
            unknown_outcome=unknown_outcome,
            split=True,
            paid=paid,
        )

    async def bury(
        self,
        claim: LaneClaim,
        turn_id: str,
        code: str,
        fault: Fault,
        worker_version: str,
        *,
        paid: ExtractionCost | None = None,
    ) -> None:
        """Make a turn that is alone in its batch a dead letter."""
        await self._run_fenced(
            steps.BuryTurn(
                lane=claim.lane,
                fence=claim.fence,
                id=turn_id,
                code=code,
                fault=fault,
                worker=worker_version,
                paid=self._paid(paid),
            )
        )

    async def release_lane(self, claim: LaneClaim, delay_s: float = 0.0, code: str = "") -> None:
        """Release a lane; if it holds more to store, it is hinted again after the delay.

        `code` says why it has to wait.
        """
        delay_ms = milliseconds(delay_s) if delay_s > 0 else 0
        await self._run_fenced(
            steps.ReleaseLane(lane=claim.lane, fence=claim.fence, delay_ms=delay_ms, code=code)
        )

    async def wake_next(self, lane: str) -> int:
        """Wake a few lanes that wait for room in a rate limit; return how many.

        They are of the shard of a lane that was just stored, and those that would ask next.
        """
        arguments = steps.WakeLanes(lane=lane, limit=MAX_WOKEN)
        _, woken = await self._shards.run_script(self._shards.keys_of(lane), arguments)
        return int(woken)

    def _paid(self, paid: ExtractionCost | None) -> str:
        return paid_argument(paid, self._shards.settings)

    async def _run_fenced(self, arguments: Arguments) -> str:
        word = await self._shards.run_for_word(arguments)
        if word == "lost":
            raise LeaseLost("another worker holds this lane now")
        return word


class DuplicateChecks:
    """Gives out stored turns that two writers may have added, to be checked for duplicates."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def due(self) -> Sequence[DuplicateCheck]:
        """Return checks that are due; each comes back later until it is finished."""
        return [check for keys in self._shards.all for check in await self._due(keys)]

    async def _due(self, keys: Keys) -> Sequence[DuplicateCheck]:
        arguments = steps.ListDueDuplicateChecks(
            limit=MAX_DUE,
            again_ms=milliseconds(self._shards.settings.repair_s),
            known_version=RECORD_VERSION,
        )
        (rows,) = await self._shards.run_script(keys, arguments)
        return [DuplicateCheck(turn, lane, tuple(json.loads(ids))) for turn, lane, ids in rows]

    async def finish(self, turn_id: str, memory_ids: Sequence[str]) -> None:
        """Record that mem0 holds a turn once, as these memories."""
        arguments = steps.FinishDuplicateCheck(id=turn_id, memory_ids=json.dumps(list(memory_ids)))
        await self._shards.run_for_word(arguments)


def _turn(record: dict[str, Any]) -> WaitingTurn:
    request = json.loads(record["body"])
    return WaitingTurn(
        id=record["id"],
        at=said_at(request, record["created"]),
        user_text=request["message"],
        reply_text=text_of(record["reply"]),
        conversation_id=request.get("conversation_id"),
        attempts=int(record["attempts"]),
        snoozes=int(record["snoozes"]),
        event_id=record["event"] or None,
        event_age_s=float(record["event_age_ms"]) / 1000,
        age_s=float(record["age_ms"]) / 1000,
        facts=record["facts"],
        batch=tuple(record["batch"].split()),
        imported=int(record["imported"]) == 1,
        trace=record["trace"],
        alone=int(record["alone"]) == 1,
        timezone=request.get("timezone"),
    )
