"""A ledger whose Redis is checked before its first use."""

from __future__ import annotations

import asyncio
from typing import Self

from afterword.shared.closeable import AsyncCloseable
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.logs import log_events
from afterword.shared.settings import Settings


class CheckedLedger(AsyncCloseable):
    """Checks once that the Redis of a ledger is fit to hold it.

    Bound to the event loop that first uses it.

    Attributes:
        ledger: the ledger, whether it was checked or not.

    """

    def __init__(self, ledger: Ledger, *, founds: bool = False) -> None:
        self.ledger = ledger
        self._founds = founds
        self._check: asyncio.Task[dict[str, str]] | None = None

    @classmethod
    def open(cls, settings: Settings, *, founds: bool = False) -> Self:
        """Open the ledger of some settings, with the time limit of a submit for each step.

        With `founds`, a new ledger gets the number of shards of these settings.
        """
        log_events()
        return cls(Ledger(settings, patience_s=settings.submit_timeout_s), founds=founds)

    @property
    def checked(self) -> bool:
        """True once the check has succeeded."""
        check = self._check
        return check is not None and check.done() and not check.exception()

    async def get(self) -> Ledger:
        """Return the ledger, once its Redis was found fit.

        Callers that arrive during the check share it; a check that failed is repeated by the next
        call. Raises `Misconfigured` or `LedgerUnavailable`.
        """
        if self._check is None or (self._check.done() and self._check.exception()):
            self._check = asyncio.create_task(self.ledger.check(founds=self._founds))
        if not self._check.done():
            await asyncio.shield(self._check)
        self._check.result()
        return self.ledger

    async def aclose(self) -> None:
        """Close the connections."""
        if self._check is not None:
            self._check.cancel()
        await self.ledger.aclose()
