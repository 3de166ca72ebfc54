"""What somebody asks about a user's memories: read them, edit one, delete one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from afterword.shared.errors import LeaseLost, ProviderError, Unavailable
from afterword.shared.events import LaneOvertaken, MemoryRequestAnswered
from afterword.shared.ledger.memory_requests import Hold, MemoryRequest, MemoryRequests
from afterword.shared.ledger.turns import Turns
from afterword.shared.memory_contracts import Memory, MemoryPage
from afterword.shared.names import lane_tag, owner_of, user_of
from afterword.shared.observer import bound, emit, emit_internal_error
from afterword.workers import ports
from afterword.workers.gate import RECALL, REMEMBER, GateClient, GateShut
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

#: The most bytes of text in a page of a list: the answer is kept in Redis until it is read.
MAX_PAGE_BYTES = 256 * 1024

#: Most replies of which a memory names those that were given it.
MAX_GIVEN = 100


class _Refused(Exception):
    """A request cannot be carried out; `may_be_done` says whether it may be all the same."""

    def __init__(self, code: str, *, may_be_done: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.may_be_done = may_be_done


class RequestAnswerer:
    """Answers requests about memories.

    A read waits for nothing. A change holds its user's lane as a writer does: no turn is stored
    meanwhile, and what it changes is not stored again afterwards, see `MemoryRequests.mend`.
    """

    def __init__(  # noqa: PLR0913 each is another port
        self,
        requests: MemoryRequests,
        lanes: Turns,
        memories: Memories | None,
        leases: Leases,
        kept: KeptText,
        gates: GateClient,
        *,
        limit_s: float,
    ) -> None:
        self._requests = requests
        self._lanes = lanes
        self._memories = memories
        self._leases = leases
        self._kept = kept
        self._gates = gates
        self._limit_s = limit_s

    async def process(self, request_id: str) -> None:
        """Answer a request, unless another worker does or nobody waits for it any longer."""
        asked_at = self._leases.now()
        request = await self._requests.claim(request_id, secrets.token_hex(8))
        if request is None:
            return
        with bound(lane=lane_tag(request.lane)):
            try:
                async with self._leases.holding(request.id, request.fence, asked_at):
                    answer = await self._answer(request)
                    await self._requests.answer(request, answer)
            except LeaseLost:
                emit(LaneOvertaken)
            else:
                emit(MemoryRequestAnswered, action=request.action, code=answer.get("code", ""))

    async def _answer(self, request: MemoryRequest) -> Mapping[str, Any]:
        """Return what was asked for, or a code that says why not."""
        changes = request.action in ("edit", "delete")
        try:
            async with self._let_through(REMEMBER if changes else RECALL):
                return {"result": await self._carry_out(request)}
        except LeaseLost:
            raise
        except GateShut:
            code, may_be_done = "gate_shut", False
        except _Refused as refused:
            code, may_be_done = refused.code, refused.may_be_done
        except ProviderError as error:
            code, may_be_done = error.code, changes and error.unknown_outcome
        except Exception as error:  # noqa: BLE001 whoever waits must get an answer
            emit_internal_error(error)
            code, may_be_done = "internal_error", changes
        return {"code": code, "may_be_done": may_be_done}

    async def _carry_out(self, request: MemoryRequest) -> Mapping[str, Any]:
        memories, owner, said = self._memories, owner_of(request.lane), request.arguments
        if memories is None:
            raise _Refused("memory_off")
        match request.action:
            case "list":
                async with self._time_limit(may_be_done=False):
                    page = await _list_page(memories, owner, said["limit"], said["after"])
                return _page(owner, page.memories, page.next, page.malformed)
            case "search":
                async with self._time_limit(may_be_done=False):
                    query = self._kept.shown(user_of(request.lane)[0], said["query"])
                    found = await memories.search(owner, query, said["limit"])
                return _page(owner, found.memories, None, found.malformed)
            case "show":
                return await self._show(memories, request)
            case "edit":
                return await self._edit(memories, request)
            case "delete":
                return await self._delete(memories, request)
        raise _Refused("unknown_action")

    @asynccontextmanager
    async def _let_through(self, gate: str) -> AsyncIterator[None]:
        """Ask the gate before mem0, and report how it went; raise `GateShut` at once if it is shut.

        Somebody waits: a clear answer now is better than a timeout.
        """
        if self._memories is None:
            yield
            return
        permit = await self._gates.try_enter(gate, canary_s=self._limit_s)
        try:
            yield
            permit.report_success()
        except ProviderError as error:
            permit.release(error)
            raise
        finally:
            permit.release()

    async def _show(self, memories: Memories, request: MemoryRequest) -> Mapping[str, Any]:
        async with self._time_limit(may_be_done=False):
            found = await _found(memories, request)
            given = await self._requests.replies_given(request.lane, found.id, MAX_GIVEN)
        return _memory(found).model_copy(update={"given_to": tuple(given)}).model_dump(mode="json")

    async def _edit(self, memories: Memories, request: MemoryRequest) -> Mapping[str, Any]:
        """Replace a text; no earlier attempt to store its turn may bring the old one back.

        Nor may another memory that says the same.
        """
        owner, text = owner_of(request.lane), self._text_of(request)
        async with self._holding_lane(request) as held, self._time_limit(may_be_done=True):
            found = await _found(memories, request)
            if found.text != text:
                await self._remove_repeats(memories, held, found)
            await self._mend(memories, held, found, without=())
            self._leases.require(request.lane)
            if not await memories.edit(owner, found.id, text):
                raise _Refused("not_found")
            edited = await _found(memories, request)
        return _memory(edited).model_dump(mode="json")

    def _text_of(self, request: MemoryRequest) -> str:
        """Return the text that is to be stored: without secrets, and without what nobody sees."""
        tenant, text = user_of(request.lane)[0], visible(request.arguments["text"])
        if not text.strip():
            raise _Refused("blank_text")
        try:
            return self._kept.without_secrets(tenant, text).text
        except Exception as error:  # noqa: BLE001 a redactor of the user's own may raise anything
            emit_internal_error(error)
            raise _Refused("redactor_failed") from None

    async def _delete(self, memories: Memories, request: MemoryRequest) -> Mapping[str, Any]:
        """Remove a memory, and all that say the same: replies are given one of them."""
        async with self._holding_lane(request) as held, self._time_limit(may_be_done=True):
            found = await _found(memories, request)
            await self._remove_repeats(memories, held, found)
            await self._remove(memories, held, found)
        return {}

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
                raise _Refused("newer_record")
            case "storing":
                raise _Refused("being_stored")
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
                raise _Refused("being_erased")
            if clock() >= end:
                raise _Refused("lane_busy")
            await asyncio.sleep(HOLD_AGAIN_S)

    @asynccontextmanager
    async def _time_limit(self, *, may_be_done: bool) -> AsyncIterator[None]:
        """Limit what mem0 may take, as for a write."""
        try:
            async with asyncio.timeout(self._limit_s):
                yield
        except TimeoutError:
            raise Unavailable("too_slow", unknown_outcome=may_be_done) from None


async def _list_page(
    memories: Memories, owner: str, limit: int, after: str | None
) -> ports.MemoryPage:
    """Return a page of at most `MAX_PAGE_BYTES`, of fewer memories than asked for if need be."""
    while True:
        page = await memories.list_page(owner, limit, after)
        size = sum(len(one.text.encode()) for one in page.memories)
        if size <= MAX_PAGE_BYTES or len(page.memories) <= 1:
            return page
        limit = len(page.memories) // 2


async def _found(memories: Memories, request: MemoryRequest) -> RecalledMemory:
    owner = owner_of(request.lane)
    found = await memories.get(owner, request.arguments["id"])
    if found is None or found.owner != owner:
        raise _Refused("not_found")
    return found


def _page(
    owner: str, found: tuple[RecalledMemory, ...], following: str | None, malformed: int
) -> Mapping[str, Any]:
    """Return a page without what is another user's, whatever the backend says (I5)."""
    mine = tuple(_memory(one) for one in found if one.owner == owner)
    dropped = malformed + len(found) - len(mine)
    return MemoryPage(memories=mine, next=following, dropped=dropped).model_dump(mode="json")


def _memory(found: RecalledMemory) -> Memory:
    return Memory(
        id=found.id,
        text=found.text,
        created_at=found.created_at,
        updated_at=found.updated_at,
        score=found.score,
        times_said=found.times_said,
        job_id=found.turn_id,
        conversation_id=found.conversation_id,
        stored_by=found.stored_by,
        extraction_model=found.extraction_model,
    )
