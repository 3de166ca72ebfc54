"""The operator for code without an event loop: the same surface, waiting where it must."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence

from afterword.producer.admin.async_admin import AsyncOperator, Discarded
from afterword.producer.admin.erasure import Erased
from afterword.producer.admin.plan import Plan
from afterword.producer.admin.replay_driver import Watch
from afterword.producer.portal import Portal
from afterword.shared.closing import Closeable
from afterword.shared.discovery import settings_in_use
from afterword.shared.ledger.dead_letter_records import (
    AuditEntry,
    DeadFilter,
    DeadLetter,
    ReplayOutcome,
    ReplayPace,
    ReplayRun,
)
from afterword.shared.ledger.records import Account, Gap
from afterword.shared.settings import Settings


class Operator(Closeable):
    """Looks at dead letters and puts them on their way again; see `AsyncOperator`.

    It has a background thread of its own; make one in each process.
    """

    def __init__(self, settings: Settings | None = None, *, by: str | None = None) -> None:
        """Take the settings; without any, read the environment."""
        known = settings or settings_in_use()
        self._portal = Portal()
        self._operator = self._portal.make(lambda: AsyncOperator(known, by=by))

    def dead(
        self, chosen: DeadFilter | None = None, *, content: bool = False
    ) -> Generator[DeadLetter, None, None]:
        """Give the dead letters that a filter lets through; see `AsyncOperator.dead`."""
        letters = self._operator.dead(chosen, content=content)
        try:
            while (letter := self._portal.call(_next(letters))) is not None:
                yield letter
        finally:
            if not self._portal.closed:
                self._portal.call(letters.aclose())

    def letter(self, letter_id: str) -> DeadLetter:
        """Return one dead letter with its content; raise `JobNotFound` if it is none."""
        return self._portal.call(self._operator.letter(letter_id))

    def plan(self, chosen: DeadFilter | None = None, pace: ReplayPace | None = None) -> Plan:
        """Return what a replay would do; see `AsyncOperator.plan`."""
        return self._portal.call(self._operator.plan(chosen, pace))

    def replay(self, plan: Plan, *, go: bool = False, watch: Watch | None = None) -> ReplayRun:
        """Replay the letters of a plan; without `go`, do nothing; see `AsyncOperator.replay`."""
        return self._portal.call(self._operator.replay(plan, go=go, watch=watch))

    def resume(self, run_id: str, *, watch: Watch | None = None) -> ReplayRun:
        """Go on with a run, whoever began it; see `AsyncOperator.resume`."""
        return self._portal.call(self._operator.resume(run_id, watch=watch))

    def abort(self, run_id: str) -> ReplayRun:
        """Stop a run, whoever drives it; see `AsyncOperator.abort`."""
        return self._portal.call(self._operator.abort(run_id))

    def run(self, run_id: str) -> ReplayRun:
        """Return a run as it is now; raise `JobNotFound`."""
        return self._portal.call(self._operator.run(run_id))

    def runs(self, limit: int = 20) -> Sequence[ReplayRun]:
        """Return the newest runs, newest first."""
        return self._portal.call(self._operator.runs(limit))

    def outcomes(self, run_id: str) -> dict[str, ReplayOutcome]:
        """Return what is noted of each letter of a run that was looked at."""
        return self._portal.call(self._operator.outcomes(run_id))

    def discard(self, chosen: DeadFilter, *, go: bool = False) -> Discarded:
        """Give letters up for good; without `go`, only count them."""
        return self._portal.call(self._operator.discard(chosen, go=go))

    def forget(self, user_id: str, *, tenant: str = "default") -> Erased:
        """Have all erased that a user said; see `AsyncOperator.forget`."""
        return self._portal.call(self._operator.forget(user_id, tenant=tenant))

    def erasure(self, user_id: str, *, tenant: str = "default") -> Erased | None:
        """Return how far the erasure of a user is, None if nobody asked for one."""
        return self._portal.call(self._operator.erasure(user_id, tenant=tenant))

    def accounts(self, *, late_s: float = 300.0) -> Sequence[Account]:
        """Return what became of every job and turn; see `AsyncOperator.accounts`."""
        return self._portal.call(self._operator.accounts(late_s=late_s))

    def gaps(self, *, mend: bool = False) -> Sequence[Gap]:
        """Return the jobs and turns that are not where they must be; put them back to `mend`."""
        return self._portal.call(_all(self._operator.gaps(mend=mend)))

    def audit(self, limit: int = 100) -> Sequence[AuditEntry]:
        """Return what operators did, newest first."""
        return self._portal.call(self._operator.audit(limit))

    def close(self) -> None:
        """Abort the runs that this operator drives, and end its thread."""
        if not self._portal.closed:
            self._portal.call(self._operator.aclose())
            self._portal.close()


async def _next(letters: AsyncGenerator[DeadLetter, None]) -> DeadLetter | None:
    """Return the next letter, None at the end."""
    return await anext(letters, None)


async def _all(gaps: AsyncGenerator[Gap, None]) -> list[Gap]:
    return [gap async for gap in gaps]
