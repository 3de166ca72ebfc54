"""Reads all that the ledger keeps of one user, and changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

from afterword.shared.ledger.erasures import Erasures
from afterword.shared.ledger.queries import Queries
from afterword.shared.ledger.records import moment
from afterword.shared.ledger.shard import Shards
from afterword.shared.names import Keys, user_of

#: Entries of a stream that are read at a time.
PAGE = 500

#: The fields of a job's record that hold JSON.
_JSON = frozenset({"body", "reply", "tokens", "memory_ids"})

#: A section of the export, and one record of it.
Exported = tuple[str, Any]


class UserRecords:
    """Yields what an erasure would remove, section by section."""

    def __init__(self, shards: Shards, queries: Queries, erasures: Erasures) -> None:
        self._shards = shards
        self._queries = queries
        self._erasures = erasures

    async def all(self, lane: str) -> AsyncIterator[Exported]:
        """Yield every record of a lane's user, the records of one section after each other.

        It looks at every key of the user's shard, as an erasure does: nothing else names the
        user's jobs. Requests about memories, which expire within minutes, are left out.
        """
        keys = self._shards.keys_of(lane)
        async for one in self._conversations(keys, lane):
            yield "conversations", one
        async for one in self._jobs(keys, lane):
            yield "jobs", one
        async for one in self._given(keys, lane):
            yield "replies_given", one
        async for key in self._shards.members(keys.imported(lane)):
            yield "imported_turns", key
        usage = await self._queries.usage(*user_of(lane))
        yield "usage", usage.model_dump(mode="json")
        receipt = await self._erasures.receipt(lane)
        yield "erasure", asdict(receipt) if receipt else None

    async def _conversations(self, keys: Keys, lane: str) -> AsyncIterator[dict[str, Any]]:
        prefix, seen = f"{keys.conversation(lane)}/", set[str]()
        async for names in self._shards.scan(f"{prefix}*"):
            for name in names:
                if name.startswith(prefix) and name not in seen:
                    seen.add(name)
                    turns = await self._shards.send_command("LRANGE", name, 0, -1)
                    yield {
                        "conversation": name.removeprefix(prefix),
                        "turns": [_parsed(turn) for turn in turns],
                    }

    async def _jobs(self, keys: Keys, lane: str) -> AsyncIterator[dict[str, Any]]:
        prefix, seen = keys.job(""), set[str]()
        async for names in self._shards.scan(f"{prefix}*"):
            ids = [name.removeprefix(prefix) for name in names]
            for job_id in await self._theirs(keys, lane, ids):
                if job_id not in seen:
                    seen.add(job_id)
                    yield await self._job(keys, job_id)

    async def _theirs(self, keys: Keys, lane: str, ids: Sequence[str]) -> Sequence[str]:
        read = (self._shards.send_command("HGET", keys.job(job_id), "lane") for job_id in ids)
        lanes = await asyncio.gather(*read)
        return [job_id for job_id, found in zip(ids, lanes, strict=True) if found == lane]

    async def _job(self, keys: Keys, job_id: str) -> dict[str, Any]:
        record = await self._shards.send_command("HGETALL", keys.job(job_id))
        hashes = (record.get("idempotency") or "").split()
        return {
            "job_id": job_id,
            "record": {
                name: _parsed(value) if name in _JSON else value for name, value in record.items()
            },
            "events": [row async for row in self._stream(keys.events(job_id))],
            "idempotency": [
                {"hash": one, **await self._shards.send_command("HGETALL", keys.idempotency(one))}
                for one in hashes
            ],
        }

    async def _stream(self, key: str) -> AsyncIterator[dict[str, Any]]:
        start = "-"
        while True:
            rows = await self._shards.send_command("XRANGE", key, start, "+", "COUNT", PAGE)
            for entry_id, row in rows:
                yield {"id": entry_id, **row}
            if len(rows) < PAGE:
                return
            start = f"({rows[-1][0]}"

    async def _given(self, keys: Keys, lane: str) -> AsyncIterator[dict[str, Any]]:
        async for row in self._stream(keys.given(lane)):
            yield {
                "job_id": row["job"],
                "at": moment(row["id"].partition("-")[0]),
                "memory_ids": _parsed(row["memories"]),
            }


def _parsed(text: str) -> Any:
    """Return stored JSON as what it holds; what is none, as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
