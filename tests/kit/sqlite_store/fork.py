"""A process that forks with the embedded memory store open, in the order that loses commits.

The parent closes the file while the child has it open; prints how many memories are there in
the end, of the three written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from afterword.workers.adapters.mem0.sqlite.store import SqliteStore
from tests.kit.sqlite_store.store import found, open_store, put, texts


def main(path: str) -> None:
    """Write one memory, fork, let the child write two around the parent's closing."""
    store = open_store(Path(path))
    put(store, "ana", "the parent's memory")
    found(store, "ana", "memory")
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(store, to_parent, from_parent)
    os.read(from_child, 1)
    store.close()
    os.write(to_child, b".")
    _, status = os.waitpid(child, 0)
    there = texts(open_store(Path(path)), "ana")
    print(len(there), len(found(store, "ana", "memory")), status)


def _be_child(store: SqliteStore, to_parent: int, from_parent: int) -> None:
    put(store, "ana", "the child's first memory")
    os.write(to_parent, b".")
    os.read(from_parent, 1)
    put(store, "ana", "the child's second memory")
    os._exit(0 if len(found(store, "ana", "memory")) == 3 else 1)


if __name__ == "__main__":
    main(sys.argv[1])
