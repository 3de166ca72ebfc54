"""The way to one Redis: connected when it is needed, and again when it broke."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry

from afterword.shared.transport.line import Answered, Batch, Command, Line, refuse, taken


class Wire:
    """Exchanges commands for replies; the next ones may go out while replies are awaited.

    A pipeline of redis-py does the same for several times the CPU. Bound to the event loop that
    first uses it.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Take a redis-py address, and for how long a connection may be silent."""
        self._timeout_s = timeout_s
        self._client = connect(url)
        self._line: Line | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._unsent: deque[Batch] = deque()

    def exchange(self, commands: Sequence[Command], answered: Answered) -> None:
        """Send commands, and have `answered` called when all replies are there; never wait.

        What breaks the connection is the reply to all that is under way, and nothing is sent
        again; the next exchange makes a new one.
        """
        batch = Batch(commands, answered)
        if self._line is not None and self._line.open:
            self._line.send(batch)
            return
        self._unsent.append(batch)
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())

    @property
    def broken(self) -> bool:
        """Return whether there is no connection right now."""
        return self._line is None or not self._line.open

    async def aclose(self) -> None:
        """Close the connection; what is under way is not answered."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._line is not None:
            self._line.close()
        await self._client.aclose()

    async def _connect(self) -> None:
        """Make a connection, and send what waits for it."""
        try:
            async with asyncio.timeout(self._timeout_s):
                line = self._line = await self._opened()
        except Exception as error:  # noqa: BLE001 each caller gets it, none waits for ever
            self._connecting = None  # whoever is refused may ask again at once
            refuse(taken(self._unsent), error)
        else:
            self._connecting = None
            for batch in taken(self._unsent):
                line.send(batch)

    async def _opened(self) -> Line:
        pool: Any = self._client.connection_pool  # redis-py does not annotate it
        connection = pool.make_connection()
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return Line(self._client, connection, self._timeout_s)


def connect(url: str, *, timeout_s: float | None = None) -> Redis:
    """Return a client that never retries by itself; without a time limit its user has one."""
    return Redis.from_url(url, retry=Retry(NoBackoff(), 0), **_options(url, timeout_s))


def connect_blocking(url: str, *, timeout_s: float) -> BlockingRedis:
    """Return the same for code without an event loop."""
    return BlockingRedis.from_url(
        url, retry=BlockingRetry(NoBackoff(), 0), **_options(url, timeout_s)
    )


def _options(url: str, timeout_s: float | None) -> dict[str, Any]:
    keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    return {
        "decode_responses": True,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "protocol": 2,
        **keepalive,
    }
