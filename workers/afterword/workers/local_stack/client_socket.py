"""The socket through which clients keep the stack alive and get its messages.

A client leaves by shutting down its sending side. The last client's connection stays open until
the stack has stopped, so that it can wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from afterword.shared.errors import AfterwordError

#: How long the last client, or the next stack, waits for a stack to stop. The next stack also
#: allows its workers the time to drain.
STOPPED_WITHIN_S = 60.0

#: How long the stack waits for another client after the last one has left.
GRACE_S = 1.0


class StackFailed(AfterwordError):
    """The local stack did not start, or one of its services keeps failing."""


class ClientSocket:
    """Keeps the connections of the stack's clients and sends them messages, one JSON line each."""

    def __init__(self, on_deserted: Callable[[], None], grace_s: float = GRACE_S) -> None:
        """Call `on_deserted` after `grace_s` seconds without a client."""
        self._on_deserted = on_deserted
        self._grace_s = grace_s
        self._clients: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._departed: list[asyncio.StreamWriter] = []
        self._latest: dict[str, bytes] = {}
        self._server: asyncio.Server | None = None
        self._closing = False
        self._grace_timer: asyncio.TimerHandle | None = None

    async def listen(self, path: Path) -> None:
        """Accept clients at `path` from now on."""
        self._server = await asyncio.start_unix_server(self._accept, sock=_bind(path))
        self._restart_grace_timer()

    async def adopt(self, client: socket.socket) -> None:
        """Accept a client that is connected already."""
        self._accept(*await asyncio.open_connection(sock=client))

    def broadcast(self, topic: str, message: Mapping[str, Any]) -> None:
        """Send a message to all clients. Later clients get the latest message of each topic."""
        self._latest.pop(topic, None)
        self._latest[topic] = json.dumps(message).encode() + b"\n"
        for client in self._clients:
            client.write(self._latest[topic])

    def stop_accepting(self) -> None:
        """Accept no more clients. Those that are connected still get messages."""
        self._closing = True
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Close all connections, which tells the clients that the stack has stopped."""
        self.stop_accepting()
        serving = list(self._clients.values())
        for client in self._clients:
            client.close()
        self._close_departed()
        await asyncio.gather(*serving)
        if self._grace_timer is not None:
            self._grace_timer.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing:
            writer.close()  # without a message: the client will look for the next stack
            return
        writer.writelines(self._latest.values())
        self._clients[writer] = asyncio.create_task(self._serve(reader, writer))
        self._close_departed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # a client that was killed has left, too
            while await reader.read(1024):
                pass  # clients send nothing
        del self._clients[writer]
        self._departed.append(writer)
        if self._clients or self._closing:
            self._close_departed()
        self._restart_grace_timer()

    def _close_departed(self) -> None:
        """Close the connections of clients that have left; one must stay open for the last."""
        for writer in self._departed:
            writer.close()
        self._departed.clear()

    def _restart_grace_timer(self) -> None:
        if self._grace_timer is not None:
            self._grace_timer.cancel()
        loop = asyncio.get_running_loop()
        self._grace_timer = loop.call_later(self._grace_s, self._check_deserted)

    def _check_deserted(self) -> None:
        if not self._clients:
            self._on_deserted()


def _bind(path: Path) -> socket.socket:
    """Return a socket bound to `path` that other users cannot connect to."""
    path.unlink(missing_ok=True)  # left by a killed supervisor: we hold the lock now
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    path.chmod(0o600)
    return server
