"""What keeps the ledger going: the sweep, the overview, the dead letters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import astuple
from typing import Any

from shared.errors import IllegalStep, JobNotFound
from shared.ledger.records import (
    AgendaCount,
    DeadLetter,
    Overview,
    Swept,
    WorkerSeen,
    moment,
)
from shared.ledger.shard import Shards, milliseconds
from shared.names import Keys, check_job_id

#: Records of each sort that one sweep of one shard touches at most: keeps a script short.
SWEEP_LIMIT = 100

_PAGE = 100

_LETTER = (
    "tenant", "created", "t_ended", "t_code", "t_blame", "t_attempts", "replays", "t_worker",
    "event", "body", "reply", "turn",
)  # fmt: skip


class Upkeep:
    """Sweep and count every shard; list, replay and discard dead letters."""

    def __init__(self, shards: Shards) -> None:
        """Take the shards to look after."""
        self._shards = shards

    async def sweep(self, seen: str = "") -> Swept:
        """Do what time has made due, everywhere; `seen` is the '<queue> <worker>' that sweeps."""
        found = await asyncio.gather(*(self._sweep(keys, seen) for keys in self._shards.all))
        return Swept(*(sum(column) for column in zip(*map(astuple, found), strict=True)))

    async def _sweep(self, keys: Keys, seen: str) -> Swept:
        settings = self._shards.settings
        counts = await self._shards.run(
            "sweep",
            keys,
            SWEEP_LIMIT,
            milliseconds(settings.hint_grace_s),
            milliseconds(settings.retention_s),
            milliseconds(settings.stream_retention_s),
            seen,
        )
        return Swept(*counts)

    async def overview(self) -> Sequence[Overview]:
        """Count what is open, late and dead, a row per shard."""
        return [_overview(await self._shards.run("overview", keys)) for keys in self._shards.all]

    async def dead_letters(self) -> AsyncIterator[DeadLetter]:
        """Give every dead letter, oldest first in each shard, a page at a time."""
        for keys in self._shards.all:
            async for turn_id in self._dead(keys):
                letter = await self._letter(turn_id)
                if letter is not None:
                    yield letter

    async def _dead(self, keys: Keys) -> AsyncIterator[str]:
        start = 0
        while page := await self._shards.call("ZRANGE", keys.dead, start, start + _PAGE - 1):
            for turn_id in page:
                yield turn_id
            start += len(page)

    async def dead_letter(self, turn_id: str) -> DeadLetter:
        """Give one dead letter; raise `JobNotFound` if that turn is none."""
        letter = await self._letter(check_job_id(turn_id))
        if letter is None:
            raise JobNotFound(turn_id)
        return letter

    async def replay(self, turn_id: str) -> None:
        """Put a dead letter back into its lane; raise `JobNotFound` or `IllegalStep`."""
        _done(turn_id, await self._shards.run_for("replay", check_job_id(turn_id)))

    async def discard(self, turn_id: str) -> None:
        """Give up a dead letter for good; raise `JobNotFound` or `IllegalStep`."""
        retention_ms = milliseconds(self._shards.settings.retention_s)
        _done(turn_id, await self._shards.run_for("discard", check_job_id(turn_id), retention_ms))

    async def _letter(self, turn_id: str) -> DeadLetter | None:
        key = self._shards.keys_of(turn_id).job(turn_id)
        fields = await self._shards.call("HMGET", key, *_LETTER)
        record = dict(zip(_LETTER, fields, strict=True))
        return _dead_letter(turn_id, record) if record["turn"] == "dead" else None


def _done(turn_id: str, word: str) -> None:
    if word == "gone":
        raise JobNotFound(turn_id)
    if word == "refused":
        raise IllegalStep(f"turn {turn_id} is no dead letter")


def _dead_letter(turn_id: str, record: dict[str, Any]) -> DeadLetter:
    asked = json.loads(record["body"])
    return DeadLetter(
        id=turn_id,
        tenant=record["tenant"],
        user_id=asked["user_id"],
        at=moment(record["created"]),
        buried_at=moment(record["t_ended"]),
        code=record["t_code"],
        blame=record["t_blame"],
        attempts=int(record["t_attempts"]),
        replays=int(record["replays"] or 0),
        worker_version=record["t_worker"],
        event_id=record["event"],
        message=asked["message"],
        reply=json.loads(record["reply"])["text"],
    )


def _overview(answer: Sequence[Any]) -> Overview:
    now, open_jobs, dead, workers, counts, *agendas = answer
    return Overview(
        at=moment(now),
        open_jobs=open_jobs,
        dead_letters=dead,
        workers=tuple(_worker(*pair) for pair in zip(workers[::2], workers[1::2], strict=True)),
        counts={name: int(value) for name, value in zip(counts[::2], counts[1::2], strict=True)},
        agendas=tuple(_agenda(*agenda) for agenda in agendas),
    )


def _worker(name: str, seen: str) -> WorkerSeen:
    queue, _, worker = name.partition(" ")
    return WorkerSeen(worker, queue, moment(float(seen)))


def _agenda(
    name: str, hinted: int, waiting: int, leased: int, oldest: str, messages: int
) -> AgendaCount:
    since = moment(float(oldest)) if oldest else None
    return AgendaCount(name, hinted, waiting, leased, since, messages)
