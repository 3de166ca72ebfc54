"""Recall: search mem0 for a user's memories, within a time budget, and drop what must not be used.

That is what belongs to another user, scores too low, repeats a newer memory or equals the message.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from afterword.shared.errors import ProviderError, Unavailable
from afterword.shared.events import ForeignMemoriesDropped, RecallFailed
from afterword.shared.ledger.attempt_note import MOST_LEFT_OUT
from afterword.shared.names import RECALL_GATE
from afterword.shared.observer import emit, emit_internal_error
from afterword.shared.time_limit import TimeLimit
from afterword.workers.gate import GateClient, GateShut, Permit
from afterword.workers.ports import Recall, RecalledMemory, SearchResult
from afterword.workers.replies.both_ends import BothEnds, Searchable
from afterword.workers.replies.recall_queue import RecallQueue
from afterword.workers.rules.about_user import asks_about_user
from afterword.workers.rules.repeats import without_repeats

#: Of a longer message, its ends are searched for: an embedding of all of it says little of either.
QUERY_CHARACTERS = 400

#: So many rows are asked for, for each memory that a prompt has room for: repeats leave places.
ROWS_PER_PLACE = 2

#: A search that is late says nothing about memory for this long after another one succeeded.
BUSY_S = 5.0

OFF = Recall((), enabled=False)


@dataclass(frozen=True, slots=True)
class RecallBudget:
    """How long a reply may wait for memory (promise I6), in seconds.

    That is `budget_s`, and `patience` of the time that the job has already waited for a worker, but
    at most `patience_s`: who waited a minute for a reply would rather have one that remembers.
    """

    budget_s: float
    patience: float = 0.0
    patience_s: float = 0.0

    def of(self, waited_s: float) -> float:
        """Return the budget of a job that has waited for so many seconds."""
        return self.budget_s + min(self.patience_s, self.patience * max(0.0, waited_s))


class Recaller:
    """Searches mem0 for the memories of one user and drops every row of another.

    Without `memories`, memory is off. At most `at_once` searches run at the same time.
    """

    def __init__(  # noqa: PLR0913 each is another setting
        self,
        memories: Searchable | None,
        gates: GateClient,
        *,
        budget: RecallBudget,
        limit: int,
        least_score: float,
        at_once: int | None = None,
        query_characters: int = QUERY_CHARACTERS,
    ) -> None:
        self._memories = memories and BothEnds(memories, query_characters)
        self._gates = gates
        self._budget = budget
        self._queue = RecallQueue(at_once, time.monotonic)
        self._succeeded_at = -math.inf
        self._limit = limit
        self._least_score = least_score

    async def admit(self, job_id: str, *, ahead: bool = False) -> None:
        """Wait until a job may be claimed: a backlog is taken up as fast as it can be recalled.

        A job that was taken `ahead` of a backlog does not wait behind it. At its end, it is to
        `leave`.
        """
        if self._memories is not None:
            await self._queue.admit(job_id, ahead=ahead)

    def leave(self, job_id: str) -> None:
        """Let the next job be admitted."""
        self._queue.leave(job_id)

    def holds_back(self) -> bool:
        """Return whether jobs of a backlog wait to be admitted."""
        return self._queue.holds_back()

    async def recall(
        self, owner: str, query: str, *, job_id: str = "", waited_s: float = 0.0
    ) -> Recall:
        """Return the owner's memories for a query, best first; failures of mem0 are not raised.

        `waited_s` is how long the job has waited for a worker.
        """
        if self._memories is None:
            return OFF
        now, budget_s = asyncio.get_running_loop().time, self._budget.budget_s
        began = now()
        longest_s = budget_s if self._queue.is_overloaded() else self._budget.of(waited_s)
        deadline = began + longest_s
        # A search that begins when its time is nearly over is in vain.
        give_up_at = deadline - min(budget_s, longest_s / 2)
        turn = self._queue.turn(job_id, waited_s, deadline=deadline, give_up_at=give_up_at)
        try:
            async with turn:
                return await self._search(owner, query, deadline)
        except TimeoutError:
            return _unavailable(None, Unavailable("recall_queue"))
        finally:
            if now() - began > budget_s:
                self._gates.announce_late(RECALL_GATE)

    async def _search(self, owner: str, query: str, deadline: float) -> Recall:
        permit, began = None, asyncio.get_running_loop().time()
        assert self._memories is not None
        try:
            with TimeLimit(deadline):
                permit = await self._gates.try_enter(RECALL_GATE, canary_s=deadline - began + 1)
                rows = ROWS_PER_PLACE * self._limit
                found = await self._memories.search(owner, query, rows)
            self._succeeded_at = asyncio.get_running_loop().time()
            permit.report_success()
            return self._checked(owner, query, found)
        except GateShut as shut:
            return Recall(None, code=shut.code)
        except TimeoutError:
            # If others worked just now, memory is there, and it or this machine is busy.
            busy = self._succeeded_at > asyncio.get_running_loop().time() - BUSY_S
            return _unavailable(None if busy else permit, Unavailable("over_budget"))
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
        return OFF if self._memories is None else Recall(None, code="erased")

    def _checked(self, owner: str, query: str, found: SearchResult) -> Recall:
        own = [row for row in found.memories if row.owner == owner]
        foreign = len(found.memories) - len(own)
        if foreign:
            emit(ForeignMemoriesDropped, count=foreign)
        good = self._scoring_enough(own, query)
        different = without_repeats(good, query)
        return Recall(
            tuple(different[: self._limit]),
            found=len(found.memories) + found.malformed,
            lost=foreign + found.malformed,
            code="rows_dropped" if foreign + found.malformed else "",
            left_out=_left_out(own, good, different, self._limit),
        )

    def _scoring_enough(
        self, own: Sequence[RecalledMemory], query: str
    ) -> Sequence[RecalledMemory]:
        """Return the memories whose score is enough: each, if all that is known is asked for."""
        least = self._least_score
        enough = [row for row in own if row.score is None or row.score >= least]
        return own if len(enough) < len(own) and asks_about_user(query) else enough


def _left_out(
    own: Sequence[RecalledMemory],
    good: Sequence[RecalledMemory],
    different: Sequence[RecalledMemory],
    limit: int,
) -> tuple[tuple[str, str], ...]:
    """Return the best rows that are not given, each with why: those without a place come first."""
    if len(own) == len(different) <= limit:
        return ()
    places = [(row.id, "no_place") for row in different[limit:]]
    told = {row.id for row in different}
    enough = {row.id for row in good}
    others = [
        (row.id, "repeat" if row.id in enough else "low_score") for row in own if row.id not in told
    ]
    return (*places, *others)[:MOST_LEFT_OUT]


def _unavailable(permit: Permit | None, error: ProviderError) -> Recall:
    emit(RecallFailed, code=error.code)
    if permit is not None:
        permit.release(error)
    return Recall(None, code=error.code)
