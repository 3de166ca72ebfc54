"""Recall: search mem0 for a user's memories, within a time budget, and check whose they are."""

from __future__ import annotations

import asyncio

from afterword.shared.contracts import MemoryUsed
from afterword.shared.errors import ProviderError, Unavailable
from afterword.shared.events import ForeignMemoriesDropped, RecallFailed
from afterword.shared.observer import emit, emit_internal_error
from afterword.workers.gate import RECALL, GateClient, GateShut, Permit
from afterword.workers.ports import Memories, Recall, RecalledMemory, SearchResult

#: Longer queries are cut to this length: mem0 embeds only the beginning.
QUERY_CHARACTERS = 2000


OFF = Recall((), enabled=False)
UNAVAILABLE = Recall(None)


class Recaller:
    """Searches mem0 for the memories of one user and drops every row of another.

    Without `memories`, memory is off. A reply waits at most `budget_s` seconds (promise I6).
    """

    def __init__(
        self,
        memories: Memories | None,
        gates: GateClient,
        *,
        budget_s: float,
        limit: int,
        least_score: float,
    ) -> None:
        self._memories = memories
        self._gates = gates
        self._budget_s = budget_s
        self._limit = limit
        self._least_score = least_score

    async def recall(self, owner: str, query: str) -> Recall:
        """Return the owner's memories for a query, best first; failures of mem0 are not raised."""
        if self._memories is None:
            return OFF
        permit = None
        try:
            async with asyncio.timeout(self._budget_s):
                permit = await self._gates.try_enter(RECALL, canary_s=self._budget_s + 1)
                found = await self._memories.search(owner, query[:QUERY_CHARACTERS], self._limit)
            permit.report_success()
            return self._checked(owner, found)
        except GateShut:
            return UNAVAILABLE
        except TimeoutError:
            return _unavailable(permit, Unavailable("over_budget"))
        except ProviderError as error:
            return _unavailable(permit, error)
        except Exception as error:  # noqa: BLE001 whatever memory does, the reply goes on (I6)
            emit_internal_error(error)
            return _unavailable(permit, Unavailable("internal_error"))
        finally:
            if permit is not None:
                permit.release()

    def skip(self) -> Recall:
        """Return the recall for a user who is being erased: mem0 is not searched."""
        return OFF if self._memories is None else UNAVAILABLE

    def _checked(self, owner: str, found: SearchResult) -> Recall:
        own = [row for row in found.memories if row.owner == owner]
        foreign = len(found.memories) - len(own)
        if foreign:
            emit(ForeignMemoriesDropped, count=foreign)
        good = [row for row in own if row.score is None or row.score >= self._least_score]
        return Recall(
            tuple(good[: self._limit]),
            found=len(found.memories) + found.malformed,
            lost=foreign + found.malformed,
        )


def _unavailable(permit: Permit | None, error: ProviderError) -> Recall:
    emit(RecallFailed, code=error.code)
    if permit is not None:
        permit.release(error)
    return UNAVAILABLE


def memory_used(memory: RecalledMemory) -> MemoryUsed:
    """Return a memory in the form that `Reply.memories` lists."""
    score = None if memory.score is None else round(memory.score, 4)
    return MemoryUsed(id=memory.id, text=memory.text, score=score, created_at=memory.created_at)
