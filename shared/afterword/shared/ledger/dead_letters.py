"""The dead letters: read, replayed, discarded."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import Fault, IllegalStep, InvalidRequest, JobNotFound
from afterword.shared.ledger import steps
from afterword.shared.ledger.dead_letter_records import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterKind,
    DeadLetterRef,
    ReplayOutcome,
)
from afterword.shared.ledger.jobs import Jobs
from afterword.shared.ledger.records import json_object, moment, readable, reading
from afterword.shared.ledger.shard import Shards, fields_of, milliseconds, scored
from afterword.shared.names import Keys, check_job_id, user_of
from afterword.shared.version import __version__

#: Ids of one list that are read at once; dead letters that are.
_PAGE = 1000
_BATCH = 100

#: Of those that are read with their content, which may be long.
_WHOLE = 5

#: Why a turn is not buried by hand.
_NOT_BURIED = {
    "held": "a newer version wrote it; use that",
    "erased": "its user is erased",
    "busy": "a memory worker holds its user's lane; try again",
    "begun": "it is being stored together with other turns; it ends with them",
    "dead": "it is a dead letter already",
    "awaited": "its job has not ended",
}

#: Before every burial and id.
_BEGINNING = (float("-inf"), "")


class DeadLetters:
    """Selects dead letters by a filter; replays or discards one as it was chosen."""

    def __init__(self, shards: Shards, jobs: Jobs) -> None:
        self._shards = shards
        self._jobs = jobs

    async def redis_time(self) -> datetime:
        """Return the time of Redis' clock, which burials are recorded in."""
        seconds, microseconds = await self._shards.send_command("TIME")
        return moment(int(seconds) * 1000 + int(microseconds) // 1000)

    async def select(
        self,
        chosen: DeadLetterFilter | None = None,
        *,
        content: bool = False,
        after: str | None = None,
    ) -> AsyncIterator[DeadLetter]:
        """Yield the dead letters that a filter matches, oldest burial first.

        They are read from Redis 100 at a time, however many there are. Ids that are no dead letter
        are left out. `after` is the id of a dead letter: only what was buried later is given.
        Raises `InvalidRequest` if it is none.
        """
        chosen = chosen or DeadLetterFilter()
        now, given = await self.redis_time(), 0
        start = await self._place(after) if after else _BEGINNING
        async for batch in _batches(self._ids(chosen, start)):
            for letter in await self.read(batch, content=content):
                if chosen.limit is not None and given >= chosen.limit:
                    return
                if letter.replayed_as is None and chosen.matches(letter, now):
                    given += 1
                    yield letter

    async def get(self, letter_id: str) -> DeadLetter:
        """Return one dead letter with its content, or a job that was replayed.

        Raises `JobNotFound`.
        """
        found = await self._records([check_job_id(letter_id)], content=True)
        if not found:
            raise JobNotFound(letter_id)
        with reading(letter_id):
            return _letter(found[0])

    async def bury(self, job_id: str) -> None:
        """Make a turn that waits to be stored a dead letter; its lane goes on without it.

        Raises `JobNotFound`, and `IllegalStep` with the reason if it does not wait alone. A turn
        that was buried so before is left as it is.
        """
        arguments = steps.BuryWaitingTurn(
            id=check_job_id(job_id), worker=__version__, known_version=RECORD_VERSION
        )
        word = await self._shards.run_for_word(arguments)
        if word == "gone":
            raise JobNotFound(job_id)
        if word != "ok":
            raise IllegalStep(_NOT_BURIED.get(word, f"its turn is {word}"))

    async def replay(self, letter: DeadLetterRef, run: str) -> ReplayOutcome:
        """Replay a dead letter, once a run; return `WAITING`, or why it was not replayed.

        A turn goes back to its place in its lane. A job has ended for good: a new job with the
        same body is submitted, as said at the same time.
        """
        if letter.kind is DeadLetterKind.MEMORY:
            arguments = steps.ReplayTurn(
                id=letter.id, run=run, replays=letter.replays, known_version=RECORD_VERSION
            )
            return ReplayOutcome(await self._shards.run_for_word(arguments))
        key = self._shards.keys_of(letter.id).job(letter.id)
        body = await self._shards.send_command("HGET", key, "body")
        if body is None:
            return (
                ReplayOutcome.ERASED
                if await self._shards.send_command("EXISTS", key)
                else ReplayOutcome.GONE
            )
        try:
            return ReplayOutcome(await self._jobs.resubmit(letter.id, body, run))
        except ValidationError:  # it would fail again
            return ReplayOutcome.REFUSED

    async def trace_of(self, letter: DeadLetterRef) -> str:
        """Return the stored trace context of a dead letter's job; '' while traces are off."""
        if not self._shards.settings.traces:
            return ""
        key = self._shards.keys_of(letter.id).job(letter.id)
        return await self._shards.send_command("HGET", key, "trace") or ""

    async def discard(self, letter: DeadLetterRef) -> bool:
        """Give up a dead letter for good; return false if it is none any more."""
        arguments = steps.DiscardDeadLetter(
            id=letter.id,
            kind=letter.kind,
            replays=letter.replays,
            known_version=RECORD_VERSION,
            retention_ms=milliseconds(self._shards.settings.retention_s),
        )
        return await self._shards.run_for_word(arguments) == "discarded"

    async def replay_outcomes(
        self, letter_ids: Sequence[str], run: str
    ) -> dict[str, ReplayOutcome]:
        """Return what became of dead letters that a run has replayed."""
        found: dict[str, ReplayOutcome] = {}
        for ids in self._by_shard(letter_ids):
            arguments = steps.ReadOutcomes(run=run, ids=ids)
            (words,) = await self._shards.run_script(self._shards.keys_of(ids[0]), arguments)
            found.update(zip(ids, map(ReplayOutcome, words), strict=True))
        return found

    async def _place(self, letter_id: str) -> tuple[float, str]:
        """Return the burial of a dead letter and its id, by which they are listed."""
        none = InvalidRequest("after", "is no dead letter, or none any more")
        try:
            keys = self._shards.keys_of(check_job_id(letter_id))
        except JobNotFound:
            raise none from None
        for kind in DeadLetterKind:
            buried = await self._shards.send_command("ZSCORE", self._list(keys, kind), letter_id)
            if buried is not None:
                return float(buried), letter_id
        raise none

    async def _ids(self, chosen: DeadLetterFilter, after: tuple[float, str]) -> AsyncIterator[str]:
        """Yield the ids of all dead letters, oldest burial first, or those of the filter."""
        if chosen.ids:
            for name in dict.fromkeys(chosen.ids):
                yield check_job_id(name)
            return
        lists = [_List(self._shards, name, after) for name in self.lists(chosen.kind)]
        heads = [(head, at) for at, one in enumerate(lists) if (head := await one.next())]
        heapq.heapify(heads)
        while heads:
            (_, name), at = heads[0]
            yield name
            if head := await lists[at].next():
                heapq.heapreplace(heads, (head, at))
            else:
                heapq.heappop(heads)

    def lists(self, kind: DeadLetterKind | None) -> Iterable[str]:
        """Yield the keys of all lists that hold dead letters of a kind, or of both."""
        for keys in self._shards.all:
            for each in DeadLetterKind if kind is None else [kind]:
                yield self._list(keys, each)

    @staticmethod
    def _list(keys: Keys, kind: DeadLetterKind) -> str:
        return keys.dead_turns if kind is DeadLetterKind.MEMORY else keys.failed_jobs

    async def read(self, ids: Sequence[str], *, content: bool = False) -> list[DeadLetter]:
        """Return the dead letters among these ids, in their order."""
        most = _WHOLE if content else _BATCH
        parts = await asyncio.gather(
            *(self._read_of_shard(part, content=content) for part in self._by_shard(ids, most))
        )
        found = {letter.id: letter for part in parts for letter in part}
        return [found[name] for name in ids if name in found]

    async def _read_of_shard(self, ids: Sequence[str], *, content: bool) -> list[DeadLetter]:
        records = await self._records(ids, content=content)
        return list(readable(_letter, ((one,) for one in records), "dead letter"))

    async def _records(self, ids: Sequence[str], *, content: bool) -> list[dict[str, Any]]:
        arguments = steps.ReadDeadLetters(content=content, ids=ids)
        (letters,) = await self._shards.run_script(self._shards.keys_of(ids[0]), arguments)
        return [fields_of(letter) for letter in letters]

    def _by_shard(self, ids: Sequence[str], most: int = _BATCH) -> list[list[str]]:
        parts: dict[str, list[str]] = {}
        for name in ids:
            parts.setdefault(self._shards.keys_of(name).root, []).append(name)
        return [
            part[start : start + most]
            for part in parts.values()
            for start in range(0, len(part), most)
        ]


class _List:
    """One list of dead letters behind a place, read a page at a time; removals skip none."""

    def __init__(self, shards: Shards, key: str, after: tuple[float, str]) -> None:
        self._shards = shards
        self._key = key
        self._page: list[tuple[float, str]] = []
        self._behind = after
        self._after = repr(after[0])

    async def next(self) -> tuple[float, str] | None:
        """Return the next burial and id, or None at the end."""
        while not self._page:
            found = await self._read()
            if not found:
                return None
            self._page = [one for one in found if one > self._behind][::-1]
        return self._page.pop()

    async def _read(self) -> list[tuple[float, str]]:
        """Return a page, and all that were buried in the same millisecond as its last."""
        page = await self._range(self._after, "+inf", "LIMIT", 0, _PAGE)
        if not page:
            return []
        last = page[-1][0]
        self._after = f"({last!r}"
        before = [one for one in page if one[0] < last]
        return before + (await self._range(repr(last), repr(last)))

    async def _range(self, *bounds: str | int) -> list[tuple[float, str]]:
        first, last, *limit = bounds
        flat = await self._shards.send_command(
            "ZRANGEBYSCORE", self._key, first, last, "WITHSCORES", *limit
        )
        return sorted(scored(flat))


def _fault(word: str) -> str:
    """Return whose failure it was; a word that only a newer version knows is kept."""
    try:
        return str(Fault(word))
    except ValueError:
        return word


async def _batches(ids: AsyncIterator[str]) -> AsyncIterator[list[str]]:
    """Yield the ids in batches."""
    batch: list[str] = []
    async for name in ids:
        batch.append(name)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _letter(record: dict[str, Any]) -> DeadLetter:
    tenant, user_id = user_of(record["lane"])
    body, reply = record.get("body"), record.get("reply")
    return DeadLetter(
        id=record["id"],
        kind=DeadLetterKind(record["kind"]),
        tenant=tenant,
        user_id=user_id,
        submitted_at=moment(record["created"]),
        failed_at=moment(record.get("failed") or record["buried"]),
        buried_at=moment(record["buried"]),
        code=record.get("code", ""),
        fault=_fault(record.get("fault", "")),
        attempts=int(record.get("attempts", 0)),
        snoozes=int(record.get("snoozes", 0)),
        replays=int(record.get("replays", 0)),
        worker_version=record.get("worker", ""),
        event_id=record.get("event"),
        record_version=int(record["version"]),
        size=int(record["size"]),
        replayed_as=record.get("replayed_as"),
        message=json_object(body)["message"] if body else None,
        reply=json_object(reply)["text"] if reply else None,
    )
