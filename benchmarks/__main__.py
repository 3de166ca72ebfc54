"""`python -m benchmarks`: whole jobs through one worker beside the bare SDK call, in one run.

One response worker, pinned to one core; the Claude stand-in, Valkey and the producer on the
others. Designs take turns, so that a machine that grows slower is slower for all. CPU is the
operating system's own accounting of the worker process; every run checks that each job sent was
answered once and, with memory on, that its turn was settled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.bare import bare_calls
from benchmarks.figures import Figure, markdown
from producer import AsyncJob, AsyncProducer
from shared.lifecycle import TurnState
from tests.standins.fleet import Fleet, Worker
from tests.standins.waiting import until

_TICKS = os.sysconf("SC_CLK_TCK")
_IN_FLIGHT = 200


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used, by the kernel's accounting."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def whole_jobs(fleet: Fleet, worker: Worker, count: int) -> Figure:
    """Submit, answer and wait for `count` jobs; return what one cost the worker."""
    async with AsyncProducer(fleet.settings) as producer:
        requests = [
            {"user_id": f"user-{number % 500}", "message": f"message {number}"}
            for number in range(count)
        ]
        cpu, start = cpu_s(worker.pid), time.perf_counter()
        jobs = await producer.submit_many(requests)
        accepted = [job for job in jobs if not isinstance(job, Exception)]
        replies = await asyncio.gather(*(job.wait(120) for job in accepted))
        seconds = time.perf_counter() - start
        cpu = cpu_s(worker.pid) - cpu
    answered = {reply.job_id for reply in replies}
    assert len(answered) == count, "not every job sent was answered once"
    return Figure(count / seconds, cpu / count * 1000)


async def submits(fleet: Fleet, count: int) -> float:
    """Return how many jobs a second `AsyncProducer.submit_many` accepts."""
    async with AsyncProducer(fleet.settings) as producer:
        requests = [{"user_id": f"user-{n % 500}", "message": "m"} for n in range(count)]
        start = time.perf_counter()
        jobs = await producer.submit_many(requests)
        seconds = time.perf_counter() - start
        for job in jobs:
            assert not isinstance(job, Exception)
        await asyncio.gather(*(job.cancel() for job in jobs if not isinstance(job, Exception)))
    return count / seconds


async def _is_stored(job: AsyncJob) -> bool:
    return (await job.status()).turn is TurnState.STORED


async def settled(fleet: Fleet, count: int) -> float:
    """Return how many turns a second one memory worker stores, from a waiting backlog."""
    async with AsyncProducer(fleet.settings) as producer:
        jobs = await producer.submit_many(
            {"user_id": f"writer-{n % 50}", "message": f"I like the number {n}."}
            for n in range(count)
        )
        accepted = [job for job in jobs if not isinstance(job, Exception)]
        await asyncio.gather(*(job.wait(120) for job in accepted))
        fleet.start("memories")
        start = time.perf_counter()
        for job in accepted:
            await until(partial(_is_stored, job), "the turn is stored", 120)
        return count / (time.perf_counter() - start)


def _pin(pid: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(pid, {cores[-1]})


def measure(rounds: int, count: int) -> dict[str, list[Figure]]:
    """Run all designs in turn, `rounds` times; return their figures."""
    found: dict[str, list[Figure]] = {"bare SDK call": [], "whole job, memory off": []}
    with Fleet(AFTERWORD_MEMORY="off", AFTERWORD_LEASE_S="30") as fleet:
        worker = fleet.launch("responses", "--concurrency", str(_IN_FLIGHT), "--loglevel", "ERROR")
        worker.ready()
        _pin(worker.pid)
        asyncio.run(whole_jobs(fleet, worker, count // 4))
        for _ in range(rounds):
            found["bare SDK call"].append(bare_calls(fleet.claude.url, count, _IN_FLIGHT))
            found["whole job, memory off"].append(asyncio.run(whole_jobs(fleet, worker, count)))
        rates = [asyncio.run(submits(fleet, count)) for _ in range(rounds)]
    found["submit_many"] = [Figure(rate, 0.0) for rate in rates]
    found |= embedded(rounds, count // 4)
    return found


def embedded(rounds: int, count: int) -> dict[str, list[Figure]]:
    """Run whole jobs with the embedded memory, then store what they said."""
    found: list[Figure] = []
    with Fleet(AFTERWORD_LEASE_S="30", AFTERWORD_RECALL_BUDGET_MS="5000") as fleet:
        worker = fleet.launch("responses", "--concurrency", str(_IN_FLIGHT), "--loglevel", "ERROR")
        worker.ready()
        _pin(worker.pid)
        found.extend(asyncio.run(whole_jobs(fleet, worker, count)) for _ in range(rounds))
        stored = Figure(asyncio.run(settled(fleet, count)), 0.0)
    return {"whole job, embedded memory": found, "turns stored, embedded memory": [stored]}


def main(arguments: Sequence[str]) -> None:
    """Measure and print a table; `--json FILE` keeps the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args(arguments)
    found = measure(told.rounds, told.jobs)
    print(markdown(found))
    bare = statistics.median(one.cpu_ms for one in found["bare SDK call"])
    ours = statistics.median(one.cpu_ms for one in found["whole job, memory off"])
    print(f"\nCPU of a whole job without memory: {ours / bare:.2f} x the bare SDK call")
    if told.json:
        rows = {name: [vars(one) for one in figures] for name, figures in found.items()}
        told.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
