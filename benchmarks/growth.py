"""Costs of one worker as the queue, or the messages, become longer."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from redis import Redis

from afterword.producer import AsyncJob, AsyncProducer
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import JobState
from afterword.shared.names import Keys
from afterword.shared.settings import Settings
from benchmarks.designs import Afterword
from benchmarks.peers.jobs import jobs
from benchmarks.plots import curves
from benchmarks.run_alone import run_alone
from benchmarks.sections import Finding, Options, Row
from benchmarks.testbed import Testbed
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until

_DEPTHS, _DEEP = (1_000, 10_000, 100_000), 1_000_000
_KB, _LONG_KB = 1024, 64
_TURNS, _SUBMITS, _SWEEPS = 20, 50, 20
_AT_ONCE = 1_000
_WARM_JOBS = 200
_MS = 1000
_PATIENCE_S = 600.0
#: Nothing becomes due while the worker is paused, so a sweep has nothing to do.
_ENVIRON = {
    "AFTERWORD_MAX_QUEUED": "2000000",
    "AFTERWORD_HINT_GRACE_S": "86400",
    "AFTERWORD_MAX_MESSAGE_BYTES": str(2 * _LONG_KB * _KB),
    "AFTERWORD_MAX_MESSAGE_TOKENS": "1000000",
}


@dataclass(frozen=True)
class _Depth:
    """The costs at one queue depth: jobs per second, times in ms, memory in bytes a job."""

    queued: int
    per_second: float
    cpu_ms: float
    submit_ms: float
    submit_ratio: float
    sweep_ms: float
    queued_bytes: float
    scripts: float


def section(options: Options) -> Finding:
    """Queue jobs while the worker is paused, then let it do the first of them."""
    depths = (*_DEPTHS, _DEEP) if options.deep else _DEPTHS
    count = min(options.jobs, _DEPTHS[0] // 2)
    found = [_measure(depth, count, _KB) for depth in depths]
    long = _measure(_DEPTHS[0], count, _LONG_KB * _KB)
    return Finding(
        rows=_rows(found, long),
        text=(
            "Messages of 1 KB; a fresh Redis for each depth. Submits are made one at a time, in "
            "turns with submits to a second Redis that has 1,000 jobs queued, while neither "
            "rewrites its log. The time of a sweep is the CPU of Redis for one with nothing due."
        ),
        plots={"growth": curves(_series(found), "jobs queued", "share of that with 1,000")},
        runs=[asdict(one) for one in (*found, long)],
    )


def _rows(found: Sequence[_Depth], long: _Depth) -> list[Row]:
    few, many = found[0], found[-1]
    depth = f"{many.queued:,} queued over 1,000"
    return [
        Row(f"jobs a second, {depth}", many.per_second / few.per_second, "x", at_least=0.9),
        Row(f"CPU of a job, {depth}", many.cpu_ms / few.cpu_ms, "x", 1.1),
        Row(f"submit p50, {depth}", many.submit_ratio, "x", 1.1),
        Row(f"sweep, Redis' CPU, {depth}", many.sweep_ms / few.sweep_ms, "x", 2),
        Row("sweep, Redis' CPU, with the most", many.sweep_ms, "ms"),
        Row("Redis' memory of a queued job, without its 1 KB", many.queued_bytes - _KB, "B", 1229),
        Row("scripts run a job, 64 KB over 1 KB", long.scripts / few.scripts, "x", 1.05),
        Row("CPU of a job, 64 KB over 1 KB", long.cpu_ms / few.cpu_ms, "x"),
    ]


def _series(found: Sequence[_Depth]) -> dict[str, list[tuple[float, float]]]:
    few = found[0]
    return {
        "jobs a second": [(one.queued, one.per_second / few.per_second) for one in found],
        "CPU of a job": [(one.queued, one.cpu_ms / few.cpu_ms) for one in found],
        "submit": [(one.queued, one.submit_ratio) for one in found],
        "sweep": [(one.queued, one.sweep_ms / few.sweep_ms) for one in found],
    }


def _measure(depth: int, count: int, size: int) -> _Depth:
    with Testbed() as testbed, Valkey("--appendonly", "yes") as beside:
        ours = Afterword(testbed, 0, environ=_ENVIRON)
        ours.process.wait_until_ready()
        ours.process.pause()
        redis: Any = Redis.from_url(testbed.redis(0), decode_responses=True)
        empty = _memory(redis)
        job_ids = asyncio.run(_queue(ours.settings, depth, size))
        queued_bytes = (_memory(redis) - empty) / depth
        sweep_ms = asyncio.run(_sweep_ms(ours.settings, redis))
        per_second, cpu_ms, scripts = _work(ours, redis, count)
        _check(ours, redis, job_ids)  # before the submits below add turns to the same lanes
        shallow = ours.settings.model_copy(update={"redis_url": beside.url})
        asyncio.run(_queue(shallow, _DEPTHS[0], size))
        wait_until(lambda: not _rewrites(redis), "no log is rewritten", _PATIENCE_S)
        submit_ms, beside_ms = asyncio.run(_submits_ms(ours.settings, shallow, size))
    ratio = submit_ms / beside_ms
    return _Depth(depth, per_second, cpu_ms, submit_ms, ratio, sweep_ms, queued_bytes, scripts)


async def _queue(settings: Settings, count: int, size: int) -> list[str]:
    asked = (
        {"user_id": user, "message": said.ljust(size, ".")} for _, user, said in jobs("g", count)
    )
    found: list[str] = []
    async with AsyncProducer(settings) as producer:
        while group := list(islice(asked, _AT_ONCE * _KB // size)):  # about 1 MB
            results = await producer.submit_many(group)
            found += [job.id for job in results if isinstance(job, AsyncJob)]
            refused = next((one for one in results if isinstance(one, Exception)), None)
            assert refused is None, f"refused: {refused}"
    assert len(set(found)) == count, "not all were accepted once"
    return found


async def _submits_ms(deep: Settings, shallow: Settings, size: int) -> tuple[float, float]:
    """Return the median ms of a submit to each of two ledgers, measured in turns."""
    async with AsyncProducer(deep) as one, AsyncProducer(shallow) as other:
        found: dict[AsyncProducer, list[float]] = {one: [], other: []}
        for turn in range(_TURNS):
            for producer, times in found.items():
                for _, user, said in jobs(f"alone{turn}", _SUBMITS):
                    start = time.perf_counter()
                    await producer.submit(user_id=user, message=said.ljust(size, "."))
                    times.append((time.perf_counter() - start) * _MS)
    return statistics.median(found[one]), statistics.median(found[other])


async def _sweep_ms(settings: Settings, redis: Any) -> float:
    """Return the CPU of Redis, in ms, of one sweep with nothing due."""
    async with Ledger(settings, patience_s=_PATIENCE_S) as ledger:
        await ledger.maintenance.sweep()
        before = _script_us(redis)
        for _ in range(_SWEEPS):
            await ledger.maintenance.sweep()
    return (_script_us(redis) - before) / _SWEEPS / _MS


def _work(ours: Afterword, redis: Any, count: int) -> tuple[float, float, float]:
    """Return jobs per second, and CPU (ms) and scripts of a job, after a warm-up."""
    ours.process.resume()
    _answered(ours, _WARM_JOBS)
    before, scripts, cpu_s = ours.answered(), _scripts(redis), ours.process.cpu_s
    start = time.perf_counter()
    _answered(ours, before + count)
    seconds, done = time.perf_counter() - start, ours.answered() - before
    cpu_s, scripts = ours.process.cpu_s - cpu_s, _scripts(redis) - scripts
    ours.process.pause()
    return done / seconds, cpu_s / done * _MS, scripts / done


def _answered(ours: Afterword, count: int) -> None:
    wait_until(lambda: ours.answered() >= count, f"{count} are answered", _PATIENCE_S)
    ours.process.assert_running()


def _check(ours: Afterword, redis: Any, job_ids: Sequence[str]) -> None:
    """Check that as many jobs are answered as were counted, and check each of them."""
    keys = Keys(ours.settings.namespace, 0)
    line = redis.pipeline(transaction=False)
    for job_id in job_ids:
        line.hget(keys.job(job_id), "state")
    states = zip(job_ids, line.execute(), strict=True)
    done = [job_id for job_id, state in states if state == JobState.SUCCEEDED]
    assert len(done) == ours.answered(), "another number of jobs is answered than was counted"
    ours.check_each(done)


def _rewrites(redis: Any) -> bool:
    return bool(redis.info("persistence")["aof_rewrite_in_progress"])


def _memory(redis: Any) -> int:
    return int(redis.info("memory")["used_memory"])


def _scripts(redis: Any) -> int:
    return int(redis.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


def _script_us(redis: Any) -> float:
    return float(redis.info("commandstats").get("cmdstat_evalsha", {}).get("usec", 0))


if __name__ == "__main__":
    run_alone(section)
