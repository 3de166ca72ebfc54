"""Whole jobs with the embedded memory, and how fast their turns are stored."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial

from afterword.producer import AsyncJob, AsyncProducer
from afterword.shared.lifecycle import TurnState
from benchmarks.sections import Finding, Options, Row
from benchmarks.testbed import cores
from tests.kit.waiting import until
from tests.kit.workers.fleet import Fleet

_IN_FLIGHT = 200
_WRITERS = 50


def section(options: Options) -> Finding:
    """Measure how many jobs, then how many turns, one worker does per second."""
    with Fleet(AFTERWORD_LEASE_S="30", AFTERWORD_RECALL_BUDGET_MS="5000") as fleet:
        worker = fleet.launch("responses", "--concurrency", str(_IN_FLIGHT), "--loglevel", "ERROR")
        worker.ready()
        os.sched_setaffinity(worker.pid, {cores()[1]})
        rates = asyncio.run(_embedded(fleet, options.jobs // 4))
    return Finding(rows=[Row(name, rate, "a second") for name, rate in rates.items()])


async def _embedded(fleet: Fleet, count: int) -> dict[str, float]:
    async with AsyncProducer(fleet.settings) as producer:
        jobs = await producer.submit_many(
            {"user_id": f"writer-{n % _WRITERS}", "message": f"I like the number {n}."}
            for n in range(count)
        )
        accepted = [job for job in jobs if isinstance(job, AsyncJob)]
        start = time.perf_counter()
        replies = await asyncio.gather(*(job.wait(120) for job in accepted))
        answered_s = time.perf_counter() - start
        assert len({reply.job_id for reply in replies}) == count, "not every job was answered once"
        fleet.start("memories")
        start = time.perf_counter()
        for job in accepted:
            await until(partial(_is_stored, job), "the turn is stored", 120)
        stored_s = time.perf_counter() - start
    return {
        "whole jobs, embedded memory": count / answered_s,
        "turns stored, embedded memory": count / stored_s,
    }


async def _is_stored(job: AsyncJob) -> bool:
    return (await job.status()).turn is TurnState.STORED
