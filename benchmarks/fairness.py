"""How long the one job of a tenant waits behind all those of another, in three designs.

`python -m benchmarks.fairness` queues 100,000 jobs of tenant A, then one of tenant B, and prints a
Markdown table: in a plain list, in plain Celery and in Afterword. The queues are real, on a Valkey
of their own; the time that a reply takes is simulated, so a run of hours takes minutes. With
`--shards 4` it does so in four shards, with A's users in all of them or not in B's. With
`--real` workers answer, see `benchmarks.fairness_load`; it ends with 1 if B waits for over a reply.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import math
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from celery import Celery
from kombu import Connection
from redis import Redis

from afterword.shared.contracts import ChatRequest
from afterword.shared.hints import split_agenda
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import memory_key, queue_list, shard_of
from afterword.shared.settings import Settings
from afterword.workers.replies.shard_turns import ShardTurns
from benchmarks import fairness_load
from tests.kit.ledger.builder import reply_to
from tests.kit.servers.valkey import Valkey

_QUEUE, _AGENDA, _AT_ONCE = "work", "replies.3", 2000


#: In which shards A has users: in all, or in all but that of B's one job.
Where: TypeAlias = Literal["all shards", "others"]


@dataclass(frozen=True)
class Plan:
    """How many jobs A queues, how many run at once, how long each takes, and when B comes."""

    jobs: int = 100_000
    slots: int = 100
    service_s: float = 2.0
    comes_s: float = 60.013


@dataclass(frozen=True)
class Outcome:
    """How long B waited for a slot, in seconds, and how many jobs of A began meanwhile."""

    wait_s: float
    begun: int


class Design(Protocol):
    """A queue; workers take one job after the other from it."""

    name: str

    async def submit(self, tenant: str, count: int) -> None:
        """Queue jobs of a tenant."""
        ...

    async def take(self) -> str:
        """Take the next job, and answer it; return its tenant."""
        ...


class PlainList:
    """First in, first out: a list of Redis."""

    name = "FIFO list"

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    async def submit(self, tenant: str, count: int) -> None:
        """Push one name of a tenant for each job."""
        for start in range(0, count, _AT_ONCE):
            self._redis.lpush("fifo", *[tenant] * min(_AT_ONCE, count - start))

    async def take(self) -> str:
        """Pop the oldest."""
        return str(self._redis.rpop("fifo"))


class PlainCelery:
    """Celery as it comes: one queue, and messages taken in their order."""

    name = "plain Celery"

    def __init__(self, url: str) -> None:
        self._app = Celery("work", broker=url)
        self._connection: Any = Connection(url)
        self._taken: Any = self._connection.SimpleQueue(_QUEUE)

    async def submit(self, tenant: str, count: int) -> None:
        """Send a task for each job over one connection."""
        with self._app.connection_for_write() as connection:
            producer = self._app.amqp.Producer(connection)
            for _ in range(count):
                self._app.send_task("work", args=[tenant], queue=_QUEUE, producer=producer)

    async def take(self) -> str:
        """Take and acknowledge a message, as a worker does."""
        message = self._taken.get(block=False)
        message.ack()
        return str(message.payload[0][0])


class Afterword:
    """Hints taken in their order, and whatever job the ledger claims for each."""

    def __init__(
        self, ledger: Ledger, redis: Any, where: Where = "all shards", *, in_turn: bool = True
    ) -> None:
        settings = ledger.settings
        self._jobs, self._redis, self._shards = ledger.jobs, redis, settings.shards
        self._hints = queue_list(settings.namespace, *split_agenda(_AGENDA))
        self._takes = 0
        self._where = where
        self._turns = ShardTurns(self._shards if in_turn else 1, self._jobs.hint_next)
        self.name = "Afterword"
        if self._shards > 1:
            self.name = f"{self._shards} shards, A in {where}{'' if in_turn else ', as hinted'}"

    async def submit(self, tenant: str, count: int) -> None:
        """Submit jobs of a hundred users of the tenant."""
        users = self._users_of(tenant)
        for start in range(0, count, _AT_ONCE):
            asked = [
                ChatRequest(user_id=users[number % len(users)], message="hello", tenant=tenant)
                for number in range(start, min(start + _AT_ONCE, count))
            ]
            await self._jobs.submit_many((self._jobs.new_id(one), one) for one in asked)

    def _users_of(self, tenant: str) -> Sequence[str]:
        """Return users in all shards; of A, if so, in all but that of B's job."""
        users = [f"user-{number}" for number in range(100)]
        if tenant != "a" or self._where == "all shards":
            return users
        of_b = shard_of(memory_key("b", users[0]), self._shards)
        return [one for one in users if shard_of(memory_key("a", one), self._shards) != of_b]

    async def take(self) -> str:
        """Claim a job for the oldest hint, and answer it."""
        claim = None
        while claim is None:
            self._takes += 1
            hint = json.loads(json.loads(self._redis.rpop(self._hints))["body"])[0][0]
            claim = await self._jobs.claim(hint, f"token-{self._takes}")
        await self._turns.took(claim.job_id, claim.agenda, math.inf)
        await self._jobs.finish(claim, reply_to(claim))
        return str(json.loads(claim.body)["tenant"])


async def outcome_of(design: Design, plan: Plan) -> Outcome:
    """Queue A's jobs, let slots take them, let B come, and return how long B waits."""
    await design.submit("a", plan.jobs)
    free = [number * plan.service_s / plan.slots for number in range(plan.slots)]
    came, begun = False, 0
    while True:
        now = heapq.heappop(free)
        if not came and now >= plan.comes_s:
            await design.submit("b", 1)
            came = True
        if await design.take() == "b":
            return Outcome(now - plan.comes_s, begun)
        begun += came
        heapq.heappush(free, now + plan.service_s)


@asynccontextmanager
async def _opened(plan: Plan, shards: int = 1) -> AsyncIterator[tuple[Ledger, Any, str]]:
    """Give a ledger on a server of its own, a client of that, and its address."""
    with Valkey() as valkey, Redis.from_url(valkey.url, decode_responses=True) as redis:
        settings = Settings(
            redis_url=valkey.url, durability="none", memory="off", max_queued=2 * plan.jobs + 1,
            max_open_per_user=0, max_open_per_tenant=0, max_bytes_per_tenant=0,
            max_bytes_per_user=0, shards=shards,
        )  # fmt: skip
        async with Ledger(settings, patience_s=60.0) as ledger:
            yield ledger, redis, valkey.url


async def measure(plan: Plan) -> dict[str, Outcome]:
    """Return what each design makes of the same plan, by its name."""
    async with _opened(plan) as (ledger, redis, url):
        designs: list[Design] = [PlainList(redis), PlainCelery(url), Afterword(ledger, redis)]
        return {design.name: await outcome_of(design, plan) for design in designs}


async def measure_shards(plan: Plan, shards: int) -> dict[str, Outcome]:
    """Return what several shards make of it, and what they would if hints alone decided."""
    found: dict[str, Outcome] = {}
    ways: list[tuple[Where, bool]] = [("all shards", True), ("others", True), ("others", False)]
    for where, in_turn in ways:
        async with _opened(plan, shards) as (ledger, redis, _):
            design = Afterword(ledger, redis, where, in_turn=in_turn)
            found[design.name] = await outcome_of(design, plan)
    return found


def table(found: dict[str, Outcome]) -> str:
    """Return a Markdown table, a row for each design."""
    rows = ["| design | B's job waits, s | jobs of A that begin before it |", "|---|---|---|"]
    rows += [f"| {name} | {one.wait_s:,.2f} | {one.begun:,} |" for name, one in found.items()]
    return "\n".join(rows)


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return 1 if real workers let B wait too long."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fairness", description=__doc__)
    plan = Plan()
    parser.add_argument("--jobs", type=int, default=plan.jobs, help="queued jobs of A")
    parser.add_argument("--slots", type=int, default=plan.slots, help="jobs that run at once")
    parser.add_argument("--service", type=float, default=plan.service_s, help="seconds of a reply")
    parser.add_argument("--shards", type=int, default=1, help="measure only that many shards")
    parser.add_argument("--real", action="store_true", help="with real workers")
    parser.add_argument("--fewer", type=int, default=600, help="jobs of A where B waits for all")
    options = parser.parse_args(arguments)
    if options.real:
        found = asyncio.run(fairness_load.measure(options.fewer, options.jobs))
        print(fairness_load.table(found))
        return int(bool(fairness_load.missed(found)))
    chosen = Plan(options.jobs, options.slots, options.service, plan.comes_s)
    several = options.shards > 1
    measuring = measure_shards(chosen, options.shards) if several else measure(chosen)
    print(table(asyncio.run(measuring)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
