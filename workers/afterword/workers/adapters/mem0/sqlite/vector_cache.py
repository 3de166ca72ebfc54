"""A process's cache of vectors and word counts of the owners it searches. It holds no text."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afterword.workers.adapters.mem0.sqlite.owners import Owner
from afterword.workers.adapters.mem0.sqlite.ranking import Floats, Positions

Numbers = NDArray[np.int64]

#: Memories cached over all owners, about 1.5 KB each at 384 dimensions.
MAX_MEMORIES = 50_000


@dataclass(frozen=True, slots=True)
class OwnerVectors:
    """One owner's memories in the order of their rows: row numbers, unit vectors, word counts."""

    epoch: int
    rows: Numbers
    vectors: Floats
    lengths: Floats

    @property
    def last_row(self) -> int:
        """The newest row number, 0 if there is none."""
        return int(self.rows[-1]) if len(self.rows) else 0

    @property
    def cost(self) -> int:
        """What the entry costs, in memories; an empty entry costs 1."""
        return len(self.rows) + 1

    def extended_by(self, newer: OwnerVectors) -> OwnerVectors:
        """Return these memories followed by the newer ones."""
        return OwnerVectors(
            newer.epoch,
            np.concatenate([self.rows, newer.rows]),
            np.concatenate([self.vectors, newer.vectors]),
            np.concatenate([self.lengths, newer.lengths]),
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

    def __init__(self, dims: int, max_memories: int = MAX_MEMORIES) -> None:
        self._dims = dims
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
            entry = entry.extended_by(newer) if len(newer.rows) else entry
        self._store(owner.n, entry)
        return entry

    def drop(self, owner_n: int) -> None:
        """Remove an owner from the cache."""
        with self._lock:
            self._remove(owner_n)

    def _read(self, sql: sqlite3.Connection, owner: Owner, *, after: int) -> OwnerVectors:
        select = "SELECT n, vector, length FROM memories WHERE owner = ? AND n > ? ORDER BY n"
        found = sql.execute(select, (owner.n, after)).fetchall()
        rows, vectors, lengths = zip(*found, strict=True) if found else ((), (), ())
        halves = np.frombuffer(b"".join(vectors), "<f2").reshape(-1, self._dims)
        return OwnerVectors(
            owner.epoch,
            np.array(rows, np.int64),
            halves.astype(np.float32),
            np.array(lengths, np.float32),
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
