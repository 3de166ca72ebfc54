"""Reads what a slot that is being moved has on the node that takes it over already."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from afterword.shared.servers import Address, node_url
from afterword.shared.transport.connection import Command, Reconnector, of_cluster

#: Commands that a redirection (`ASK`) is followed for: they read one key, and that is whole on one
#: of two nodes. Not so the keys of a script. One that writes would make a key on the one node while
#: the other still gives its namesake away.
FOLLOWED: Final = frozenset(
    {
        *("GET", "HEXISTS", "HGET", "HGETALL", "HMGET", "HRANDFIELD", "LRANGE", "XRANGE"),
        *("XREVRANGE", "ZCARD", "ZCOUNT", "ZRANGE", "ZRANGEBYSCORE", "ZREVRANGE", "ZSCORE"),
    }
)


class ImportingNodes:
    """Sends single commands to the nodes that redirections name, over a connection to each.

    Bound to the event loop that first uses it.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._nodes: dict[Address, _Node] = {}

    def ask(self, address: Address, command: Command) -> asyncio.Future[Any]:
        """Send one command; return the future of its reply, or of the error in place of it."""
        node = self._nodes.get(address)
        if node is None:
            url = node_url(self._url, address)
            node = self._nodes[address] = _Node(Reconnector(url, timeout_s=self._timeout_s))
        return node.ask(command)

    async def aclose(self) -> None:
        """Close the connections; what has no reply is cancelled."""
        for node in self._nodes.values():
            await node.aclose()


class _Node:
    """A connection on which each command comes right behind an `ASKING` of its own."""

    def __init__(self, reconnector: Reconnector) -> None:
        self._reconnector = reconnector
        self._waiting: list[tuple[Command, asyncio.Future[Any]]] = []
        self._open: set[asyncio.Future[Any]] = set()

    def ask(self, command: Command) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        self._waiting.append((command, future))
        self._flush(None)
        return future

    async def aclose(self) -> None:
        for future in list(self._open):
            future.cancel()
        await self._reconnector.aclose()

    def _flush(self, error: Exception | None) -> None:
        if error is None and not self._reconnector.connected:
            self._reconnector.connect(self._flush)
            return
        waiting, self._waiting = self._waiting, []
        for command, future in waiting:
            if error is not None:
                _take(future, [error])
            else:
                self._reconnector.send([("ASKING",), command], partial(_take, future))


def _take(future: asyncio.Future[Any], replies: Sequence[Any]) -> None:
    if not future.done():
        reply = replies[-1]
        future.set_result(of_cluster(reply) if isinstance(reply, Exception) else reply)
