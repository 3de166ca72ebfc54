"""What a process keeps in memory of each owner it searches: vectors and lengths, no text."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afterword.workers.adapters.mem0.sqlite.owners import Owner
from afterword.workers.adapters.mem0.sqlite.ranking import Floats, Places

Numbers = NDArray[np.int64]

#: Memories kept over all owners, about 1.5 KB each at 384 dimensions.
MOST_MEMORIES = 50_000


@dataclass(frozen=True, slots=True)
class Scope:
    """One owner's memories in the order of their rows: row numbers, unit vectors, word counts."""

    epoch: int
    rows: Numbers
    vectors: Floats
    lengths: Floats

    @property
    def last(self) -> int:
        """Return the newest row there is, 0 if there is none."""
        return int(self.rows[-1]) if len(self.rows) else 0

    @property
    def size(self) -> int:
        """Return what the scope costs, in memories; an empty one costs something, too."""
        return len(self.rows) + 1

    def joined(self, newer: Scope) -> Scope:
        """Return this scope with the rows that came after it."""
        return Scope(
            newer.epoch,
            np.concatenate([self.rows, newer.rows]),
            np.concatenate([self.vectors, newer.vectors]),
            np.concatenate([self.lengths, newer.lengths]),
        )

    def places(self, rows: Numbers) -> Places:
        """Return where these rows are; those that are not in the scope are left out."""
        places = np.searchsorted(self.rows, rows)
        inside = places < len(self.rows)
        places, rows = places[inside], rows[inside]
        found: Places = places[self.rows[places] == rows]
        return found


class Scopes:
    """The scopes of the owners searched last, brought up to date at each look.

    Rows only ever get higher numbers, so an owner whose epoch stands still needs only the rows
    after the last one known. Used inside transactions only, so its lock is free at any fork.
    """

    def __init__(self, dims: int, most_memories: int = MOST_MEMORIES) -> None:
        self._dims = dims
        self._most = most_memories
        self._kept: dict[int, Scope] = {}  # the one looked at last comes last
        self._held = 0
        self._lock = threading.Lock()

    def of(self, sql: sqlite3.Connection, owner: Owner) -> Scope:
        """Return all of an owner's memories, inside the read transaction that found the owner."""
        kept = self._kept.get(owner.n)
        if kept is None or kept.epoch != owner.epoch:
            scope = self._read(sql, owner, after=0)
        else:
            newer = self._read(sql, owner, after=kept.last)
            scope = kept.joined(newer) if len(newer.rows) else kept
        self._keep(owner.n, scope)
        return scope

    def drop(self, owner_n: int) -> None:
        """Forget what is kept of an owner."""
        with self._lock:
            self._pop(owner_n)

    def _read(self, sql: sqlite3.Connection, owner: Owner, *, after: int) -> Scope:
        select = "SELECT n, vector, length FROM memories WHERE owner = ? AND n > ? ORDER BY n"
        found = sql.execute(select, (owner.n, after)).fetchall()
        rows, vectors, lengths = zip(*found, strict=True) if found else ((), (), ())
        halves = np.frombuffer(b"".join(vectors), "<f2").reshape(-1, self._dims)
        return Scope(
            owner.epoch,
            np.array(rows, np.int64),
            halves.astype(np.float32),
            np.array(lengths, np.float32),
        )

    def _keep(self, owner_n: int, scope: Scope) -> None:
        with self._lock:
            self._pop(owner_n)
            self._kept[owner_n] = scope
            self._held += scope.size
            while self._held > self._most and len(self._kept) > 1:
                self._pop(next(iter(self._kept)))

    def _pop(self, owner_n: int) -> None:
        scope = self._kept.pop(owner_n, None)
        self._held -= scope.size if scope else 0
