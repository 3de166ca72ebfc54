"""The bare SDK call: the floor that a whole job stands on."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from benchmarks.figures import Figure

#: A loop of its own process, pinned like a worker: nothing but streamed SDK calls.
_PROGRAM = """
import asyncio, json, os, sys, time
import anthropic, httpx2

url, count, in_flight = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cores = sorted(os.sched_getaffinity(0))
if len(cores) > 1:
    os.sched_setaffinity(0, {cores[-1]})

async def main():
    limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    client = anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0,
        http_client=anthropic.DefaultAioHttpClient(limits=limits))
    gate = asyncio.Semaphore(in_flight)
    async def call(number):
        async with gate:
            stream = await client.messages.create(model="m", max_tokens=100, stream=True,
                messages=[{"role": "user", "content": f"message {number}"}])
            async with stream:
                async for _ in stream:
                    pass
    await asyncio.gather(*(call(n) for n in range(in_flight)))
    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.gather(*(call(n) for n in range(count)))
    seconds = time.perf_counter() - start
    print(json.dumps([count / seconds, (time.process_time() - cpu) / count * 1000]))

asyncio.run(main())
"""


def bare_calls(url: str, count: int, in_flight: int) -> Figure:
    """Make `count` streamed calls, `in_flight` at a time; return what one cost."""
    argv = [sys.executable, "-c", _PROGRAM, url, str(count), str(in_flight)]
    done = subprocess.run(  # noqa: S603 our own program
        argv, check=True, capture_output=True, env=os.environ, text=True
    )
    return Figure(*json.loads(done.stdout))
