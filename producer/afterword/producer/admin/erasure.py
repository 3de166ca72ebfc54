"""Erasing a user: the request, and its receipt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import (
    AofRewrite,
    CommandLogReset,
    Erasure,
    ErasureState,
    MemoryErasure,
)
from afterword.shared.names import lane_id, memory_key, shard_of


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """How far the erasure of a user is and, once its state is `erased`, the proof of it."""

    user_id: str
    """The user."""

    tenant: str
    """The tenant of the user."""

    state: ErasureState
    """`asked`, then `forgotten` after the first pass, then `erased` after the second."""

    asked_by: str
    """Who requested it, as the audit names them."""

    asked_at: datetime
    """When it was requested."""

    forgotten_at: datetime | None
    """When the first pass was over: everything that was stored is removed."""

    erased_at: datetime | None
    """When the second pass was over. It removes what was still on its way to mem0 during the
    first."""

    memory: MemoryErasure | None
    """`forgotten` once mem0 has deleted the memories; `off` if memory is off, so that mem0 was not
    asked and one pass was enough."""

    log: AofRewrite | None
    """Whether Redis has begun to rewrite its append-only file, which still held what was erased:
    `begun`, or `refused` (run `BGREWRITEAOF` yourself)."""

    command_log: CommandLogReset | None
    """Whether Redis has forgotten the beginnings of slow and large commands, which may hold what
    was said: `reset`, or `refused` (run `COMMANDLOG RESET` or `SLOWLOG RESET` yourself)."""

    jobs: int
    """How many job records were emptied."""

    ended: int
    """How many of those jobs were still open and had to be cancelled first."""

    records: int
    """How many other records were removed: conversations, idempotency keys, sums of usage."""


async def forget(ledger: Ledger, user_id: str, tenant: str, by: str) -> ErasureReceipt:
    """Request the erasure of a user, or return the one that is under way."""
    lane = _lane(ledger, user_id, tenant)
    return _receipt(await ledger.erasures.begin(lane, by), user_id, tenant)


async def erasure(ledger: Ledger, user_id: str, tenant: str) -> ErasureReceipt | None:
    """Return the newest erasure of a user, or None if none was requested."""
    found = await ledger.erasures.receipt(_lane(ledger, user_id, tenant))
    return None if found is None else _receipt(found, user_id, tenant)


def _lane(ledger: Ledger, user_id: str, tenant: str) -> str:
    owner = memory_key(tenant, user_id)
    return lane_id(owner, shard_of(owner, ledger.settings.shards))


def _receipt(found: Erasure, user_id: str, tenant: str) -> ErasureReceipt:
    fields: dict[str, Any] = {
        name: getattr(found, name)
        for name in ErasureReceipt.__dataclass_fields__
        if name not in ("user_id", "tenant")
    }
    return ErasureReceipt(user_id, tenant, **fields)
