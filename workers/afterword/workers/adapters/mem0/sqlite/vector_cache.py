"""A process's cache of vectors and word counts of the owners it searches. It holds no text."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass

import numpy as np

from afterword.workers.adapters.mem0.sqlite.owners import Owner
from afterword.workers.adapters.mem0.sqlite.ranking import (
    Floats,
    Numbers,
    Positions,
    Scale,
)

#: Memories cached over all owners, about 1.5 KB each at 384 dimensions.
MAX_MEMORIES = 50_000


_SELECT = """
    SELECT n, vector, length, folded, conversation, said_at
    FROM memories WHERE owner = ? AND n > ? ORDER BY n
"""


@dataclass(frozen=True, slots=True)
class OwnerVectors:
    """One owner's memories in the order of their rows, without those that were said again later.

    `rows` are row numbers, `vectors` reduced vectors, `lengths` word counts; `folded` and
    `conversations` are digests, `times` seconds, `counts` how often a memory was said. `last_row`
    is the newest row number, 0 if there is none.
    """

    epoch: int
    last_row: int
    rows: Numbers
    vectors: Floats
    lengths: Floats
    folded: Numbers
    conversations: Numbers
    times: Numbers
    counts: Numbers

    @property
    def cost(self) -> int:
        """What the entry costs, in memories; an empty entry costs 1."""
        return len(self.rows) + 1

    def extended_by(self, newer: OwnerVectors) -> OwnerVectors:
        """Return these memories followed by the newer ones."""
        kept = ~np.isin(self.folded, newer.folded)
        counts = newer.counts.copy()
        for before in np.flatnonzero(~kept):
            counts[newer.folded == self.folded[before]] += self.counts[before]
        return OwnerVectors(
            newer.epoch,
            newer.last_row,
            np.concatenate([self.rows[kept], newer.rows]),
            np.concatenate([self.vectors if kept.all() else self.vectors[kept], newer.vectors]),
            np.concatenate([self.lengths[kept], newer.lengths]),
            np.concatenate([self.folded[kept], newer.folded]),
            np.concatenate([self.conversations[kept], newer.conversations]),
            np.concatenate([self.times[kept], newer.times]),
            np.concatenate([self.counts[kept], counts]),
        )

    def positions(self, rows: Numbers) -> Positions:
        """Return the positions of these row numbers; unknown ones are left out."""
        positions = np.searchsorted(self.rows, rows)
        inside = positions < len(self.rows)
        positions, rows = positions[inside], rows[inside]
        found: Positions = positions[self.rows[positions] == rows]
        return found


class VectorCache:
    """Caches the owners searched last, and updates an entry at each use.

    Row numbers only grow, so while an owner's epoch is unchanged, only rows after the last known
    one have to be read. Use it inside transactions only: then its lock is free at any fork.
    """

    def __init__(self, dims: int, scale: Scale, max_memories: int = MAX_MEMORIES) -> None:
        self._dims = dims
        self._scale = scale
        self._max = max_memories
        self._entries: dict[int, OwnerVectors] = {}  # least recently used first
        self._cost = 0
        self._lock = threading.Lock()

    def get(self, sql: sqlite3.Connection, owner: Owner) -> OwnerVectors:
        """Return all memories of an owner; call it in the transaction that found the owner."""
        entry = self._entries.get(owner.n)
        if entry is None or entry.epoch != owner.epoch:
            entry = self._read(sql, owner, after=0)
        else:
            newer = self._read(sql, owner, after=entry.last_row)
            entry = entry.extended_by(newer) if newer.last_row else entry
        self._store(owner.n, entry)
        return entry

    def drop(self, owner_n: int) -> None:
        """Remove an owner from the cache."""
        with self._lock:
            self._remove(owner_n)

    def _read(self, sql: sqlite3.Connection, owner: Owner, *, after: int) -> OwnerVectors:
        found = sql.execute(_SELECT, (owner.n, after)).fetchall()
        columns = tuple(zip(*found, strict=True)) if found else ((),) * 6
        rows, vectors, lengths, folded, conversations, times = columns
        digests = np.array(folded, np.int64)
        _, last, counts = np.unique(digests[::-1], return_index=True, return_counts=True)
        order = np.argsort(-last)
        newest = len(found) - 1 - last[order]
        halves = np.frombuffer(b"".join(vectors), "<f2").reshape(-1, self._dims)
        if len(newest) < len(found):
            halves = halves[newest]
        return OwnerVectors(
            owner.epoch,
            rows[-1] if rows else 0,
            np.array(rows, np.int64)[newest],
            self._scale.reduced(halves),
            np.array(lengths, np.float32)[newest],
            digests[newest],
            np.array(conversations, np.int64)[newest],
            np.array(times, np.int64)[newest],
            counts[order].astype(np.int64),
        )

    def _store(self, owner_n: int, entry: OwnerVectors) -> None:
        with self._lock:
            self._remove(owner_n)
            self._entries[owner_n] = entry
            self._cost += entry.cost
            while self._cost > self._max and len(self._entries) > 1:
                self._remove(next(iter(self._entries)))

    def _remove(self, owner_n: int) -> None:
        entry = self._entries.pop(owner_n, None)
        self._cost -= entry.cost if entry else 0
