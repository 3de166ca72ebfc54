"""Short looks into long lists, for people who browse: each reads a bounded part, however long."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from afterword.shared.ledger.dead_letter_records import (
    AuditEntry,
    DeadLetter,
    DeadLetterFilter,
    DeadLetterKind,
    audit_entry,
)
from afterword.shared.ledger.dead_letters import DeadLetters
from afterword.shared.ledger.records import (
    moment,
    readable,
)
from afterword.shared.ledger.shard import Shards, scored
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import (
    MEMORIES,
    PRIORITY_STEPS,
    REPLIES,
    Keys,
    is_memory_request,
    lane_id,
    memory_key,
    shard_of,
    user_of,
)

#: Dead letters that one page looks at, whether they match its filter or not.
MOST_LOOKED_AT = 1_500

#: The same of entries of the audit.
MOST_ENTRIES_LOOKED_AT = 5_000

#: Of these, how many are read at a time.
_AT_ONCE = 500

_JOB_FIELDS = ("state", "turn", "lane", "created", "attempts", "code", "turn_code")
_LANES = f"{MEMORIES}.0"
_REPLIES = tuple(f"{REPLIES}.{step}" for step in PRIORITY_STEPS.values())


class Place(StrEnum):
    """Where the id of an open job, or of a lane, can be."""

    READY = "hinted"
    DELAYED = "waiting"
    RUNNING = "leased"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class JobRow:
    """What a list shows of a job; `at` is since or until when it is in its place."""

    id: str
    tenant: str
    user_id: str
    state: JobState
    turn: TurnState
    created_at: datetime
    attempts: int
    code: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LaneRow:
    """What a list shows of a lane; `at` is since or until when it is in its place."""

    tenant: str
    user_id: str
    turns: int
    at: datetime


@dataclass(frozen=True, slots=True)
class UserRows:
    """The turns of a user that wait to be stored, and their newest replies with memories."""

    waiting: Sequence[JobRow]
    recalled: Sequence[JobRow]


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """Dead letters, newest burial first.

    `looked_at` were read for it; `before` is where the next page begins, None at the end.
    """

    letters: list[DeadLetter] = field(default_factory=list)
    looked_at: int = 0
    before: str | None = None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries of the audit, newest first; `after` is where the next page begins, None at the end.

    `looked_at` were read for it.
    """

    entries: Sequence[AuditEntry]
    looked_at: int
    after: str | None


class Browsing:
    """Reads the first rows of lists."""

    def __init__(self, shards: Shards, dead_letters: DeadLetters) -> None:
        self._shards = shards
        self._dead_letters = dead_letters

    async def jobs_in(self, place: Place, limit: int) -> Sequence[JobRow]:
        """Return open jobs in a place, those that are there for longest or are due first."""
        ids = await self._in_place(place, _REPLIES, limit)
        return await self._jobs([(name, moment(score)) for score, name in ids])

    async def lanes_in(self, place: Place, limit: int) -> Sequence[LaneRow]:
        """Return lanes in a place, in the same order."""
        found = await self._in_place(place, (_LANES,), limit)
        return await self._lanes([pair for pair in found if not is_memory_request(pair[1])])

    async def behind(self, tenant: str, limit: int) -> Sequence[LaneRow]:
        """Return the users of a tenant who wait longest for memory; `at` is since when."""
        keys = [shard.behind(tenant) for shard in self._shards.all]
        return await self._lanes(await self._lowest(keys, limit))

    async def of_user(self, tenant: str, user_id: str, limit: int) -> UserRows:
        """Return what names jobs of a user: their lane, and the replies that recalled something."""
        owner = memory_key(tenant, user_id)
        keys = self._shards.all[shard_of(owner, len(self._shards.all))]
        lane = lane_id(owner, keys.shard)
        waiting = await self._shards.send_command("ZRANGE", keys.lane(lane), 0, limit - 1)
        rows = await self._shards.send_command(
            "XREVRANGE", keys.given(lane), "+", "-", "COUNT", limit
        )
        recalled = [(row["job"], moment(at.partition("-")[0])) for at, row in rows if "job" in row]
        return UserRows(
            await self._jobs([(name, None) for name in waiting]), await self._jobs(recalled)
        )

    async def audit_page(
        self, limit: int, *, after: str | None, by: str | None, action: str | None
    ) -> AuditPage:
        """Return the newest entries of the audit that match, older than the entry `after`."""
        key, found, looked_at, place = self._shards.all[0].audit, list[AuditEntry](), 0, after
        while len(found) <= limit and looked_at < MOST_ENTRIES_LOOKED_AT:
            newest = f"({place}" if place else "+"
            rows = await self._shards.send_command("XREVRANGE", key, newest, "-", "COUNT", _AT_ONCE)
            looked_at += len(rows)
            found += [
                entry
                for entry in readable(audit_entry, rows, "audit entry")
                if by in (None, entry.by) and action in (None, entry.action)
            ]
            place = rows[-1][0] if len(rows) == _AT_ONCE else None
            if place is None:
                break
        if len(found) > limit:
            return AuditPage(found[:limit], looked_at, found[limit - 1].id)
        return AuditPage(found, looked_at, place)

    async def dead_letter_page(
        self, chosen: DeadLetterFilter, limit: int, before: str | None
    ) -> DeadLetterPage:
        """Return the newest dead letters that match, from where another page ended."""
        now = await self._dead_letters.redis_time()
        ids = await self._newest_dead(chosen.kind, before)
        matched, at = list[DeadLetter](), 0
        for start in range(0, len(ids), _AT_ONCE):
            names = [name for _, name in ids[start : start + _AT_ONCE]]
            letters = {one.id: one for one in await self._dead_letters.read(names)}
            for at, name in enumerate(names, start + 1):
                letter = letters.get(name)
                if letter and not letter.replayed_as and chosen.matches(letter, now):
                    matched.append(letter)
                if len(matched) == limit:
                    return DeadLetterPage(matched, at, _place_of(ids[at - 1]))
        more = len(ids) == MOST_LOOKED_AT
        return DeadLetterPage(matched, at, _place_of(ids[-1]) if more else None)

    async def _newest_dead(
        self, kind: DeadLetterKind | None, before: str | None
    ) -> list[tuple[float, str]]:
        """Return times and ids of burials before a place in the list, newest first."""
        score, _, after = (before or "").partition("-")
        rows = await asyncio.gather(
            *(
                self._shards.send_command(
                    "ZRANGE", key, score or "+inf", "-inf", "BYSCORE", "REV",
                    "LIMIT", 0, MOST_LOOKED_AT, "WITHSCORES",
                )
                for key in self._dead_letters.lists(kind)
            )
        )  # fmt: skip
        pairs = sorted((pair for flat in rows for pair in scored(flat)), reverse=True)
        place = (float(score), after) if score else None
        return [pair for pair in pairs if place is None or pair < place][:MOST_LOOKED_AT]

    async def _in_place(
        self, place: Place, agendas: Sequence[str], limit: int
    ) -> list[tuple[float, str]]:
        keys = [shard.place(place, agenda) for shard in self._shards.all for agenda in agendas]
        return await self._lowest(keys, limit)

    async def _lowest(self, keys: Sequence[str], limit: int) -> list[tuple[float, str]]:
        """Return the pairs of score and name that are lowest in several lists."""
        rows = await asyncio.gather(
            *(self._shards.send_command("ZRANGE", key, 0, limit - 1, "WITHSCORES") for key in keys)
        )
        return heapq.nsmallest(limit, (pair for flat in rows for pair in scored(flat)))

    async def _jobs(self, found: Sequence[tuple[str, datetime | None]]) -> list[JobRow]:
        records = await asyncio.gather(
            *(
                self._shards.send_command("HMGET", self._job_key(name), *_JOB_FIELDS)
                for name, _ in found
            )
        )
        rows = (
            (name, at, dict(zip(_JOB_FIELDS, record, strict=True)))
            for (name, at), record in zip(found, records, strict=True)
            if record[0] is not None
        )
        return list(readable(_job_row, rows, "job"))

    async def _lanes(self, found: Sequence[tuple[float, str]]) -> list[LaneRow]:
        sizes = await asyncio.gather(
            *(
                self._shards.send_command("ZCARD", self._shards.keys_of(lane).lane(lane))
                for _, lane in found
            )
        )
        return [
            LaneRow(*user_of(lane), int(size), moment(score))
            for (score, lane), size in zip(found, sizes, strict=True)
        ]

    def _job_key(self, job_id: str) -> str:
        keys: Keys = self._shards.keys_of(job_id)
        return keys.job(job_id)


def _place_of(pair: tuple[float, str]) -> str:
    """Return the form in which a page says where the next one begins."""
    return f"{pair[0]:.0f}-{pair[1]}"


def _job_row(name: str, at: datetime | None, record: dict[str, Any]) -> JobRow:
    tenant, user_id = user_of(record["lane"] or "l00_/")
    return JobRow(
        id=name,
        tenant=tenant,
        user_id=user_id,
        state=JobState(record["state"]),
        turn=TurnState(record["turn"]),
        created_at=moment(record["created"]),
        attempts=int(record["attempts"] or 0),
        code=record["code"] or record["turn_code"] or "",
        at=at,
    )
