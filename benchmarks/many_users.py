"""Many users in one embedded memory: `python -m benchmarks.many_users [--users N]`.

Writes twenty memories of each user into a new file, with vectors drawn by lot, then searches
users in random order. CPU is that of one thread, without embedding, median and 99th percentile.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np

from afterword.workers.adapters.mem0.sqlite.embedder import DIMS, NAME, SCALE
from afterword.workers.adapters.mem0.sqlite.store import SqliteStore
from benchmarks.recall import short_facts

_Argument = TypeVar("_Argument")

_EACH, _BATCH, _ASKED, _FOUND = 20, 500, 1000, 60


def main(arguments: Sequence[str]) -> int:
    """Measure and print one line for each figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_users", description=__doc__)
    parser.add_argument("--users", type=int, default=10_000, metavar="N")
    users = parser.parse_args(arguments).users
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "memories.sqlite")
        with closing(SqliteStore(path, embedder=NAME, dims=DIMS, scale=SCALE)) as store:
            _measure(_Users(store, users), path)
    return 0


class _Users:
    def __init__(self, store: SqliteStore, count: int) -> None:
        self._store = store
        self._chance = random.Random(0)
        self._vectors = np.random.default_rng(0).standard_normal((997, DIMS), np.float32)
        self._texts = [turn.text for user in short_facts.build("en").users for turn in user.turns]
        self.names = [f"user-{number}" for number in range(count)]
        self._said = 0

    def write(self, names: Sequence[str]) -> None:
        """Write one memory of each of these users, in one transaction."""
        payloads, ids = [], []
        for name in names:
            self._said += 1
            text = f"{self._chance.choice(self._texts)} {self._said}"
            payloads.append({"user_id": name, "data": text, "turn_id": f"turn-{self._said}"})
            ids.append(f"memory-{self._said}")
        self._store.insert([self._chance.choice(self._vectors) for _ in names], payloads, ids)

    def fill(self) -> None:
        """Write all memories but the last one of each user."""
        for _ in range(_EACH - 1):
            for start in range(0, len(self.names), _BATCH):
                self.write(self.names[start : start + _BATCH])

    def search(self, name: str) -> None:
        """Search with another question each time."""
        query, vector = self._chance.choice(self._texts), self._chance.choice(self._vectors)
        found = self._store.search(query, vector, _FOUND, {"user_id": name})
        assert len(found) >= _EACH - 1, "memories are missing"


def _measure(users: _Users, path: Path) -> None:
    before = _resident_mb()
    users.fill()
    some = random.Random(1).sample(users.names, min(_ASKED, len(users.names)))
    _print("add", [_cpu_ms(users.write, [name]) for name in some])
    _print("first search", [_cpu_ms(users.search, name) for name in some])
    _print("later search", [_cpu_ms(users.search, name) for name in some])
    for name in users.names:
        users.search(name)
    print(f"resident, all searched: {_resident_mb() - before:.0f} MB more at most")
    cached = users._store._cache._entries  # noqa: SLF001 nothing else knows
    print(f"users cached: {len(cached):,} of {len(users.names):,}")
    print(f"file: {path.stat().st_size / 1e6:.0f} MB")


def _cpu_ms(call: Callable[[_Argument], object], argument: _Argument) -> float:
    start = time.thread_time()
    call(argument)
    return 1000 * (time.thread_time() - start)


def _print(what: str, found: Sequence[float]) -> None:
    median, late = np.percentile(found, [50, 99])
    print(f"{what}: {median:.2f} ms, p99 {late:.2f} ms")


def _resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
