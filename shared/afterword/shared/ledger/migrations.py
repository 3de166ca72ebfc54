"""Migrations of memories to another backend: how far each has come, and who works at it."""

from __future__ import annotations

import secrets

from afterword.shared.errors import IllegalStep, LeaseLost
from afterword.shared.ledger import memory_steps as steps
from afterword.shared.ledger.shard import Shards, milliseconds

#: A process that was killed leaves its migration to others after this time.
LEASE_S = 60.0


class Migrations:
    """Begins migrations and records their progress; all are on the first shard."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def begin(self, name: str) -> MigrationLease:
        """Go on with a migration, or begin it; raises `IllegalStep` if another process does."""
        token = secrets.token_hex(8)
        word, *progress = await self._shards.run_script(
            self._shards.all[0],
            steps.BeginMigration(name=name, token=token, lease_ms=milliseconds(LEASE_S)),
        )
        if word == "busy":
            raise IllegalStep("another process works at this migration, or was killed a moment ago")
        return MigrationLease(self._shards, name, token, progress[0])


class MigrationLease:
    """The right to work at a migration; `progress` is how far the last one came, "" at first."""

    def __init__(self, shards: Shards, name: str, token: str, progress: str) -> None:
        self._shards = shards
        self._name = name
        self._token = token
        self.progress = progress

    async def keep(self, progress: str) -> None:
        """Record the progress and extend the lease; raises `LeaseLost` if another has it now."""
        await self._advance(progress, milliseconds(LEASE_S))

    async def leave(self) -> None:
        """Let others go on at once; raises `LeaseLost` as well."""
        await self._advance(self.progress, 0)

    async def _advance(self, progress: str, lease_ms: int) -> None:
        arguments = steps.AdvanceMigration(
            name=self._name, token=self._token, lease_ms=lease_ms, progress=progress
        )
        (word,) = await self._shards.run_script(self._shards.all[0], arguments)
        if word == "lost":
            raise LeaseLost("another process works at this migration now")
        self.progress = progress
