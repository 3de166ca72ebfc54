"""A hand-written asyncio loop over a Redis stream with coalesced writes."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis import Redis as BlockingRedis
from redis.exceptions import ResponseError

from benchmarks.peers.jobs import IN_FLIGHT, REDIS, jobs

if TYPE_CHECKING:
    from benchmarks.peers.async_clients import Clients

_STREAM, _GROUP = "bench:loop", "workers"
_BATCH = 64


class _Writes:
    """Sends the writes of many jobs in few pipelines: one collects while another is under way."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._waiting: list[tuple[tuple[str, ...], bytes, asyncio.Future[None]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def record_job(self, kept: tuple[str, ...], entry: bytes) -> None:
        """Record a job and acknowledge its entry; return once Redis has confirmed it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((kept, entry, future))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        await future

    async def _send(self) -> None:
        from benchmarks.peers.async_clients import record

        while self._waiting:
            batch, self._waiting = self._waiting, []
            pipeline = self._clients.redis.pipeline(transaction=True)
            for kept, entry, _ in batch:
                record(pipeline, *kept)
                pipeline.xack(_STREAM, _GROUP, entry)
                pipeline.xdel(_STREAM, entry)
            await pipeline.execute()
            for *_, future in batch:
                future.set_result(None)


async def _work() -> None:
    from benchmarks.peers.async_clients import Clients

    async with Clients() as clients:
        with suppress(ResponseError):  # it exists
            await clients.redis.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)
        slots, writes, running = asyncio.Semaphore(IN_FLIGHT), _Writes(clients), set()

        async def run(entry: bytes, fields: dict[bytes, bytes]) -> None:
            job, user, message = (fields[name].decode() for name in (b"job", b"user", b"message"))
            reply = await clients.ask(user, message)
            await writes.record_job((job, user, message, reply), entry)

        def ended(task: asyncio.Task[Any]) -> None:
            running.discard(task)
            slots.release()
            task.result()

        while True:
            streams = await clients.redis.xreadgroup(
                _GROUP, "one", {_STREAM: ">"}, count=_BATCH, block=1000
            )
            for entry, fields in streams[0][1] if streams else ():
                await slots.acquire()
                task = asyncio.create_task(run(entry, fields))
                running.add(task)
                task.add_done_callback(ended)


def _submit(run: str, count: int) -> None:
    pipeline = BlockingRedis.from_url(REDIS).pipeline(transaction=False)
    for job, user, message in jobs(run, count):
        pipeline.xadd(_STREAM, {"job": job, "user": user, "message": message})
    pipeline.execute()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        asyncio.run(_work())
    else:
        _submit(sys.argv[2], int(sys.argv[3]))
