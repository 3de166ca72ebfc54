"""What workers found in their queues and could not read, told to the ledger."""

from __future__ import annotations

import asyncio

from afterword.shared.errors import AfterwordError
from afterword.shared.events import Context, MessageDropped, QuarantineNoteLost
from afterword.shared.ledger.quarantine import Quarantine
from afterword.shared.ledger.records import UnrecognisedMessage
from afterword.shared.observer import emit, subscribe, unsubscribe

#: Finds that wait for the ledger at most: whoever floods a queue does not fill a worker.
MOST_WAITING = 1000


class Quarantiner:
    """Notes every find; one that the ledger does not confirm stands in the log alone."""

    def __init__(self, quarantine: Quarantine) -> None:
        """Take where to note."""
        self._quarantine = quarantine
        self._waiting: asyncio.Queue[UnrecognisedMessage] = asyncio.Queue(MOST_WAITING)

    async def note_for_ever(self) -> None:
        """Note what Celery's thread finds, one at a time."""
        loop = asyncio.get_running_loop()

        def hear(event: MessageDropped, _context: Context) -> None:
            found = UnrecognisedMessage(
                event.queue, event.reason, event.size_bytes, event.sha256, event.task
            )
            loop.call_soon_threadsafe(self._take, found)

        hearing = subscribe(hear, MessageDropped)
        try:
            while True:
                await self._note(await self._waiting.get())
        finally:
            unsubscribe(hearing)

    def _take(self, found: UnrecognisedMessage) -> None:
        if self._waiting.full():
            emit(QuarantineNoteLost, reason="too_many", sha256=found.sha256, error="")
        else:
            self._waiting.put_nowait(found)

    async def _note(self, found: UnrecognisedMessage) -> None:
        try:
            await self._quarantine.add(found)
        except AfterwordError as error:
            name = type(error).__name__
            emit(QuarantineNoteLost, reason="ledger_unavailable", sha256=found.sha256, error=name)
