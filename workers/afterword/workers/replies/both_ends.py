"""Searches memory for both ends of a long message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Protocol

from afterword.workers.ports import RecalledMemory, SearchResult
from afterword.workers.rules.excerpts import both_ends


class Searchable(Protocol):
    """What can be searched, as `Memories` can."""

    async def search(self, owner: str, query: str, limit: int) -> SearchResult:
        """Search for at most `limit` memories of `owner`."""
        ...


class BothEnds:
    """Searches for a message of at most `longest` characters, or at once for both ends of it."""

    def __init__(self, memories: Searchable, longest: int) -> None:
        self._memories = memories
        self._longest = longest

    async def search(self, owner: str, query: str, limit: int) -> SearchResult:
        """Return at most `limit` memories for each end, those of the two in turns."""
        ends = both_ends(query, self._longest)
        if len(ends) == 1:
            return _merged([await self._memories.search(owner, ends[0], limit)])
        searches = [asyncio.ensure_future(self._memories.search(owner, end, limit)) for end in ends]
        try:
            return _merged(await asyncio.gather(*searches))
        finally:
            for search in searches:  # if one fails, the other is in vain
                search.cancel()


def _merged(found: Sequence[SearchResult]) -> SearchResult:
    """Return the rows of several searches, each once and with its best score.

    The searches take turns, the best row first: much that fits a pasted text hides nothing that
    fits the question about it.
    """
    rows: dict[tuple[str, str], RecalledMemory] = {}
    for row in chain.from_iterable(zip_longest(*(one.memories for one in found))):
        if row is not None:
            known = rows.setdefault((row.owner, row.id), row)
            if (row.score or 0.0) > (known.score or 0.0):
                rows[row.owner, row.id] = row
    return SearchResult(tuple(rows.values()), sum(one.malformed for one in found))
