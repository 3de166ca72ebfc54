"""The driver of one run: a few letters first, then all of them, at a pace, to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace

from afterword.shared.errors import QueueFull
from afterword.shared.ledger.dead_letter_records import (
    DeadLetterRef,
    ReplayOutcome,
    ReplayRun,
    ReplayState,
)
from afterword.shared.ledger.dead_letters import DeadLetters
from afterword.shared.ledger.replay_runs import ReplayRuns

#: Is told how far a run has come, whenever that has changed.
ProgressCallback = Callable[[ReplayRun], None]

#: How often outcomes are looked for, in seconds, and of how many letters at once.
_LOOK_S = 0.25
_LOOK_AT = 500

#: Outcomes of letters that were not replayed: they prove nothing about the rest.
_PASSED_OVER = frozenset({ReplayOutcome.REFUSED, ReplayOutcome.ERASED, ReplayOutcome.GONE})


class ReplayDriver:
    """Drives a run that it holds by its token; everything it knows is in the ledger as well.

    Cancelled, it says so in the ledger and leaves the rest as it is. Killed, it leaves a run that
    `resume` goes on with: a letter that was replayed and not noted is not replayed again.
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
        """Take a run that was just begun or taken over with this token."""
        self._dead = dead
        self._runs = runs
        self._run = run
        self._token = token
        self._by = by
        self._on_progress = on_progress
        self._waiting: dict[str, None] = {}
        self._died_before = run.outcomes.get(ReplayOutcome.DEAD, 0)
        self._looked_s = self._moved_s = self._next_s = self._clock()

    async def drive(self) -> ReplayRun:
        """Go on to the end, or to what stops it; raise `LeaseLost` if it was taken over."""
        try:
            why = await self._drive()
        except asyncio.CancelledError:
            await asyncio.shield(self._end(ReplayState.ABORTED, "interrupted"))
            raise
        except QueueFull:
            why = "queue_full"
        await self._end(ReplayState.STOPPED if why else ReplayState.DONE, why)
        return self._run

    async def _drive(self) -> str:
        """Return why it stopped, '' if all is done."""
        self._waiting = dict.fromkeys(await self._runs.waiting_letters(self._run.id))
        self._show()
        why = "" if self._run.canary_passed else await self._send_canary()
        return why or await self._send_rest()

    async def _send_canary(self) -> str:
        """Replay the first letters and wait for what becomes of them; one that dies stops all."""
        async for letter in self._todo():
            if len(self._waiting) + self._settled >= self._run.pace.canary:
                break
            await self._replay(letter)
        while self._waiting and not self._died:
            if self._stands_still:
                return "canary_not_settled"
            await asyncio.sleep(_LOOK_S)
            await self._look()
        if self._died:
            return "canary_buried"
        await self._note([], passed=True)
        return ""

    async def _send_rest(self) -> str:
        async for letter in self._todo():
            await self._replay(letter)
            if self._clock() - self._looked_s >= _LOOK_S:
                await self._look()
            if self._died >= self._run.pace.max_dead:
                return "too_many_buried"
        while self._waiting:
            if self._stands_still:
                return "not_settled"
            await asyncio.sleep(_LOOK_S)
            await self._look()
        return ""

    async def _todo(self) -> AsyncIterator[DeadLetterRef]:
        """Give the letters that are left, in order, each once its time has come."""
        while letters := await self._runs.next_letters(self._run.id):
            for letter in letters:
                yield letter

    async def _replay(self, letter: DeadLetterRef) -> None:
        """Replay one letter at its time."""
        await asyncio.sleep(max(0.0, self._next_s - self._clock()))
        self._next_s = max(self._next_s, self._clock()) + 1 / self._run.pace.rate
        outcome = await self._dead.replay(letter, self._run.id)
        await self._note([(letter, letter.id, outcome)])
        if outcome is ReplayOutcome.WAITING:
            self._waiting[letter.id] = None

    async def _look(self) -> None:
        """See what has become of those that wait, the ones not looked at for longest first."""
        self._looked_s = self._clock()
        names = list(self._waiting)[:_LOOK_AT]
        found = await self._dead.replay_outcomes(names, self._run.id)
        for name in names:
            del self._waiting[name]
        self._waiting.update(
            dict.fromkeys(name for name in names if found[name] is ReplayOutcome.WAITING)
        )
        settled = [(None, name, found[name]) for name in names if name not in self._waiting]
        if settled:
            await self._note(settled)

    async def _note(
        self,
        outcomes: Collection[tuple[DeadLetterRef | None, str, ReplayOutcome]],
        *,
        passed: bool = False,
    ) -> None:
        await self._runs.record_outcomes(self._run.id, self._token, outcomes, canary_passed=passed)
        self._moved_s = self._clock()
        counts = dict(self._run.outcomes)
        for letter, _, outcome in outcomes:
            counts[outcome] = counts.get(outcome, 0) + 1
            if letter is None:  # it was noted as waiting before
                counts[ReplayOutcome.WAITING] -= 1
        self._run = replace(
            self._run,
            outcomes={outcome: n for outcome, n in counts.items() if n},
            canary_passed=passed or self._run.canary_passed,
        )
        self._show()

    async def _end(self, state: ReplayState, why: str) -> None:
        await self._runs.end(self._run.id, self._token, state, why, by=self._by)
        self._run = replace(self._run, state=state, reason=why)

    def _show(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._run)

    @property
    def _settled(self) -> int:
        """Return how many letters were replayed and came to a good end."""
        not_good = {ReplayOutcome.WAITING, ReplayOutcome.DEAD, *_PASSED_OVER}
        return sum(n for outcome, n in self._run.outcomes.items() if outcome not in not_good)

    @property
    def _died(self) -> int:
        """Return how many were buried again since this driver began."""
        return self._run.outcomes.get(ReplayOutcome.DEAD, 0) - self._died_before

    @property
    def _stands_still(self) -> bool:
        return self._clock() - self._moved_s >= self._run.pace.stall_timeout_s

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()
