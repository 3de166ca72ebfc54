"""The operator for code without an event loop."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

from afterword.producer.admin.async_admin import AsyncOperator, DiscardResult
from afterword.producer.admin.erasure import ErasureReceipt
from afterword.producer.admin.history import ImportCounts, ImportProgress
from afterword.producer.admin.plan import ReplayPlan
from afterword.producer.admin.replay_driver import ProgressCallback
from afterword.producer.admin.stories import Stories
from afterword.producer.admin.sync_steering import Steering
from afterword.producer.admin.tenants import Tenants
from afterword.producer.portal import Portal
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
from afterword.shared.closeable import Closeable
from afterword.shared.discovery import settings_in_use
from afterword.shared.ledger.dead_letter_records import (
    AuditEntry,
    DeadLetter,
    DeadLetterFilter,
    ReplayOutcome,
    ReplayPace,
    ReplayRun,
)
from afterword.shared.ledger.records import Account, Gate, Inconsistency
from afterword.shared.settings import Settings


class Operator(Stories, Closeable):
    """Lists dead letters, replays or discards them, erases users, tells jobs, shuts gates.

    Replays and discards do nothing until they are called with `apply=True`. Several
    operators may work at once: each dead letter is replayed once.

    An `Operator` has a background thread, which does not survive a fork: make one in each
    process. Use it as a context manager, or call `close`. Every method raises `InvalidRequest`
    naming an argument that is not valid, and `LedgerUnavailable` if Redis does not answer in time.
    A method that changes something raises `Misconfigured` if Redis is not fit to hold the ledger;
    one that reads logs a warning and returns what there is.

    Args:
        settings: where the ledger is; read from the environment if omitted.
        by: the name that the audit shows for what this operator does; `user@host` if omitted.

    Attributes:
        steering: gives orders to the running fleet: pauses, blocks, limits.
        tenants: shows who has how much of the workers, and of their budgets.

    """

    @checked
    def __init__(self, settings: Settings | None = None, *, by: Id | None = None) -> None:
        known = settings or settings_in_use()
        self._portal = Portal()
        self._operator: AsyncOperator = self._portal.make(lambda: AsyncOperator(known, by=by))
        self.steering = Steering(self._portal, self._operator.steering)
        self.tenants = Tenants(self._portal, self._operator.tenants)

    def dead_letters(
        self,
        criteria: DeadLetterFilter | None = None,
        *,
        content: bool = False,
        after: AnyId | None = None,
    ) -> Generator[DeadLetter, None, None]:
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
        return self._portal.iterate(
            self._operator.dead_letters(criteria, content=content, after=after)
        )

    def dead_letter(self, letter_id: AnyId) -> DeadLetter:
        """Return one dead letter with its content.

        Raises `JobNotFound` if there is no dead letter with this id.
        """
        return self._portal.call(self._operator.dead_letter(letter_id))

    def plan(
        self, criteria: DeadLetterFilter | None = None, pace: ReplayPace | None = None
    ) -> ReplayPlan:
        """Return what a replay would do, with an estimate of its calls, cost and time.

        Nothing is changed. Raises `InvalidRequest` with the first id in `criteria.ids` that is no
        dead letter.
        """
        return self._portal.call(self._operator.plan(criteria, pace))

    def replay(
        self, plan: ReplayPlan, *, apply: bool = False, on_progress: ProgressCallback | None = None
    ) -> ReplayRun:
        """Replay the dead letters of a plan, and return the run when it has ended.

        Without `apply=True` nothing is changed, and the run has the state `dry`. The canary goes
        first; the run stops if one of its letters is buried again. Ctrl-C aborts the run. A run
        that was stopped, aborted or killed can be resumed.

        Args:
            plan: what to replay; letters that were buried later are not touched.
            apply: do it.
            on_progress: called with the run whenever it has advanced, on the background thread.

        Raises:
            LeaseLost: somebody else resumed or aborted the run.

        """
        return self._portal.call(self._operator.replay(plan, apply=apply, on_progress=on_progress))

    def resume(self, run_id: Id, *, on_progress: ProgressCallback | None = None) -> ReplayRun:
        """Continue a run that was stopped, aborted or killed, and return it when it has ended.

        Anyone may resume a run; whoever still drives it is stopped by that and gets `LeaseLost`.
        A run that is done is returned unchanged. Raises `JobNotFound` if there is no such run.
        """
        return self._portal.call(self._operator.resume(run_id, on_progress=on_progress))

    def abort(self, run_id: Id) -> ReplayRun:
        """Stop a run, whoever drives it, and return it.

        What was not replayed yet stays a dead letter. Raises `JobNotFound`.
        """
        return self._portal.call(self._operator.abort(run_id))

    def replay_run(self, run_id: Id) -> ReplayRun:
        """Return a run as it is now; raise `JobNotFound` if there is none."""
        return self._portal.call(self._operator.replay_run(run_id))

    def replay_runs(self, limit: Limit = 20, *, after: Id | None = None) -> Sequence[ReplayRun]:
        """Return up to `limit` runs, the newest first; after the run `after`, if it is given.

        Raises `InvalidRequest` if there is no such run.
        """
        return self._portal.call(self._operator.replay_runs(limit, after=after))

    def replay_outcomes(self, run_id: Id) -> dict[str, ReplayOutcome]:
        """Return what became of each dead letter that a run has handled so far, by its id.

        Raises `JobNotFound` if there is no such run.
        """
        return self._portal.call(self._operator.replay_outcomes(run_id))

    def bury(self, job_id: AnyId) -> None:
        """Make a turn that waits to be stored a dead letter, audited; its lane goes on without it.

        For a turn that keeps its user's later turns waiting. It can be replayed. Raises
        `JobNotFound`, and `IllegalStep` with the reason if it does not wait: it is stored already,
        say, or is being stored.
        """
        self._portal.call(self._operator.bury(job_id))

    def discard(self, criteria: DeadLetterFilter, *, apply: bool = False) -> DiscardResult:
        """Give up the dead letters that match, for good.

        Without `apply=True` they are only counted. Raises `InvalidRequest` as `plan` does.
        """
        return self._portal.call(self._operator.discard(criteria, apply=apply))

    def import_history(
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
        return self._portal.call(self._operator.import_history(path, progress))

    def forget(self, user_id: Id, *, tenant: Id = "default") -> ErasureReceipt:
        """Request that everything a user said is erased: jobs, replies, memories, dead letters.

        A memory worker carries it out; `erasure` returns how far it is. If an erasure of this
        user is already under way, it is returned and no second one is begun. It cannot be undone.
        Raises `InvalidRequest` if no job could have had this user or tenant id.
        """
        return self._portal.call(self._operator.forget(user_id, tenant=tenant))

    def erasure(self, user_id: Id, *, tenant: Id = "default") -> ErasureReceipt | None:
        """Return how far the newest erasure of a user is, or None if none was requested."""
        return self._portal.call(self._operator.erasure(user_id, tenant=tenant))

    def accounts(self, *, late_s: Seconds = 300.0, tenant: Id | None = None) -> Sequence[Account]:
        """Return how many jobs and turns of each tenant, or of one, are in which state.

        A user counts as late once their oldest turn that waits to be stored is older than
        `late_s` seconds.
        """
        return self._portal.call(self._operator.accounts(late_s=late_s, tenant=tenant))

    def inconsistencies(self, *, fix: bool = False) -> Generator[Inconsistency, None, None]:
        """Yield the jobs and turns that no queue leads to although their state requires it.

        With `fix=True` each is put back. Any that is found is a bug, or somebody else wrote to
        the Redis.
        """
        return self._portal.iterate(self._operator.inconsistencies(fix=fix))

    def gates(self) -> Sequence[Gate]:
        """Return the gates that are not open: the providers that are not called now, and why."""
        return self._portal.call(self._operator.gates())

    def shut_gate(
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
        shut = self._operator.shut_gate(name, reason=reason, for_s=for_s, dry_run=dry_run)
        return self._portal.call(shut)

    def open_gate(self, name: GateName, *, dry_run: bool = False) -> bool:
        """Let a provider be called again, whoever shut its gate; return whether it was shut.

        Calls begin slowly, and waiting work comes back within a minute. If the provider still
        fails, the gate shuts again. With `dry_run`, nothing is changed. Raises `InvalidRequest`.
        """
        return self._portal.call(self._operator.open_gate(name, dry_run=dry_run))

    def audit(
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
        return self._portal.call(self._operator.audit(limit, after=after, by=by, action=action))

    def close(self) -> None:
        """Abort the runs that this operator drives, and end its background thread."""
        if not self._portal.closed:
            self._portal.call(self._operator.aclose())
            self._portal.close()
