"""The connection to one Redis: opened by redis-py, read by us, reopened when it breaks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import hiredis
from redis import Redis as BlockingRedis
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import DefaultParser
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry

from afterword.shared.servers import Address, Locate, is_in_cluster, locating, locator, server_url

Command: TypeAlias = tuple[str | float, ...]

#: Called with a reply for each command, in their order; an error of Redis is a reply, too.
OnReplies: TypeAlias = Callable[[list[Any]], None]

#: Called at the end of an attempt to connect: with None, or with the error.
OnConnected: TypeAlias = Callable[[Exception | None], None]

_NOT_YET = object()

#: The share of a connection's time limit in which it must be open: so a caller that has no more
#: patience than that learns that it never was.
_CONNECT_SHARE = 0.8


@dataclass(slots=True)
class CommandBatch:
    """Commands that are sent together, and the callback for all their replies."""

    commands: Sequence[Command]
    on_replies: OnReplies
    replies: list[Any] = field(default_factory=list)

    def fail(self, error: Exception) -> None:
        """Give every command this error as its reply."""
        self.on_replies([error] * len(self.commands))

    def packed(self) -> bytes:
        """Return the bytes to send."""
        return b"".join([hiredis.pack_command(one) for one in self.commands])  # type: ignore[arg-type]


#: What a server says that does not take what it was sent, though another one does. It has done
#: nothing.
_ELSEWHERE = (exceptions.ReadOnlyError, exceptions.MovedError)


_CLOSED = (exceptions.AskError, exceptions.TryAgainError, exceptions.ClusterDownError)


class SlotMoved(exceptions.ConnectionError):
    """The shard's slot is on another node of the cluster: this one did nothing."""


class SlotClosed(exceptions.ConnectionError):
    """The cluster runs nothing on the shard's slot now: it is being moved, or has no primary.

    `importing` is the node that has the keys which this one has no more, if a reply named it.
    """

    importing: Address | None = None


class NotConnected(exceptions.ConnectionError):
    """There is no connection; its cause says why, and `tls` whether it was to be encrypted."""

    def __init__(self, *, tls: bool) -> None:
        super().__init__("not connected")
        self.tls = tls


@contextmanager
def connecting(*, tls: bool) -> Iterator[None]:
    """Raise `NotConnected` for what redis-py raises while it connects, unless Redis answered."""
    try:
        yield
    except (exceptions.AuthenticationError, exceptions.BusyLoadingError):
        raise
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        raise NotConnected(tls=tls) from error


class RedisConnection(asyncio.Protocol):
    """Sends batches and reads their replies from the socket, without a task in between.

    If it breaks, or is silent for `timeout_s` while replies are due, that error is the reply to
    every command in flight. Takes over the socket of a redis-py connection that is connected and
    idle. With `moves`, it takes no more batches once a reply said that another server takes writes.
    """

    def __init__(self, client: Redis, connection: Any, timeout_s: float, *, moves: bool) -> None:
        callbacks: Any = client.response_callbacks
        self._callbacks: dict[str, Callable[[Any], Any]] = dict(callbacks)
        self._connection = connection  # redis-py closes one that nothing refers to
        # There is no public way to it, and reading through redis-py takes two tasks a reply.
        self._transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001
        self._transport.set_protocol(self)
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._last_data = 0.0
        self._silence_timer: asyncio.TimerHandle | None = None
        self._sent: deque[CommandBatch] = deque()
        self._reader = hiredis.Reader(
            protocolError=exceptions.InvalidResponse,
            replyError=DefaultParser.parse_error,
            encoding="utf-8",
            notEnoughData=_NOT_YET,
        )
        self._moves = moves
        self.open = True
        #: False once it is closed, or a reply said that another server takes writes.
        self.takes_batches = True

    def send(self, batch: CommandBatch) -> None:
        """Send a batch behind those in flight, without waiting for their replies."""
        try:
            packed = batch.packed()
        except Exception as error:  # noqa: BLE001 callers must get it, whatever it is
            batch.fail(error)
            return
        if not self._sent:
            self._last_data = self._loop.time()
        self._sent.append(batch)
        self._transport.write(packed)
        if self._silence_timer is None:
            self._silence_timer = self._loop.call_at(
                self._last_data + self._timeout_s, self._check_silence
            )

    def close(self) -> None:
        """Close it; commands in flight get no reply."""
        self.open = self.takes_batches = False
        self._sent.clear()
        if self._silence_timer is not None:
            self._silence_timer.cancel()
        self._transport.abort()
        self._connection._close()  # noqa: SLF001 its public ways wait for data that it no longer gets

    def data_received(self, data: bytes) -> None:
        """Read replies; the callback of a batch is called once all of its own are there."""
        self._last_data = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOT_YET:
                self._take(reply)
        except Exception as error:  # noqa: BLE001 callers must get it, whatever it is
            self._break(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail all commands in flight."""
        self._break(exceptions.ConnectionError(type(error).__name__ if error else "closed"))

    def _take(self, reply: Any) -> None:
        batch = self._sent[0]
        name = batch.commands[len(batch.replies)][0]
        callback = self._callbacks.get(str(name))
        if callback is not None and not isinstance(reply, Exception):
            reply = callback(reply)
        elif self._moves and isinstance(reply, _ELSEWHERE):
            self.takes_batches = False
        batch.replies.append(reply)
        if len(batch.replies) == len(batch.commands):
            self._sent.popleft()
            batch.on_replies(batch.replies)
        if not (self.takes_batches or self._sent):
            self.close()  # what was in flight has its replies

    def _check_silence(self) -> None:
        """Break the connection if it is silent while replies are due."""
        self._silence_timer = None
        end = self._last_data + self._timeout_s
        if self._sent and self._loop.time() >= end:
            self._break(TimeoutError())
        elif self._sent:
            self._silence_timer = self._loop.call_at(end, self._check_silence)

    def _break(self, error: Exception) -> None:
        in_flight = emptied(self._sent)
        self.close()
        fail_all(in_flight, error)


def emptied(batches: deque[CommandBatch]) -> Sequence[CommandBatch]:
    """Empty a queue of batches and return them: what is added meanwhile is not among them."""
    all_of_them = list(batches)
    batches.clear()
    return all_of_them


def fail_all(batches: Iterable[CommandBatch], error: Exception) -> None:
    """Fail every command of these batches."""
    for batch in batches:
        batch.fail(error)


class Reconnector:
    """Sends commands over one connection, and opens a new one when it has broken.

    A pipeline of redis-py does the same with several times the CPU. Bound to the event loop that
    first uses it.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._connect_s = timeout_s * _CONNECT_SHARE
        self._tls = uses_tls(url)
        self._moves = locator(url) is not None
        self._in_cluster = is_in_cluster(url)
        self._client = connect(url)
        self._redis: RedisConnection | None = None
        self._connecting: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """True while commands can be sent."""
        return self._redis is not None and self._redis.takes_batches

    def connect(self, on_end: OnConnected) -> None:
        """Open a connection without waiting, unless one is being opened already.

        At its end `on_end` is called: with None, or with why there is no connection.
        """
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(on_end))

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        """Send commands without waiting; call `on_replies` once all their replies are there.

        Only while it is `connected`. If the connection breaks, every command in flight gets that
        error; none is sent again.
        """
        assert self._redis is not None, "there is no connection"
        told = partial(_told_in_cluster, on_replies) if self._in_cluster else on_replies
        self._redis.send(CommandBatch(commands, told))

    async def aclose(self) -> None:
        """Close the connection; commands in flight get no reply."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._redis is not None:
            self._redis.close()
        await self._client.aclose()

    async def _connect(self, on_end: OnConnected) -> None:
        failed: Exception | None = None
        try:
            self._redis = await self._opened()
        except Exception as error:  # noqa: BLE001 every caller gets it, none waits for ever
            failed = error
        self._connecting = None  # a caller that failed may connect again at once
        on_end(failed)

    async def _opened(self) -> RedisConnection:
        pool: Any = self._client.connection_pool  # redis-py does not annotate it
        connection = pool.make_connection()
        try:
            with connecting(tls=self._tls):
                async with asyncio.timeout(self._connect_s):
                    await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return RedisConnection(self._client, connection, self._timeout_s, moves=self._moves)


def _told_in_cluster(on_replies: OnReplies, replies: list[Any]) -> None:
    """Pass replies on; where the cluster says that it did nothing, as an error that may end."""
    on_replies([of_cluster(one) if isinstance(one, Exception) else one for one in replies])


def of_cluster(error: Exception) -> Exception:
    """Return an error that may end for one by which a node says that it did nothing."""
    if isinstance(error, exceptions.MovedError):  # for redis-py it is an `AskError`, too
        return SlotMoved()
    if not isinstance(error, _CLOSED):
        return error
    closed = SlotClosed()
    if isinstance(error, exceptions.AskError) and error.host:
        closed.importing = str(error.host), int(error.port)
    return closed


def uses_tls(url: str) -> bool:
    """Return whether connections to a URL are encrypted."""
    return url.startswith("rediss")


def connect(url: str, *, timeout_s: float | None = None, undecodable: str = "strict") -> Redis:
    """Return a client that never retries by itself; without `timeout_s` it waits for ever.

    `undecodable` says what becomes of bytes that are no text, as `bytes.decode` takes it.
    """
    one = server_url(url)
    options = {"encoding_errors": undecodable, **_options(one, timeout_s)}
    client = Redis.from_url(one, retry=Retry(NoBackoff(), 0), **options)
    if locate := locator(url):
        client.connection_pool.connection_class = _locating(
            client.connection_pool.connection_class, locate
        )
    return client


def connect_blocking(url: str, *, timeout_s: float) -> BlockingRedis:
    """Return the same client for code without an event loop."""
    one = server_url(url)
    client = BlockingRedis.from_url(
        one, retry=BlockingRetry(NoBackoff(), 0), **_options(one, timeout_s)
    )
    if locate := locator(url):
        client.connection_pool.connection_class = locating(
            client.connection_pool.connection_class, locate
        )
    return client


def _locating(kind: Any, locate: Locate) -> Any:
    """Return a class of asynchronous connections that look for their server when they open."""

    class Locating(kind):  # type: ignore[misc]
        async def _connect(self) -> None:
            # A thread for each attempt to connect: attempts are rare, and all are one code.
            self.host, self.port = await asyncio.to_thread(locate)
            await super()._connect()

    return Locating


def _options(url: str, timeout_s: float | None) -> dict[str, Any]:
    keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    return {
        "decode_responses": True,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "protocol": 2,
        **keepalive,
    }
