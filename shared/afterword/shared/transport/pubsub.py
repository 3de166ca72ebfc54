"""One connection on which a whole process hears of what changed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.exceptions import RedisError

from afterword.shared.error_location import error_location
from afterword.shared.errors import LedgerUnavailable
from afterword.shared.events import ListenerFailed
from afterword.shared.observer import emit
from afterword.shared.transport.connection import connect

#: A quiet connection is asked for a sign of life this often, and given up without one.
QUIET_S = 5.0
_PAUSE_S = 0.2

#: What a listener calls with each message; "" says that messages may have been missed.
OnMessage = Callable[[str], None]


class PubSub:
    """Subscribes to many channels over one connection and survives its loss.

    A message is only a wake-up: whoever hears it reads the ledger. After a reconnect everyone
    hears "" and reads again, so that nothing is missed. Bound to the loop that first uses it.
    """

    def __init__(self, url: str) -> None:
        """Take a redis-py address."""
        self._client = connect(url, timeout_s=QUIET_S)
        self._pubsub: Any = self._client.pubsub()  # redis-py does not annotate it
        self._hearers: dict[str, set[OnMessage]] = {}
        self._confirmed: dict[str, asyncio.Event] = {}
        self._orders: deque[tuple[str, str]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._asked = False

    @asynccontextmanager
    async def subscribed(self, channel: str, hear: OnMessage) -> AsyncIterator[None]:
        """Call `hear` with every message of a channel while the context is open.

        Entering returns once Redis has confirmed it: nothing published later is missed.
        """
        hearers = self._hearers.setdefault(channel, set())
        hearers.add(hear)
        try:
            await self._subscribed(channel)
            yield
        finally:
            hearers.discard(hear)
            if not hearers:
                del self._hearers[channel]
                self._unsubscribe(channel)

    async def aclose(self) -> None:
        """Stop reading and close the connection."""
        for task in (self._writer, self._reader):
            if task is not None:
                await _end(task)
        await self._pubsub.aclose()
        await self._client.aclose()

    async def _subscribed(self, channel: str) -> None:
        event = self._confirmed.get(channel)
        if event is None:
            event = self._confirmed[channel] = asyncio.Event()
            self._order("subscribe", channel)
        try:
            async with asyncio.timeout(QUIET_S):
                await event.wait()
        except TimeoutError:
            raise LedgerUnavailable("Redis did not confirm a subscription") from None

    def _unsubscribe(self, channel: str) -> None:
        """Leave a channel once it is confirmed: one that is on its way serves who comes next.

        So no confirmation can be taken for that of a later subscription.
        """
        if self._confirmed[channel].is_set():
            del self._confirmed[channel]
            self._order("unsubscribe", channel)

    def _order(self, verb: str, channel: str) -> None:
        self._orders.append((verb, channel))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Send what was ordered, many channels at a time; nobody else writes meanwhile."""
        while self._orders:
            async with self._connecting:
                await self._write_some()
            if self._reader is None:
                self._reader = asyncio.create_task(self._read())

    async def _write_some(self) -> None:
        verb, channels = self._orders[0][0] if self._orders else "", []
        while self._orders and self._orders[0][0] == verb:
            channels.append(self._orders.popleft()[1])
        if channels:
            with suppress(RedisError, OSError):  # the reader reconnects and speaks for all
                await getattr(self._pubsub, verb)(*channels)

    async def _read(self) -> None:
        while not _told_to_end():
            try:
                await self._read_one()
            except (RedisError, OSError):
                await self._reconnect()

    async def _read_one(self) -> None:
        if self._pubsub.connection is None:
            raise ConnectionError("not connected")
        message = await self._pubsub.get_message(timeout=QUIET_S)
        if message is None:
            await self._ask_for_a_sign()
            return
        self._asked = False
        channel = str(message["channel"])
        if message["type"] == "subscribe" and channel in self._confirmed:
            self._confirm(channel)
        elif message["type"] == "message":
            self._tell(channel, str(message["data"]))

    def _confirm(self, channel: str) -> None:
        self._confirmed[channel].set()
        if channel not in self._hearers:
            self._unsubscribe(channel)

    async def _ask_for_a_sign(self) -> None:
        if not self._hearers:
            return  # without a subscription redis-py reads no answer
        if self._asked:
            raise ConnectionError("no sign of life")
        self._asked = True
        await self._pubsub.ping()

    async def _reconnect(self) -> None:
        """Begin anew until it works, then let everyone read what they may have missed."""
        self._asked = False
        while not _told_to_end():
            try:
                async with self._connecting:
                    await self._begin_anew()
                break
            except (RedisError, OSError):
                await asyncio.sleep(_PAUSE_S)
        for channel in list(self._hearers):
            self._tell(channel, "")

    async def _begin_anew(self) -> None:
        await self._pubsub.aclose()
        self._pubsub = self._client.pubsub()
        await self._pubsub.connect()
        self._orders.clear()  # whatever was to be done, this does it
        for channel in self._confirmed.keys() - self._hearers.keys():
            del self._confirmed[channel]
        if self._hearers:
            await self._pubsub.subscribe(*self._hearers)

    def _tell(self, channel: str, message: str) -> None:
        for hear in list(self._hearers.get(channel, ())):
            try:
                hear(message)
            except Exception as error:  # noqa: BLE001 the others, and all channels, go on
                emit(
                    ListenerFailed,
                    error=type(error).__name__,
                    place=error_location(error, anywhere=True),
                )


def _told_to_end() -> bool:
    """Return whether this task was cancelled: `wait_for`, which redis-py uses, may swallow that.

    It does in Python 3.11, if what it waited for came at the same moment.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
