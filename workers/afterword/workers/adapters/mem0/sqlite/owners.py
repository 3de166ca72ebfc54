"""Owners in the memory store: their row, their salt, the digests made with it."""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass
from hashlib import blake2b

_SELECT = "SELECT n, epoch, salt FROM owners WHERE digest = ?"


@dataclass(frozen=True, slots=True)
class Owner:
    """One owner's row; `epoch` grows whenever a memory of theirs is changed or goes."""

    n: int
    epoch: int
    salt: bytes

    def digest(self, text: str) -> int:
        """Return 64 bits that stand for a text and say nothing once the salt is erased."""
        sealed = blake2b(text.encode(), digest_size=8, key=self.salt).digest()
        return int.from_bytes(sealed, signed=True)


def find_owner(sql: sqlite3.Connection, name: str) -> Owner | None:
    """Return the owner of this name, if there is one."""
    row = sql.execute(_SELECT, (_digest(name),)).fetchone()
    return Owner(*row) if row else None


def ensure_owner(sql: sqlite3.Connection, name: str) -> Owner:
    """Return the owner of this name, made now if need be, inside a write transaction."""
    insert = "INSERT INTO owners (digest, salt) VALUES (?, ?) ON CONFLICT DO NOTHING"
    sql.execute(insert, (_digest(name), secrets.token_bytes(16)))
    row = sql.execute(_SELECT, (_digest(name),)).fetchone()
    return Owner(*row)


def touch_owner(sql: sqlite3.Connection, n: int) -> None:
    """Say that what was read of this owner before is out of date."""
    sql.execute("UPDATE owners SET epoch = epoch + 1 WHERE n = ?", (n,))


def erase_owner(sql: sqlite3.Connection, n: int) -> None:
    """Delete an owner with all memories, inside a write transaction."""
    sql.execute("DELETE FROM postings WHERE owner = ?", (n,))
    sql.execute("DELETE FROM memories WHERE owner = ?", (n,))
    sql.execute("DELETE FROM owners WHERE n = ?", (n,))


def erase_all(sql: sqlite3.Connection) -> None:
    """Delete all owners with all memories, inside a write transaction."""
    for delete in ("DELETE FROM postings", "DELETE FROM memories", "DELETE FROM owners"):
        sql.execute(delete)


def _digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16).digest()
