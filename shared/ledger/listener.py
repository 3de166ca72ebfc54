"""One connection on which a whole process hears of what changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.exceptions import RedisError

from shared.errors import LedgerUnavailable
from shared.ledger.door import connect

#: A quiet connection is asked for a sign of life this often, and given up without one.
QUIET_S = 5.0
_PAUSE_S = 0.2

#: What a listener calls with each message; "" says that messages may have been missed.
Hear = Callable[[str], None]


class Listener:
    """Subscribes to many channels over one connection and survives its loss.

    A message is only a wake-up: whoever hears it reads the ledger. After a reconnect everyone
    hears "" and reads again, so that nothing is missed. Bound to the loop that first uses it.
    """

    def __init__(self, url: str) -> None:
        """Take a redis-py address."""
        self._client = connect(url, timeout_s=QUIET_S)
        self._pubsub: Any = self._client.pubsub()  # redis-py does not annotate it
        self._hearers: dict[str, set[Hear]] = {}
        self._confirmed: dict[str, asyncio.Event] = {}
        self._reader: asyncio.Task[None] | None = None
        self._asked = False

    @asynccontextmanager
    async def hearing(self, channel: str, hear: Hear) -> AsyncIterator[None]:
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
                await self._unsubscribe(channel)

    async def aclose(self) -> None:
        """Stop reading and close the connection."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._pubsub.aclose()
        await self._client.aclose()

    async def _subscribed(self, channel: str) -> None:
        event = self._confirmed.get(channel)
        if event is None:
            event = self._confirmed[channel] = asyncio.Event()
            await self._command(self._pubsub.subscribe, channel)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(QUIET_S):
                await event.wait()
        except TimeoutError:
            raise LedgerUnavailable("Redis did not confirm a subscription") from None

    async def _unsubscribe(self, channel: str) -> None:
        self._hearers.pop(channel, None)
        self._confirmed.pop(channel, None)
        await self._command(self._pubsub.unsubscribe, channel)

    async def _command(self, send: Callable[[str], Awaitable[None]], channel: str) -> None:
        """Send now; while the connection is down the reconnect speaks for everyone."""
        with suppress(RedisError, OSError):
            await send(channel)

    async def _read(self) -> None:
        while True:
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
            self._confirmed[channel].set()
        elif message["type"] == "message":
            self._tell(channel, str(message["data"]))

    async def _ask_for_a_sign(self) -> None:
        if self._asked:
            raise ConnectionError("no sign of life")
        self._asked = True
        await self._pubsub.ping()

    async def _reconnect(self) -> None:
        """Begin anew until it works, then let everyone read what they may have missed."""
        self._asked = False
        while True:
            try:
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
        if self._hearers:
            await self._pubsub.subscribe(*self._hearers)

    def _tell(self, channel: str, message: str) -> None:
        for hear in list(self._hearers.get(channel, ())):
            hear(message)
