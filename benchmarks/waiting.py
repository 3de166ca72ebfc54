"""Wake-up latency and connections with 10,000 jobs that one producer waits for."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from redis import Redis

from afterword.producer import AsyncJob, AsyncProducer
from afterword.shared.clock import utc_now
from afterword.shared.names import Keys, shard_in
from benchmarks.designs import Afterword
from benchmarks.figures import percentile
from benchmarks.peers.jobs import jobs
from benchmarks.plots import curves
from benchmarks.provider import AnswerTiming
from benchmarks.run_alone import run_alone
from benchmarks.sections import Finding, Options, Row
from benchmarks.testbed import Testbed
from tests.kit.waiting import until

#: Answers at random moments and at a rate below what a core can do: wake-ups must not queue.
_TIMING, _IN_FLIGHT, _PER_SECOND = AnswerTiming(model_ms=10, spread_ms=980), 100, 200
_FEW, _WAITING = 100, 10_000
_PATIENCE_S = 600.0
_MOST_MS = 10.0


@dataclass
class _Waiters:
    """When each waiter had its reply, and the connections with few and with all waiters."""

    jobs: list[AsyncJob]
    at_ms: dict[str, float] = field(default_factory=dict)
    connections: list[int] = field(default_factory=list)


def section(_options: Options) -> Finding:
    """Wait for all jobs while the worker is paused, then let it answer."""
    with Testbed(_TIMING) as testbed:
        ours = Afterword(testbed, 0, _IN_FLIGHT)
        ours.process.wait_until_ready()
        ours.process.pause()
        redis: Any = Redis.from_url(testbed.redis(0), decode_responses=True)
        heard = asyncio.run(_wait_for_all(ours, redis))
        ours.check_each(job.id for job in heard.jobs)
        late = [_late_ms(ours, redis, job.id, heard.at_ms[job.id]) for job in heard.jobs]
    few, many = heard.connections
    return Finding(
        rows=[
            Row("final to waiter, p50", percentile(late, 50), "ms"),
            Row("final to waiter, p99", percentile(late, 99), "ms", _MOST_MS),
            Row(
                f"additional connections with {_WAITING:,} waiting instead of {_FEW}",
                many - few,
                "",
                0,
            ),
            Row(f"connections, {_WAITING:,} waiting", many),
        ],
        text=(
            "`final` is when the job ended, by the clock of Redis in whole ms. The worker ends up "
            f"to {_PER_SECOND} jobs per second, at random moments."
        ),
        plots={"waiting": curves({"final to waiter": _shares(late)}, "share of jobs, %", "ms")},
        runs={f"p{percent}": percentile(late, percent) for percent in (50, 90, 99, 100)},
    )


async def _wait_for_all(ours: Afterword, redis: Any) -> _Waiters:
    async with AsyncProducer(ours.settings) as producer:
        asked = [{"user_id": user, "message": said} for _, user, said in jobs("wait", _WAITING)]
        results = await producer.submit_many(asked)
        heard = _Waiters([job for job in results if isinstance(job, AsyncJob)])
        assert len({job.id for job in heard.jobs}) == _WAITING, "not all were accepted once"
        async with asyncio.TaskGroup() as group:
            for start, end in ((0, _FEW), (_FEW, _WAITING)):
                for job in heard.jobs[start:end]:
                    group.create_task(_wait(job, heard))
                await until(partial(_listen, redis, end), "all waiters listen", _PATIENCE_S)
                heard.connections.append(int(redis.info("clients")["connected_clients"]))
            gc.collect()
            gc.freeze()
            ours.process.resume()
    gc.unfreeze()
    ours.process.pause()
    return heard


async def _listen(redis: Any, count: int) -> bool:
    return len(await asyncio.to_thread(redis.pubsub_channels, "*:wake:*")) >= count


async def _wait(job: AsyncJob, heard: _Waiters) -> None:
    reply = await job.wait(_PATIENCE_S)
    assert reply.job_id == job.id, "the reply of another job"
    assert job.id not in heard.at_ms, "answered twice"
    heard.at_ms[job.id] = utc_now().timestamp() * 1000


def _late_ms(ours: Afterword, redis: Any, job_id: str, heard_ms: float) -> float:
    keys = Keys(ours.settings.namespace, shard_in(job_id))
    return heard_ms - float(redis.hget(keys.job(job_id), "ended"))


def _shares(late: Sequence[float]) -> list[tuple[float, float]]:
    return [(percent, percentile(late, percent)) for percent in range(1, 101)]


if __name__ == "__main__":
    run_alone(section)
