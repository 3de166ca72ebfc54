"""A ledger whose Redis is checked before anything is written to it."""

from __future__ import annotations

import asyncio
from typing import Self

from afterword.shared.closeable import AsyncCloseable
from afterword.shared.events import LedgerUnfit
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.logs import log_events
from afterword.shared.observer import emit
from afterword.shared.settings import Settings
from afterword.shared.transport.preflight import Preflight

#: The share of `AFTERWORD_SUBMIT_TIMEOUT_S` in which one step of the ledger must be confirmed.
_SHARE = 0.95


def _noticed(check: asyncio.Task[Preflight]) -> None:
    """Read how a check failed: otherwise asyncio would say that nobody ever did."""
    if not check.cancelled():
        check.exception()


class CheckedLedger(AsyncCloseable):
    """Checks once that the Redis of a ledger is fit to hold it, for whoever writes to it.

    Bound to the event loop that first uses it.

    Attributes:
        ledger: the ledger, whether it was checked or not.

    """

    def __init__(self, ledger: Ledger, *, founds: bool = False) -> None:
        self.ledger = ledger
        self._founds = founds
        self._warned = False
        self._check: asyncio.Task[Preflight] | None = None

    @classmethod
    def open(cls, settings: Settings, *, founds: bool = False) -> Self:
        """Open the ledger of some settings, with nearly the time limit of a submit for each step.

        So the ledger's own error, which names the cause, comes before that time is over. With
        `founds`, a new ledger gets the number of shards of these settings.
        """
        log_events()
        ledger = Ledger(settings, patience_s=settings.submit_timeout_s * _SHARE)
        return cls(ledger, founds=founds)

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
            self._check.add_done_callback(_noticed)  # callers may have given up before its end
        if not self._check.done():
            await asyncio.shield(self._check)
        self._check.result()
        return self.ledger

    async def for_reading(self) -> Ledger:
        """Return the ledger, however unfit its Redis is: what is there can be read all the same.

        The first call warns (`LedgerUnfit`) of whatever `get` would refuse.
        """
        if self._check is None and not self._warned:
            self._warned = True
            for problem in (await self.ledger.examine()).problems:
                emit(LedgerUnfit, problem=str(problem))
        return self.ledger

    async def aclose(self) -> None:
        """Close the connections."""
        if self._check is not None:
            self._check.cancel()
        await self.ledger.aclose()
