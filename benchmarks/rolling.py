"""What replacing every worker under load costs in waiting: its 99th percentile beside none.

`python -m benchmarks.rolling` submits at a fixed rate to two workers, in turn while they are left
alone and while each is replaced by one of the next record version. It ends with 1 if a job was lost
or doubled. Claude and mem0's platform are stand-ins. The new workers are forked from a process that
has imported everything, as in the tests: those of a real deploy start on the CPU of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from afterword.producer import AsyncProducer
from tests.kit.fault_runs.crash_run import SharedServers, shared_servers
from tests.kit.fault_runs.load_run import LoadRun
from tests.kit.servers.valkey import Valkey
from tests.kit.workers.forked_workers import NEWER_APP

USERS = 40
_WORKERS = 2
_PATIENCE_S = 120.0

_PAGE = """\
# Rolling deploy

`python -m benchmarks.rolling {command}`: two workers, in turn left alone and
each replaced by one of the next record version, which is ready before the old one is told to stop.

| workers | jobs | median | 99th percentile | lost, doubled or left open |
|---|---|---|---|---|
{rows}

The 99th percentile is {ratio:.2f} times as long; the goal is at most 2. Rounds of both
kinds take turns, so that whatever else the two cores do meets both.

Claude and mem0's platform are stand-ins that answer at once, so this is what a deploy adds, not how
long a reply takes. `tests/faults/test_rolling_deploy.py` checks that nothing is lost or doubled,
also of records that the old workers hold.
"""


@dataclass
class Figures:
    """What the rounds of one kind measured: seconds from submit to reply, and what went wrong."""

    took_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def percentile(self, which: int) -> float:
        """Return a percentile, in milliseconds."""
        return statistics.quantiles(self.took_s, n=100)[which - 1] * 1000


async def _load(run: LoadRun, rate: float, seconds: float, took_s: list[float]) -> list[str]:
    """Submit at a fixed rate, whatever happens; return the ids, once each has its reply."""
    async with AsyncProducer(run.settings) as producer, asyncio.TaskGroup() as group:
        waits = list[asyncio.Task[str]]()
        began = time.monotonic()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            user = f"u{number % USERS}-{run.settings.namespace}"
            waits.append(group.create_task(_one(producer, user, took_s)))
    return [wait.result() for wait in waits]


async def _one(producer: AsyncProducer, user: str, took_s: list[float]) -> str:
    began = time.monotonic()
    job = await producer.submit(user_id=user, message="I like the number of this job.")
    await job.wait(timeout=_PATIENCE_S)
    took_s.append(time.monotonic() - began)
    return job.id


async def _replace_all(run: LoadRun, pause_s: float) -> None:
    """Replace each worker: a new one is ready before an old one is told to stop."""
    for _ in range(_WORKERS):
        await asyncio.sleep(pause_s)
        await asyncio.to_thread(partial(run.start, app=NEWER_APP))
        await asyncio.to_thread(run.stop_oldest)


async def _round(
    on: SharedServers, figures: Figures, rate: float, seconds: float, *, rolling: bool
) -> None:
    with Valkey("--appendonly", "yes") as valkey, LoadRun(on, valkey) as run:
        run.start(_WORKERS)
        async with asyncio.TaskGroup() as group:
            load = group.create_task(_load(run, rate, seconds, figures.took_s))
            if rolling:
                group.create_task(_replace_all(run, seconds / (_WORKERS + 1)))
        run.accepted += [run.producer.job(one) for one in load.result()]
        report = await asyncio.to_thread(run.settle)
        figures.wrong += [f"{name}: {len(which)}" for name, which in report.wrong.items()]


async def measure(rounds: int, rate: float, seconds: float) -> tuple[Figures, Figures]:
    """Return the figures of workers that are left alone, and of workers that are replaced."""
    alone, replaced = Figures(), Figures()
    with tempfile.TemporaryDirectory(prefix="afterword-rolling-") as folder:
        os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": folder}
        with shared_servers(Path(folder)) as on:
            for _ in range(rounds):
                await _round(on, alone, rate, seconds, rolling=False)
                await _round(on, replaced, rate, seconds, rolling=True)
    return alone, replaced


def page(alone: Figures, replaced: Figures, options: argparse.Namespace) -> str:
    """Return the page of the documents."""
    ratio = replaced.percentile(99) / alone.percentile(99)
    rows = (_row("left alone", alone), _row("replaced one by one", replaced))
    command = f"--rounds {options.rounds} --rate {options.rate:g} --seconds {options.seconds:g}"
    return _PAGE.format(command=command, rows="\n".join(rows), ratio=ratio)


def _row(name: str, found: Figures) -> str:
    times = f"{found.percentile(50):.0f} ms | {found.percentile(99):.0f} ms"
    return f"| {name} | {len(found.took_s):,} | {times} | {', '.join(found.wrong) or '0'} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the page, and write it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each kind")
    parser.add_argument("--rate", type=float, default=20.0, help="jobs a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a round")
    parser.add_argument("--output", type=Path, help="file that the page is written to")
    options = parser.parse_args(argv)
    alone, replaced = asyncio.run(measure(options.rounds, options.rate, options.seconds))
    text = page(alone, replaced, options)
    print(text)
    if options.output:
        options.output.write_text(text)
    return 1 if alone.wrong or replaced.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
