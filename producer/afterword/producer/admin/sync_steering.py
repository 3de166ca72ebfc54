"""Orders to a running fleet, for code without an event loop."""

from __future__ import annotations

from collections.abc import Sequence

from afterword.producer.admin.async_steering import AsyncSteering, Work, WorkerKind
from afterword.producer.portal import Portal
from afterword.shared.arguments import Id, Line, Moment
from afterword.shared.ledger.order_records import (
    Interval,
    OrderSeconds,
    SteeringOrder,
    TenantLimits,
)
from afterword.shared.ledger.records import WorkerSeen


class Steering:
    """Gives orders to the fleet: pauses work, stops or slows a customer, limits a tenant.

    Returned by `Operator.steering`. An order is kept in the ledger, so it survives restarts of
    workers and of Redis; it ends after `for_s` seconds, at `until`, or when it is lifted. The same
    order again takes the place of the one before. What is running is not interrupted, and erasures
    go on under any order. Each call that changes something is recorded in the audit first.

    Every method raises `InvalidRequest` naming an argument that is not valid, and what the methods
    of `Operator` raise of Redis.
    """

    def __init__(self, portal: Portal, steering: AsyncSteering) -> None:
        self._portal = portal
        self._steering = steering

    def dry_run(self) -> Steering:
        """Return the same calls without effect: they check their arguments and change nothing.

        Each returns what it would return otherwise, as far as that can be known.
        """
        return Steering(self._portal, self._steering.dry_run())

    def orders(self) -> Sequence[SteeringOrder]:
        """Return the orders that are in force, those given first coming first."""
        return self._portal.call(self._steering.orders())

    def pause(
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
        call = self._steering.pause(
            work, tenant=tenant, user_id=user_id, reason=reason, for_s=for_s, until=until
        )
        return self._portal.call(call)

    def resume(self, work: Work, *, tenant: Id | None = None, user_id: Id | None = None) -> bool:
        """Lift a pause; return whether there was one. What waited comes back within seconds."""
        return self._portal.call(self._steering.resume(work, tenant=tenant, user_id=user_id))

    def strike(
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
        call = self._steering.strike(
            tenant,
            user_id=user_id,
            every_s=every_s,
            reason=reason,
            for_s=for_s,
            until=until,
        )
        return self._portal.call(call)

    def lift_strike(self, tenant: Id, *, user_id: Id | None = None) -> bool:
        """Lift a block or slowdown; return whether there was one."""
        return self._portal.call(self._steering.lift_strike(tenant, user_id=user_id))

    def limit(
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
        call = self._steering.limit(tenant, limits, reason=reason, for_s=for_s, until=until)
        return self._portal.call(call)

    def lift_limits(self, tenant: Id) -> bool:
        """Give a tenant the caps of the settings back; return whether it had others."""
        return self._portal.call(self._steering.lift_limits(tenant))

    def drain(self, worker: Id, *, reason: Line = "") -> SteeringOrder:
        """Let a worker take no more, finish what it holds, however long that takes, and end.

        It is the process that has this name now: one that a supervisor starts in its place is not
        drained. `workers` no longer lists it once it has ended.

        Args:
            worker: its name, as `workers` gives it.
            reason: one line for those who see it.

        Raises:
            InvalidRequest: no such worker runs, or its version obeys no orders.

        """
        return self._portal.call(self._steering.drain(worker, reason=reason))

    def drain_kind(self, kind: WorkerKind, *, reason: Line = "") -> Sequence[SteeringOrder]:
        """Drain all workers that are of a kind now, each as `drain` does; return the orders.

        Those that start later are not drained: start the new version, then drain the old ones.

        Args:
            kind: `responses` or `memories`.
            reason: one line for those who see it.

        Raises:
            InvalidRequest: none of the kind runs, or the version of one obeys no orders; then none
                is drained.

        """
        return self._portal.call(self._steering.drain_kind(kind, reason=reason))

    def workers(self) -> Sequence[WorkerSeen]:
        """Return the workers that were heard of a moment ago, by name."""
        return self._portal.call(self._steering.workers())
