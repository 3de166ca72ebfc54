"""A small HTTP/1.1 server that plays its answers step by step, faults included."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from http.client import responses
from typing import Self

#: What time it is on every answer, unless it says otherwise.
DATE = "Thu, 01 Oct 2026 12:00:00 GMT"

LAST_CHUNK = b"0\r\n\r\n"

#: More connections may wait to be accepted than any test opens at once.
BACKLOG = 4096


class Cue(Enum):
    """Wait until the test says go on, or end the connection before the answer has ended."""

    HOLD = auto()
    CLOSE = auto()
    RESET = auto()


#: Bytes to send, seconds to wait, or a cue.
Step = bytes | float | Cue


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return a status line with headers; the body follows in chunks."""
    reason = responses.get(status, "Unknown")
    fields = {"Date": DATE, "Transfer-Encoding": "chunked", **headers}
    lines = (f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {reason}\r\n{''.join(lines)}\r\n".encode()


def chunk(body: bytes) -> bytes:
    """Return one piece of a body as one chunk."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def whole(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return an answer of one piece."""
    return head(status, headers) + chunk(body) + LAST_CHUNK


class ScriptedHttpServer:
    """Serves on a free port of the loopback interface; every answer is a run of steps."""

    def __init__(self, answer: Callable[[Request], Iterable[Step]]) -> None:
        self.answer = answer
        self.connections = 0
        self.in_flight = 0
        self.accepted = 0
        self.abandoned = 0
        self._held: deque[asyncio.Event] = deque()
        self._open: set[_Connection] = set()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), "127.0.0.1", port, backlog=BACKLOG
        )

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
            for connection in tuple(self._open):
                connection.drop()
            await self._server.wait_closed()

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None, "not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """The address that a client's base URL takes."""
        return f"http://127.0.0.1:{self.port}"

    async def until(self, fact: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Wait until something is true of this server."""
        async with asyncio.timeout(timeout_s):
            while not fact():
                await self._changed.wait()

    @property
    def held(self) -> int:
        """How many answers wait for a release."""
        return len(self._held)

    def release(self, count: int | None = None) -> None:
        """Let held answers go on, oldest first; all of them unless `count` says how many."""
        for event in list(self._held)[:count]:
            event.set()

    async def hold(self) -> None:
        """Wait for a release."""
        go_on = asyncio.Event()
        self._held.append(go_on)
        self._tell()
        try:
            await go_on.wait()
        finally:
            self._held.remove(go_on)

    def opened(self, connection: _Connection) -> None:
        """Take note of a new connection."""
        self._open.add(connection)
        self.accepted += 1
        self.connections += 1
        self._tell()

    def closed(self, connection: _Connection) -> None:
        """Take note that a connection is gone."""
        self._open.discard(connection)
        self.connections -= 1
        self._tell()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Count one answer while it is under way, and whether its reader stayed to the end."""
        self.in_flight += 1
        self._tell()
        try:
            yield
        except asyncio.CancelledError:
            self.abandoned += 1
            raise
        finally:
            self.in_flight -= 1
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class _Connection(asyncio.Protocol):
    """One connection: requests one after the other, each played by a task."""

    def __init__(self, server: ScriptedHttpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None
        self._inbox = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self._server.closed(self)

    def drop(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._inbox += data
        self._serve_next()

    def _serve_next(self) -> None:
        if self._task is None and (request := self._take_request()) is not None:
            self._task = asyncio.get_running_loop().create_task(self._play(request))

    def _take_request(self) -> Request | None:
        top, blank, rest = self._inbox.partition(b"\r\n\r\n")
        if not blank:
            return None
        first, *lines = top.decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return None
        self._inbox = rest[length:]
        method, path, _ = first.split(" ", 2)
        return Request(method, path, headers, rest[:length])

    async def _play(self, request: Request) -> None:
        try:
            with self._server.answering():
                for step in self._server.answer(request):
                    await self._take(step)
                    if step in (Cue.CLOSE, Cue.RESET):
                        return
        except Exception:
            self.drop()  # a bug of the stand-in must not look like a slow answer
            raise
        self._task = None
        self._serve_next()

    async def _take(self, step: Step) -> None:
        match step:
            case bytes():
                self._transport.write(step)
            case Cue.HOLD:
                await self._server.hold()
            case Cue.CLOSE:
                self._transport.close()
            case Cue.RESET:
                self._reset()
            case _:
                await asyncio.sleep(step)  # noqa: TID251 a scripted delay

    def _reset(self) -> None:
        """Close so that the other side gets a reset instead of an end."""
        raw: socket.socket = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
