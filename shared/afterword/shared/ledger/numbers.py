"""The counter of each shard: how far the ledger has come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from afterword.shared.ledger.shard import Shards
from afterword.shared.names import Keys


class Numbers:
    """Reads the counters that sequence numbers and fences come from, and moves them on."""

    def __init__(self, shards: Shards) -> None:
        """Take the shards that count."""
        self._shards = shards

    async def newest(self) -> Mapping[Keys, int]:
        """Return the newest number of each shard; it never falls while Redis keeps what it has."""
        shards = self._shards.all
        found = await asyncio.gather(*(self._shards.call("GET", keys.sequence) for keys in shards))
        return {keys: int(number or 0) for keys, number in zip(shards, found, strict=True)}

    async def skip(self, keys: Keys, count: int) -> int:
        """Leave out so many numbers, or more, and return the newest: nobody will be given them."""
        return int(await self._shards.call("INCRBY", keys.sequence, count))
