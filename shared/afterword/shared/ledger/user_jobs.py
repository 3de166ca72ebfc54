"""The newest jobs of a user, and what one turn of theirs has to wait for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from afterword.shared.contracts import Reply
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.records import moment, readable, reading
from afterword.shared.ledger.shard import Shards
from afterword.shared.ledger.story_records import JobListed, StepKind, StoryStep, UserJobs
from afterword.shared.ledger.story_steps import last_recall, read_story
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import Keys, lane_id, memory_key, shard_of

#: Most jobs of a user that are listed, and most imported turns.
MOST_LISTED = 100

#: Most earlier jobs of a user that are looked at, for what a turn waited for.
MOST_EARLIER = 20

#: A turn that waited for an earlier one for less than this is not told of.
LEAST_WAIT_S = 1.0

_LISTED = (
    *("created", "state", "code", "turn", "turn_code", "reply", "memory_ids", "imported", "story"),
)
_EARLIER = ("sequence", "state", "turn", "code", "turn_code", "ended", "turn_ended", "story")

#: Steps of an earlier turn that say why those behind it wait.
_HOLDING_UP = frozenset(
    {StepKind.LANE_WAITS, StepKind.PARKED, StepKind.POSTPONED, StepKind.LEASE_LOST}
)


class JobsOfUsers:
    """Reads which jobs a user has, and changes nothing.

    The ledger lists the newest 100 of each that have ended or have no turn, and the newest 100
    imported turns; turns that are not stored yet stand in the lane.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def newest(
        self,
        user_id: str,
        tenant: str,
        *,
        since: datetime | None,
        limit: int,
        after: str | None,
    ) -> UserJobs:
        """Return a page of a user's jobs, the newest first; `after` continues the page before.

        Raises `InvalidRequest` if that job is not listed (any more).
        """
        owner = memory_key(tenant, user_id)
        keys = self._shards.all[shard_of(owner, len(self._shards.all))]
        ids = await self._ids(keys, lane_id(owner, keys.shard))
        if after is not None:
            if after not in ids:
                raise InvalidRequest("after", "must be a job of this user that is still listed")
            ids = ids[ids.index(after) + 1 :]
        records = await self._records(ids[:limit], _LISTED)
        page = list(readable(_listed, records, "job"))
        found = [one for one in page if since is None or one.created_at >= since]
        more = len(ids) > limit and len(found) == len(page)
        return UserJobs(tuple(found), next=ids[limit - 1] if more else None)

    async def waited_for(self, job_id: str, record: Mapping[str, str]) -> Sequence[StoryStep]:
        """Return which earlier turns of the same user a turn waited for, or still waits for."""
        if "lane" not in record or "ended" not in record or "sequence" not in record:
            return ()
        keys = self._shards.keys_of(job_id)
        ids = await self._ids(keys, record["lane"])
        earlier = (ids[ids.index(job_id) + 1 :] if job_id in ids else [])[:MOST_EARLIER]
        first = await self._shards.send_command("ZRANGE", keys.lane(record["lane"]), 0, 0)
        earlier += [one for one in first if one != job_id and one not in earlier]
        return list(_blocking(record, await self._records(earlier, _EARLIER)))

    async def _ids(self, keys: Keys, lane: str) -> list[str]:
        """Return the ids of a user's jobs, the newest first."""
        sequences = dict[str, float]()
        for key in (keys.lane(lane), keys.user_jobs(lane), keys.user_jobs(f"{lane}/imported")):
            row = await self._shards.send_command(
                "ZREVRANGE", key, 0, MOST_LISTED - 1, "WITHSCORES"
            )
            sequences.update(zip(row[::2], map(float, row[1::2]), strict=True))
        return sorted(sequences, key=sequences.__getitem__, reverse=True)

    async def _records(self, ids: Sequence[str], names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Return fields of jobs of which something is still kept, after the id of each."""
        whole = await self._read([self._shards.keys_of(one).job(one) for one in ids], names)
        gone = [at for at, row in enumerate(whole) if row[0] is None]
        stories = [self._shards.keys_of(ids[at]).story(ids[at]) for at in gone]
        found = dict(enumerate(whole)) | dict(
            zip(gone, await self._read(stories, names), strict=True)
        )
        return [(one, *found[at]) for at, one in enumerate(ids) if found[at][0] is not None]

    async def _read(self, keys: Sequence[str], names: Sequence[str]) -> list[Sequence[Any]]:
        read = (self._shards.send_command("HMGET", key, *names) for key in keys)
        return list(await asyncio.gather(*read))


def _listed(job_id: str, *values: Any) -> JobListed:
    record = dict(zip(_LISTED, values, strict=True))
    imported = record["imported"] is not None  # its reply is one of another program
    told = record["reply"] and not imported
    reply = Reply.model_validate_json(record["reply"]) if told else None
    created = moment(record["created"])
    recalled = {} if reply else last_recall(read_story(record["story"] or "", created).steps)
    return JobListed(
        job_id=job_id,
        created_at=created,
        state=JobState(record["state"]),
        code=record["code"],
        turn=TurnState(record["turn"]),
        turn_code=record["turn_code"] or None,
        memory=reply.memory if reply else recalled.get("memory"),
        memories=len(reply.memories) if reply else recalled.get("given", 0),
        stored=len(json.loads(record["memory_ids"] or "[]")),
        imported=imported,
    )


def _blocking(record: Mapping[str, str], others: Sequence[Sequence[Any]]) -> Iterator[StoryStep]:
    """Yield the earlier turns that were not settled when this one was ready to be stored."""
    ready = moment(record["ended"])
    done = moment(record["turn_ended"]) if "turn_ended" in record else None
    for job_id, *values in reversed(others):
        with reading(job_id):
            other = dict(zip(_EARLIER, values, strict=True))
            turn, since = TurnState(other["turn"]), other["turn_ended"] or other["ended"]
            settled = moment(since) if turn.settled and since else None
        if turn is TurnState.NONE or int(other["sequence"] or 0) >= int(record["sequence"]):
            continue
        waited_s = (settled - ready).total_seconds() if settled else None
        together = settled == done and turn == record["turn"]  # or within one millisecond
        if done and (settled is None or settled > done or together):
            continue
        if waited_s is None or waited_s >= LEAST_WAIT_S:
            yield StoryStep(
                ready,
                StepKind.WAITED_BEHIND,
                reason=_reason(other, ready),
                duration_s=waited_s,
                about=job_id,
                details={"turn": str(turn)},
            )


def _reason(other: Mapping[str, str], ready: datetime) -> str:
    """Return why an earlier turn took so long: what its story says last, unless it has a code."""
    if other["turn_code"]:
        return other["turn_code"]
    since = moment(other["ended"]) if other["ended"] else ready
    told = read_story(other["story"] or "", since).steps
    held_up = [step for step in told if step.kind in _HOLDING_UP and step.at >= since]
    last = held_up[-1] if held_up else None
    if last is not None:
        return last.reason or str(last.kind)
    return other["code"] or ""
