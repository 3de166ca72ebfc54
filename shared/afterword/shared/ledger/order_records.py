"""Orders: what operators told the fleet to do differently, until when, and who did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from afterword.shared.arguments import LONGEST_S, checked_record
from afterword.shared.ledger.records import json_object, moment
from afterword.shared.names import user_of
from afterword.shared.setting_types import MOST_TOKENS, MOST_USD

_Count = Annotated[int, Field(ge=1, le=1_000_000_000)]

#: Budgets may be 0: then nothing may be spent any more.
_Usd = Annotated[float, Field(ge=0, le=MOST_USD, allow_inf_nan=False)]
_Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]

#: The least and longest time between two replies to somebody who is slowed, in seconds.
Interval = Annotated[float, Field(ge=0.001, le=86_400, allow_inf_nan=False)]

#: For how long an order is in force.
OrderSeconds = Annotated[float, Field(ge=1, le=LONGEST_S, allow_inf_nan=False)]

#: Whom a pause of everybody names.
EVERYONE = "*"


#: From which age on an order that only ends when it is lifted may have been forgotten, in seconds.
FORGOTTEN_S = 86_400.0


class OrderKind(StrEnum):
    """What an order does.

    `pause-replies` and `pause-memories` let queued work wait, `block` refuses new requests and lets
    what is queued wait, `slow` lets one reply begin in each interval, `limits` sets a tenant's
    caps and weight, and `drain` ends a worker once it has finished what it holds.
    """

    PAUSE_REPLIES = "pause-replies"
    PAUSE_MEMORIES = "pause-memories"
    BLOCK = "block"
    SLOW = "slow"
    LIMITS = "limits"
    DRAIN = "drain"


#: Orders that let their whole scope wait.
STOPPING = (OrderKind.PAUSE_REPLIES, OrderKind.PAUSE_MEMORIES, OrderKind.BLOCK)


@checked_record
class TenantLimits:
    """A tenant's caps, weight and budgets; for what is None, the settings count.

    Caps on what runs are divided among the shards; those on what is open count one shard. Budgets
    are those of all shards together.
    """

    weight: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Its share of the workers beside other tenants; 1 for a tenant without one."""

    most_running: _Count | None = None
    """Most jobs that may run at once."""

    most_running_per_user: _Count | None = None
    """Most jobs of one user that may run at once."""

    most_open: _Count | None = None
    """Most jobs that may be open, in place of `AFTERWORD_MAX_OPEN_PER_TENANT`."""

    most_bytes: Annotated[int, Field(ge=1, le=10_000_000_000_000)] | None = None
    """Most bytes of open requests, in place of `AFTERWORD_MAX_BYTES_PER_TENANT`."""

    tenant_usd: _Usd | None = None
    """Most US dollars that it may spend in a period, in place of `AFTERWORD_BUDGETS`."""

    user_usd: _Usd | None = None
    """Most US dollars that each of its users may spend in a period."""

    tenant_tokens: _Tokens | None = None
    """Most tokens that it may spend in a period."""

    user_tokens: _Tokens | None = None
    """Most tokens that each of its users may spend in a period."""

    def set_ones(self) -> dict[str, int | float]:
        """Return those that are not None, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class SteeringOrder:
    """An order that is in force."""

    kind: OrderKind
    """What it does."""

    by: str
    """Who gave it."""

    since: datetime
    """When it was given."""

    until: datetime | None
    """When it ends, by the clock of Redis; None if only when it is lifted."""

    reason: str = ""
    """One line for those who meet it."""

    tenant: str | None = None
    """Whose work it concerns; None for everybody's, and for a worker."""

    user_id: str | None = None
    """Which of the tenant's users it concerns; None for all of them."""

    worker: str | None = None
    """The worker that it drains."""

    every_s: float | None = None
    """The least time between two replies, for `slow`."""

    limits: TenantLimits | None = None
    """What it sets, for `limits`."""

    waiting: int = 0
    """How many jobs or users wait for its end."""

    @property
    def can_be_forgotten(self) -> bool:
        """Return whether it pauses or blocks somebody, and ends only when it is lifted."""
        return self.kind in STOPPING and self.until is None

    @property
    def sets_budget(self) -> bool:
        """Return whether it says what a tenant, or each of its users, may spend."""
        limits = self.limits.set_ones() if self.limits else {}
        return any(name.endswith(("_usd", "_tokens")) for name in limits)

    @property
    def scope(self) -> str:
        """Return whom it concerns: `everyone`, `tenant`, `user` or `worker`."""
        if self.worker is not None:
            return "worker"
        if self.user_id is not None:
            return "user"
        return "everyone" if self.tenant is None else "tenant"


def waiting_orders(tenant: str, lane: str, *, replies: bool) -> list[str]:
    """Return the names of all orders that could let a user's replies, or their turns, wait."""
    kinds = [OrderKind.PAUSE_REPLIES if replies else OrderKind.PAUSE_MEMORIES, OrderKind.BLOCK]
    if replies:
        kinds.append(OrderKind.SLOW)
    return [f"{kind} {whom}" for kind in kinds for whom in (EVERYONE, f":{tenant}", lane)]


def read_order(name: str, text: str, waiting: int) -> SteeringOrder:
    """Read an order as a shard keeps it, under the name `<what> <whom>`."""
    what, _, whom = name.partition(" ")
    kind, told = OrderKind(what), json_object(text)
    tenant, user_id, worker = _whom(kind, whom)
    every_ms = told.get("every_ms")
    return SteeringOrder(
        kind=kind,
        by=told["by"],
        since=moment(told["since"]),
        until=moment(told["until"]) if told["until"] else None,
        reason=told.get("reason", ""),
        tenant=tenant,
        user_id=user_id,
        worker=worker,
        every_s=every_ms / 1000 if every_ms else None,
        limits=_limits(told["limits"]) if kind is OrderKind.LIMITS else None,
        waiting=int(waiting),
    )


def _whom(kind: OrderKind, whom: str) -> tuple[str | None, str | None, str | None]:
    """Return the tenant, the user and the worker that an order names."""
    if kind is OrderKind.DRAIN:
        return None, None, whom
    if whom == EVERYONE:
        return None, None, None
    if whom.startswith(":"):
        return whom[1:], None, None
    return *user_of(whom), None


def _limits(told: dict[str, Any]) -> TenantLimits:
    """Return the limits that this version knows; a newer one may have set others."""
    known = TenantLimits.__dataclass_fields__
    return TenantLimits(**{name: value for name, value in told.items() if name in known})
