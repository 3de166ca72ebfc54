"""The steps of a turn's life in its user's lane, each one script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from shared.contracts import RECORD_VERSION
from shared.errors import Blame, LeaseLost
from shared.ledger.records import LaneClaim, WaitingTurn, moment
from shared.ledger.shard import Shards, milliseconds
from shared.lifecycle import TurnState


class Lanes:
    """Claim, begin, settle, retry or snooze, bury, release."""

    def __init__(self, shards: Shards) -> None:
        """Take the shards that the lanes live on."""
        self._shards = shards

    async def claim(self, lane: str, token: str, *, most_turns: int) -> LaneClaim | None:
        """Take a lane on with its oldest turns, or return None if there is nothing to do.

        `token` names this claim: asking again with it after a lost answer gives the same claim.
        """
        answer = await self._shards.run(
            "lane_claim",
            self._shards.keys_of(lane),
            lane,
            token,
            milliseconds(self._shards.settings.lease_s),
            most_turns,
            RECORD_VERSION,
        )
        return LaneClaim(lane, answer[1], _turns(answer[2])) if answer[0] == "claimed" else None

    async def begin(self, claim: LaneClaim, turn_id: str) -> bool:
        """Record the intent to store a turn; return true if it may be stored already."""
        word = await self._step("begin", claim, turn_id)
        return word == "unknown"

    async def note_event(self, claim: LaneClaim, turn_id: str, event_id: str) -> None:
        """Keep mem0's event id of an add that is under way."""
        await self._step("note_event", claim, turn_id, event_id)

    async def settle(
        self,
        claim: LaneClaim,
        turn_id: str,
        outcome: TurnState,
        *,
        memory_ids: Sequence[str] = (),
        why: str = "",
    ) -> None:
        """Say that a turn is stored, had nothing to store, or was skipped."""
        retention_ms = milliseconds(self._shards.settings.retention_s)
        await self._step(
            "settle", claim, turn_id, outcome, why, json.dumps(list(memory_ids)), retention_ms
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
        """Put a turn back and let go of its lane until later: a retry if counted, else a snooze."""
        await self._step(
            "postpone",
            claim,
            turn_id,
            milliseconds(delay_s),
            int(counted),
            code,
            int(unknown_outcome),
        )

    async def bury(
        self, claim: LaneClaim, turn_id: str, code: str, blame: Blame, worker_version: str
    ) -> None:
        """Make a turn a dead letter."""
        await self._step("bury", claim, turn_id, code, blame, worker_version)

    async def release(self, claim: LaneClaim) -> None:
        """Let go of a lane; it is hinted again at once if more can be written."""
        _held(await self._shards.run_for("release", claim.lane, claim.fence))

    async def _step(
        self, step: str, claim: LaneClaim, turn_id: str, *arguments: str | float
    ) -> str:
        """Run a fenced step on one turn; raise `LeaseLost` if the lane was overtaken."""
        word = await self._shards.run_for(step, claim.lane, claim.fence, turn_id, *arguments)
        return _held(word)


def _held(word: str) -> str:
    if word == "lost":
        raise LeaseLost("someone newer owns this lane")
    return word


def _turns(fields: Sequence[Any]) -> tuple[WaitingTurn, ...]:
    rows = [fields[start : start + 7] for start in range(0, len(fields), 7)]
    return tuple(_turn(row) for row in rows)


def _turn(row: Sequence[str]) -> WaitingTurn:
    name, created, attempts, snoozes, event, body, reply = row
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
    )
