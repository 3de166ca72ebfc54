"""A bad line to a Redis: it loses answers, cuts connections or falls silent when told to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Self

from tests.kit.servers.valkey import free_port, release_port

_CHUNK = 65536


class FaultyProxy:
    """Passes everything on, to and from a port of this machine, until a test says otherwise."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._port = free_port()
        self._word: bytes | None = None
        self._swallowed: bytes | None = None
        self._silent: set[_Connection] = set()
        self._open: set[_Connection] = set()
        self.connections = 0
        self.lost_answers = self.swallowed = 0

    @property
    def url(self) -> str:
        """Return its address as redis-py takes it."""
        assert self._server is not None, "not started"
        scheme = "rediss" if self._tls else "redis"
        return f"{scheme}://127.0.0.1:{self._port}/0"

    def lose_answer_to(self, word: bytes) -> None:
        """Let the next request with this word have its effect, lose the answer, cut the line."""
        self._word = word

    def swallow_answers_to(self, word: bytes) -> None:
        """Pass on what asks with this word, but from then on nothing back over that line."""
        self._swallowed = word

    def fall_silent(self) -> None:
        """Pass nothing more on over the lines that are open now, and do not close them either."""
        self._silent |= self._open

    def cut(self) -> None:
        """Cut all lines."""
        for line in list(self._open):
            line.hang_up()

    def close(self) -> None:
        """Cut all lines and take no new ones."""
        assert self._server is not None
        self._server.close()
        self.cut()

    async def open(self) -> None:
        """Take lines again, at the same address."""
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self._port, ssl=self._tls
        )

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()
        release_port(self._port)

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.connections += 1
        far, forth = await asyncio.open_connection("127.0.0.1", self._target)
        line = _Connection(forth, back)
        self._open.add(line)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass(near, line, lambda chunk: self._ask(line, chunk)))
                both.create_task(_pass(far, line, lambda chunk: self._answer(line, chunk)))
        finally:
            self._open.discard(line)

    async def _ask(self, line: _Connection, chunk: bytes) -> None:
        if line in self._silent:
            return
        if self._word is not None and self._word in chunk:
            self._word, line.doomed = None, True
        if self._swallowed is not None and self._swallowed in chunk:
            line.dumb = True
            self.swallowed += 1
        line.forth.write(chunk)
        await line.forth.drain()

    async def _answer(self, line: _Connection, chunk: bytes) -> None:
        if line in self._silent or line.dumb:
            return
        if line.doomed:
            self.lost_answers += 1
            line.hang_up()
            return
        line.back.write(chunk)
        await line.back.drain()


class _Connection:
    """One connection, with its two ends."""

    def __init__(self, forth: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
        self.forth = forth
        self.back = back
        self.doomed = False
        self.dumb = False

    def hang_up(self) -> None:
        self.forth.close()
        self.back.close()


async def _pass(
    source: asyncio.StreamReader, line: _Connection, on: Callable[[bytes], Awaitable[None]]
) -> None:
    try:
        while chunk := await source.read(_CHUNK):
            await on(chunk)
    except ConnectionError:
        return
    finally:
        line.hang_up()
