"""Tells what became of a job, from its record and from what the ledger keeps of its user."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from afterword.shared.contracts import Extraction, MemoryStatus, Reply
from afterword.shared.errors import JobNotFound
from afterword.shared.ledger.queries import UNTIL_ITS_TIME, Queries, priority_of
from afterword.shared.ledger.records import json_object, moment, reading
from afterword.shared.ledger.shard import Shards
from afterword.shared.ledger.spending import EXTRACTION_FIELDS, read_extraction
from afterword.shared.ledger.story_records import (
    JobStory,
    MemoryGiven,
    MemoryLeftOut,
    StepKind,
    StoryStep,
)
from afterword.shared.ledger.story_steps import last_recall, read_story
from afterword.shared.ledger.user_jobs import JobsOfUsers
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import check_job_id, user_of
from afterword.shared.redaction.policy import Redaction

#: Most later replies of a user that are looked at, and most that a story tells.
MOST_REPLIES = 500
MOST_TOLD = 50

#: How a job can have ended without a step that says so.
_ENDS = {
    JobState.SUCCEEDED: StepKind.REPLIED,
    JobState.FAILED: StepKind.FAILED,
    JobState.CANCELLED: StepKind.CANCELLED,
    JobState.EXPIRED: StepKind.EXPIRED,
}

#: The same of a turn.
_TURN_ENDS = {
    TurnState.STORED: StepKind.STORED,
    TurnState.NOTHING: StepKind.NOTHING,
    TurnState.SKIPPED: StepKind.SKIPPED,
    TurnState.DEAD: StepKind.BURIED,
    TurnState.ERASED: StepKind.ERASED,
}

_Record = Mapping[str, str]


class Stories:
    """Reads the story of a job, and changes nothing: plain reads, which work on any Redis."""

    def __init__(self, shards: Shards, queries: Queries) -> None:
        self._shards = shards
        self._queries = queries
        self.users = JobsOfUsers(shards)
        self._redaction = Redaction.of(shards.settings)

    async def of(self, job_id: str, *, content: bool = False) -> JobStory:
        """Return the story of a job; raises `JobNotFound`, and `NewerRecord` if it is unreadable.

        With `content`, also what was said and given, without the secrets in it, if it is kept.
        """
        record, found = await self._found(job_id)
        with reading(job_id):
            reply = Reply.model_validate_json(record["reply"]) if record.get("reply") else None
            job_kept = "body" in record or found["turn"] is TurnState.ERASED
            told = read_story(record.get("story", ""), _queued(record))
            steps = [*_before(record), *told.steps]
            steps += _missing(record, steps)
            behind: Sequence[StoryStep] = ()
            if found["turn"] not in (TurnState.NONE, TurnState.AWAITED, TurnState.SKIPPED):
                behind = await self.users.waited_for(job_id, record)
                steps += behind
            steps += await self._later(job_id, record, found["memory_ids"], steps)
            memories = tuple(self._given(found["tenant"], record, reply, content=content))
        return JobStory(
            job_id=job_id,
            tenant=found["tenant"],
            user_id=found["user_id"],
            conversation_id=found["conversation_id"],
            state=found["state"],
            turn=found["turn"],
            code=found["code"],
            turn_code=found["turn_code"],
            created_at=found["created_at"],
            ended_at=found["ended_at"],
            waits_for=_waits_for(found["waits_for"], told.steps, behind),
            waits_until=found["waits_until"],
            steps=tuple(sorted(steps, key=lambda step: step.at)),
            steps_left_out=told.incomplete,
            memory=_memory(record, reply, told.steps),
            memories=memories,
            left_out=tuple(MemoryLeftOut(*one) for one in told.left_out),
            memory_ids=found["memory_ids"],
            extraction=found["extraction"] and Extraction(**found["extraction"]),
            replay_of=found["replay_of"],
            replayed_as=found["replayed_as"],
            message=self._message(found["tenant"], record) if content else None,
            reply=self._redaction.shown(found["tenant"], reply.text) if content and reply else None,
            job_kept=job_kept,
        )

    async def _found(self, job_id: str) -> tuple[_Record, Mapping[str, Any]]:
        """Return the record of a job and what it says, or what is kept of it for longer."""
        keys = self._shards.keys_of(check_job_id(job_id))
        try:
            found = await self._queries.details(job_id)
            return await self._shards.send_command("HGETALL", keys.job(job_id)), found
        except JobNotFound:
            record = await self._shards.send_command("HGETALL", keys.story(job_id))
        if not record:
            raise JobNotFound(job_id)
        with reading(job_id):
            return record, _kept(record)

    def _message(self, tenant: str, record: _Record) -> str | None:
        body = record.get("body")
        return self._redaction.shown(tenant, json_object(body)["message"]) if body else None

    def _given(
        self, tenant: str, record: _Record, reply: Reply | None, *, content: bool
    ) -> Iterator[MemoryGiven]:
        for one in reply.memories if reply else ():
            text = self._redaction.shown(tenant, one.text) if content else None
            yield MemoryGiven(one.id, one.score, one.created_at, text)
        for memory_id in json.loads(record.get("given", "[]")):  # the job itself is gone
            yield MemoryGiven(memory_id, None, None)

    async def _later(
        self, job_id: str, record: _Record, memory_ids: Sequence[str], steps: Sequence[StoryStep]
    ) -> list[StoryStep]:
        """Return the later replies to the same user that were given memories of this turn."""
        stored = [step.at for step in steps if step.kind is StepKind.STORED]
        if not memory_ids or not stored or "lane" not in record:
            return []
        key = self._shards.keys_of(job_id).given(record["lane"])
        since = str(round(stored[0].timestamp() * 1000))
        rows = await self._shards.send_command("XRANGE", key, since, "+", "COUNT", MOST_REPLIES)
        told = list[StoryStep]()
        for entry_id, row in rows:
            with reading("replies given"):
                given = set(memory_ids) & set(json.loads(row["memories"]))
                at = moment(entry_id.partition("-")[0])
            if given and len(told) < MOST_TOLD:
                details = {"memories": len(given)}
                told.append(
                    StoryStep(at, StepKind.RECALLED_LATER, about=row["job"], details=details)
                )
        return told


def _memory(
    record: Mapping[str, str], reply: Reply | None, steps: Sequence[StoryStep]
) -> MemoryStatus | None:
    """Return how complete the memories of a reply were; None of one that another program gave."""
    if "imported" in record:
        return None
    return reply.memory if reply else last_recall(steps).get("memory")


def _waits_for(
    known: str | None, steps: Sequence[StoryStep], behind: Sequence[StoryStep]
) -> str | None:
    """Return what it waits for; a step may know more than that it waits for its time."""
    newest = steps[-1] if known == UNTIL_ITS_TIME and steps else None
    first = next((step for step in behind if step.duration_s is None), None)
    if newest and first and first.about:
        return f"{first.about}, an earlier turn" + (f" ({first.reason})" if first.reason else "")
    if newest and newest.kind is StepKind.SET_ASIDE:
        return "an earlier message of its conversation"
    if newest and newest.kind is StepKind.PARKED:
        return f"the end of an operator's order ({newest.reason})"
    return newest.reason if newest and newest.kind is StepKind.LANE_WAITS else known


def _kept(record: _Record) -> Mapping[str, Any]:
    """Return what a story says of its job, by the names of `Queries.details`."""
    amounts = record.get("extraction", "").split()
    extraction = read_extraction(dict(zip(EXTRACTION_FIELDS, amounts, strict=False)))
    return {
        "tenant": record["tenant"],
        "user_id": user_of(record["lane"])[1],
        "conversation_id": record.get("conversation_id"),
        "state": JobState(record["state"]),
        "turn": TurnState(record["turn"]),
        "code": record.get("code"),
        "turn_code": record.get("turn_code"),
        "created_at": moment(record["created"]),
        "ended_at": moment(record["ended"]) if "ended" in record else None,
        "waits_for": None,
        "waits_until": None,
        "memory_ids": tuple(json.loads(record.get("memory_ids", "[]"))),
        "replay_of": record.get("replay_of"),
        "replayed_as": None,
        "extraction": extraction and extraction.model_dump(),
    }


def _queued(record: _Record) -> datetime:
    return moment(record.get("queued") or record["created"])


def _before(record: _Record) -> Iterator[StoryStep]:
    """Yield how a job came to be."""
    if record.get("imported"):
        yield StoryStep(moment(record["created"]), StepKind.IMPORTED)
    else:
        priority = priority_of(record.get("agenda"))  # none if the user was erased
        details = {"priority": priority} if priority else {}
        yield StoryStep(
            _queued(record), StepKind.ACCEPTED, about=record.get("replay_of"), details=details
        )


def _missing(record: _Record, steps: Sequence[StoryStep]) -> Iterator[StoryStep]:
    """Yield what only other fields tell: ends that a script writes without a step, and old jobs."""
    known = {step.kind for step in steps}
    state, turn = JobState(record["state"]), TurnState(record["turn"])
    if record.get("started") and StepKind.CLAIMED not in known:
        yield StoryStep(moment(record["started"]), StepKind.CLAIMED, attempt=1)
    end = _ENDS.get(state)
    if end and end not in known and "ended" in record and not record.get("imported"):
        yield StoryStep(moment(record["ended"]), end, reason=_code(record, state))
    turn_end = _TURN_ENDS.get(turn)
    if turn_end and not known & {turn_end, StepKind.CORRECTED, StepKind.DISCARDED}:
        at = record.get("turn_ended") or record.get("ended") or record["created"]
        yield StoryStep(moment(at), turn_end, reason=record.get("turn_code", ""))


def _code(record: _Record, state: JobState) -> str:
    return "" if state is JobState.SUCCEEDED else record.get("code", "")
