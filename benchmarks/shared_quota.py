"""Replies and the extraction of memories on one quota: who gets it, and what becomes of the rest.

`python -m benchmarks.shared_quota` offers replies at a provider's limit, first alone and then
beside a memory worker whose extractions need as much of the same limit again, and ends with a quiet
in which nothing is submitted. mem0 is the self-hosted one in PostgreSQL; the stand-in of Claude
enforces the limit. It fails if a reply or a memory is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from afterword.producer import AsyncProducer
from benchmarks.added_latency import arrivals
from benchmarks.admission import TIMING, count_calls, limit_of
from benchmarks.designs import Afterword
from benchmarks.report import machine
from benchmarks.testbed import Testbed
from tests.kit.servers.postgres import Postgres

#: Replies and extractions ask the same model, so they share its quota.
_SHARED = {"AFTERWORD_JOB_TTL_S": "3600", "AFTERWORD_MEMORY_MODEL": "claude-sonnet-5-5"}
_WARM_UP_S, _SETTLE_S, _LOOK_S = 10.0, 5.0, 0.25
_MOST_QUIET_S = 600.0


@dataclass(frozen=True)
class Phase:
    """What a time of offering replies gave."""

    replies: float
    extractions: float
    refused: float
    seconds: float

    @property
    def refused_share(self) -> float:
        """Return which share of the calls was refused."""
        return self.refused / max(1.0, self.replies + self.extractions + self.refused)


@dataclass(frozen=True)
class Quiet:
    """What became of the turns that waited once nothing was submitted any more."""

    waiting: int
    extractions: float
    refused: float
    seconds: float


class _Fleet:
    """A worker that replies and one that stores in PostgreSQL, before one limit."""

    def __init__(self, testbed: Testbed, postgres: Postgres, admission: str) -> None:
        environ = _SHARED | {"AFTERWORD_ADMISSION": admission}
        own = {"AFTERWORD_MEMORY": "selfhosted", "AFTERWORD_POSTGRES_URL": postgres.new_database()}
        self._testbed = testbed
        self._accepted = 0
        self._offers = True
        self._replier = Afterword(testbed, 0, environ=environ)
        self.writer = Afterword(testbed, 0, environ=environ | own, queue="memories")
        self._replier.process.wait_until_ready()
        self.writer.process.wait_until_ready()

    async def measure(self, seconds: float) -> Phase:
        """Count what the provider served and refused for some seconds."""
        before, began = await self._calls(), time.monotonic()
        await asyncio.sleep(seconds)
        after, lasted = await self._calls(), time.monotonic() - began
        grown = {name: after[name] - before[name] for name in after}
        replies = grown["served"] - grown["extractions"]
        return Phase(replies, grown["extractions"], grown["refused"], lasted)

    @asynccontextmanager
    async def offering(self, per_second: float) -> AsyncIterator[None]:
        """Submit at random moments while the context is open."""
        async with AsyncProducer(self._replier.settings) as producer:
            submitting = asyncio.create_task(self._submit(producer, per_second))
            yield
            self._offers = False
            await submitting

    async def catch_up(self) -> Quiet:
        """Wait until all is answered and stored; fail if something is lost."""
        waiting, began = self._accepted - self._stored, time.monotonic()
        before = await self._calls()
        while self._stored < self._accepted:
            assert time.monotonic() - began < _MOST_QUIET_S, "extraction did not catch up"
            await asyncio.sleep(_LOOK_S)
        seconds, after = time.monotonic() - began, await self._calls()
        assert self._replier.answered() == self._accepted, "a reply is lost"
        assert self._stored == self._accepted, "a turn was stored that nobody sent"
        called = after["extractions"] - before["extractions"]
        return Quiet(waiting, called, after["refused"] - before["refused"], seconds)

    @property
    def _stored(self) -> int:
        return self.writer.count_in_ledger("turn:stored")

    async def _calls(self) -> dict[str, float]:
        return await asyncio.to_thread(count_calls, self._testbed)

    async def _submit(self, producer: AsyncProducer, per_second: float) -> None:
        async with asyncio.TaskGroup() as group:
            async for _ in arrivals(per_second, int(per_second * _MOST_QUIET_S)):
                if not self._offers:
                    break
                self._accepted += 1
                said = f"I like the number {self._accepted}."
                group.create_task(producer.submit(user_id=f"u{self._accepted}", message=said))


async def _with_admission(
    fleet: _Fleet, per_second: float, seconds: float
) -> tuple[Phase, Phase, Quiet]:
    """Measure replies alone, then beside extraction, then what extraction does in the quiet."""
    fleet.writer.process.pause()
    async with fleet.offering(per_second):
        await asyncio.sleep(_WARM_UP_S)
        alone = await fleet.measure(seconds)
        fleet.writer.process.resume()
        await asyncio.sleep(_SETTLE_S)
        both = await fleet.measure(seconds)
    return alone, both, await fleet.catch_up()


async def _without(fleet: _Fleet, per_second: float, seconds: float) -> Phase:
    async with fleet.offering(per_second):
        await asyncio.sleep(_WARM_UP_S)
        return await fleet.measure(seconds)


def _table(rows: Sequence[tuple[str, Phase]], alone: Phase) -> str:
    lines = [
        "| on one quota | replies | of those alone | extractions | refused (429) | share refused |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in rows:
        share = one.replies / one.seconds / (alone.replies / alone.seconds)
        lines.append(
            f"| {name} | {one.replies:.0f} | {share:.1%} | {one.extractions:.0f} "
            f"| {one.refused:.0f} | {one.refused_share:.2%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure both designs and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shared_quota", description=__doc__)
    parser.add_argument("--per-second", type=float, default=8.0, help="replies that the limit has")
    parser.add_argument("--seconds", type=float, default=25.0)
    told = parser.parse_args()
    limit = limit_of(told.per_second)
    with Postgres() as postgres:
        with Testbed(TIMING, limit) as testbed:
            fleet = _Fleet(testbed, postgres, "true")
            alone, both, quiet = asyncio.run(_with_admission(fleet, told.per_second, told.seconds))
        with Testbed(TIMING, limit) as testbed:
            fleet = _Fleet(testbed, postgres, "false")
            without = asyncio.run(_without(fleet, told.per_second, told.seconds))
    rows = [
        ("replies alone", alone),
        ("and extraction, the gate alone", without),
        ("and extraction, admission", both),
    ]
    print(_table(rows, alone))
    print(
        f"\nIn the quiet after it, {quiet.waiting} turns that waited were stored in "
        f"{quiet.seconds:.0f} s by {quiet.extractions:.0f} calls; the limit allows "
        f"{told.per_second:g} calls a second. {quiet.refused:.0f} were refused. Nothing was lost."
    )
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
