"""Asks the memory workers over the ledger, and waits for what they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from afterword.producer.client.memory_calls import MemoryCall
from afterword.shared.errors import MemoriesUnavailable
from afterword.shared.ledger.memory_requests import MemoryRequests

#: How often the ledger is asked for an answer: soon at first, then less and less often.
_FIRST_LOOK_S = 0.01
_LONGEST_PAUSE_S = 0.25

#: After how long without an answer a request is hinted again.
_REMIND_S = 1.0

#: Why nothing was asked, by the ledger's word.
_REFUSED = {"full": "too_many_requests", "erasing": "being_erased"}


async def ask(requests: MemoryRequests, call: MemoryCall, shards: int) -> Any:
    """Return what a memory worker answers to a call.

    Raises `MemoriesUnavailable` if none does in time. The request is taken back then, so that
    nothing is changed for a caller that has gone, unless a worker has begun.
    """
    lane = call.owner.lane(shards)
    request_id, word = await requests.ask(lane, call.action, call.arguments, call.timeout_s)
    if word != "asked":
        raise MemoriesUnavailable(_REFUSED[word])
    try:
        async with asyncio.timeout(call.timeout_s):
            return call.result(await _answer(requests, request_id))
    except TimeoutError:
        pass
    except asyncio.CancelledError:
        await asyncio.shield(requests.withdraw(request_id))
        raise
    begun, answer = await requests.withdraw(request_id)
    if answer is not None:
        return call.result(answer)
    if begun:
        raise MemoriesUnavailable("too_slow", may_be_done=call.changes)
    raise MemoriesUnavailable("no_worker")


async def _answer(requests: MemoryRequests, request_id: str) -> Mapping[str, Any]:
    clock = asyncio.get_running_loop().time
    pause_s, remind_at = _FIRST_LOOK_S, clock() + _REMIND_S
    while True:
        await asyncio.sleep(pause_s)
        answer = await requests.answer_to(request_id)
        if answer is not None:
            return answer
        pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)
        if clock() >= remind_at:
            await requests.remind(request_id)
            remind_at = clock() + _REMIND_S
