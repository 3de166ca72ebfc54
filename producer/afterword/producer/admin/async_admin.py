"""The operator for code that runs on an event loop."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from afterword.producer.admin import erasure as erasures
from afterword.producer.admin.async_steering import AsyncSteering
from afterword.producer.admin.erasure import ErasureReceipt
from afterword.producer.admin.history import (
    ImportCounts,
    ImportProgress,
    check_history,
    import_turns,
    read_history,
)
from afterword.producer.admin.operator_name import user_and_host
from afterword.producer.admin.plan import ReplayPlan, build_plan
from afterword.producer.admin.recorded import recorded
from afterword.producer.admin.replay_driver import ProgressCallback, ReplayDriver
from afterword.producer.admin.stories import AsyncStories
from afterword.producer.admin.tenants import AsyncTenants
from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.per_loop import PerLoop
from afterword.shared.arguments import (
    AnyId,
    EventId,
    GateName,
    Id,
    Limit,
    Line,
    Seconds,
    ShutSeconds,
    checked,
)
from afterword.shared.clock import utc_now
from afterword.shared.closeable import AsyncCloseable
from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import InvalidRequest, JobNotFound
from afterword.shared.ledger.dead_letter_records import (
    AuditEntry,
    DeadLetter,
    DeadLetterFilter,
    ReplayOutcome,
    ReplayPace,
    ReplayRun,
    ReplayState,
)
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import (
    Account,
    Gate,
    GateState,
    Inconsistency,
    gate_shut_by_hand,
)
from afterword.shared.names import MAX_SHOWN
from afterword.shared.settings import Settings
from afterword.shared.traces import recorder_in_use


@dataclass(frozen=True, slots=True)
class DiscardResult:
    """How many dead letters a filter matched, and how many of them were discarded."""

    state: ReplayState
    """`dry` if nothing was changed, else `done`."""

    dead_letters: int
    """How many the filter matched."""

    discarded: int = 0
    """How many are gone for good."""

    refused: int = 0
    """How many were replayed or discarded by somebody else meanwhile."""


class _Desk(AsyncCloseable):
    """What belongs to one event loop: the ledger's connections, and the runs that are driven."""

    def __init__(self, ledger: CheckedLedger) -> None:
        self.checked = ledger
        self.drives: set[asyncio.Task[Any]] = set()

    async def aclose(self) -> None:
        for task in self.drives:
            task.cancel()
        await asyncio.gather(*self.drives, return_exceptions=True)
        await self.checked.aclose()


class AsyncOperator(AsyncStories, AsyncCloseable):
    """Lists dead letters, replays or discards them, erases users, tells jobs, shuts gates.

    Replays and discards do nothing until they are called with `apply=True`. Several
    operators may work at once: each dead letter is replayed once.

    It may be used from several event loops. Use it as an async context manager, or call `aclose`.
    Every method raises `InvalidRequest` naming an argument that is not valid, and
    `LedgerUnavailable` if Redis does not answer in time. A method that changes something raises
    `Misconfigured` if Redis is not fit to hold the ledger; one that reads logs a warning and
    returns what there is.

    Args:
        settings: where the ledger is; read from the environment if omitted.
        by: the name that the audit shows for what this operator does; `user@host` if omitted.

    Attributes:
        steering: gives orders to the running fleet: pauses, blocks, limits.
        tenants: shows who has how much of the workers, and of their budgets.

    """

    @checked
    def __init__(self, settings: Settings | None = None, *, by: Id | None = None) -> None:
        self._settings = settings or settings_in_use()
        self._desks = PerLoop(lambda: _Desk(CheckedLedger.open(self._settings)))
        self._by = by or user_and_host()
        self.steering = AsyncSteering(lambda: self._checked, self._by)
        self.tenants = AsyncTenants(lambda: self._checked)

    @checked
    async def dead_letters(
        self,
        criteria: DeadLetterFilter | None = None,
        *,
        content: bool = False,
        after: AnyId | None = None,
    ) -> AsyncGenerator[DeadLetter, None]:
        """Yield the dead letters that match, the one buried first coming first.

        Args:
            criteria: which ones; all of them if omitted.
            content: whether to read the message and the reply as well.
            after: the id of a dead letter, such as the last of the page before: only what was
                buried later is given.

        Raises:
            InvalidRequest: one of `criteria.ids` is no dead letter; it is named, and none is given.
                Or `after` is none.

        """
        ledger = await self._checked.for_reading()
        await _check_ids(ledger, criteria)
        async for letter in ledger.dead_letters.select(criteria, content=content, after=after):
            yield letter

    @checked
    async def dead_letter(self, letter_id: AnyId) -> DeadLetter:
        """Return one dead letter with its content.

        Raises `JobNotFound` if there is no dead letter with this id.
        """
        return await (await self._checked.for_reading()).dead_letters.get(letter_id)

    @checked
    async def plan(
        self, criteria: DeadLetterFilter | None = None, pace: ReplayPace | None = None
    ) -> ReplayPlan:
        """Return what a replay would do, with an estimate of its calls, cost and time.

        Nothing is changed. Raises `InvalidRequest` with the first id in `criteria.ids` that is no
        dead letter.
        """
        criteria = criteria or DeadLetterFilter()
        letters = self.dead_letters(criteria)
        return await build_plan(letters, criteria, pace or ReplayPace(), self._settings)

    @checked
    async def replay(
        self, plan: ReplayPlan, *, apply: bool = False, on_progress: ProgressCallback | None = None
    ) -> ReplayRun:
        """Replay the dead letters of a plan, and return the run when it has ended.

        Without `apply=True` nothing is changed, and the run has the state `dry`. The canary goes
        first; the run stops if one of its letters is buried again. Cancelling this call aborts
        the run. A run that was stopped, aborted or killed can be resumed.

        Args:
            plan: what to replay; letters that were buried later are not touched.
            apply: do it.
            on_progress: called with the run whenever it has advanced.

        Raises:
            LeaseLost: somebody else resumed or aborted the run.

        """
        if not apply or not plan.dead_letters:
            return self._unchanged(plan, ReplayState.DONE if apply else ReplayState.DRY)
        ledger = await self._checked.get()
        recorder_in_use(ledger.settings)
        token = secrets.token_hex(16)
        run_id = await ledger.replay_runs.begin(
            plan.dead_letters,
            by=self._by,
            criteria=plan.filter.to_dict(),
            pace=plan.pace,
            token=token,
        )
        return await self._drive(run_id, token, on_progress)

    @checked
    async def resume(self, run_id: Id, *, on_progress: ProgressCallback | None = None) -> ReplayRun:
        """Continue a run that was stopped, aborted or killed, and return it when it has ended.

        Anyone may resume a run; whoever still drives it is stopped by that and gets `LeaseLost`.
        A run that is done is returned unchanged. Raises `JobNotFound` if there is no such run.
        """
        ledger = await self._checked.get()
        recorder_in_use(ledger.settings)
        token = secrets.token_hex(16)
        if not await ledger.replay_runs.take_over(
            run_id, by=self._by, token=token, action="resume"
        ):
            return await ledger.replay_runs.get(run_id)
        return await self._drive(run_id, token, on_progress)

    @checked
    async def abort(self, run_id: Id) -> ReplayRun:
        """Stop a run, whoever drives it, and return it.

        What was not replayed yet stays a dead letter. Raises `JobNotFound`.
        """
        ledger = await self._checked.get()
        token = secrets.token_hex(16)
        await ledger.replay_runs.take_over(run_id, by=self._by, token=token, action="abort")
        return await ledger.replay_runs.get(run_id)

    @checked
    async def replay_run(self, run_id: Id) -> ReplayRun:
        """Return a run as it is now; raise `JobNotFound` if there is none."""
        return await (await self._checked.for_reading()).replay_runs.get(run_id)

    @checked
    async def replay_runs(
        self, limit: Limit = 20, *, after: Id | None = None
    ) -> Sequence[ReplayRun]:
        """Return up to `limit` runs, the newest first; after the run `after`, if it is given.

        Raises `InvalidRequest` if there is no such run.
        """
        return await (await self._checked.for_reading()).replay_runs.newest(limit, after=after)

    @checked
    async def replay_outcomes(self, run_id: Id) -> dict[str, ReplayOutcome]:
        """Return what became of each dead letter that a run has handled so far, by its id.

        Raises `JobNotFound` if there is no such run.
        """
        ledger = await self._checked.for_reading()
        await ledger.replay_runs.get(run_id)
        return {name: outcome async for name, outcome in ledger.replay_runs.outcomes(run_id)}

    @checked
    async def bury(self, job_id: AnyId) -> None:
        """Make a turn that waits to be stored a dead letter, audited; its lane goes on without it.

        For a turn that keeps its user's later turns waiting. It can be replayed. Raises
        `JobNotFound`, and `IllegalStep` with the reason if it does not wait: it is stored already,
        say, or is being stored.
        """
        ledger = await self._checked.get()
        async with recorded(ledger.replay_runs, self._by, "bury", {"job_id": job_id}):
            await ledger.dead_letters.bury(job_id)

    @checked
    async def discard(self, criteria: DeadLetterFilter, *, apply: bool = False) -> DiscardResult:
        """Give up the dead letters that match, for good.

        Without `apply=True` they are only counted. Raises `InvalidRequest` as `plan` does.
        """
        plan = await self.plan(criteria)
        if not apply:
            return DiscardResult(ReplayState.DRY, dead_letters=len(plan.dead_letters))
        ledger, token = await self._checked.get(), secrets.token_hex(8)
        details = {"filter": criteria.to_dict(), "dead_letters": len(plan.dead_letters)}
        await ledger.replay_runs.add_audit_entry(self._by, "discard", details, token)
        done = [await ledger.dead_letters.discard(letter) for letter in plan.dead_letters]
        counts = {"discarded": sum(done), "refused": len(done) - sum(done)}
        await ledger.replay_runs.add_audit_entry(self._by, "discarded", counts, f"{token}-done")
        return DiscardResult(ReplayState.DONE, dead_letters=len(done), **counts)

    @checked
    async def import_history(
        self, path: str | Path, progress: ImportProgress | None = None
    ) -> ImportCounts:
        """Import past turns from a file of JSON lines: each goes to memory, none is answered.

        Every line is checked before anything is written. Turns are stored by the memory workers,
        in the order of the file, and the import waits while many are to be stored. A turn that was
        imported before, in the last 90 days, is not imported again: an import that was interrupted
        is resumed by repeating it. The audit records when it begins (`import`), and what it did
        (`imported`). `HistoryTurn` lists the fields of a line.

        Args:
            path: the file.
            progress: called after each turn, with the counts so far and the number of turns in all.

        Raises:
            InvalidRequest: the file cannot be read, or a line is not valid; `field` names the file,
                the line and the field.

        """
        where = Path(path)
        total = await asyncio.to_thread(check_history, where, self._settings)
        ledger, token = await self._checked.get(), secrets.token_hex(8)
        await ledger.replay_runs.add_audit_entry(self._by, "import", {"turns": total}, token)
        turns = read_history(where, self._settings)
        counts = await import_turns(ledger.imports, turns, total, progress or _no_progress)
        await ledger.replay_runs.add_audit_entry(
            self._by, "imported", asdict(counts), f"{token}-done"
        )
        return counts

    @checked
    async def forget(self, user_id: Id, *, tenant: Id = "default") -> ErasureReceipt:
        """Request that everything a user said is erased: jobs, replies, memories, dead letters.

        A memory worker carries it out; `erasure` returns how far it is. If an erasure of this
        user is already under way, it is returned and no second one is begun. It cannot be undone.
        Raises `InvalidRequest` if no job could have had this user or tenant id.
        """
        ledger = await self._checked.get()
        receipt = await erasures.forget(ledger, user_id, tenant, self._by)
        token = f"forget-{receipt.asked_at.isoformat()}"
        await ledger.replay_runs.add_audit_entry(self._by, "forget", {"tenant": tenant}, token)
        return receipt

    @checked
    async def erasure(self, user_id: Id, *, tenant: Id = "default") -> ErasureReceipt | None:
        """Return how far the newest erasure of a user is, or None if none was requested."""
        return await erasures.erasure(await self._checked.for_reading(), user_id, tenant)

    @checked
    async def accounts(
        self, *, late_s: Seconds = 300.0, tenant: Id | None = None
    ) -> Sequence[Account]:
        """Return how many jobs and turns of each tenant, or of one, are in which state.

        A user counts as late once their oldest turn that waits to be stored is older than
        `late_s` seconds.
        """
        accounts = (await self._checked.for_reading()).accounts
        return await accounts.by_tenant(late_s=late_s, tenant=tenant)

    @checked
    async def inconsistencies(self, *, fix: bool = False) -> AsyncGenerator[Inconsistency, None]:
        """Yield the jobs and turns that no queue leads to although their state requires it.

        With `fix=True` each is put back. Any that is found is a bug, or somebody else wrote to
        the Redis.
        """
        ledger = await (self._checked.get() if fix else self._checked.for_reading())
        async for inconsistency in ledger.maintenance.find_inconsistencies(fix=fix):
            yield inconsistency

    async def gates(self) -> Sequence[Gate]:
        """Return the gates that are not open: the providers that are not called now, and why."""
        return await (await self._checked.get()).gates.not_open()

    @checked
    async def shut_gate(
        self,
        name: GateName,
        *,
        reason: Line = "",
        for_s: ShutSeconds | None = None,
        dry_run: bool = False,
    ) -> Gate:
        """Stop all calls to a provider at once, for `for_s` seconds or until it is opened again.

        Work waits and spends no attempt. No worker opens the gate before that time; then one call
        tests the provider. Returns the gate as it is then. Raises `InvalidRequest`.

        Args:
            name: `claude/<model>`, `recall` (searches in mem0) or `remember` (writes to it).
            reason: one line for those who see that it is shut.
            for_s: seconds until calls may begin again; without it, until `open_gate`.
            dry_run: only return the gate as it would be.

        """
        ledger = await self._checked.get()
        if not dry_run:
            await ledger.gates.shut(name, by=self._by, reason=reason, for_s=for_s)
        now = await ledger.dead_letters.redis_time()
        return gate_shut_by_hand(name, self._by, reason, now, for_s)

    @checked
    async def open_gate(self, name: GateName, *, dry_run: bool = False) -> bool:
        """Let a provider be called again, whoever shut its gate; return whether it was shut.

        Calls begin slowly, and waiting work comes back within a minute. If the provider still
        fails, the gate shuts again. With `dry_run`, nothing is changed. Raises `InvalidRequest`.
        """
        gates = (await self._checked.get()).gates
        if not dry_run:
            return await gates.open(name, by=self._by)
        shut = [one for one in await gates.not_open() if one.state is GateState.SHUT]
        return name in [one.name for one in shut]

    @checked
    async def audit(
        self,
        limit: Limit = 100,
        *,
        after: EventId | None = None,
        by: Id | None = None,
        action: Line | None = None,
    ) -> Sequence[AuditEntry]:
        """Return up to `limit` entries of what operators did, the newest first.

        Args:
            limit: the most entries.
            after: the id of an entry, such as the last of the page before: only older ones.
            by: only those of this operator.
            action: only those of this action, such as `replay` or `gate_shut`.

        """
        runs = (await self._checked.for_reading()).replay_runs
        return await runs.audit_entries(limit, after=after, by=by, action=action)

    async def aclose(self) -> None:
        """Abort the runs that this operator drives, and close its connections."""
        await self._desks.aclose()

    @property
    def _checked(self) -> CheckedLedger:
        return self._desks.here().checked

    def _unchanged(self, plan: ReplayPlan, state: ReplayState) -> ReplayRun:
        return ReplayRun(
            id="",
            by=self._by,
            started_at=utc_now(),
            updated_at=utc_now(),
            filter=plan.filter.to_dict(),
            pace=plan.pace,
            state=state,
            reason="",
            dead_letters=len(plan.dead_letters),
            canary_passed=False,
        )

    async def _drive(
        self, run_id: str, token: str, on_progress: ProgressCallback | None
    ) -> ReplayRun:
        ledger = self._checked.ledger
        run = await ledger.replay_runs.get(run_id)
        driver = ReplayDriver(
            ledger.dead_letters, ledger.replay_runs, run, token, self._by, on_progress
        )
        task = asyncio.ensure_future(driver.drive())
        drives = self._desks.here().drives
        drives.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            drives.discard(task)


async def _check_ids(ledger: Ledger, criteria: DeadLetterFilter | None) -> None:
    """Refuse a filter that names what is no dead letter: nobody would notice that it is missing."""
    if criteria is None or not criteria.ids:
        return
    only_ids = DeadLetterFilter(ids=criteria.ids)
    try:
        found = {letter.id async for letter in ledger.dead_letters.select(only_ids)}
    except JobNotFound as malformed:
        raise InvalidRequest("ids", f"{malformed.job_id} is no dead letter") from None
    for name in criteria.ids:
        if name not in found:
            raise InvalidRequest("ids", f"{name[:MAX_SHOWN]} is no dead letter")


def _no_progress(_counts: ImportCounts, _total: int) -> None:
    """Tell nobody how far an import is."""
