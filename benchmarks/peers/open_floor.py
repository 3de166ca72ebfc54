"""The two SDK calls of a job at random moments: what they add to the providers' time by themselves.

`python -m benchmarks.peers.open_floor CORE PER_SECOND COUNT PACE` prints milliseconds, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from benchmarks.added import added_ms, arrivals
from benchmarks.peers.body import Clients
from benchmarks.peers.jobs import jobs
from benchmarks.provider import Pace

_WARM = 50


async def _added(per_second: float, count: int, pace: Pace) -> list[float]:
    found: list[float] = []

    async def ask(user: str, message: str) -> None:
        start = time.perf_counter()
        await clients.ask(user, message)
        found.append(added_ms(start, time.perf_counter(), pace.whole_ms))

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
    core, rate, number, paced = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    print(json.dumps(asyncio.run(_added(float(rate), int(number), Pace(**json.loads(paced))))))
