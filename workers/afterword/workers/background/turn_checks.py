"""How turns that may have too many memories are checked: one by one, each within a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from afterword.shared.errors import ProviderError
from afterword.shared.events import RepairPostponed
from afterword.shared.ledger.records import DuplicateCheck
from afterword.shared.names import lane_tag
from afterword.shared.observer import bound, emit

Check: TypeAlias = Callable[[DuplicateCheck], Awaitable[None]]


async def check_each(turns: Iterable[DuplicateCheck], check: Check, timeout_s: float) -> None:
    """Check each turn; one that mem0 cannot tell about now stays due, and comes back later."""
    for turn in turns:
        with bound(job_id=turn.turn_id, lane=lane_tag(turn.lane)):
            await _check_or_postpone(turn, check, timeout_s)


async def _check_or_postpone(turn: DuplicateCheck, check: Check, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await check(turn)
    except (TimeoutError, ProviderError) as error:
        emit(RepairPostponed, code=getattr(error, "code", "write_timeout"))
