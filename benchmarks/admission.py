"""Admission before calls beside the gate alone, at one, two and three times a provider's limit.

`python -m benchmarks.admission` starts a worker with admission and one without, each before a
stand-in of Claude whose rate limit refills as Anthropic's does, submits more than the limit allows,
and prints what the stand-in refused and which share of its limit was used.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from afterword.producer import AsyncProducer
from afterword.shared.settings import Settings
from benchmarks.added_latency import arrivals
from benchmarks.designs import Afterword
from benchmarks.provider import AnswerTiming
from benchmarks.rate_limit import RateLimit
from benchmarks.report import machine
from benchmarks.testbed import Testbed

#: Tokens that the stand-in counts for a call.
INPUT, OUTPUT = 100, 80
TIMING = AnswerTiming(model_ms=300, recall_ms=20, deltas=4, gap_ms=400, spread_ms=500)
_WARM_UP_S = 20.0
_MODES: Mapping[str, str] = {"the gate alone": "false", "admission": "true"}


@dataclass(frozen=True)
class Measured:
    """What a run gave, after its warm-up."""

    served: float
    refused: float
    throughput: float

    @property
    def refused_share(self) -> float:
        """Return which share of the calls was refused."""
        return self.refused / max(1.0, self.served + self.refused)


def measure(admission: str, per_second: float, overload: float, seconds: float) -> Measured:
    """Offer a multiple of the limit for some seconds to one worker."""
    with Testbed(TIMING, limit_of(per_second)) as testbed:
        environ = {"AFTERWORD_ADMISSION": admission, "AFTERWORD_JOB_TTL_S": "3600"}
        design = Afterword(testbed, 0, environ=environ)
        design.process.wait_until_ready()
        return asyncio.run(
            _offer(testbed, design.settings, per_second, per_second * overload, seconds)
        )


def limit_of(per_second: float) -> RateLimit:
    """Return a limit with room for so many replies a second, of whose minute little is left."""
    minute = per_second * 60
    return RateLimit(minute * 1.5, minute * INPUT * 1.5, minute * OUTPUT, at_first=0.05)


async def _offer(
    testbed: Testbed, settings: Settings, per_second: float, offered: float, seconds: float
) -> Measured:
    async with AsyncProducer(settings) as producer:
        submitting = asyncio.create_task(_submit(producer, offered, seconds + _WARM_UP_S))
        await asyncio.sleep(_WARM_UP_S)
        before, began = await asyncio.to_thread(count_calls, testbed), time.monotonic()
        await asyncio.sleep(seconds)
        after, lasted = await asyncio.to_thread(count_calls, testbed), time.monotonic() - began
        submitting.cancel()
    grown = {name: after[name] - before[name] for name in after}
    allowed = per_second * OUTPUT * lasted
    return Measured(grown["served"], grown["refused"], grown["produced"] / allowed)


async def _submit(producer: AsyncProducer, per_second: float, seconds: float) -> None:
    number = 0
    async with asyncio.TaskGroup() as group:
        async for _ in arrivals(per_second, int(per_second * seconds)):
            number += 1
            asked = producer.submit(user_id=f"user-{number}", message=f"How warm is room {number}?")
            group.create_task(asked)


def count_calls(testbed: Testbed) -> dict[str, float]:
    """Return what the limit of the stand-in has served and refused so far."""
    with urllib.request.urlopen(f"{testbed.provider}/_limit", timeout=10) as answer:  # noqa: S310 ours
        found: dict[str, float] = json.loads(answer.read())
        return found


def main() -> None:
    """Measure in turns and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admission", description=__doc__)
    parser.add_argument("--per-second", type=float, default=20.0, help="replies that the limit has")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--overloads", type=float, nargs="*", default=[1.0, 2.0, 3.0])
    told = parser.parse_args()
    print("| offered | design | answered | refused (429) | share refused | of the limit used |")
    print("|---|---|---|---|---|---|")
    for overload in told.overloads:
        for name, admission in _MODES.items():
            found = measure(admission, told.per_second, overload, told.seconds)
            print(
                f"| {overload:g} x | {name} | {found.served:.0f} | {found.refused:.0f} "
                f"| {found.refused_share:.2%} | {found.throughput:.1%} |",
                flush=True,
            )
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
