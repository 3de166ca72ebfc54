"""One connection to Redis: many commands out at once, their replies back in the same order."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

from hiredis import pack_command
from redis import Redis as BlockingRedis
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry

Command: TypeAlias = tuple[str | float, ...]


class Wire:
    """Exchanges commands for replies; the next ones may go out while replies are awaited.

    A pipeline of redis-py does the same for four times the CPU. Bound to the event loop that
    first uses it.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Take a redis-py address, and for how long a connection may be silent."""
        self._timeout_s = timeout_s
        self._client = connect(url)
        self._connection: Any = None
        self._writing = asyncio.Lock()
        self._reading = asyncio.Lock()

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Return a reply for each command, an error of Redis among them as a value.

        Raises what broke the connection; the next exchange makes a new one.
        """
        connection: Any = None
        try:
            async with self._writing, asyncio.timeout(self._timeout_s):
                connection = self._connection = self._connection or self._new()
                await connection.connect()
                await connection.send_packed_command(_packed(commands), check_health=False)
            # Locks are fair: who has written first reads first.
            async with self._reading, asyncio.timeout(self._timeout_s):
                return [await self._reply(connection, command[0]) for command in commands]
        except BaseException:
            await self._give_up(connection)
            raise

    @property
    def broken(self) -> bool:
        """Return whether there is no connection right now."""
        return self._connection is None or not self._connection.is_connected

    async def aclose(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.disconnect()
        await self._client.aclose()

    def _new(self) -> Any:
        pool: Any = self._client.connection_pool  # redis-py does not annotate it
        return pool.make_connection()

    async def _give_up(self, connection: Any) -> None:
        """Close a connection for good: whoever awaits a reply on it must not read another's."""
        if connection is None:
            return
        if connection is self._connection:
            self._connection = None
        await connection.disconnect(nowait=True)

    async def _reply(self, connection: Any, name: str | float) -> Any:
        try:
            reply = await connection.read_response(timeout=math.inf)
        except exceptions.ResponseError as error:
            return error
        callback = self._client.response_callbacks.get(str(name))
        return callback(reply) if callback else reply


def _packed(commands: Sequence[Command]) -> bytes:
    return b"".join([pack_command(command) for command in commands])  # type: ignore[arg-type]


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
