"""The watchdog: stops a worker that no longer takes hints, so that it is started anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kombu.exceptions import OperationalError

from afterword.shared.broker import make_app
from afterword.shared.events import BrokerUnavailable, WorkerStalled
from afterword.shared.observer import emit
from afterword.shared.settings import Settings
from afterword.workers.celery_runtime.heartbeat import ConsumerHeartbeat

#: This many checks in a row without a heartbeat are a stall. They are counted, not timed: a process
#: that was suspended for a minute missed one check, not all of them.
CHECKS = 10

#: More checks for Celery to reconnect to a broker that was away: at worst it tries every 30 s.
CHECKS_TO_RECONNECT = 20


class Watchdog:
    """Checks the heartbeat of the consumer, and stops the worker if only a restart can help.

    `check` is to be called `CHECKS` times in `stall_s` seconds. While the broker is away, a new
    process would fare no better: this one stops counting as consuming, goes on with what it has,
    and recovers when the broker is back. Each check without a heartbeat asks the broker: an outage
    that ends just before the last of them is known all the same.
    """

    def __init__(
        self,
        heartbeat: ConsumerHeartbeat,
        stall_s: float,
        broker_error: Callable[[], Awaitable[str]],
        stop: Callable[[], object],
    ) -> None:
        self._heartbeat = heartbeat
        self._broker_error = broker_error
        self._away = False
        self._stop = stop
        self._missed = 0
        self._allowed = CHECKS
        self._stopped = False
        self.interval_s = stall_s / CHECKS

    @property
    def consuming(self) -> bool:
        """Whether this worker takes hints, as far as can be known."""
        return self._missed < CHECKS

    async def check(self) -> None:
        """Look for a heartbeat since the last check; stop the worker, once, if it is stalled."""
        if self._stopped:
            return
        if not self._heartbeat.missed():
            self._missed, self._allowed, self._away = 0, CHECKS, False
            return
        self._missed += 1
        await self._ask_broker()
        if self._missed >= self._allowed and self._heartbeat.missed():
            emit(WorkerStalled, waited_s=self._missed * self.interval_s)
            self._stopped = True
            self._stop()

    async def _ask_broker(self) -> None:
        """Give Celery time to reconnect if the broker is away, and report it once."""
        error = await self._broker_error()
        if error:
            self._allowed = self._missed + CHECKS_TO_RECONNECT
        away = bool(error) and not self.consuming
        if away and not self._away:
            emit(BrokerUnavailable, error=error)
        self._away = away


async def broker_error(settings: Settings) -> str:
    """Return "" if the broker answers over a new connection, or the name of the error."""
    return await asyncio.to_thread(_error_of_connecting, settings)


def _error_of_connecting(settings: Settings) -> str:
    with make_app(settings).connection_for_read() as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        except OperationalError as error:
            return type(error).__name__
    return ""
