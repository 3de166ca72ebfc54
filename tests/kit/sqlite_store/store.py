"""The embedded memory store on the hashing embedder, for tests and for their processes.

As a program: `python -m tests.kit.sqlite_store.store PATH OWNER COUNT` opens the store, says so,
and writes as many memories once it is told to go on.
"""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from afterword.workers.adapters.mem0.sqlite.ranking import Scale
from afterword.workers.adapters.mem0.sqlite.store import SqliteStore
from tests.kit.sqlite_store.hashing_embedder import DIMS, vector


def open_store(path: Path) -> SqliteStore:
    """Open a store as the embedded backend does, but for the embedder; a search reads all it can.

    On a busy machine it would not see the oldest of many memories.
    """
    return SqliteStore(path, embedder="hashing", dims=DIMS, scale=Scale(), reading_s=math.inf)


@contextmanager
def opener(path: Path) -> Iterator[Callable[[], SqliteStore]]:
    """Give a function that opens the store once more, and close all of them in the end."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(open_store(path)))


def put(store: SqliteStore, owner: str, text: str, turn_id: str | None = None) -> str:
    """Write one memory and return the id that mem0 would have given it."""
    memory_id = str(uuid.uuid4())
    payload = {"user_id": owner, "data": text} | ({"turn_id": turn_id} if turn_id else {})
    store.insert([vector(text)], [payload], [memory_id])
    return memory_id


def found(store: SqliteStore, owner: str, query: str, most: int = 60) -> list[str]:
    """Return the texts that a search gives."""
    rows = store.search(query, vector(query), most, {"user_id": owner})
    return [row.payload["data"] for row in rows]


def texts(store: SqliteStore, owner: str) -> list[str]:
    """Return all texts of an owner, oldest first."""
    return [row.payload["data"] for row in store.list({"user_id": owner})[0]]


def main(path: str, owner: str, count: str) -> None:
    """Write so many memories of an owner, one transaction each."""
    store = open_store(Path(path))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(count)):
        put(store, owner, f"memory {number} of {owner}")
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
