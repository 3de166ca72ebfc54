"""The watchdog: a worker that has stopped taking hints is stopped, so that it starts anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kombu.exceptions import OperationalError

from afterword.shared.broker import make_app
from afterword.shared.events import BrokerUnavailable, WorkerStalled
from afterword.shared.observer import emit
from afterword.shared.settings import Settings
from afterword.workers.celery_runtime.heartbeat import ConsumerHeartbeat

#: So many looks in a row without a sign are a stall. Counted, not timed: a process that was
#: stopped for a minute missed one look, not all of them.
LOOKS = 10

#: More looks for Celery to come back to a broker that was away: it tries every 30 s at last.
LOOKS_TO_RETURN = 20


class Watchdog:
    """Looks for the pulse of this worker, and ends what has none while the broker answers."""

    def __init__(
        self,
        heartbeat: ConsumerHeartbeat,
        stall_s: float,
        broker_answers: Callable[[], Awaitable[bool]],
        stop: Callable[[], object],
    ) -> None:
        """Take how long a worker may be without a sign, and how to stop it."""
        self._heartbeat = heartbeat
        self._stall_s = stall_s
        self._broker_answers = broker_answers
        self._stop = stop
        self._missed = 0
        self._allowed = LOOKS

    @property
    def consuming(self) -> bool:
        """Return whether this worker takes hints, as far as can be known."""
        return self._missed < LOOKS

    async def watch(self) -> None:
        """Look until the worker has to be stopped; run this as a task.

        While the broker is away no new process would fare better: this one is not seen as alive,
        goes on with what it has, and is well again when the broker is back.
        """
        while True:
            await asyncio.sleep(self._stall_s / LOOKS)
            if not self._heartbeat.missed():
                self._missed, self._allowed = 0, LOOKS
                continue
            self._missed += 1
            if not self.consuming and await self._is_stalled():
                waited_s = self._missed / LOOKS * self._stall_s
                emit(WorkerStalled, waited_s=waited_s)
                self._stop()
                return

    async def _is_stalled(self) -> bool:
        """Return whether there is still no sign, and the broker is no reason for that."""
        if not await self._broker_answers():
            self._allowed = self._missed + LOOKS_TO_RETURN
        return self._missed >= self._allowed and self._heartbeat.missed()


async def broker_answers(settings: Settings) -> bool:
    """Return whether the broker answers over a new connection."""
    return await asyncio.to_thread(_answers, settings)


def _answers(settings: Settings) -> bool:
    with make_app(settings).connection_for_read() as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        except OperationalError as error:
            emit(BrokerUnavailable, error=type(error).__name__)
            return False
    return True
