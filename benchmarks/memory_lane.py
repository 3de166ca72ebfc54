"""CPU and adds of a stored turn, and the effect of a backlog of turns on replies."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping

from afterword.producer import AsyncProducer
from benchmarks.added_latency import LatencySamples, open_loop
from benchmarks.designs import Afterword, BareCalls
from benchmarks.figures import percentile
from benchmarks.provider import AnswerTiming
from benchmarks.run_alone import run_alone
from benchmarks.sections import Finding, Options, Row
from benchmarks.testbed import Testbed
from tests.kit.waiting import wait_until

#: Goals: CPU of a turn over that of its bare calls, adds per turn, growth of p99 with a backlog.
_MOST_CPU, _MOST_ADDS, _MOST_P99 = 1.5, 0.5, 1.1

_USERS, _TURNS_OF_ONE = 100, 10
_TIMING, _PER_SECOND = AnswerTiming(model_ms=200, recall_ms=50), 50.0
_BACKLOG, _DEEP = 10_000, 100_000
_PATIENCE_S = 600.0

_ONE_BY_ONE = {"AFTERWORD_COALESCE_TURNS": "1"}
_EIGHT = {"AFTERWORD_COALESCE_TURNS": "8"}
_MANY_QUEUED = {"AFTERWORD_MAX_QUEUED": "1000000"}


def section(options: Options) -> Finding:
    """Store turns one by one beside mem0's bare calls, store bursts, and reply beside a backlog."""
    with Testbed() as testbed:
        ratio, per_second = _cost(testbed, options)
        adds = _burst(testbed)
    with Testbed(_TIMING) as testbed:
        flood = _DEEP if options.deep else _BACKLOG
        calm, flooded = _flood(testbed, options, flood)
    p99 = [_p99(after) / _p99(before) for before, after in zip(calm, flooded, strict=True)]
    return Finding(
        rows=[
            Row("CPU of a turn over that of mem0's own calls", ratio, "x", _MOST_CPU),
            Row("turns stored", per_second, "a second"),
            Row(f"adds a turn, {_TURNS_OF_ONE} turns of a user waiting", adds, "", _MOST_ADDS),
            Row(f"reply p99, {flood:,} turns pending", statistics.median(p99), "x", _MOST_P99),
        ],
        text=(
            "A memory worker on mem0's platform makes an add and one request for its event per "
            f"turn, and is compared with a loop of these two calls. {_PER_SECOND:g} messages per "
            "second are submitted with and without pending turns in the ledger, alternately."
        ),
        runs={"calm": [_p99(one) for one in calm], "flooded": [_p99(one) for one in flooded]},
    )


def _cost(testbed: Testbed, options: Options) -> tuple[float, float]:
    """Return the CPU of a turn over that of the bare calls, and turns per second."""
    replier = start_paused(Afterword(testbed, 0))
    writer = start_paused(Afterword(testbed, 0, environ=_ONE_BY_ONE, queue="memories"))
    # The warm-up run waits until it is ready.
    bare = BareCalls(testbed, "mem0's calls", "bare_calls", "adds", database=1)
    ratios, rates = [], []
    for number in range(options.rounds + 1):  # the first one warms up
        answer_messages(replier, f"cost{number}", options.jobs, users=options.jobs)
        ours_s, seconds = store_pending(writer, options.jobs)
        ratios.append(ours_s / _bare_cpu_s(bare, f"cost{number}", options.jobs))
        rates.append(options.jobs / seconds)
    return statistics.median(ratios[1:]), statistics.median(rates[1:])


def _bare_cpu_s(bare: BareCalls, run: str, count: int) -> float:
    """Return the CPU seconds of mem0's bare calls for `count` turns."""
    before, cpu_s = bare.answered(), bare.process.cpu_s
    bare.submit(run, count)
    bare.process.resume()
    wait_until(lambda: bare.answered() >= before + count, "all turns are added", _PATIENCE_S)
    bare.process.pause()
    return bare.process.cpu_s - cpu_s


def _burst(testbed: Testbed) -> float:
    """Return adds per turn when each user has many turns waiting."""
    replier = start_paused(Afterword(testbed, 2))
    writer = start_paused(Afterword(testbed, 2, environ=_EIGHT, queue="memories"))
    count = _USERS * _TURNS_OF_ONE
    answer_messages(replier, "burst", count, users=_USERS)
    before = testbed.ask_provider("adds")
    store_pending(writer, count)
    return (testbed.ask_provider("adds") - before) / count


def _flood(
    testbed: Testbed, options: Options, count: int
) -> tuple[list[LatencySamples], list[LatencySamples]]:
    """Return runs without and with `count` pending turns; no memory worker runs."""
    calm, flooded = (
        start_paused(Afterword(testbed, number, environ=_MANY_QUEUED)) for number in range(2)
    )
    answer_messages(flooded, "flood", count, users=count)
    runs: tuple[list[LatencySamples], list[LatencySamples]] = ([], [])
    for number in range(options.rounds + 1):
        for ours, found in zip((calm, flooded), runs, strict=True):
            ours.process.resume()
            job = open_loop(ours.settings, _TIMING, f"flood{number}", _PER_SECOND, options.jobs)
            found.append(asyncio.run(job))
            ours.process.pause()
    return runs[0][1:], runs[1][1:]


def start_paused(ours: Afterword) -> Afterword:
    """Wait until a worker is ready, pause it and return it."""
    ours.process.wait_until_ready()
    ours.process.pause()
    return ours


def answer_messages(ours: Afterword, run: str, count: int, users: int) -> None:
    """Let the worker answer `count` messages, which leaves their turns pending."""
    before = ours.answered()
    asyncio.run(_submit(ours, run, count, users))
    ours.process.resume()
    wait_until(lambda: ours.answered() >= before + count, "all messages are answered", _PATIENCE_S)
    ours.process.pause()


async def _submit(ours: Afterword, run: str, count: int, users: int) -> None:
    asked: list[Mapping[str, str]] = [
        {"user_id": f"{run}-{number % users}", "message": f"I like the number {number}."}
        for number in range(count)
    ]
    async with AsyncProducer(ours.settings) as producer:
        for one in await producer.submit_many(asked):
            if isinstance(one, Exception):
                raise one


def store_pending(writer: Afterword, count: int) -> tuple[float, float]:
    """Let the worker store the pending turns; return its CPU seconds and the seconds it took."""
    before, cpu_s = writer.count_in_ledger("turn:stored"), writer.process.cpu_s
    start = time.perf_counter()
    writer.process.resume()
    wait_until(
        lambda: writer.count_in_ledger("turn:stored") >= before + count,
        "all turns are stored",
        _PATIENCE_S,
    )
    seconds = time.perf_counter() - start
    writer.process.pause()
    assert writer.count_in_ledger("turn:pending") == 0, "a turn is still pending"
    return writer.process.cpu_s - cpu_s, seconds


def _p99(run: LatencySamples) -> float:
    return percentile(run.final, 99)


if __name__ == "__main__":
    run_alone(section)
