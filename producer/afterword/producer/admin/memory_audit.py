"""What an operator does to memories of a user is recorded in the audit, without their texts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from afterword.producer.admin.operator_name import user_and_host
from afterword.producer.admin.recorded import recorded
from afterword.producer.checked_ledger import CheckedLedger
from afterword.shared.discovery import settings_in_use
from afterword.shared.names import lane_id, lane_tag, memory_key, shard_of

#: What is done to a memory.
Change = Literal["memory_edit", "memory_delete"]


@asynccontextmanager
async def recorded_change(
    change: Change, user_id: str, tenant: str, memory_id: str, *, by: str | None
) -> AsyncIterator[None]:
    """Record in the audit what is about to be done; the user by the tag that logs show.

    `by` is the name that it shows, `user@host` if None. Raises what `AsyncOperator` raises of
    Redis: then nothing was recorded, and the memory must not be changed.
    """
    async with CheckedLedger.open(settings_in_use()) as desk:
        ledger = await desk.get()
        owner = memory_key(tenant, user_id)
        tag = lane_tag(lane_id(owner, shard_of(owner, ledger.settings.shards)))
        details = {"tenant": tenant, "user": tag, "memory": memory_id}
        async with recorded(ledger.replay_runs, by or user_and_host(), change, details):
            yield
