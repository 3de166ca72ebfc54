"""Driving one replay run: the canary first, then the rest at its pace, until all have settled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace

from afterword.shared.errors import AfterwordError, LeaseLost, QueueFull
from afterword.shared.events import DeadLetterReplayed, ReplayBegun, ReplayEnded
from afterword.shared.ledger.dead_letter_records import (
    DeadLetterKind,
    DeadLetterRef,
    ReplayOutcome,
    ReplayRun,
    ReplayState,
)
from afterword.shared.ledger.dead_letters import DeadLetters
from afterword.shared.ledger.replay_runs import ReplayRuns
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.observer import bound, emit

#: Called with the run whenever it has advanced.
ProgressCallback = Callable[[ReplayRun], None]

#: How often outcomes are read, in seconds, and of how many dead letters at once.
_POLL_S = 0.25
_POLL_BATCH = 500

#: Where each kind is done again.
_QUEUES = {DeadLetterKind.MEMORY: MEMORIES, DeadLetterKind.REPLY: REPLIES}

#: Outcomes of dead letters that were not replayed: they prove nothing about the rest.
_NOT_REPLAYED = frozenset({ReplayOutcome.REFUSED, ReplayOutcome.ERASED, ReplayOutcome.GONE})


class ReplayDriver:
    """Drives a run that its token was given to. Its whole progress is in the ledger.

    When it is cancelled it marks the run as aborted. When it is killed the run stays `running` and
    can be resumed: what was replayed but not recorded yet is not replayed again.
    """

    def __init__(
        self,
        dead: DeadLetters,
        runs: ReplayRuns,
        run: ReplayRun,
        token: str,
        by: str,
        on_progress: ProgressCallback | None,
    ) -> None:
        self._dead = dead
        self._runs = runs
        self._run = run
        self._token = token
        self._by = by
        self._on_progress = on_progress
        self._waiting: dict[str, None] = {}
        self._died_before = run.outcomes.get(ReplayOutcome.DEAD, 0)
        self._polled_s = self._advanced_s = self._next_s = self._clock()

    async def drive(self) -> ReplayRun:
        """Replay what is left, and return the run; raise `LeaseLost` if it was taken over."""
        emit(ReplayBegun, run=self._run.id)
        try:
            return await self._drive()
        except LeaseLost:
            emit(ReplayEnded, run=self._run.id, outcome="taken_over")
            raise
        except AfterwordError as error:
            emit(ReplayEnded, run=self._run.id, outcome="failed", code=type(error).__name__)
            raise

    async def _drive(self) -> ReplayRun:
        try:
            reason = await self._replay_all()
        except asyncio.CancelledError:
            await asyncio.shield(self._end(ReplayState.ABORTED, "interrupted"))
            raise
        except QueueFull:
            reason = "queue_full"
        await self._end(ReplayState.STOPPED if reason else ReplayState.DONE, reason)
        return self._run

    async def _replay_all(self) -> str:
        """Return why the run stopped, or '' if it is done."""
        self._waiting = dict.fromkeys(await self._runs.waiting_letters(self._run.id))
        self._report_progress()
        reason = "" if self._run.canary_passed else await self._replay_canary()
        return reason or await self._replay_rest()

    async def _replay_canary(self) -> str:
        """Replay the first dead letters and wait until they settle; one that dies stops the run."""
        async for letter in self._todo():
            if len(self._waiting) + self._settled >= self._run.pace.canary:
                break
            await self._replay(letter)
        while self._waiting and not self._died:
            if self._is_stalled:
                return "canary_not_settled"
            await asyncio.sleep(_POLL_S)
            await self._read_outcomes()
        if self._died:
            return "canary_buried"
        await self._record([], passed=True)
        return ""

    async def _replay_rest(self) -> str:
        async for letter in self._todo():
            await self._replay(letter)
            if self._clock() - self._polled_s >= _POLL_S:
                await self._read_outcomes()
            if self._died >= self._run.pace.max_dead:
                return "too_many_buried"
        while self._waiting:
            if self._is_stalled:
                return "not_settled"
            await asyncio.sleep(_POLL_S)
            await self._read_outcomes()
        return ""

    async def _todo(self) -> AsyncIterator[DeadLetterRef]:
        """Yield the dead letters that are left, in their order."""
        while letters := await self._runs.next_letters(self._run.id):
            for letter in letters:
                yield letter

    async def _replay(self, letter: DeadLetterRef) -> None:
        """Replay one dead letter when the pace allows it."""
        await asyncio.sleep(max(0.0, self._next_s - self._clock()))
        self._next_s = max(self._next_s, self._clock()) + 1 / self._run.pace.rate
        began_s, trace = self._clock(), await self._dead.trace_of(letter)
        outcome = await self._dead.replay(letter, self._run.id)
        with bound(job_id=letter.id):
            emit(
                DeadLetterReplayed,
                run=self._run.id,
                queue=_QUEUES[letter.kind],
                outcome=outcome,
                duration_s=self._clock() - began_s,
                trace=trace,
            )
        await self._record([(letter, letter.id, outcome)])
        if outcome is ReplayOutcome.WAITING:
            self._waiting[letter.id] = None

    async def _read_outcomes(self) -> None:
        """Record what became of those that wait, the ones not read for longest coming first."""
        self._polled_s = self._clock()
        names = list(self._waiting)[:_POLL_BATCH]
        found = await self._dead.replay_outcomes(names, self._run.id)
        for name in names:
            del self._waiting[name]
        self._waiting.update(
            dict.fromkeys(name for name in names if found[name] is ReplayOutcome.WAITING)
        )
        settled = [(None, name, found[name]) for name in names if name not in self._waiting]
        if settled:
            await self._record(settled)

    async def _record(
        self,
        outcomes: Collection[tuple[DeadLetterRef | None, str, ReplayOutcome]],
        *,
        passed: bool = False,
    ) -> None:
        await self._runs.record_outcomes(self._run.id, self._token, outcomes, canary_passed=passed)
        self._advanced_s = self._clock()
        counts = dict(self._run.outcomes)
        for letter, _, outcome in outcomes:
            counts[outcome] = counts.get(outcome, 0) + 1
            if letter is None:  # it was recorded as waiting before
                counts[ReplayOutcome.WAITING] -= 1
        self._run = replace(
            self._run,
            outcomes={outcome: n for outcome, n in counts.items() if n},
            canary_passed=passed or self._run.canary_passed,
        )
        self._report_progress()

    async def _end(self, state: ReplayState, reason: str) -> None:
        await self._runs.end(self._run.id, self._token, state, reason, by=self._by)
        self._run = replace(self._run, state=state, reason=reason)
        emit(ReplayEnded, run=self._run.id, outcome=state, code=reason)

    def _report_progress(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._run)

    @property
    def _settled(self) -> int:
        """How many dead letters were replayed and came to a good end."""
        not_good = {ReplayOutcome.WAITING, ReplayOutcome.DEAD, *_NOT_REPLAYED}
        return sum(n for outcome, n in self._run.outcomes.items() if outcome not in not_good)

    @property
    def _died(self) -> int:
        """How many were buried again since this driver began."""
        return self._run.outcomes.get(ReplayOutcome.DEAD, 0) - self._died_before

    @property
    def _is_stalled(self) -> bool:
        return self._clock() - self._advanced_s >= self._run.pace.stall_timeout_s

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()
