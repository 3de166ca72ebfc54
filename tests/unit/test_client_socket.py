"""The client socket, on real sockets within one process."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from afterword.workers.local_stack.client_socket import ClientSocket
from tests.kit.waiting import until


class Place:
    """A listening client socket, and whether it was reported as deserted."""

    def __init__(self, path: Path, grace_s: float) -> None:
        self.path = path
        self.deserted = asyncio.Event()
        self.server = ClientSocket(self.deserted.set, grace_s)

    async def join(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        before = len(self.server._clients)
        joined = await asyncio.open_unix_connection(self.path)
        await until(lambda: len(self.server._clients) > before, "it is counted")
        return joined

    async def leave(self, writer: asyncio.StreamWriter) -> None:
        before = len(self.server._clients)
        writer.close()
        await until(lambda: len(self.server._clients) < before, "it is no longer counted")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path / "s", grace_s=0.05)
    await place.server.listen(place.path)
    yield place
    await place.server.close()


async def heard(reader: asyncio.StreamReader) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await reader.read()).splitlines()]


async def test_a_late_client_gets_the_latest_message_of_each_topic(place: Place) -> None:
    for topic, state in (("a", 1), ("b", 1), ("a", 2)):
        place.server.broadcast(topic, {topic: state})
    reader, writer = await place.join()
    place.server.broadcast("b", {"b": 2})
    await place.server.close()
    assert await heard(reader) == [{"b": 1}, {"a": 2}, {"b": 2}]
    writer.close()


async def test_no_client_is_accepted_after_stop_accepting(place: Place) -> None:
    place.server.broadcast("ready", {"ready": True})
    with socket.socket(socket.AF_UNIX) as late:
        late.connect(str(place.path))  # accepted by the kernel, not by us yet
        place.server.stop_accepting()
        late.settimeout(0)
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(late, 100)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_unix_connection(place.path)


async def test_a_client_accepted_too_late_gets_no_message(place: Place) -> None:
    place.server.broadcast("ready", {"ready": True})
    place.server.stop_accepting()
    client_end, server_end = socket.socketpair()
    await place.server.adopt(server_end)
    reader, writer = await asyncio.open_connection(sock=client_end)
    assert await heard(reader) == []
    writer.close()


async def test_clients_get_messages_after_stop_accepting(place: Place) -> None:
    reader, writer = await place.join()
    place.server.stop_accepting()
    place.server.broadcast("failed", {"failed": "why"})
    await place.server.close()
    assert await heard(reader) == [{"failed": "why"}]
    writer.close()


async def test_it_is_deserted_if_no_client_ever_comes(place: Place) -> None:
    await asyncio.wait_for(place.deserted.wait(), 10)


async def test_it_is_not_deserted_while_one_is_left(place: Place) -> None:
    (_, first), (_, second) = await place.join(), await place.join()
    await place.leave(first)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(place.deserted.wait(), 0.2)
    await place.leave(second)
    await asyncio.wait_for(place.deserted.wait(), 10)


async def test_a_client_that_returns_in_time_keeps_it(tmp_path: Path) -> None:
    place = Place(tmp_path / "s", grace_s=0.2)
    await place.server.listen(place.path)
    _, writer = await place.join()
    await place.leave(writer)
    _, writer = await place.join()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(place.deserted.wait(), 0.4)
    writer.close()
    await place.server.close()


def test_the_socket_is_private(tmp_path: Path) -> None:
    async def listen() -> int:
        server = ClientSocket(lambda: None)
        await server.listen(tmp_path / "s")
        mode = (tmp_path / "s").stat().st_mode
        await server.close()
        return mode

    assert asyncio.run(listen()) & 0o777 == 0o600


async def test_the_last_client_stays_connected_until_the_end(place: Place) -> None:
    stays_reader, stays = await place.join()
    first_reader, first = await place.join()
    first.write_eof()
    # Another client stays, so this one is released.
    assert await asyncio.wait_for(first_reader.read(), 5) == b""

    stays.write_eof()
    await asyncio.wait_for(place.deserted.wait(), 5)
    last_messages = asyncio.create_task(stays_reader.read())
    await asyncio.wait((last_messages,), timeout=0.05)
    assert not last_messages.done(), "hung up before the end"
    await place.server.close()
    assert await asyncio.wait_for(last_messages, 5) == b""
    for writer in (first, stays):
        writer.close()


async def test_a_departed_client_is_released_when_another_comes(place: Place) -> None:
    reader, leaving = await place.join()
    leaving.write_eof()
    await until(lambda: not place.server._clients, "it has left")
    _, another = await place.join()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    for writer in (leaving, another):
        writer.close()
