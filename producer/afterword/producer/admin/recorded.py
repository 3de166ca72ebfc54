"""What the audit says of a change: what is about to be done, and whether that was refused."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from afterword.shared.errors import IllegalStep, InvalidRequest, JobNotFound, MemoryNotFound
from afterword.shared.ledger.replay_runs import ReplayRuns

#: Errors after which it is certain that nothing was changed.
_REFUSALS = (IllegalStep, InvalidRequest, JobNotFound, MemoryNotFound)


@asynccontextmanager
async def recorded(
    audit: ReplayRuns, by: str, action: str, details: dict[str, Any]
) -> AsyncIterator[None]:
    """Record what is about to be done; if it is refused, record that as `<action>_refused`.

    The entry comes first: a change that nobody heard of is worse than an entry without a change.
    """
    token = secrets.token_hex(8)
    await audit.add_audit_entry(by, action, details, token)
    try:
        yield
    except _REFUSALS:
        await audit.add_audit_entry(by, f"{action}_refused", details, f"{token}-refused")
        raise
