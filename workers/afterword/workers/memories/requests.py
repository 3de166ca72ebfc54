"""What somebody asks about a user's memories: read them, edit one, delete one."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from typing import Any

from afterword.shared.errors import LeaseLost, ProviderError
from afterword.shared.events import LaneOvertaken, MemoryRequestAnswered
from afterword.shared.ledger.memory_requests import MemoryRequest, MemoryRequests
from afterword.shared.ledger.turns import Turns
from afterword.shared.memory_contracts import Memory, MemoryPage
from afterword.shared.names import RECALL_GATE, REMEMBER_GATE, lane_tag, owner_of, user_of
from afterword.shared.observer import bound, emit, emit_internal_error
from afterword.workers import ports
from afterword.workers.gate import GateClient, GateShut
from afterword.workers.kept_text import KeptText
from afterword.workers.leases import Leases
from afterword.workers.memories.change_memories import (
    MemoryChanger,
    Refused,
    memory_named,
    time_limit,
)
from afterword.workers.ports import Memories, RecalledMemory

#: The most bytes of text in an answer, unless it is one memory: Redis keeps it until it is read.
MAX_PAGE_BYTES = 256 * 1024

#: Most replies of which a memory names those that were given it.
MAX_GIVEN = 100


class RequestAnswerer:
    """Answers requests about memories. A read waits for nothing, a change for its user's lane."""

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
        self._memories = memories
        self._leases = leases
        self._kept = kept
        self._gates = gates
        self._limit_s = limit_s
        self._changer = MemoryChanger(requests, lanes, leases, kept, limit_s=limit_s)

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
            async with self._let_through(REMEMBER_GATE if changes else RECALL_GATE):
                return {"result": await self._carry_out(request)}
        except LeaseLost:
            raise
        except GateShut:
            code, may_be_done = "gate_shut", False
        except Refused as refused:
            code, may_be_done = refused.code, False
        except ProviderError as error:
            code, may_be_done = error.code, changes and error.unknown_outcome
        except Exception as error:  # noqa: BLE001 whoever waits must get an answer
            emit_internal_error(error)
            code, may_be_done = "internal_error", changes
        return {"code": code, "may_be_done": may_be_done}

    async def _carry_out(self, request: MemoryRequest) -> Mapping[str, Any]:
        memories, owner, said = self._memories, owner_of(request.lane), request.arguments
        if memories is None:
            raise Refused("memory_off")
        match request.action:
            case "list":
                async with time_limit(self._limit_s, may_be_done=False):
                    page = await _list_page(memories, owner, said["limit"], said["after"])
                return _page(owner, page.memories, page.next, page.malformed)
            case "search":
                async with time_limit(self._limit_s, may_be_done=False):
                    query = self._kept.shown(user_of(request.lane)[0], said["query"])
                    found = await memories.search(owner, query, said["limit"])
                return _page(owner, _best_that_fit(found.memories), None, found.malformed)
            case "show":
                return await self._show(memories, request)
            case "edit":
                edited = await self._changer.edit(memories, request)
                return _memory(edited).model_dump(mode="json")
            case "delete":
                await self._changer.delete(memories, request)
                return {}
        raise Refused("unknown_action")

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
        async with time_limit(self._limit_s, may_be_done=False):
            found = await memory_named(memories, request)
            given = await self._requests.replies_given(request.lane, found.id, MAX_GIVEN)
        return _memory(found).model_copy(update={"given_to": tuple(given)}).model_dump(mode="json")


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


def _best_that_fit(found: Sequence[RecalledMemory]) -> Sequence[RecalledMemory]:
    """Return the first memories whose texts have at most `MAX_PAGE_BYTES`, at least one."""
    sizes = accumulate(len(one.text.encode()) for one in found)
    return found[: max(1, sum(size <= MAX_PAGE_BYTES for size in sizes))]


def _page(
    owner: str, found: Sequence[RecalledMemory], following: str | None, malformed: int
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
