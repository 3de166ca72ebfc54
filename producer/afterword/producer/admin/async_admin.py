"""The operator for code that runs on an event loop: dry unless it is told to go."""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from afterword.producer.admin import erasure as forgetting
from afterword.producer.admin.erasure import Erased
from afterword.producer.admin.plan import Plan, planned
from afterword.producer.admin.replay_driver import Replayer, Watch
from afterword.shared.clock import utc_now
from afterword.shared.closing import AsyncCloseable
from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.dead_letter_records import (
    AuditEntry,
    DeadFilter,
    DeadLetter,
    ReplayOutcome,
    ReplayPace,
    ReplayRun,
    ReplayState,
)
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Account, Gap
from afterword.shared.settings import Settings


@dataclass(frozen=True, slots=True)
class Discarded:
    """What became of letters that were to be given up; nothing, if its state is `dry`."""

    state: ReplayState
    letters: int
    discarded: int = 0
    refused: int = 0


class AsyncOperator(AsyncCloseable):
    """Looks at dead letters and puts them on their way again, safely.

    Several operators may do so at once: a letter is replayed once, and each is told the truth.
    Bound to the event loop that first uses it; use it as an async context manager, or call
    `aclose`. `by` is who stands in the audit, `user@host` unless said.
    """

    def __init__(self, settings: Settings | None = None, *, by: str | None = None) -> None:
        """Take the settings; without any, read the environment."""
        self._settings = settings or settings_in_use()
        self._ledger = Ledger(self._settings, patience_s=self._settings.submit_timeout_s)
        self._by = by or f"{_who()}@{socket.gethostname()}"
        self._checked = False
        self._drives: set[asyncio.Task[Any]] = set()

    async def dead(
        self, chosen: DeadFilter | None = None, *, content: bool = False
    ) -> AsyncGenerator[DeadLetter, None]:
        """Give the dead letters that a filter lets through, oldest burial first."""
        ledger = await self._checked_ledger()
        async for letter in ledger.dead.letters(chosen, content=content):
            yield letter

    async def letter(self, letter_id: str) -> DeadLetter:
        """Return one dead letter with its content; raise `JobNotFound` if it is none."""
        return await (await self._checked_ledger()).dead.letter(letter_id)

    async def plan(self, chosen: DeadFilter | None = None, pace: ReplayPace | None = None) -> Plan:
        """Return what a replay would do; nothing is changed.

        Raises `InvalidRequest` naming the first id of the filter that is no dead letter.
        """
        chosen = chosen or DeadFilter()
        await self._check_named(chosen)
        return await planned(self.dead(chosen), chosen, pace or ReplayPace(), self._settings)

    async def replay(
        self, plan: Plan, *, go: bool = False, watch: Watch | None = None
    ) -> ReplayRun:
        """Replay the letters of a plan and return what became of them; without `go`, do nothing.

        `watch` is told whenever the run has come further. Cancelled, the run is `aborted`; it can
        be resumed, and so can one whose process was killed. Raises `LeaseLost` if someone else
        has taken it over or aborted it.
        """
        if not go or not plan.chosen:
            return self._nothing_done(plan, ReplayState.DONE if go else ReplayState.DRY)
        ledger = await self._checked_ledger()
        token = secrets.token_hex(16)
        name = await ledger.runs.begin(
            plan.chosen, by=self._by, said=plan.filter.said(), pace=plan.pace, token=token
        )
        return await self._drive(name, token, watch)

    async def resume(self, run_id: str, *, watch: Watch | None = None) -> ReplayRun:
        """Go on with a run, whoever began it; whoever still drives it is stopped.

        Returns it as it is if it is done. Raises `JobNotFound`.
        """
        ledger = await self._checked_ledger()
        token = secrets.token_hex(16)
        if not await ledger.runs.take(run_id, by=self._by, token=token, to="resume"):
            return await ledger.runs.run(run_id)
        return await self._drive(run_id, token, watch)

    async def abort(self, run_id: str) -> ReplayRun:
        """Stop a run, whoever drives it; what was not replayed stays a dead letter."""
        ledger = await self._checked_ledger()
        token = secrets.token_hex(16)
        await ledger.runs.take(run_id, by=self._by, token=token, to="abort")
        return await ledger.runs.run(run_id)

    async def run(self, run_id: str) -> ReplayRun:
        """Return a run as it is now; raise `JobNotFound`."""
        return await (await self._checked_ledger()).runs.run(run_id)

    async def runs(self, limit: int = 20) -> Sequence[ReplayRun]:
        """Return the newest runs, newest first."""
        return await (await self._checked_ledger()).runs.newest(limit)

    async def outcomes(self, run_id: str) -> dict[str, ReplayOutcome]:
        """Return what is noted of each letter of a run that was looked at."""
        ledger = await self._checked_ledger()
        return {name: outcome async for name, outcome in ledger.runs.outcomes(run_id)}

    async def discard(self, chosen: DeadFilter, *, go: bool = False) -> Discarded:
        """Give letters up for good; without `go`, only count them."""
        plan = await self.plan(chosen)
        if not go:
            return Discarded(ReplayState.DRY, letters=len(plan.chosen))
        ledger, token = await self._checked_ledger(), secrets.token_hex(8)
        told = {"filter": chosen.said(), "letters": len(plan.chosen)}
        await ledger.runs.note_audit_entry(self._by, "discard", told, token)
        done = [await ledger.dead.discard(letter) for letter in plan.chosen]
        counts = {"discarded": sum(done), "refused": len(done) - sum(done)}
        await ledger.runs.note_audit_entry(self._by, "discarded", counts, f"{token}-done")
        return Discarded(ReplayState.DONE, letters=len(done), **counts)

    async def forget(self, user_id: str, *, tenant: str = "default") -> Erased:
        """Have all erased that a user said, everywhere and for good, or say how far that is.

        A memory worker carries it out; `erasure` shows the receipt. Raises `InvalidRequest`.
        """
        ledger = await self._checked_ledger()
        found = await forgetting.forget(ledger, user_id, tenant, self._by)
        token = f"forget-{found.asked_at.isoformat()}"
        await ledger.runs.note_audit_entry(self._by, "forget", {"tenant": tenant}, token)
        return found

    async def erasure(self, user_id: str, *, tenant: str = "default") -> Erased | None:
        """Return how far the erasure of a user is, None if nobody asked for one."""
        return await forgetting.erasure(await self._checked_ledger(), user_id, tenant)

    async def accounts(self, *, late_s: float = 300.0) -> Sequence[Account]:
        """Return what became of every job and turn, a tenant each.

        A user is late while their oldest turn that waits is older than `late_s` seconds.
        """
        return await (await self._checked_ledger()).account.accounts(late_s=late_s)

    async def gaps(self, *, mend: bool = False) -> AsyncGenerator[Gap, None]:
        """Give the jobs and turns that are not where they must be, and put them back to `mend`."""
        ledger = await self._checked_ledger()
        async for gap in ledger.gaps.find(mend=mend):
            yield gap

    async def audit(self, limit: int = 100) -> Sequence[AuditEntry]:
        """Return what operators did, newest first."""
        return await (await self._checked_ledger()).runs.audit(limit)

    async def aclose(self) -> None:
        """Abort the runs that this operator drives, and close the connections."""
        for task in self._drives:
            task.cancel()
        await asyncio.gather(*self._drives, return_exceptions=True)
        await self._ledger.aclose()

    def _nothing_done(self, plan: Plan, state: ReplayState) -> ReplayRun:
        return ReplayRun(
            id="",
            by=self._by,
            at=utc_now(),
            seen_at=utc_now(),
            filter=plan.filter.said(),
            pace=plan.pace,
            state=state,
            reason="",
            letters=len(plan.chosen),
            canary_passed=False,
        )

    async def _drive(self, run_id: str, token: str, watch: Watch | None) -> ReplayRun:
        ledger = self._ledger
        run = await ledger.runs.run(run_id)
        replayer = Replayer(ledger.dead, ledger.runs, run, token, self._by, watch)
        task = asyncio.ensure_future(replayer.drive())
        self._drives.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            self._drives.discard(task)

    async def _check_named(self, chosen: DeadFilter) -> None:
        if chosen.ids:
            found = {letter.id async for letter in self.dead(DeadFilter(ids=chosen.ids))}
            for name in chosen.ids:
                if name not in found:
                    raise InvalidRequest("ids", f"{name} is no dead letter")

    async def _checked_ledger(self) -> Ledger:
        """Return the ledger once its Redis is known to be fit."""
        if not self._checked:
            await self._ledger.check()
            self._checked = True
        return self._ledger


def _who() -> str:
    """Return who runs this; in a container a user id may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"
