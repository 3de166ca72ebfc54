"""`python -m benchmarks.memory_lane`: what a turn costs, in how few adds, and whom it disturbs."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping

from afterword.producer import AsyncProducer
from benchmarks.added import Added, open_loop
from benchmarks.alone import alone
from benchmarks.designs import Afterword, Floor
from benchmarks.figures import percentile
from benchmarks.provider import Pace
from benchmarks.sections import Finding, Row, Told
from benchmarks.stage import Stage
from tests.kit.waiting import wait_until

#: Goals: CPU of a turn over that of its bare calls, adds a turn, and a reply's p99 in a flood.
_MOST_CPU, _MOST_ADDS, _MOST_P99 = 1.5, 0.5, 1.1

_USERS, _TURNS_OF_ONE = 100, 10
_PACE, _PER_SECOND = Pace(model_ms=200, recall_ms=50), 50.0
_FLOOD, _DEEP = 10_000, 100_000
_PATIENCE_S = 600.0

_ONE_BY_ONE = {"AFTERWORD_COALESCE_TURNS": "1"}
_EIGHT = {"AFTERWORD_COALESCE_TURNS": "8"}
_FLOODED = {"AFTERWORD_MAX_QUEUED": "1000000"}


def section(told: Told) -> Finding:
    """Store turns one by one beside mem0's bare calls, store bursts, and answer in a flood."""
    with Stage() as stage:
        ratio, per_second = _cost(stage, told)
        adds = _burst(stage)
    with Stage(_PACE) as stage:
        flood = _DEEP if told.deep else _FLOOD
        calm, flooded = _flood(stage, told, flood)
    p99 = [_p99(after) / _p99(before) for before, after in zip(calm, flooded, strict=True)]
    return Finding(
        rows=[
            Row("CPU of a turn over that of mem0's own calls", ratio, "x", _MOST_CPU),
            Row("turns stored", per_second, "a second"),
            Row(f"adds a turn, {_TURNS_OF_ONE} turns of a user waiting", adds, "", _MOST_ADDS),
            Row(f"reply p99, {flood:,} turns pending", statistics.median(p99), "x", _MOST_P99),
        ],
        text=(
            "A memory worker on mem0's platform, an add and a look at its event a turn, beside a "
            f"loop of these two calls. Replies are asked for {_PER_SECOND:g} times a second, with "
            "and without pending turns in the ledger, in turns."
        ),
        runs={"calm": [_p99(one) for one in calm], "flooded": [_p99(one) for one in flooded]},
    )


def _cost(stage: Stage, told: Told) -> tuple[float, float]:
    """Return our CPU of a turn over the bare calls', and turns a second."""
    talks = halted(Afterword(stage, 0))
    writes = halted(Afterword(stage, 0, environ=_ONE_BY_ONE, queue="memories"))
    # Its first run waits until it is ready.
    bare = Floor(stage, "mem0's calls", "floor", "adds", database=1)
    ratios, rates = [], []
    for number in range(told.rounds + 1):  # the first one warms up
        talk(talks, f"cost{number}", told.jobs, users=told.jobs)
        ours_s, seconds = stored(writes, told.jobs)
        before, cpu_s = bare.answered(), bare.crew.cpu_s
        bare.submit(f"cost{number}", told.jobs)
        bare.crew.go()
        wait_until(lambda: bare.answered() >= before + told.jobs, "all is added", _PATIENCE_S)  # noqa: B023
        bare.crew.halt()
        ratios.append(ours_s / (bare.crew.cpu_s - cpu_s))
        rates.append(told.jobs / seconds)
    return statistics.median(ratios[1:]), statistics.median(rates[1:])


def _burst(stage: Stage) -> float:
    """Return adds a turn when each user has many turns waiting."""
    talks = halted(Afterword(stage, 2))
    writes = halted(Afterword(stage, 2, environ=_EIGHT, queue="memories"))
    count = _USERS * _TURNS_OF_ONE
    talk(talks, "burst", count, users=_USERS)
    before = stage.ask_provider("adds")
    stored(writes, count)
    return (stage.ask_provider("adds") - before) / count


def _flood(stage: Stage, told: Told, count: int) -> tuple[list[Added], list[Added]]:
    """Return runs without and with so many turns pending; no memory worker is there."""
    calm, flooded = (halted(Afterword(stage, number, environ=_FLOODED)) for number in range(2))
    talk(flooded, "flood", count, users=count)
    runs: tuple[list[Added], list[Added]] = ([], [])
    for number in range(told.rounds + 1):
        for ours, found in zip((calm, flooded), runs, strict=True):
            ours.crew.go()
            job = open_loop(ours.settings, _PACE, f"flood{number}", _PER_SECOND, told.jobs)
            found.append(asyncio.run(job))
            ours.crew.halt()
    return runs[0][1:], runs[1][1:]


def halted(ours: Afterword) -> Afterword:
    """Return a worker that stands still, and is ready to go on."""
    ours.crew.ready_s()
    ours.crew.halt()
    return ours


def talk(ours: Afterword, run: str, count: int, users: int) -> None:
    """Have so many messages answered; their turns are pending then."""
    before = ours.answered()
    asyncio.run(_submit(ours, run, count, users))
    ours.crew.go()
    wait_until(lambda: ours.answered() >= before + count, "all is answered", _PATIENCE_S)
    ours.crew.halt()


async def _submit(ours: Afterword, run: str, count: int, users: int) -> None:
    asked: list[Mapping[str, str]] = [
        {"user_id": f"{run}-{number % users}", "message": f"I like the number {number}."}
        for number in range(count)
    ]
    async with AsyncProducer(ours.settings) as producer:
        for one in await producer.submit_many(asked):
            if isinstance(one, Exception):
                raise one


def stored(writes: Afterword, count: int) -> tuple[float, float]:
    """Let the pending turns be stored; return CPU and seconds."""
    before, cpu_s = writes.counted("turn:stored"), writes.crew.cpu_s
    start = time.perf_counter()
    writes.crew.go()
    wait_until(lambda: writes.counted("turn:stored") >= before + count, "all stored", _PATIENCE_S)
    seconds = time.perf_counter() - start
    writes.crew.halt()
    assert writes.counted("turn:pending") == 0, "a turn was left"
    return writes.crew.cpu_s - cpu_s, seconds


def _p99(run: Added) -> float:
    return percentile(run.final, 99)


if __name__ == "__main__":
    alone(section)
