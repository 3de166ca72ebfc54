"""The lifeline: a socket whose clients keep the stack alive and hear how it is.

A client leaves by shutting its sending side. If it was the last, its line stays open until the
stack has stopped, so that it can wait for that.
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

#: How long whoever waits for a stack to stop, its last client or the next stack, waits for that;
#: the next stack lets the workers of the last one drain besides.
STOPPED_WITHIN_S = 60.0

#: How long the stack waits for the next client after the last has gone.
GRACE_S = 1.0


class StackFailed(AfterwordError):
    """The embedded stack did not come up, or one of its parts keeps dying."""


class Lifeline:
    """Holds the clients of one stack; tells each what is and what changes, a JSON line each."""

    def __init__(self, on_deserted: Callable[[], None], grace_s: float = GRACE_S) -> None:
        """Call `on_deserted` once nobody has been there for `grace_s`."""
        self._on_deserted = on_deserted
        self._grace_s = grace_s
        self._clients: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._departing: list[asyncio.StreamWriter] = []
        self._said: dict[str, bytes] = {}
        self._server: asyncio.Server | None = None
        self._leaving = False
        self._lonely: asyncio.TimerHandle | None = None

    async def listen(self, path: Path) -> None:
        """Take clients at `path`, from now on."""
        self._server = await asyncio.start_unix_server(self._greet, sock=_bound(path))
        self._expect_clients()

    async def adopt(self, client: socket.socket) -> None:
        """Take a client that is connected already."""
        self._greet(*await asyncio.open_connection(sock=client))

    def say(self, topic: str, words: Mapping[str, Any]) -> None:
        """Tell everyone; who comes later hears the last word on each topic."""
        self._said.pop(topic, None)
        self._said[topic] = json.dumps(words).encode() + b"\n"
        for client in self._clients:
            client.write(self._said[topic])

    def turn_away(self) -> None:
        """Take no more clients, from this moment on; who is there still hears the end."""
        self._leaving = True
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Let go of everyone: to a client, this is the end of the stack."""
        self.turn_away()
        holds = list(self._clients.values())
        for client in self._clients:
            client.close()
        self._dismiss()
        await asyncio.gather(*holds)
        if self._lonely is not None:
            self._lonely.cancel()

    def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._leaving:
            writer.close()  # without a word: it will look for the next stack
            return
        writer.writelines(self._said.values())
        self._clients[writer] = asyncio.create_task(self._hold(reader, writer))
        self._dismiss()

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # gone is gone, politely or not
            while await reader.read(1024):
                pass  # clients have nothing to say
        del self._clients[writer]
        self._departing.append(writer)
        if self._clients or self._leaving:
            self._dismiss()
        self._expect_clients()

    def _dismiss(self) -> None:
        """Hang up on those who want to leave: others stay, or the end has come."""
        for writer in self._departing:
            writer.close()
        self._departing.clear()

    def _expect_clients(self) -> None:
        if self._lonely is not None:
            self._lonely.cancel()
        loop = asyncio.get_running_loop()
        self._lonely = loop.call_later(self._grace_s, self._leave_if_deserted)

    def _leave_if_deserted(self) -> None:
        if not self._clients:
            self._on_deserted()


def _bound(path: Path) -> socket.socket:
    """Return a socket at `path` that is ours alone before anybody can connect."""
    path.unlink(missing_ok=True)  # a killed supervisor left it: we hold its lock
    pubsub = socket.socket(socket.AF_UNIX)
    pubsub.bind(str(path))
    path.chmod(0o600)
    return pubsub
