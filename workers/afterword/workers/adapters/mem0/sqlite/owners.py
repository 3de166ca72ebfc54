"""The table of owners: an owner's row, its salt, and the digests made with the salt."""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass
from hashlib import blake2b

_SELECT = "SELECT n, epoch, salt FROM owners WHERE digest = ?"


@dataclass(frozen=True, slots=True)
class Owner:
    """One row; `epoch` grows whenever a memory of the owner is changed or deleted."""

    n: int
    epoch: int
    salt: bytes

    def digest(self, text: str) -> int:
        """Return 64 bits that identify a text and reveal nothing once the salt is erased."""
        salted = blake2b(text.encode(), digest_size=8, key=self.salt).digest()
        return int.from_bytes(salted, signed=True)


def find_owner(sql: sqlite3.Connection, name: str) -> Owner | None:
    """Return the owner of this name, None if there is none."""
    row = sql.execute(_SELECT, (_name_digest(name),)).fetchone()
    return Owner(*row) if row else None


def ensure_owner(sql: sqlite3.Connection, name: str) -> Owner:
    """Return the owner of this name, created if missing; needs a write transaction."""
    insert = "INSERT INTO owners (digest, salt) VALUES (?, ?) ON CONFLICT DO NOTHING"
    sql.execute(insert, (_name_digest(name), secrets.token_bytes(16)))
    row = sql.execute(_SELECT, (_name_digest(name),)).fetchone()
    return Owner(*row)


def bump_epoch(sql: sqlite3.Connection, n: int) -> None:
    """Invalidate what processes have cached of this owner."""
    sql.execute("UPDATE owners SET epoch = epoch + 1 WHERE n = ?", (n,))


def erase_owner(sql: sqlite3.Connection, n: int) -> None:
    """Delete an owner with all memories; needs a write transaction."""
    sql.execute("DELETE FROM tokens WHERE owner = ?", (n,))
    sql.execute("DELETE FROM memories WHERE owner = ?", (n,))
    sql.execute("DELETE FROM owners WHERE n = ?", (n,))


def erase_all_owners(sql: sqlite3.Connection) -> None:
    """Delete all owners with all memories; needs a write transaction."""
    for delete in ("DELETE FROM tokens", "DELETE FROM memories", "DELETE FROM owners"):
        sql.execute(delete)


def _name_digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16).digest()
