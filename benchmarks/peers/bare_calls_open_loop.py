"""The two SDK calls of a job, started at random moments: the latency that they add by themselves.

`python -m benchmarks.peers.bare_calls_open_loop CORE PER_SECOND COUNT TIMING` prints a JSON list of
milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from benchmarks.added_latency import added_ms, arrivals
from benchmarks.peers.async_clients import Clients
from benchmarks.peers.jobs import jobs
from benchmarks.provider import AnswerTiming

_WARM = 50


async def _added_ms(per_second: float, count: int, timing: AnswerTiming) -> list[float]:
    found: list[float] = []

    async def ask(user: str, message: str) -> None:
        start = time.perf_counter()
        await clients.ask(user, message)
        found.append(added_ms(start, time.perf_counter(), timing.whole_ms))

    async with Clients() as clients:
        await asyncio.gather(*(ask(user, said) for _, user, said in jobs("warm", _WARM)))
        found.clear()
        async with asyncio.TaskGroup() as group:
            asked = jobs("open", count)
            async for _ in arrivals(per_second, count):
                _, user, said = next(asked)
                group.create_task(ask(user, said))
    return found


if __name__ == "__main__":
    core, rate, number, timing_json = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    print(
        json.dumps(
            asyncio.run(
                _added_ms(float(rate), int(number), AnswerTiming(**json.loads(timing_json)))
            )
        )
    )
