"""Keys of the console: created, checked, revoked; each of these is audited."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from afterword.producer.checked_ledger import CheckedLedger
from afterword.shared.arguments import LONGEST_S
from afterword.shared.clock import utc_now
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.access_keys import AccessKey, AccessScope, StoredKey

#: Most keys at a time.
MAX_KEYS = 100

_MAX_NAME = 64
_KEY = re.compile(r"afterword_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")

#: What a guess costs: 16 MB of memory and about 50 ms.
_SCRYPT = {"n": 2**14, "r": 8, "p": 1}

#: A salt for keys that do not exist: to refuse them takes as long as to refuse those that do.
_NOBODY = StoredKey(AccessKey("", "", (), utc_now(), "", None), "00" * 16, "")


@dataclass(frozen=True, slots=True)
class NewAccessKey:
    """A key that was just created: its text is shown once, and stored nowhere."""

    key: str
    """The text that opens the console."""

    record: AccessKey
    """What is stored of it, with a hash of its text."""


class Access:
    """Creates, finds and revokes keys of the console.

    Args:
        checked: the ledger that holds them.
        by: who does it; the audit shows it.

    """

    def __init__(self, checked: CheckedLedger, by: str) -> None:
        self._checked = checked
        self._by = by

    async def create(
        self, name: str, scopes: Collection[AccessScope], expires_in_s: float | None = None
    ) -> NewAccessKey:
        """Create a key; raise `InvalidRequest` for a name, scopes or a time that cannot be."""
        record = self._record(name, scopes, expires_in_s)
        ledger = await self._checked.get()
        if len(await ledger.access_keys.all()) >= MAX_KEYS:
            raise InvalidRequest("name", f"there are {MAX_KEYS} keys; revoke some first")
        text, salt = f"afterword_{record.id}_{secrets.token_urlsafe(32)}", secrets.token_hex(16)
        digest = await _digest(text, salt)
        # The entry comes first: a key that nobody heard of is worse than an entry without a key.
        details = {"key": record.id, "name": record.name, "scopes": list(record.scopes)}
        await ledger.replay_runs.add_audit_entry(
            self._by, "create key", details, f"key-{record.id}"
        )
        await ledger.access_keys.add(StoredKey(record, salt, digest))
        return NewAccessKey(text, record)

    async def revoke(self, key_id: str) -> bool:
        """Refuse a key from now on, and end its sessions; return whether there was one."""
        ledger = await self._checked.get()
        if await ledger.access_keys.get(key_id) is None:
            return False
        await ledger.replay_runs.add_audit_entry(
            self._by, "revoke key", {"key": key_id}, f"revoke-{key_id}"
        )
        return await ledger.access_keys.remove(key_id)

    async def all(self) -> Sequence[AccessKey]:
        """Return all keys, also those that have expired, oldest first."""
        return await (await self._checked.for_reading()).access_keys.all()

    async def find(self, text: str) -> AccessKey | None:
        """Return the key that a text is, None if it is none or has expired."""
        named = _KEY.fullmatch(text)
        ledger = await self._checked.for_reading()
        stored = (await ledger.access_keys.get(named[1]) if named else None) or _NOBODY
        same = hmac.compare_digest(await _digest(text, stored.salt), stored.digest)
        return stored.key if same and stored.key.is_valid(utc_now()) else None

    async def get(self, key_id: str) -> AccessKey | None:
        """Return a key by its id, None if it was revoked or has expired."""
        stored = await (await self._checked.for_reading()).access_keys.get(key_id)
        return stored.key if stored and stored.key.is_valid(utc_now()) else None

    def _record(
        self, name: str, scopes: Collection[AccessScope], expires_in_s: float | None
    ) -> AccessKey:
        if not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
            raise InvalidRequest("name", f"must be 1 to {_MAX_NAME} visible characters")
        if AccessScope.READ not in scopes:
            raise InvalidRequest("scopes", "must include read")
        if expires_in_s is not None and not 1 <= expires_in_s <= LONGEST_S:
            raise InvalidRequest("expires_in_s", "must be from a second to a hundred years")
        now = utc_now()
        return AccessKey(
            id=secrets.token_hex(6),
            name=name.strip(),
            scopes=tuple(scope for scope in AccessScope if scope in scopes),
            created_at=now,
            created_by=self._by,
            expires_at=None if expires_in_s is None else now + timedelta(seconds=expires_in_s),
        )


async def _digest(text: str, salt: str) -> str:
    """Return a slow hash, made in a thread: it would hold everybody else up."""
    encoded = text.encode("utf-8", "replace")
    found = await asyncio.to_thread(
        hashlib.scrypt, encoded, salt=bytes.fromhex(salt), dklen=32, **_SCRYPT
    )
    return found.hex()
