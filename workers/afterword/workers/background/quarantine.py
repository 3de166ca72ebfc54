"""What workers found in their queues and could not read, told to the ledger."""

from __future__ import annotations

import asyncio
import logging

from afterword.shared.errors import AfterwordError
from afterword.shared.ledger.quarantine import Quarantine
from afterword.shared.ledger.records import UnrecognisedMessage
from afterword.workers.celery_runtime.consumer import message_dropped

logger = logging.getLogger(__name__)

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

        def hear(found: UnrecognisedMessage, **_: object) -> None:
            loop.call_soon_threadsafe(self._take, found)

        message_dropped.connect(hear, weak=False)
        try:
            while True:
                await self._note(await self._waiting.get())
        finally:
            message_dropped.disconnect(hear)

    def _take(self, found: UnrecognisedMessage) -> None:
        if self._waiting.full():
            logger.error("not noted, there are too many: %s", found)
        else:
            self._waiting.put_nowait(found)

    async def _note(self, found: UnrecognisedMessage) -> None:
        try:
            await self._quarantine.add(found)
        except AfterwordError as error:
            logger.warning("not noted: %s: %s", found, error)
