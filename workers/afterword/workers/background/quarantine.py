"""The quarantine's recorder: notes the messages that workers dropped, in the ledger."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from afterword.shared.errors import AfterwordError
from afterword.shared.events import Context, MessageDropped, QuarantineNoteLost
from afterword.shared.ledger.quarantine import Quarantine
from afterword.shared.ledger.records import UnrecognisedMessage
from afterword.shared.observer import emit, subscribe, unsubscribe

#: Notes that wait for the ledger at most: a flood of messages does not fill a worker's memory.
MOST_WAITING = 1000


class QuarantineRecorder:
    """Notes each dropped message; one that the ledger does not confirm stands in the log alone."""

    def __init__(self, quarantine: Quarantine) -> None:
        self._quarantine = quarantine
        self._waiting: deque[UnrecognisedMessage] = deque()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take a note of every message that is dropped while the context is open."""
        subscription = subscribe(self._take, MessageDropped)
        try:
            yield
        finally:
            unsubscribe(subscription)

    def _take(self, event: MessageDropped, _context: Context) -> None:
        """Keep a note until `record` is called; on the thread that dropped the message."""
        if len(self._waiting) >= MOST_WAITING:
            emit(QuarantineNoteLost, reason="too_many", sha256=event.sha256, error="")
            return
        self._waiting.append(
            UnrecognisedMessage(
                event.queue, event.reason, event.size_bytes, event.sha256, event.task
            )
        )

    async def record(self) -> None:
        """Write the notes that are waiting; one that fails is lost, and reported."""
        while self._waiting:
            await self._write(self._waiting.popleft())

    async def _write(self, message: UnrecognisedMessage) -> None:
        try:
            await self._quarantine.add(message)
        except AfterwordError as error:
            name = type(error).__name__
            emit(QuarantineNoteLost, reason="not_confirmed", sha256=message.sha256, error=name)
