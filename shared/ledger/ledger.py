"""The ledger as its users see it: one object, one connection, opened and closed."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from shared.errors import Misconfigured
from shared.ledger.door import Door
from shared.ledger.jobs import Jobs
from shared.ledger.lanes import Lanes
from shared.ledger.preflight import check
from shared.ledger.reading import Reading
from shared.ledger.shard import SendHints, Shards
from shared.ledger.upkeep import Upkeep
from shared.settings import Settings


class Ledger:
    """The record of all jobs and turns.

    Bound to the event loop that first uses it. Every step is confirmed by Redis or raises
    `LedgerUnavailable`; asking again is always safe.
    """

    def __init__(
        self, settings: Settings, *, patience_s: float, send_hints: SendHints | None = None
    ) -> None:
        """Take how long a step may take in all; `send_hints` if the broker is elsewhere."""
        if settings.redis_url is None:
            raise Misconfigured("AFTERWORD_REDIS_URL", "must be set: there is no ledger without it")
        self.settings = settings
        self._door = Door(settings.redis_url, patience_s=patience_s)
        shards = Shards(settings, self._door, send_hints)
        self.jobs = Jobs(shards)
        self.lanes = Lanes(shards)
        self.upkeep = Upkeep(shards)
        self.reading = Reading(shards)

    async def check(self) -> dict[str, str]:
        """Refuse a Redis that is unfit, see `shared.ledger.preflight.check`."""
        return await check(self._door, self.settings)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._door.aclose()

    async def __aenter__(self) -> Self:
        """Return the ledger."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self.aclose()
