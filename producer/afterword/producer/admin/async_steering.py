"""Orders to a running fleet, for code that runs on an event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Any, Literal

from afterword.producer.admin.fleet_status import GONE_S
from afterword.producer.admin.recorded import recorded
from afterword.producer.checked_ledger import CheckedLedger
from afterword.shared.arguments import Id, Line, Moment, checked
from afterword.shared.contracts import DEFAULT_TENANT
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.order_records import (
    Interval,
    OrderKind,
    OrderSeconds,
    SteeringOrder,
    TenantLimits,
)
from afterword.shared.ledger.orders import Whom
from afterword.shared.ledger.records import WorkerSeen
from afterword.shared.names import MEMORIES, REPLIES, lane_id, lane_tag, memory_key, shard_of

#: How long an order to drain is kept at most; it ends with its worker.
DRAIN_S = 3600.0

#: What a pause stops.
Work = Literal["replies", "memories"]

#: A kind of workers.
WorkerKind = Literal["responses", "memories"]

#: The queue of each kind of workers.
QUEUES: dict[str, str] = {"responses": REPLIES, "memories": MEMORIES}

#: The order that pauses each kind of work.
PAUSES: dict[Work, OrderKind] = {
    "replies": OrderKind.PAUSE_REPLIES,
    "memories": OrderKind.PAUSE_MEMORIES,
}


class AsyncSteering:
    """Gives orders to the fleet: pauses work, stops or slows a customer, limits a tenant.

    Returned by `AsyncOperator.steering`. An order is kept in the ledger, so it survives restarts of
    workers and of Redis; it ends after `for_s` seconds, at `until`, or when it is lifted. The same
    order again takes the place of the one before. What is running is not interrupted, and erasures
    go on under any order. Each call that changes something is recorded in the audit first; one that
    the ledger refuses after that is recorded as refused.

    Every method raises `InvalidRequest` naming an argument that is not valid, and what the methods
    of `AsyncOperator` raise of Redis.
    """

    def __init__(self, desk: Callable[[], CheckedLedger], by: str, *, changes: bool = True) -> None:
        self._desk = desk
        self._by = by
        self._changes = changes

    def dry_run(self) -> AsyncSteering:
        """Return the same calls without effect: they check their arguments and change nothing.

        Each returns what it would return otherwise, as far as that can be known.
        """
        return AsyncSteering(self._desk, self._by, changes=False)

    async def orders(self) -> Sequence[SteeringOrder]:
        """Return the orders that are in force, those given first coming first."""
        return await (await self._desk().for_reading()).orders.in_force()

    @checked
    async def pause(
        self,
        work: Work,
        *,
        tenant: Id | None = None,
        user_id: Id | None = None,
        reason: Line = "",
        for_s: OrderSeconds | None = None,
        until: Moment | None = None,
    ) -> SteeringOrder:
        """Let replies, or writes to memory, wait: everybody's, a tenant's or one user's.

        Requests are still accepted. Nothing that waits spends an attempt, but deadlines of jobs go
        on. Paused memories never stop replies, and paused replies never stop memories.

        Args:
            work: `replies` or `memories`.
            tenant: whose; everybody's if omitted, `default` if only `user_id` is given.
            user_id: of which user; of all of the tenant's if omitted.
            reason: one line for those who see it.
            for_s: for how many seconds.
            until: until when.

        """
        whom = whom_of(tenant, user_id)
        told = {"reason": reason}
        return await self._give("pause", PAUSES[work], whom, told, for_s=for_s, until=until)

    @checked
    async def resume(
        self, work: Work, *, tenant: Id | None = None, user_id: Id | None = None
    ) -> bool:
        """Lift a pause; return whether there was one. What waited comes back within seconds."""
        return await self._lift("resume", whom_of(tenant, user_id), PAUSES[work])

    @checked
    async def strike(
        self,
        tenant: Id,
        *,
        user_id: Id | None = None,
        every_s: Interval | None = None,
        reason: Line = "",
        for_s: OrderSeconds | None = None,
        until: Moment | None = None,
    ) -> SteeringOrder:
        """Block a tenant or one of its users, or slow their replies down.

        Who is blocked gets `Blocked` for each new request, and what is queued of theirs waits:
        replies and memories. With `every_s` they are slowed instead: one reply begins in each
        interval, and the others wait. A user's own order counts, if the tenant has one too.

        Args:
            tenant: whose.
            user_id: of which user; of all of the tenant's if omitted.
            every_s: the least time between two replies, in seconds.
            reason: one line for operators who see it; whoever is blocked does not.
            for_s: for how many seconds.
            until: until when.

        """
        kind, other = OrderKind.BLOCK, OrderKind.SLOW
        told: dict[str, Any] = {"reason": reason}
        if every_s is not None:
            kind, other = other, kind
            told["every_ms"] = max(1, round(every_s * 1000))
        whom = Whom(tenant, user_id)
        given = await self._give("strike", kind, whom, told, for_s=for_s, until=until)
        if self._changes:
            await (await self._desk().get()).orders.lift(other, whom)
        return given

    @checked
    async def lift_strike(self, tenant: Id, *, user_id: Id | None = None) -> bool:
        """Lift a block or slowdown; return whether there was one."""
        whom = Whom(tenant, user_id)
        return await self._lift("lift_strike", whom, OrderKind.BLOCK, OrderKind.SLOW)

    @checked
    async def limit(
        self,
        tenant: Id,
        limits: TenantLimits,
        *,
        reason: Line = "",
        for_s: OrderSeconds | None = None,
        until: Moment | None = None,
    ) -> SteeringOrder:
        """Set a tenant's caps, weight and budgets, at once and without a restart.

        Limits that are None stay as they were. `for_s` and `until` count for all of them. A budget
        counts what was spent in the running period since there was any budget.

        Args:
            tenant: whose.
            limits: what to set.
            reason: one line for those who see it.
            for_s: for how many seconds.
            until: until when.

        """
        wanted = limits.set_ones()
        if not wanted:
            raise InvalidRequest("limits", "must set one at least")
        told = {"reason": reason, "limits": wanted}
        return await self._give(
            "limits", OrderKind.LIMITS, Whom(tenant), told, for_s=for_s, until=until
        )

    @checked
    async def lift_limits(self, tenant: Id) -> bool:
        """Give a tenant the caps of the settings back; return whether it had others."""
        return await self._lift("lift_limits", Whom(tenant), OrderKind.LIMITS)

    @checked
    async def drain(self, worker: Id, *, reason: Line = "") -> SteeringOrder:
        """Let a worker take no more, finish what it holds, however long that takes, and end.

        It is the process that has this name now: one that a supervisor starts in its place is not
        drained. `workers` no longer lists it once it has ended.

        Args:
            worker: its name, as `workers` gives it.
            reason: one line for those who see it.

        Raises:
            InvalidRequest: no such worker runs, or its version obeys no orders.

        """
        found = [one for one in await self.workers() if one.name == worker]
        if not found:
            raise InvalidRequest("worker", "no worker of this name runs; `status` lists them")
        (given,) = await self._drain("worker", found[:1], reason)
        return given

    @checked
    async def drain_kind(self, kind: WorkerKind, *, reason: Line = "") -> Sequence[SteeringOrder]:
        """Drain all workers that are of a kind now, each as `drain` does; return the orders.

        Those that start later are not drained: start the new version, then drain the old ones.

        Args:
            kind: `responses` or `memories`.
            reason: one line for those who see it.

        Raises:
            InvalidRequest: none of the kind runs, or the version of one obeys no orders; then none
                is drained.

        """
        found = [one for one in await self.workers() if QUEUES[kind] in one.queue.split("+")]
        if not found:
            raise InvalidRequest("kind", f"no worker of the kind {kind} runs")
        return await self._drain("kind", found, reason)

    async def workers(self) -> Sequence[WorkerSeen]:
        """Return the workers that were heard of a moment ago, by name."""
        ledger = await self._desk().for_reading()
        first, *_ = await ledger.maintenance.overview()
        running = [
            worker
            for worker in first.workers
            if (first.at - worker.seen_at).total_seconds() < GONE_S
        ]
        return sorted(running, key=lambda worker: worker.name)

    async def _drain(
        self, field: str, chosen: Sequence[WorkerSeen], reason: str
    ) -> list[SteeringOrder]:
        for one in chosen:
            if not one.instance:
                raise InvalidRequest(
                    field, f"the version of {one.name} obeys no orders; send it SIGTERM"
                )
        return [
            await self._give(
                "drain",
                OrderKind.DRAIN,
                Whom(worker=one.name),
                {"reason": reason, "instance": one.instance},
                for_s=DRAIN_S,
                until=None,
            )
            for one in chosen
        ]

    async def _give(
        self,
        action: str,
        kind: OrderKind,
        whom: Whom,
        told: dict[str, Any],
        *,
        for_s: float | None,
        until: datetime | None,
    ) -> SteeringOrder:
        if for_s is not None and until is not None:
            raise InvalidRequest("until", "cannot be given together with a duration")
        desk = self._desk()
        ledger = await (desk.get() if self._changes else desk.for_reading())
        give = partial(
            ledger.orders.give, kind, whom, told | {"by": self._by}, for_s=for_s, until=until
        )
        planned = await give(rehearsed=True)  # what is refused is not recorded
        if not self._changes:
            return planned
        details = {"for_s": for_s, "until": until and until.isoformat(), **told}
        async with self._recorded(ledger, action, kind, whom, details):
            return await give()

    async def _lift(self, action: str, whom: Whom, *kinds: OrderKind) -> bool:
        found = await in_force(self, kinds, whom)
        if not self._changes or not found:
            return bool(found)
        ledger = await self._desk().get()
        async with self._recorded(ledger, action, kinds[0], whom, {}):
            return any([await ledger.orders.lift(kind, whom) for kind in kinds])

    def _recorded(
        self, ledger: Ledger, action: str, kind: OrderKind, whom: Whom, details: dict[str, Any]
    ) -> AbstractAsyncContextManager[None]:
        """Record in the audit what is about to be done; a user by the tag that logs show."""
        entry = {"order": kind, "tenant": whom.tenant, "worker": whom.worker, **details}
        entry.pop("instance", None)
        if whom.user_id is not None:
            owner = memory_key(whom.tenant or "", whom.user_id)
            entry["user"] = lane_tag(lane_id(owner, shard_of(owner, ledger.settings.shards)))
        known = {name: value for name, value in entry.items() if value}
        return recorded(ledger.replay_runs, self._by, action, known)


def whom_of(tenant: str | None, user_id: str | None) -> Whom:
    """Return whom a pause concerns: a user without a tenant is one of the default tenant."""
    return Whom(DEFAULT_TENANT if tenant is None and user_id is not None else tenant, user_id)


def whom_in(order: SteeringOrder) -> Whom:
    """Return whom an order concerns."""
    return Whom(order.tenant, order.user_id, order.worker)


async def in_force(
    steering: AsyncSteering, kinds: Sequence[OrderKind], whom: Whom
) -> list[SteeringOrder]:
    """Return the orders of these kinds that concern exactly this tenant, user or worker."""
    found = await steering.orders()
    return [order for order in found if order.kind in kinds and whom_in(order) == whom]
