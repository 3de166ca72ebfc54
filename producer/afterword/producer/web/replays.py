"""Plans that were made on a page, and the replays that this process drives."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.plan import ReplayPlan
from afterword.shared.closeable import AsyncCloseable
from afterword.shared.errors import AfterwordError
from afterword.shared.ledger.dead_letter_records import DeadLetterFilter, ReplayPace, ReplayRun
from afterword.shared.logs import LOGGER

#: Plans that are kept at a time, and for how long: what matched changes.
MAX_PLANS = 20
PLAN_S = 900.0


@dataclass(slots=True)
class Planned:
    """A dry run: its plan once it is made, or why there is none."""

    id: str
    by: str
    criteria: DeadLetterFilter
    pace: ReplayPace
    made_s: float
    task: asyncio.Task[ReplayPlan]

    @property
    def plan(self) -> ReplayPlan | None:
        """Return the plan; None while it is being made, or if it failed."""
        return self.task.result() if self.task.done() and not self._error else None

    @property
    def failure(self) -> str:
        """Return why there will be no plan; '' if there is one, or may be."""
        if not self.task.done() or self._error is None:
            return ""
        return str(self._error) if isinstance(self._error, AfterwordError) else "internal error"

    @property
    def _error(self) -> BaseException | None:
        if self.task.cancelled():
            return asyncio.CancelledError()
        return self.task.exception() if self.task.done() else None


class Replays(AsyncCloseable):
    """Makes plans and drives replays, each in a task: a page that is closed ends none of them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._plans: dict[str, Planned] = {}
        self._drives: dict[asyncio.Task[ReplayRun], str] = {}

    def drives(self, run_id: str) -> bool:
        """Return whether this process drives a run."""
        return run_id in self._drives.values()

    def plan(
        self, operator: AsyncOperator, by: str, criteria: DeadLetterFilter, pace: ReplayPace
    ) -> Planned:
        """Begin a dry run."""
        self._forget()
        task = asyncio.create_task(operator.plan(criteria, pace))
        made = Planned(secrets.token_hex(8), by, criteria, pace, self._clock(), task)
        self._plans[made.id] = made
        return made

    def planned(self, plan_id: str, by: str) -> Planned | None:
        """Return somebody's dry run, None if it is too old, replayed, or somebody else's."""
        self._forget()
        found = self._plans.get(plan_id)
        return found if found and found.by == by else None

    async def replay(self, operator: AsyncOperator, planned: Planned) -> str | None:
        """Replay what was planned, once; return the id of the run, None if nothing is left to do.

        Returns when the run has begun. Raises what kept it from beginning.
        """
        plan = planned.plan
        assert plan is not None, "it was shown"
        del self._plans[planned.id]
        return await self._drive(lambda on: operator.replay(plan, apply=True, on_progress=on))

    async def resume(self, operator: AsyncOperator, run_id: str) -> str | None:
        """Resume a run; return its id once it is driven, or if it was done."""
        await self._drive(lambda on: operator.resume(run_id, on_progress=on))
        return run_id

    async def _drive(
        self, begin: Callable[[Callable[[ReplayRun], None]], Awaitable[ReplayRun]]
    ) -> str | None:
        began: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def progressed(run: ReplayRun) -> None:
            self._drives[task] = run.id
            if not began.done():
                began.set_result(run.id)

        task = asyncio.ensure_future(begin(progressed))
        self._drives[task] = ""
        task.add_done_callback(self._ended)
        both: list[asyncio.Future[Any]] = [began, task]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if began.done():
            return began.result()
        began.cancel()
        return (await task).id or None

    def _ended(self, task: asyncio.Task[ReplayRun]) -> None:
        """Forget a run; the ledger has its state, and why it stopped."""
        self._drives.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            LOGGER.warning("a replay from the console ended: %s", type(error).__name__)

    def _forget(self) -> None:
        """Forget plans that are old, and the oldest if there are many."""
        old = [one for one in self._plans.values() if self._clock() - one.made_s > PLAN_S]
        for one in [*old, *list(self._plans.values())[len(old) : -MAX_PLANS]]:
            one.task.cancel()
            self._plans.pop(one.id, None)

    async def aclose(self) -> None:
        """Abort what is driven, as an interrupted command does, and wait for it."""
        tasks = [*self._drives, *(one.task for one in self._plans.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
