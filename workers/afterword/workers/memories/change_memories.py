"""Editing and deleting a user's memories, so that no turn that is stored later undoes it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from afterword.shared.errors import LeaseLost, ProviderError, Unavailable
from afterword.shared.ledger.memory_requests import Hold, MemoryRequest, MemoryRequests
from afterword.shared.ledger.turns import Turns
from afterword.shared.names import owner_of, user_of
from afterword.shared.observer import emit_internal_error
from afterword.workers.kept_text import KeptText
from afterword.workers.leases import Leases
from afterword.workers.ports import Memories, RecalledMemory
from afterword.workers.rules.visible_text import visible

#: How often a lane is asked for that another worker holds.
HOLD_AGAIN_S = 0.1

#: A lane is waited for until so many seconds before somebody gives up, so that they learn why.
_ANSWER_S = 1.0

#: How long a lane waits, at most, once the turn that it waited for was changed.
AFTER_CHANGE_S = 60.0


class Refused(Exception):
    """A request cannot be carried out: the memory that it names stays as it is."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class MemoryChanger:
    """Edits and deletes memories.

    It holds their user's lane as a writer does: no turn is stored meanwhile, and what it changes is
    not stored again afterwards, see `MemoryRequests.mend`. A change may take `limit_s` seconds.
    """

    def __init__(
        self,
        requests: MemoryRequests,
        lanes: Turns,
        leases: Leases,
        kept: KeptText,
        *,
        limit_s: float,
    ) -> None:
        self._requests = requests
        self._lanes = lanes
        self._leases = leases
        self._kept = kept
        self._limit_s = limit_s

    async def edit(self, memories: Memories, request: MemoryRequest) -> RecalledMemory:
        """Replace a text; no earlier attempt to store its turn may bring the old one back.

        Nor may another memory that says the same.
        """
        owner, text = owner_of(request.lane), self._text_of(request)
        async with self._holding_lane(request) as held, time_limit(self._limit_s, may_be_done=True):
            found = await memory_named(memories, request)
            if found.text != text:
                await self._remove_repeats(memories, held, found)
            await self._mend(memories, held, found, without=())
            self._leases.require(request.lane)
            if not await memories.edit(owner, found.id, text):
                raise Refused("not_found")
            return await memory_named(memories, request)

    async def delete(self, memories: Memories, request: MemoryRequest) -> None:
        """Remove a memory, and all that say the same: replies are given one of them."""
        async with self._holding_lane(request) as held, time_limit(self._limit_s, may_be_done=True):
            found = await memory_named(memories, request)
            await self._remove_repeats(memories, held, found)
            await self._remove(memories, held, found)

    def _text_of(self, request: MemoryRequest) -> str:
        """Return the text that is to be stored: without secrets, and without what nobody sees."""
        tenant, text = user_of(request.lane)[0], visible(request.arguments["text"])
        if not text.strip():
            raise Refused("blank_text")
        try:
            return self._kept.without_secrets(tenant, text).text
        except Exception as error:  # noqa: BLE001 a redactor of the user's own may raise anything
            emit_internal_error(error)
            raise Refused("redactor_failed") from None

    async def _remove_repeats(self, memories: Memories, held: Hold, found: RecalledMemory) -> None:
        """Remove what says the same as a memory. That stays for now: the change can be repeated."""
        owner = owner_of(held.claim.lane)
        for memory_id in await memories.repeats(owner, found.text):
            repeat = await memories.get(owner, memory_id) if memory_id != found.id else None
            if repeat is not None and repeat.owner == owner:
                await self._remove(memories, held, repeat)

    async def _remove(self, memories: Memories, held: Hold, found: RecalledMemory) -> None:
        """Remove a memory, after the ledger knows that it is to be removed.

        If that fails from then on, the check for late copies removes it.
        """
        lane = held.claim.lane
        mended = await self._mend(memories, held, found, without=(found.id,))
        self._leases.require(lane)
        try:
            await memories.remove(owner_of(lane), [found.id])
        except ProviderError as error:
            error.unknown_outcome = error.unknown_outcome or mended
            raise

    async def _mend(
        self,
        memories: Memories,
        held: Hold,
        found: RecalledMemory,
        *,
        without: tuple[str, ...],
    ) -> bool:
        """Record what the turn of a memory keeps; return false if it comes from no turn."""
        if found.turn_id is None:
            return False
        ids = await memories.find(owner_of(held.claim.lane), found.turn_id)
        kept = [memory_id for memory_id in ids if memory_id not in without]
        if found.turn_id == held.oldest:
            held.due_s = min(held.due_s, AFTER_CHANGE_S)
        match await self._requests.mend(held.claim, found.turn_id, kept):
            case "newer":
                raise Refused("newer_record")
            case "storing":
                raise Refused("being_stored")
        return True

    @asynccontextmanager
    async def _holding_lane(self, request: MemoryRequest) -> AsyncIterator[Hold]:
        """Hold the lane of a request's user while the context is open."""
        asked_at = self._leases.now()
        held = await self._hold(request)
        claim = held.claim
        try:
            async with self._leases.holding(claim.lane, claim.fence, asked_at):
                yield held
        finally:
            with suppress(LeaseLost):
                await asyncio.shield(self._lanes.release_lane(claim, held.due_s))

    async def _hold(self, request: MemoryRequest) -> Hold:
        token, clock = secrets.token_hex(8), asyncio.get_running_loop().time
        end = clock() + request.left_s - min(_ANSWER_S, request.left_s / 4)
        while True:
            held = await self._requests.hold(request.lane, token)
            if isinstance(held, Hold):
                return held
            if held == "erasing":
                raise Refused("being_erased")
            if clock() >= end:
                raise Refused("lane_busy")
            await asyncio.sleep(HOLD_AGAIN_S)


async def memory_named(memories: Memories, request: MemoryRequest) -> RecalledMemory:
    """Return the memory that a request names; raise `Refused` unless it is its user's."""
    owner = owner_of(request.lane)
    found = await memories.get(owner, request.arguments["id"])
    if found is None or found.owner != owner:
        raise Refused("not_found")
    return found


@asynccontextmanager
async def time_limit(seconds: float, *, may_be_done: bool) -> AsyncIterator[None]:
    """Limit what mem0 may take, as for a write."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unavailable("too_slow", unknown_outcome=may_be_done) from None
