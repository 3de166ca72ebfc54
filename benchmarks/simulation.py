"""A simulation of queues that gives the table of docs/explanation/capacity.md.

`python -m benchmarks.simulation` prints the table. The simulation is an event-by-event run of a
queue in front of equal servers, with a fixed seed.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass

from benchmarks.figures import percentile


@dataclass(frozen=True)
class Costs:
    """Measured costs of a reply: CPU of a worker and of Redis in ms, the time to answer in s."""

    worker_ms: float
    redis_ms: float
    answer_s: float


@dataclass(frozen=True)
class Plan:
    """What a rate of replies needs."""

    per_second: float
    processes: int
    shards: int
    in_flight: float
    slots: int


def plan(per_second: float, costs: Costs, busy: float) -> Plan:
    """Return the least number of processes and shards that leave each core at most `busy`.

    A quarter of the slots stays free.
    """
    processes = max(1, math.ceil(per_second * costs.worker_ms / 1000 / busy))
    shards = max(1, math.ceil(per_second * costs.redis_ms / 1000 / busy))
    in_flight = per_second * costs.answer_s
    return Plan(per_second, processes, shards, in_flight, math.ceil(in_flight * 1.25 / processes))


def waits(
    per_second: float, servers: int, service_ms: float, count: int, seed: int = 7
) -> list[float]:
    """Return how long each arrival waits for a free server, in ms.

    Arrivals are random (Poisson) and service times exponential, which is less even than real steps.
    """
    chance, free, now = random.Random(seed), [0.0] * servers, 0.0
    found: list[float] = []
    for _ in range(count):
        now += chance.expovariate(per_second)
        begins = max(now, heapq.heappop(free))
        heapq.heappush(free, begins + chance.expovariate(1000 / service_ms))
        found.append((begins - now) * 1000)
    return found


#: CPU of a worker with 1,000 jobs in flight (docs/benchmarks/latest.md); six steps of Redis and a
#: reserve.
COSTS = Costs(worker_ms=1.88, redis_ms=0.25, answer_s=2.0)
BUSY, _ARRIVALS, _EACH = 0.6, 200_000, (100, 1_000, 5_000, 10_000)


def table(costs: Costs, busy: float) -> str:
    """Return a Markdown table of plans, each with its simulated waits."""
    lines = [
        (
            "| replies/s | in flight | worker processes | slots each | Redis shards "
            "| wait for a worker's core, p99 ms | for a shard, p99 ms |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(plan(rate, costs, busy), costs) for rate in _EACH)])


def _line(found: Plan, costs: Costs) -> str:
    """Return a row. A job cannot change its process or shard, so each has its own queue."""
    worker = waits(found.per_second / found.processes, 1, costs.worker_ms, _ARRIVALS)
    shard = waits(found.per_second / found.shards, 1, costs.redis_ms, _ARRIVALS)
    return (
        f"| {found.per_second:,.0f} | {found.in_flight:,.0f} | {found.processes} | {found.slots} "
        f"| {found.shards} | {percentile(worker, 99):.1f} | {percentile(shard, 99):.1f} |"
    )


if __name__ == "__main__":
    print(table(COSTS, BUSY))
