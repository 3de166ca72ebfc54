"""The dead letters: read, replayed, discarded."""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import Fault, JobNotFound
from afterword.shared.ledger.dead_letter_records import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterKind,
    DeadLetterRef,
    ReplayOutcome,
)
from afterword.shared.ledger.jobs import Jobs
from afterword.shared.ledger.records import moment
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.names import check_job_id, user_of

#: Ids of one list that are read at once; letters whose records are.
_PAGE = 1000
_BATCH = 200


class DeadLetters:
    """Give the letters that a filter lets through; replay or discard one as it was chosen."""

    def __init__(self, shards: Shards, jobs: Jobs) -> None:
        """Take the shards to look at, and the way back for jobs."""
        self._shards = shards
        self._jobs = jobs

    async def redis_time(self) -> datetime:
        """Return what time the ledger has: burials are told in it."""
        seconds, microseconds = await self._shards.call("TIME")
        return moment(int(seconds) * 1000 + int(microseconds) // 1000)

    async def select(
        self, chosen: DeadLetterFilter | None = None, *, content: bool = False
    ) -> AsyncIterator[DeadLetter]:
        """Give the letters that a filter lets through, oldest burial first.

        Redis is asked for some hundred at a time, however many there are. Of ids that are no dead
        letter nothing is given.
        """
        chosen = chosen or DeadLetterFilter()
        now, given = await self.redis_time(), 0
        async for batch in _batches(self._ids(chosen)):
            for letter in await self._read(batch, content=content):
                if chosen.limit is not None and given >= chosen.limit:
                    return
                if letter.replayed_as is None and chosen.matches(letter, now):
                    given += 1
                    yield letter

    async def get(self, letter_id: str) -> DeadLetter:
        """Give one letter with its content, or a job that was replayed; raise `JobNotFound`."""
        found = await self._read([check_job_id(letter_id)], content=True)
        if not found:
            raise JobNotFound(letter_id)
        return found[0]

    async def replay(self, letter: DeadLetterRef, run: str) -> ReplayOutcome:
        """Put a letter on its way again, once a run: `waiting`, or why it was not replayed.

        A turn goes back to its place in its lane. A job has ended for good: a new one with the
        same body is submitted, as of the time when the old one was.
        """
        if letter.kind is DeadLetterKind.MEMORY:
            chosen = (letter.id, run, letter.replays, RECORD_VERSION)
            return ReplayOutcome(await self._shards.run_for("dead_letter/replay", *chosen))
        key = self._shards.keys_of(letter.id).job(letter.id)
        body = await self._shards.call("HGET", key, "body")
        if body is None:
            return (
                ReplayOutcome.ERASED
                if await self._shards.call("EXISTS", key)
                else ReplayOutcome.GONE
            )
        try:
            return ReplayOutcome(await self._jobs.resubmit(letter.id, body, run))
        except ValidationError:  # it failed for that, and would again
            return ReplayOutcome.REFUSED

    async def discard(self, letter: DeadLetterRef) -> bool:
        """Give a letter up for good; return false if it is no dead letter any more."""
        retention_ms = milliseconds(self._shards.settings.retention_s)
        word = await self._shards.run_for(
            "dead_letter/discard",
            letter.id,
            letter.kind,
            letter.replays,
            retention_ms,
            RECORD_VERSION,
        )
        return word == "discarded"

    async def replay_outcomes(
        self, letter_ids: Sequence[str], run: str
    ) -> dict[str, ReplayOutcome]:
        """Return what became of letters that a run has replayed."""
        found: dict[str, ReplayOutcome] = {}
        for ids in self._by_shard(letter_ids):
            words = await self._shards.run("run/outcomes", self._shards.keys_of(ids[0]), run, *ids)
            found.update(zip(ids, map(ReplayOutcome, words), strict=True))
        return found

    async def _ids(self, chosen: DeadLetterFilter) -> AsyncIterator[str]:
        """Give the ids of all dead letters, oldest burial first, or those that are named."""
        if chosen.ids:
            for name in dict.fromkeys(chosen.ids):
                yield check_job_id(name)
            return
        lists = [_List(self._shards, name) for name in self._lists(chosen.kind)]
        heads = [(head, at) for at, one in enumerate(lists) if (head := await one.next())]
        heapq.heapify(heads)
        while heads:
            (_, name), at = heads[0]
            yield name
            if head := await lists[at].next():
                heapq.heapreplace(heads, (head, at))
            else:
                heapq.heappop(heads)

    def _lists(self, kind: DeadLetterKind | None) -> Iterable[str]:
        for keys in self._shards.all:
            if kind is not DeadLetterKind.REPLY:
                yield keys.dead
            if kind is not DeadLetterKind.MEMORY:
                yield keys.failed

    async def _read(self, ids: Sequence[str], *, content: bool) -> list[DeadLetter]:
        """Read the letters among these ids, in their order."""
        parts = await asyncio.gather(
            *(
                self._shards.run(
                    "dead_letter/read", self._shards.keys_of(part[0]), int(content), *part
                )
                for part in self._by_shard(ids)
            )
        )
        found = {row[0]: _letter(*row) for rows in parts for row in rows}
        return [found[name] for name in ids if name in found]

    def _by_shard(self, ids: Sequence[str]) -> list[list[str]]:
        parts: dict[str, list[str]] = {}
        for name in ids:
            parts.setdefault(self._shards.keys_of(name).root, []).append(name)
        return [
            part[start : start + _BATCH]
            for part in parts.values()
            for start in range(0, len(part), _BATCH)
        ]


class _List:
    """One list of letters, read a page at a time; what leaves it meanwhile moves nothing."""

    def __init__(self, shards: Shards, key: str) -> None:
        self._shards = shards
        self._key = key
        self._page: list[tuple[float, str]] = []
        self._after = "-inf"

    async def next(self) -> tuple[float, str] | None:
        """Return the next burial and id, None at the end."""
        if not self._page:
            self._page = (await self._read())[::-1]
        return self._page.pop() if self._page else None

    async def _read(self) -> list[tuple[float, str]]:
        """Read a page, and all that were buried in the same millisecond as its last."""
        page = await self._range(self._after, "+inf", "LIMIT", 0, _PAGE)
        if not page:
            return []
        last = page[-1][0]
        self._after = f"({last!r}"
        before = [one for one in page if one[0] < last]
        return before + (await self._range(repr(last), repr(last)))

    async def _range(self, *bounds: str | int) -> list[tuple[float, str]]:
        first, last, *limit = bounds
        flat = await self._shards.call(
            "ZRANGEBYSCORE", self._key, first, last, "WITHSCORES", *limit
        )
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return sorted((float(score), str(name)) for name, score in pairs)


def _blame(word: str) -> str:
    """Return whose failure it was; a word that only a newer version knows, as it is."""
    try:
        return str(Fault(word))
    except ValueError:
        return word


async def _batches(ids: AsyncIterator[str]) -> AsyncIterator[list[str]]:
    """Give the ids some hundred at a time."""
    batch: list[str] = []
    async for name in ids:
        batch.append(name)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _letter(
    name: str,
    kind: str,
    size: int,
    of_both: Sequence[Any],
    of_kind: Sequence[Any],
    content: Sequence[Any] = (None, None),
) -> DeadLetter:
    _, lane, version, created, replayed_as = of_both
    failed, buried, code, fault, attempts, snoozes, worker, *of_memory = of_kind
    replays, event_id = of_memory or (None, None)
    body, reply = content
    tenant, user_id = user_of(lane)
    return DeadLetter(
        id=name,
        kind=DeadLetterKind(kind),
        tenant=tenant,
        user_id=user_id,
        submitted_at=moment(created),
        failed_at=moment(failed or buried),
        buried_at=moment(buried),
        code=code or "",
        fault=_blame(fault or ""),
        attempts=int(attempts or 0),
        snoozes=int(snoozes or 0),
        replays=int(replays or 0),
        worker_version=worker or "",
        event_id=event_id,
        record_version=int(version),
        size=int(size),
        replayed_as=replayed_as,
        message=json.loads(body)["message"] if body else None,
        reply=json.loads(reply)["text"] if reply else None,
    )
