"""The connection to one Redis: made by redis-py, made again when it breaks, read by us."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import hiredis
from redis import Redis as BlockingRedis
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import DefaultParser
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry

Command: TypeAlias = tuple[str | float, ...]

#: Gets a reply for each command, in their order; an error of Redis among them is a value.
Answered: TypeAlias = Callable[[list[Any]], None]

_NOT_YET = object()


@dataclass(slots=True)
class CommandBatch:
    """Commands that go out together, and who is told of all their replies."""

    commands: Sequence[Command]
    answered: Answered
    replies: list[Any] = field(default_factory=list)

    def refuse(self, error: Exception) -> None:
        """Say that there is no reply to any of them."""
        self.answered([error] * len(self.commands))

    def packed(self) -> bytes:
        """Return what Redis is sent."""
        return b"".join([hiredis.pack_command(one) for one in self.commands])  # type: ignore[arg-type]


class RedisConnection(asyncio.Protocol):
    """Sends batches, and takes their replies from the socket without a task in between.

    What breaks it is the reply to all that is under way, and so is a silence of `timeout_s` while
    replies are due.
    """

    def __init__(self, client: Redis, connection: Any, timeout_s: float) -> None:
        """Take over what a connection of this client hears; it must be connected and idle."""
        callbacks: Any = client.response_callbacks
        self._callbacks: dict[str, Callable[[Any], Any]] = dict(callbacks)
        self._connection = connection  # redis-py closes one that nobody holds
        # redis-py gives it to nobody, and to read through it takes two tasks a reply.
        self._transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001
        self._transport.set_protocol(self)
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._sent: deque[CommandBatch] = deque()
        self._reader = hiredis.Reader(
            protocolError=exceptions.InvalidResponse,
            replyError=DefaultParser.parse_error,
            encoding="utf-8",
            notEnoughData=_NOT_YET,
        )
        self.open = True

    def send(self, batch: CommandBatch) -> None:
        """Send a batch behind those that are under way; it need not be read yet to send more."""
        try:
            packed = batch.packed()
        except Exception as error:  # noqa: BLE001 who waits must be told, whatever it is
            batch.refuse(error)
            return
        if not self._sent:
            self._heard = self._loop.time()
        self._sent.append(batch)
        self._transport.write(packed)
        if self._watch is None:
            self._watch = self._loop.call_at(self._heard + self._timeout_s, self._look)

    def close(self) -> None:
        """Close it; what is under way is not answered."""
        self.open = False
        self._sent.clear()
        if self._watch is not None:
            self._watch.cancel()
        self._transport.abort()
        self._connection._close()  # noqa: SLF001 its other ways wait for what it does not hear

    def data_received(self, data: bytes) -> None:
        """Take replies; a batch is answered once all of its own are there."""
        self._heard = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOT_YET:
                self._take(reply)
        except Exception as error:  # noqa: BLE001 ditto
            self._break(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell who waits that there will be no reply."""
        self._break(exceptions.ConnectionError(type(error).__name__ if error else "closed"))

    def _take(self, reply: Any) -> None:
        batch = self._sent[0]
        name = batch.commands[len(batch.replies)][0]
        callback = self._callbacks.get(str(name))
        if callback is not None and not isinstance(reply, Exception):
            reply = callback(reply)
        batch.replies.append(reply)
        if len(batch.replies) == len(batch.commands):
            self._sent.popleft()
            batch.answered(batch.replies)

    def _look(self) -> None:
        """Give it up if it is silent while replies are due."""
        self._watch = None
        end = self._heard + self._timeout_s
        if self._sent and self._loop.time() >= end:
            self._break(TimeoutError())
        elif self._sent:
            self._watch = self._loop.call_at(end, self._look)

    def _break(self, error: Exception) -> None:
        under_way = taken(self._sent)
        self.close()
        refuse(under_way, error)


def taken(batches: deque[CommandBatch]) -> Sequence[CommandBatch]:
    """Empty it, so that what is asked from now on is not among what was."""
    all_of_them = list(batches)
    batches.clear()
    return all_of_them


def refuse(batches: Iterable[CommandBatch], error: Exception) -> None:
    """Tell all of them the same."""
    for batch in batches:
        batch.refuse(error)


class Reconnector:
    """Exchanges commands for replies; the next ones may go out while replies are awaited.

    A pipeline of redis-py does the same for several times the CPU. Bound to the event loop that
    first uses it.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Take a redis-py address, and for how long a connection may be silent."""
        self._timeout_s = timeout_s
        self._client = connect(url)
        self._redis: RedisConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._unsent: deque[CommandBatch] = deque()

    def exchange(self, commands: Sequence[Command], answered: Answered) -> None:
        """Send commands, and have `answered` called when all replies are there; never wait.

        What breaks the connection is the reply to all that is under way, and nothing is sent
        again; the next exchange makes a new one.
        """
        batch = CommandBatch(commands, answered)
        if self._redis is not None and self._redis.open:
            self._redis.send(batch)
            return
        self._unsent.append(batch)
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())

    async def aclose(self) -> None:
        """Close the connection; what is under way is not answered."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._redis is not None:
            self._redis.close()
        await self._client.aclose()

    async def _connect(self) -> None:
        """Make a connection, and send what waits for it."""
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = self._redis = await self._opened()
        except Exception as error:  # noqa: BLE001 each caller gets it, none waits for ever
            self._connecting = None  # whoever is refused may ask again at once
            refuse(taken(self._unsent), error)
        else:
            self._connecting = None
            for batch in taken(self._unsent):
                connection.send(batch)

    async def _opened(self) -> RedisConnection:
        pool: Any = self._client.connection_pool  # redis-py does not annotate it
        connection = pool.make_connection()
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return RedisConnection(self._client, connection, self._timeout_s)


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
