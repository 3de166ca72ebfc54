"""Keys with which people open the console: who has one, what each may do, and a hash of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from afterword.shared.ledger.records import json_object, moment, readable, reading
from afterword.shared.ledger.shard import Shards


class AccessScope(StrEnum):
    """What a key may do.

    `read`: see states, counts and ids. `content`: see what users said and what is remembered of
    them. `operate`: replay, shut gates, manage keys.
    """

    READ = "read"
    CONTENT = "content"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key without its secret."""

    id: str
    """The id, which is a part of the key."""

    name: str
    """Whose it is: the audit shows it."""

    scopes: tuple[AccessScope, ...]
    """What it may do."""

    created_at: datetime
    """When it was created."""

    created_by: str
    """Who created it."""

    expires_at: datetime | None
    """From when on it is refused; None if it does not expire."""

    def is_valid(self, now: datetime) -> bool:
        """Return whether it has not expired."""
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as the ledger keeps it: with the hash of its secret, and the salt of that."""

    key: AccessKey
    salt: str
    digest: str


class AccessKeys:
    """Adds, reads and removes keys; all are on the first shard."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._key = shards.all[0].access_keys

    async def add(self, stored: StoredKey) -> None:
        """Store a key under its id, which nobody else has."""
        await self._shards.send_command("HSETNX", self._key, stored.key.id, _written(stored))

    async def remove(self, key_id: str) -> bool:
        """Remove a key; return whether there was one."""
        return bool(await self._shards.send_command("HDEL", self._key, key_id))

    async def get(self, key_id: str) -> StoredKey | None:
        """Return a key, None if there is none."""
        text = await self._shards.send_command("HGET", self._key, key_id)
        if text is None:
            return None
        with reading("access key"):
            return _stored(key_id, text)

    async def all(self) -> Sequence[AccessKey]:
        """Return all keys, oldest first."""
        found: Mapping[str, str] = await self._shards.send_command("HGETALL", self._key)
        rows = readable(_stored, found.items(), "access key")
        return sorted((row.key for row in rows), key=lambda key: (key.created_at, key.id))


def _written(stored: StoredKey) -> str:
    key = stored.key
    fields: dict[str, Any] = {
        "name": key.name,
        "scopes": key.scopes,
        "created": _milliseconds(key.created_at),
        "by": key.created_by,
        "expires": _milliseconds(key.expires_at) if key.expires_at else None,
        "salt": stored.salt,
        "digest": stored.digest,
    }
    return json.dumps(fields)


def _stored(key_id: str, text: str) -> StoredKey:
    fields = json_object(text)
    expires = fields["expires"]
    key = AccessKey(
        id=key_id,
        name=fields["name"],
        # A scope that only a newer version knows is one that this version does not grant.
        scopes=tuple(scope for scope in AccessScope if scope in fields["scopes"]),
        created_at=moment(fields["created"]),
        created_by=fields["by"],
        expires_at=None if expires is None else moment(expires),
    )
    return StoredKey(key, fields["salt"], fields["digest"])


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)
