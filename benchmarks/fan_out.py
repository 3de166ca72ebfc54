"""`python -m benchmarks.fan_out`: 200 replies streamed at once, 100 deltas each."""

from __future__ import annotations

import asyncio
import resource
import statistics
from collections.abc import Mapping
from typing import Any

from redis import Redis

from afterword.producer import AsyncProducer
from benchmarks.alone import alone
from benchmarks.contest import contest
from benchmarks.designs import FLOOR, Afterword, Floor
from benchmarks.figures import as_json, medians, ratios, table
from benchmarks.peers.jobs import jobs
from benchmarks.plots import bars
from benchmarks.provider import Pace
from benchmarks.sections import Finding, Row, Told
from benchmarks.stage import Stage

_STREAMS = 200
_PACE = Pace(model_ms=200, deltas=100, gap_ms=20)
_MOST_OF_FLOOR = 1.4


def section(told: Told) -> Finding:
    """Compare with the bare streamed calls, then let one producer read all streams."""
    with Stage(_PACE) as stage:
        ours = Afterword(stage, 0)
        floor = Floor(stage, FLOOR, "floor", database=1)
        found, left_out = contest([ours, floor], told.rounds, told.jobs)
        assert not left_out, str(left_out)
        floor.crew.end()
        read = [_read(ours, stage, f"read{number}") for number in range(told.rounds)]
    middle = medians(found)
    per_delta = {name: one.cpu_ms / _PACE.deltas * 1000 for name, one in middle.items()}
    cpu = ratios(found, ours.name)[FLOOR]["cpu"]
    rows = [
        Row("CPU of a streamed job over that of the bare calls", cpu, "x", _MOST_OF_FLOOR),
        *(Row(f"CPU of a delta, {name}", value, "us") for name, value in per_delta.items()),
        *(Row(name, statistics.median(one[name] for one in read)) for name in read[0]),
    ]
    return Finding(
        rows=rows,
        text=(
            f"{_PACE.deltas} deltas in {_PACE.gap_ms * _PACE.deltas / 1000:g} s, gathered for "
            f"{ours.settings.delta_ms} ms; a delta's share of a whole job, recall and all.\n\n"
            + table(found, ours.name)
        ),
        plots={"fan_out": bars(per_delta, "us a delta")},
        runs=as_json(found) | {"read": read},
    )


def _read(ours: Afterword, stage: Stage, run: str) -> Mapping[str, float]:
    """Read all streams at once; return what one costs the worker, its reader and Redis."""
    redis: Any = Redis.from_url(stage.redis(0), decode_responses=True)
    ours.crew.go()
    before, cpu_s, own_s = _calls(redis), ours.crew.cpu_s, _own_cpu_s()
    job_ids = asyncio.run(_read_all(ours, run))
    after, cpu_s, own_s = _calls(redis), ours.crew.cpu_s - cpu_s, _own_cpu_s() - own_s
    ours.crew.halt()
    ours.check_each(job_ids)
    deltas = _STREAMS * _PACE.deltas
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
    assert text == _PACE.text, f"{job.id}: the stream is not the answer"
    assert [event.type for event in events].count("final") == 1, f"{job.id}: ended twice"
    return job.id


def _calls(redis: Any) -> dict[str, int]:
    """Return how often Redis was asked each command, by scripts too."""
    found = redis.info("commandstats")
    named = {name.removeprefix("cmdstat_"): one["calls"] for name, one in found.items()}
    return {"xadd": 0, "evalsha": 0, "xrange": 0} | named


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    alone(section)
