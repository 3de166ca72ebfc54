"""CPU of a delta with 200 replies streamed at once, 100 deltas each."""

from __future__ import annotations

import asyncio
import resource
import statistics
from collections.abc import Mapping
from typing import Any

from redis import Redis

from afterword.producer import AsyncProducer
from benchmarks.comparison import measure_in_turns
from benchmarks.designs import BARE_CALLS, Afterword, BareCalls
from benchmarks.figures import as_json, medians, ratios, table
from benchmarks.peers.jobs import jobs
from benchmarks.plots import bars
from benchmarks.provider import AnswerTiming
from benchmarks.run_alone import run_alone
from benchmarks.sections import Finding, Options, Row
from benchmarks.testbed import Testbed

_STREAMS = 200
_TIMING = AnswerTiming(model_ms=200, deltas=100, gap_ms=20)
_MOST_OVER_BARE = 1.4


def section(options: Options) -> Finding:
    """Compare with the bare streamed calls, then read all streams with one producer."""
    with Testbed(_TIMING) as testbed:
        ours = Afterword(testbed, 0)
        bare = BareCalls(testbed, BARE_CALLS, "bare_calls", database=1)
        found, left_out = measure_in_turns([ours, bare], options.rounds, options.jobs)
        assert not left_out, str(left_out)
        bare.process.kill()
        read = [_read(ours, testbed, f"read{number}") for number in range(options.rounds)]
    middle = medians(found)
    per_delta = {name: one.cpu_ms / _TIMING.deltas * 1000 for name, one in middle.items()}
    cpu = ratios(found, ours.name)[BARE_CALLS]["cpu"]
    rows = [
        Row("CPU of a streamed job over that of the bare calls", cpu, "x", _MOST_OVER_BARE),
        *(Row(f"CPU of a delta, {name}", value, "us") for name, value in per_delta.items()),
        *(Row(name, statistics.median(one[name] for one in read)) for name in read[0]),
    ]
    return Finding(
        rows=rows,
        text=(
            f"{_TIMING.deltas} deltas, {_TIMING.gap_ms:g} ms apart, published every "
            f"{ours.settings.delta_ms} ms. The figures of a delta are shares of a whole job.\n\n"
            + table(found, ours.name)
        ),
        plots={"fan_out": bars(per_delta, "us a delta")},
        runs=as_json(found) | {"read": read},
    )


def _read(ours: Afterword, testbed: Testbed, run: str) -> Mapping[str, float]:
    """Read all streams at once; return the costs for the worker, the reader and Redis."""
    redis: Any = Redis.from_url(testbed.redis(0), decode_responses=True)
    ours.process.resume()
    before, cpu_s, own_s = _calls(redis), ours.process.cpu_s, _own_cpu_s()
    job_ids = asyncio.run(_read_all(ours, run))
    after, cpu_s, own_s = _calls(redis), ours.process.cpu_s - cpu_s, _own_cpu_s() - own_s
    ours.process.pause()
    ours.check_each(job_ids)
    deltas = _STREAMS * _TIMING.deltas
    return {
        "with a reader each: CPU of a delta, worker, us": cpu_s / deltas * 1e6,
        "with a reader each: CPU of a delta, reader, us": own_s / deltas * 1e6,
        "pieces in the stream of a reply": (after["xadd"] - before["xadd"]) / _STREAMS,
        "scripts run for a reply": (after["evalsha"] - before["evalsha"]) / _STREAMS,
        "reads of its reader": (after["xrange"] - before["xrange"]) / _STREAMS,
        "commands of Redis in all, those of scripts too": (
            sum(after.values()) - sum(before.values())
        ) / _STREAMS,
    }  # fmt: skip


async def _read_all(ours: Afterword, run: str) -> list[str]:
    async with AsyncProducer(ours.settings) as producer, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_read_one(producer, user, message))
            for _, user, message in jobs(run, _STREAMS)
        ]
    job_ids = [task.result() for task in tasks]
    assert len(set(job_ids)) == _STREAMS, "a job was accepted twice"
    return job_ids


async def _read_one(producer: AsyncProducer, user: str, message: str) -> str:
    job = await producer.submit(user_id=user, message=message)
    events = [event async for event in job.stream()]
    text = "".join(event.text or "" for event in events if event.type == "delta")
    assert text == _TIMING.text, f"{job.id}: the stream differs from the answer"
    assert [event.type for event in events].count("final") == 1, f"{job.id}: ended twice"
    return job.id


def _calls(redis: Any) -> dict[str, int]:
    """Return how often Redis ran each command, those of scripts included."""
    found = redis.info("commandstats")
    named = {name.removeprefix("cmdstat_"): one["calls"] for name, one in found.items()}
    return {"xadd": 0, "evalsha": 0, "xrange": 0} | named


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    run_alone(section)
