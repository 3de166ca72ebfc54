"""The steps of a turn's life in its user's lane, each one script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import Fault, IllegalStep, LeaseLost
from afterword.shared.ledger.records import (
    DueRepair,
    EraseClaim,
    ErasureState,
    LaneClaim,
    WaitingTurn,
    moment,
)
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import Keys

#: Turns of one shard that are given out at a time.
MOST_DUE = 20


class Turns:
    """Claim, begin, settle, retry or snooze, bury, release.

    Turns that are begun together are a batch from then on: every further step names the first of
    them, and is one for all.
    """

    def __init__(self, shards: Shards) -> None:
        """Take the shards that the lanes live on."""
        self._shards = shards

    async def claim_lane(
        self, lane: str, token: str, *, most_turns: int
    ) -> LaneClaim | EraseClaim | None:
        """Take a lane on with its oldest turns, or return None if there is nothing to do.

        A batch that was begun comes whole, at the place of its first turn. An `EraseClaim` comes
        before all turns: its user is to be erased.

        `token` names this claim: asking again with it after a lost answer gives the same claim.
        """
        answer = await self._shards.run(
            "turn/claim",
            self._shards.keys_of(lane),
            lane,
            token,
            milliseconds(self._shards.settings.lease_s),
            most_turns,
            RECORD_VERSION,
        )
        match answer:
            case ["claimed", fence, turns]:
                return LaneClaim(lane, fence, _turns(turns))
            case ["erase", fence, state]:
                return EraseClaim(lane, fence, ErasureState(state))
        return None

    async def begin(self, claim: LaneClaim, turn_id: str, *others: str) -> bool:
        """Record the intent to store a batch; return true if it may be stored already.

        Raises `IllegalStep` if the first turn was begun before, with other turns.
        """
        word = await self._step("turn/begin", claim, turn_id, *others)
        if word == "regrouped":
            raise IllegalStep("a batch keeps its turns")
        return word == "unknown"

    async def record_event(self, claim: LaneClaim, turn_id: str, event_id: str) -> None:
        """Keep mem0's event id of an add that is under way; the empty one says that it is over."""
        await self._step("turn/note_event", claim, turn_id, event_id)

    async def record_facts(self, claim: LaneClaim, turn_id: str, facts: str) -> None:
        """Keep what was extracted from a turn until it is settled."""
        await self._step("turn/note_facts", claim, turn_id, facts)

    async def settle(
        self,
        claim: LaneClaim,
        turn_id: str,
        outcome: TurnState,
        *,
        memory_ids: Sequence[str] = (),
        why: str = "",
    ) -> None:
        """Say that a batch is stored, had nothing to store, or was skipped."""
        settings = self._shards.settings
        await self._step(
            "turn/settle",
            claim,
            turn_id,
            outcome,
            why,
            json.dumps(list(memory_ids)),
            milliseconds(settings.retention_s),
            milliseconds(settings.repair_s),
        )

    async def postpone(
        self,
        claim: LaneClaim,
        turn_id: str,
        delay_s: float,
        *,
        counted: bool,
        code: str,
        unknown_outcome: bool,
    ) -> None:
        """Put a batch back and let go of its lane for now: a retry if counted, else a snooze."""
        await self._step(
            "turn/postpone",
            claim,
            turn_id,
            milliseconds(delay_s),
            int(counted),
            code,
            int(unknown_outcome),
            0,
        )

    async def split_batch(
        self, claim: LaneClaim, turn_id: str, delay_s: float, *, code: str, unknown_outcome: bool
    ) -> None:
        """Put a batch back as ever, its turns to go one by one, with all attempts before them.

        What it may have stored all the same is looked at when its first turn is stored.
        """
        await self._step(
            "turn/postpone", claim, turn_id, milliseconds(delay_s), 0, code, int(unknown_outcome), 1
        )

    async def bury(
        self, claim: LaneClaim, turn_id: str, code: str, fault: Fault, worker_version: str
    ) -> None:
        """Make a turn that is alone in its batch a dead letter."""
        await self._step("dead_letter/bury", claim, turn_id, code, fault, worker_version)

    async def release_lane(self, claim: LaneClaim, delay_s: float = 0.0) -> None:
        """Let go of a lane; if more can be written, it is hinted again after the delay."""
        delay_ms = milliseconds(delay_s) if delay_s > 0 else 0
        _held(await self._shards.run_for("turn/release", claim.lane, claim.fence, delay_ms))

    async def _step(
        self, step: str, claim: LaneClaim, turn_id: str, *arguments: str | float
    ) -> str:
        """Run a fenced step on one turn; raise `LeaseLost` if the lane was overtaken."""
        word = await self._shards.run_for(step, claim.lane, claim.fence, turn_id, *arguments)
        return _held(word)


class DuplicateChecks:
    """Gives out stored turns that more than one writer may have added."""

    def __init__(self, shards: Shards) -> None:
        """Take the shards that the turns live on."""
        self._shards = shards

    async def due(self) -> Sequence[DueRepair]:
        """Return turns that are due; each comes back later until it is `done`."""
        return [repair for keys in self._shards.all for repair in await self._due(keys)]

    async def _due(self, keys: Keys) -> Sequence[DueRepair]:
        back_ms = milliseconds(self._shards.settings.repair_s)
        rows = await self._shards.run(
            "turn/due_duplicate_checks", keys, MOST_DUE, back_ms, RECORD_VERSION
        )
        turns = zip(rows[::3], rows[1::3], rows[2::3], strict=True)
        return [DueRepair(turn, lane, tuple(json.loads(ids))) for turn, lane, ids in turns]

    async def finish(self, turn_id: str, memory_ids: Sequence[str]) -> None:
        """Say that a turn is stored once, as these memories."""
        await self._shards.run_for(
            "turn/finish_duplicate_check", turn_id, json.dumps(list(memory_ids))
        )


def _held(word: str) -> str:
    if word == "lost":
        raise LeaseLost("someone newer owns this lane")
    return word


def _turns(fields: Sequence[Any]) -> tuple[WaitingTurn, ...]:
    rows = [fields[start : start + 10] for start in range(0, len(fields), 10)]
    return tuple(_turn(row) for row in rows)


def _turn(row: Sequence[Any]) -> WaitingTurn:
    name, created, attempts, snoozes, event, event_age_ms, body, reply, facts, batch = row
    asked = json.loads(body)
    return WaitingTurn(
        id=name,
        at=moment(created),
        user_text=asked["message"],
        reply_text=json.loads(reply)["text"],
        conversation_id=asked.get("conversation_id"),
        attempts=int(attempts),
        snoozes=int(snoozes),
        event_id=event or None,
        event_age_s=float(event_age_ms) / 1000,
        facts=facts,
        batch=tuple(batch.split()),
    )
