"""One connection on which a process receives the messages of many channels."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.exceptions import RedisError

from afterword.shared.error_location import error_location
from afterword.shared.errors import LedgerUnavailable
from afterword.shared.events import ListenerFailed
from afterword.shared.observer import emit
from afterword.shared.transport.causes import spoken, translated
from afterword.shared.transport.connection import connect, connecting, uses_tls

#: A quiet connection is pinged this often, and closed if it does not answer.
QUIET_S = 5.0
_PAUSE_S = 0.2

#: Called with each message of a channel; "" says that messages may have been missed.
OnMessage = Callable[[str], None]


class PubSub:
    """Subscribes to many channels over one connection and survives its loss.

    A message is only a wake-up: its receiver reads the ledger. After a reconnect every receiver
    gets "" and reads again, so that nothing is missed. Bound to the loop that first uses it.
    """

    def __init__(self, url: str) -> None:
        # Whoever may write to this Redis may publish anything: it wakes a receiver, and no more.
        self._client = connect(url, timeout_s=QUIET_S, undecodable="replace")
        self._url = url
        self._tls = uses_tls(url)
        self._pubsub: Any = self._client.pubsub()  # redis-py does not annotate it
        self._receivers: dict[str, set[OnMessage]] = {}
        self._confirmed: dict[str, asyncio.Event] = {}
        self._queued: deque[tuple[str, str]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._pinged = False
        self._failed: Exception = TimeoutError()  # why Redis confirmed nothing, as far as is known

    @asynccontextmanager
    async def subscribed(self, channel: str, on_message: OnMessage) -> AsyncIterator[None]:
        """Call `on_message` with every message of a channel while the context is open.

        Entering waits until Redis has confirmed the subscription: nothing published later is
        missed. If it does not within `QUIET_S`, raises the error that names the cause:
        `LedgerUnavailable` or `Misconfigured`.
        """
        receivers = self._receivers.setdefault(channel, set())
        receivers.add(on_message)
        try:
            await self._wait_for_subscription(channel)
            yield
        finally:
            receivers.discard(on_message)
            if not receivers:
                del self._receivers[channel]
                self._unsubscribe(channel)

    async def aclose(self) -> None:
        """Stop reading and close the connection."""
        for task in (self._writer, self._reader):
            if task is not None:
                await _end(task)
        await self._pubsub.aclose()
        await self._client.aclose()

    async def _wait_for_subscription(self, channel: str) -> None:
        event = self._confirmed.get(channel)
        if event is None:
            event = self._confirmed[channel] = asyncio.Event()
            self._queue("subscribe", channel)
        try:
            async with asyncio.timeout(QUIET_S):
                await event.wait()
        except TimeoutError:
            raise self._not_confirmed() from None

    def _not_confirmed(self) -> Exception:
        error = translated(self._failed)
        if not isinstance(error, LedgerUnavailable):
            return error
        reason = spoken(f"{error} (tried for {QUIET_S:g} s)", self._url, error.cause)
        return LedgerUnavailable(reason, cause=error.cause, may_be_accepted=False)

    def _unsubscribe(self, channel: str) -> None:
        """Unsubscribe if the subscription was confirmed; one that was not serves the next receiver.

        So no confirmation can be taken for that of a later subscription.
        """
        if self._confirmed[channel].is_set():
            del self._confirmed[channel]
            self._queue("unsubscribe", channel)

    def _queue(self, verb: str, channel: str) -> None:
        self._queued.append((verb, channel))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Send what is queued, many channels at a time; nothing else is written meanwhile."""
        while self._queued:
            async with self._connecting:
                await self._write_some()
            if self._reader is None:
                self._reader = asyncio.create_task(self._read())

    async def _write_some(self) -> None:
        verb, channels = self._queued[0][0] if self._queued else "", []
        while self._queued and self._queued[0][0] == verb:
            channels.append(self._queued.popleft()[1])
        if channels:
            try:
                await self._connect()
                await getattr(self._pubsub, verb)(*channels)
            except (RedisError, OSError) as error:  # the reader reconnects and subscribes to all
                self._failed = error

    async def _connect(self) -> None:
        with connecting(tls=self._tls):
            await self._pubsub.connect()

    async def _read(self) -> None:
        step = self._read_one
        while not _is_cancelled():
            try:
                await step()
                step = self._read_one
            except (RedisError, OSError):
                step = self._reconnect
            except Exception as error:  # noqa: BLE001 without a reader nobody hears anything again
                _emit_failure(error)
                await asyncio.sleep(_PAUSE_S)
                step = self._reconnect

    async def _read_one(self) -> None:
        if self._pubsub.connection is None:
            raise ConnectionError("not connected")
        message = await self._pubsub.get_message(timeout=QUIET_S)
        if message is None:
            await self._ping()
            return
        self._pinged, self._failed = False, TimeoutError()
        channel = str(message["channel"])
        if message["type"] == "subscribe" and channel in self._confirmed:
            self._confirm(channel)
        elif message["type"] == "message":
            self._deliver(channel, str(message["data"]))

    def _confirm(self, channel: str) -> None:
        self._confirmed[channel].set()
        if channel not in self._receivers:
            self._unsubscribe(channel)

    async def _ping(self) -> None:
        if not self._receivers:
            return  # without a subscription redis-py reads no reply
        if self._pinged:
            raise ConnectionError("no answer to a ping")
        self._pinged = True
        await self._pubsub.ping()

    async def _reconnect(self) -> None:
        """Reconnect until it works, then send "" to every receiver."""
        self._pinged = False
        while not _is_cancelled():
            try:
                async with self._connecting:
                    await self._resubscribe()
                break
            except (RedisError, OSError) as error:
                self._failed = error
                await asyncio.sleep(_PAUSE_S)
        for channel in list(self._receivers):
            self._deliver(channel, "")

    async def _resubscribe(self) -> None:
        await self._pubsub.aclose()
        self._pubsub = self._client.pubsub()
        await self._connect()
        self._queued.clear()  # this does whatever was queued
        for channel in self._confirmed.keys() - self._receivers.keys():
            del self._confirmed[channel]
        if self._receivers:
            await self._pubsub.subscribe(*self._receivers)

    def _deliver(self, channel: str, message: str) -> None:
        for receive in list(self._receivers.get(channel, ())):
            try:
                receive(message)
            except Exception as error:  # noqa: BLE001 other receivers and channels go on
                _emit_failure(error)


def _emit_failure(error: Exception) -> None:
    emit(
        ListenerFailed,
        error=type(error).__name__,
        place=error_location(error, anywhere=True),
    )


def _is_cancelled() -> bool:
    """Return whether this task was cancelled.

    `wait_for`, which redis-py uses, swallows a cancellation in Python 3.11 if what it waited for
    came at the same moment.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
