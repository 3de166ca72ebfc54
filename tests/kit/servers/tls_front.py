"""A port that speaks TLS, and plain as well, in front of a server that only speaks plain."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Self

from tests.kit.servers.certificate import server_context
from tests.kit.servers.valkey import free_port, release_port

_CHUNK = 65536

#: What a client that wants TLS sends first.
_HANDSHAKE = b"\x16"


class TlsFront:
    """Passes everything on to a port of this machine, from a thread of its own.

    Servers that know each other by this port speak plain, clients TLS: so one address serves both.
    """

    def __init__(self, target: int, certificate: Path) -> None:
        self.port = free_port()
        self._target = target
        self._context = server_context(certificate)
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self._listener.setblocking(False)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._lines: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._listener.close()
        release_port(self.port)

    def _run(self) -> None:
        accepting = self._loop.create_task(self._accept())
        self._loop.run_forever()
        open_ones = {accepting, *self._lines}
        for task in open_ones:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*open_ones, return_exceptions=True))

    async def _accept(self) -> None:
        while True:
            near, _ = await self._loop.sock_accept(self._listener)
            line = self._loop.create_task(self._connected(near))
            self._lines.add(line)
            line.add_done_callback(self._ended)

    def _ended(self, line: asyncio.Task[None]) -> None:
        self._lines.discard(line)
        if not line.cancelled():
            line.exception()  # a client that trusts nobody hangs up in the middle of a handshake

    async def _connected(self, near: socket.socket) -> None:
        first = await self._first_byte(near)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await self._loop.connect_accepted_socket(
            lambda: protocol, near, ssl=self._context if first == _HANDSHAKE else None
        )
        back = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        far, forth = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            await asyncio.gather(_pass(reader, forth), _pass(far, back))
        finally:
            forth.close()
            back.close()

    async def _first_byte(self, near: socket.socket) -> bytes:
        """Wait for the first byte, and leave it where it is."""
        readable = asyncio.Event()
        self._loop.add_reader(near, readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(near)
        return near.recv(1, socket.MSG_PEEK)


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while chunk := await source.read(_CHUNK):
        target.write(chunk)
        await target.drain()
    target.close()
