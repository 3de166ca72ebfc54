"""A process's cache of vectors and word counts of the owners it searches. It holds no text."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from afterword.workers.adapters.mem0.sqlite.owners import Owner
from afterword.workers.adapters.mem0.sqlite.ranking import (
    Floats,
    Marks,
    Numbers,
    Positions,
    Scale,
    credits_of,
    neighbours,
)

#: Memories cached over all owners, about 1.5 KB each at 384 dimensions.
MAX_MEMORIES = 50_000

#: How long a search may read vectors, in seconds, so that recall stays within its budget (promise
#: I6). It begins with the newest ones; the next searches read the others.
READING_S = 0.15

#: Rows that are read at once: few enough for the processor's cache.
SLICE = 512

#: The most vectors that are copied to add a few.
PART = 8192

#: SQLite's largest integer: no row has this number.
NO_ROW = 2**63 - 1

_WHICH = "FROM memories WHERE owner = ? AND n > ? AND n < ?"
_SELECT = f"""
    SELECT vector, n, length, folded, conversation, said_at {_WHICH} ORDER BY n DESC
"""
_COUNT = f"SELECT count(*) {_WHICH}"

#: All numbers as one text: a row for each costs three times as much.
_REMAINING = """
    SELECT group_concat(n) FROM
    (SELECT n FROM memories WHERE owner = ? AND n >= ? AND n <= ? ORDER BY n)
"""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors in several arrays, so that more are added without a copy of many."""

    parts: tuple[Floats, ...]

    def __len__(self) -> int:
        """Return how many vectors there are."""
        return sum(map(len, self.parts))

    def products(self, vector: Floats) -> Floats:
        """Return the product of each vector with another one."""
        found: Floats = np.concatenate([part @ vector for part in self.parts])
        return found

    def at(self, positions: Positions) -> Floats:
        """Return the vectors at these positions."""
        if len(self.parts) == 1:
            return self.parts[0].take(positions, axis=0)
        found = np.empty((len(positions), self.parts[0].shape[1]), np.float32)
        start = 0
        for part in self.parts:
            inside = (positions >= start) & (positions < start + len(part))
            found[inside] = part[positions[inside] - start]
            start += len(part)
        return found

    def kept(self, which: NDArray[np.bool_]) -> Vectors:
        """Return only the vectors that are marked."""
        ends = np.cumsum([len(part) for part in self.parts])
        marks = zip(self.parts, np.split(which, ends[:-1]), strict=True)
        return Vectors(tuple(part if mark.all() else part[mark] for part, mark in marks))

    def followed_by(self, more: Vectors) -> Vectors:
        """Return these vectors and more; small arrays that meet become one."""
        last, first = self.parts[-1], more.parts[0]
        if len(last) + len(first) > PART:
            return Vectors((*self.parts, *more.parts))
        return Vectors((*self.parts[:-1], np.concatenate([last, first]), *more.parts[1:]))


@dataclass(frozen=True)
class OwnerVectors:
    """One owner's memories in the order of their rows, without those that were said again later.

    `rows` are row numbers, `vectors` reduced vectors, `lengths` word counts; `folded` and
    `conversations` are digests, `times` seconds, `counts` how often a memory was said. `last_row`
    is the newest row number, 0 if there is none. Rows below `first_row` have not been read yet; it
    is 0 if all have been.
    """

    epoch: int
    first_row: int
    last_row: int
    rows: Numbers
    vectors: Vectors
    lengths: Floats
    folded: Numbers
    conversations: Numbers
    times: Numbers
    counts: Numbers

    @cached_property
    def near(self) -> Sequence[Marks]:
        """Which memories are neighbours, and lend to each other."""
        return neighbours(self.conversations, self.times)

    @cached_property
    def credit(self) -> Floats:
        """What a word counts in each memory."""
        return credits_of(self.lengths)

    @property
    def cost(self) -> int:
        """What the entry costs, in memories; an empty entry costs 1."""
        return len(self.rows) + 1

    def holds(self, other: OwnerVectors) -> bool:
        """Whether all that another entry of the same owner has read was read here, too."""
        known = self.first_row <= other.first_row and self.last_row >= other.last_row
        return known and self.epoch == other.epoch

    def extended_by(self, newer: OwnerVectors) -> OwnerVectors:
        """Return these memories followed by the newer ones."""
        kept = ~np.isin(self.folded, newer.folded)
        counts = newer.counts.copy()
        if not kept.all():
            order = np.argsort(newer.folded)
            said_again = np.searchsorted(newer.folded, self.folded[~kept], sorter=order)
            np.add.at(counts, order[said_again], self.counts[~kept])
        return OwnerVectors(
            newer.epoch,
            self.first_row,
            newer.last_row,
            np.concatenate([self.rows[kept], newer.rows]),
            self.vectors.kept(kept).followed_by(newer.vectors),
            np.concatenate([self.lengths[kept], newer.lengths]),
            np.concatenate([self.folded[kept], newer.folded]),
            np.concatenate([self.conversations[kept], newer.conversations]),
            np.concatenate([self.times[kept], newer.times]),
            np.concatenate([self.counts[kept], counts]),
        )

    def left_after_deletions(self, epoch: int, there: Numbers) -> OwnerVectors | None:
        """Return these memories less those that were deleted, given the rows that are there.

        Returns None if what was said several times was deleted once: what remains of it is not
        known here.
        """
        kept = np.isin(self.rows, there, assume_unique=True)
        if (self.counts[~kept] > 1).any() or self.counts[kept].sum() != len(there):
            return None
        return replace(
            self,
            epoch=epoch,
            rows=self.rows[kept],
            vectors=self.vectors.kept(kept),
            lengths=self.lengths[kept],
            folded=self.folded[kept],
            conversations=self.conversations[kept],
            times=self.times[kept],
            counts=self.counts[kept],
        )

    def positions_of_each(self, rows: Numbers, counts: Sequence[int]) -> list[Positions]:
        """Return the positions of several lists of row numbers, which follow each other."""
        places = np.searchsorted(self.rows, rows)
        known = places < len(self.rows)
        known[known] = self.rows[places[known]] == rows[known]
        ends = [0, *accumulate(counts)]
        spans = [slice(*pair) for pair in pairwise(ends)]
        return [places[span][known[span]] for span in spans]

    def positions(self, rows: Numbers) -> Positions:
        """Return the positions of these row numbers; unknown ones are left out."""
        positions = np.searchsorted(self.rows, rows)
        inside = positions < len(self.rows)
        positions, rows = positions[inside], rows[inside]
        found: Positions = positions[self.rows[positions] == rows]
        return found


class VectorCache:
    """Caches the owners searched last, and updates an entry at each use.

    Row numbers only grow, so only rows after the last known one have to be read, and those that an
    earlier use had no time for. If the owner's epoch has changed, the known ones that are gone are
    removed first. Use it inside transactions only: then its lock is free at any fork.
    """

    def __init__(
        self,
        dims: int,
        scale: Scale,
        max_memories: int = MAX_MEMORIES,
        *,
        reading_s: float = READING_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dims = dims
        self._scale = scale
        self._max = max_memories
        self._reading_s = reading_s
        self._clock = clock
        self._entries: dict[int, OwnerVectors] = {}  # least recently used first
        self._cost = 0
        self._lock = threading.Lock()

    def get(self, sql: sqlite3.Connection, owner: Owner) -> OwnerVectors:
        """Return an owner's memories; call it in the transaction that found the owner.

        If the time for reading is over, the oldest ones are missing.
        """
        give_up = self._clock() + self._reading_s
        entry = self._entries.get(owner.n)
        if entry is not None and entry.epoch != owner.epoch:
            remaining = _rows_there(sql, owner, entry)
            entry = entry.left_after_deletions(owner.epoch, remaining)
        if entry is None:
            entry = self._read(sql, owner, give_up)
        else:
            entry = self._with_newer(sql, owner, entry, give_up)
            if entry.first_row and self._clock() < give_up:
                entry = self._read(sql, owner, give_up, before=entry.first_row).extended_by(entry)
        self._store(owner.n, entry)
        return entry

    def drop(self, owner_n: int) -> None:
        """Remove an owner from the cache."""
        with self._lock:
            self._remove(owner_n)

    def _with_newer(
        self, sql: sqlite3.Connection, owner: Owner, entry: OwnerVectors, give_up: float
    ) -> OwnerVectors:
        newer = self._read(sql, owner, give_up, after=entry.last_row)
        if newer.first_row:  # there are more between the two: what is known is read again later
            return newer
        return entry.extended_by(newer) if newer.last_row else entry

    def _read(
        self,
        sql: sqlite3.Connection,
        owner: Owner,
        give_up: float,
        *,
        after: int = 0,
        before: int = NO_ROW,
    ) -> OwnerVectors:
        """Read the memories between two row numbers, newest first, for as long as there is time."""
        which = (owner.n, after, before)
        found = sql.execute(_SELECT, which)
        rows = found.fetchmany(SLICE)
        room = len(rows) if len(rows) < SLICE else sql.execute(_COUNT, which).fetchone()[0]
        vectors, numbers = np.empty((room, self._dims), np.float32), np.empty((5, room), np.int64)
        start = room
        while rows:
            halves, *columns = zip(*reversed(rows), strict=True)
            end, start = start, start - len(rows)
            numbers[:, start:end] = columns
            stored = np.frombuffer(b"".join(halves), "<f2").reshape(-1, self._dims)
            vectors[start:end] = self._scale.reduced(stored)
            rows = found.fetchmany(SLICE) if start and self._clock() < give_up else []
        found.close()
        oldest = start and int(numbers[0, start])
        return _distinct(owner.epoch, oldest, vectors[start:], numbers[:, start:])

    def _store(self, owner_n: int, entry: OwnerVectors) -> None:
        with self._lock:
            known = self._entries.get(owner_n)
            if known is not None and known.holds(entry):
                entry = known  # another thread had more time
            self._remove(owner_n)
            self._entries[owner_n] = entry
            self._cost += entry.cost
            while self._cost > self._max and len(self._entries) > 1:
                self._remove(next(iter(self._entries)))

    def _remove(self, owner_n: int) -> None:
        entry = self._entries.pop(owner_n, None)
        self._cost -= entry.cost if entry else 0


def _rows_there(sql: sqlite3.Connection, owner: Owner, entry: OwnerVectors) -> Numbers:
    """Return the numbers of an owner's rows in the span that an entry has read."""
    span = (owner.n, entry.first_row, entry.last_row)
    (listed,) = sql.execute(_REMAINING, span).fetchone()
    return np.fromstring(listed or "", np.int64, sep=",")


def _distinct(epoch: int, first_row: int, vectors: Floats, numbers: Numbers) -> OwnerVectors:
    """Return rows in the order of their numbers without those that later ones repeat."""
    rows, lengths, folded, conversations, times = numbers
    _, last, counts = np.unique(folded[::-1], return_index=True, return_counts=True)
    order = np.argsort(-last)
    newest = len(rows) - 1 - last[order]
    return OwnerVectors(
        epoch,
        first_row,
        int(rows[-1]) if len(rows) else 0,
        rows[newest],
        Vectors((vectors if len(newest) == len(rows) else vectors[newest],)),
        lengths[newest].astype(np.float32),
        folded[newest],
        conversations[newest],
        times[newest],
        counts[order].astype(np.int64),
    )
