"""The rollback detector: notices that Redis lost its latest writes, and makes that safe.

A Redis that lost all of them has a new ledger, with another name. That changes nothing that is
safe, and is told.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from itertools import chain
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from afterword.shared.events import LedgerReplaced, LedgerRolledBack, LedgerStateNotKept
from afterword.shared.ledger.maintenance import SKIPPED_NUMBERS, Maintenance
from afterword.shared.names import Keys
from afterword.shared.observer import emit
from afterword.shared.servers import place
from afterword.shared.settings import RedisSettings


class Seen(BaseModel):
    """What a machine has seen of one ledger: the newest number of each shard, and where it was."""

    place: str = Field("", max_length=64)
    witness: str = Field(default_factory=lambda: secrets.token_hex(8), min_length=1, max_length=64)
    numbers: dict[int, int] = Field(default_factory=dict)


class SeenFile:
    """Keeps what was seen of a ledger outside of its Redis, for the workers that start later.

    Workers of one machine may share a file: whatever stands in it was written to the ledger before.
    """

    def __init__(self, folder: Path, ledger: str, place: str) -> None:
        """`place` says where the ledger is; see `place_of`."""
        self._path = folder / f"ledger-{ledger}.json"
        self._place = place
        self._failed = False

    def load(self) -> Seen:
        """Return what was seen; a file that is missing or cannot be read says nothing."""
        seen = _read(self._path) or Seen()
        return seen.model_copy(update={"place": self._place})

    def replaces(self) -> int:
        """Return the newest number of the ledger that was in this one's place; 0 if there was none.

        A ledger that was seen itself replaces none, whatever was there in between.
        """
        if _read(self._path):
            return 0
        others = filter(None, map(_read, self._path.parent.glob("ledger-*.json")))
        numbers = (one.numbers.values() for one in others if one.place == self._place)
        return max(chain.from_iterable(numbers), default=0)

    def save(self, seen: Seen) -> None:
        """Replace the file as a whole; report once if that fails, and go on without."""
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft.write_text(json.dumps(seen.model_dump()))
            draft.replace(self._path)
        except OSError as error:
            if not self._failed:
                emit(LedgerStateNotKept, error=type(error).__name__)
            self._failed = True


def place_of(settings: RedisSettings) -> str:
    """Return a name for the server, the database and the namespace of a ledger."""
    return hashlib.sha256(place(settings).encode()).hexdigest()[:16]


def _read(path: Path) -> Seen | None:
    try:
        return Seen.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


class RollbackDetector:
    """Remembers the newest sequence number of each shard, which never falls by itself.

    It falls when Redis starts from an older file, or a replica that lagged takes over.
    """

    def __init__(self, maintenance: Maintenance, file: SeenFile) -> None:
        self._maintenance = maintenance
        self._file = file
        self._seen = file.load()

    async def check(self) -> None:
        """Compare each shard with what was seen before; skip the numbers of one that went back.

        Otherwise a fence would be given out twice, and the writer that held it first could write.
        Turns in an older ledger may be in mem0 by now: it is asked before they are added.
        """
        before = dict(self._seen.numbers)
        if not before and (known := self._file.replaces()):
            emit(LedgerReplaced, seen=known)
        for keys in self._maintenance.shards:
            self._seen.numbers[keys.shard] = await self._newest(keys, before.get(keys.shard, 0))
        if self._seen.numbers != before:
            self._file.save(self._seen)

    async def _newest(self, keys: Keys, seen: int) -> int:
        checked = await self._maintenance.witness(keys, self._seen.witness, seen, SKIPPED_NUMBERS)
        if checked.older:
            emit(LedgerRolledBack, seen=seen, found=checked.found)
        return checked.newest
