"""`afterword dead replay|resume|abort|runs`, and `afterword audit`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.plan import ReplayPlan
from afterword.producer.admin.replay_driver import ProgressCallback
from afterword.producer.cli.options import Span, selecting, something
from afterword.producer.cli.render import age, json_option, plain, print_json, table
from afterword.shared.clock import utc_now
from afterword.shared.errors import LedgerUnavailable
from afterword.shared.ledger.dead_letter_records import (
    AuditEntry,
    DeadLetterFilter,
    ReplayOutcome,
    ReplayPace,
    ReplayRun,
    ReplayState,
)

#: What to say of why a run stopped.
_REASONS = {
    "canary_buried": "a letter of the canary was buried again: look at it, mend the cause",
    "canary_not_settled": "the canary has not settled in time: are memory workers running?",
    "too_many_buried": "too many letters were buried again: look at them, mend the cause",
    "not_settled": "all are on their way, but nothing has settled for a while",
    "queue_full": "Redis, or the queue of jobs, is full",
    "interrupted": "it was interrupted",
}

_LINE_S = 5.0
_PACE = ReplayPace()

by_option = click.option("--by", help="Who stands in the audit; you on this machine, unless said.")


@click.command()
@click.argument("ids", metavar="[LETTER_ID]...", nargs=-1)
@selecting
@click.option("--all", "every", is_flag=True, help="All dead letters.")
@click.option("--apply", is_flag=True, help="Do it; without, only say what would be done.")
@click.option("--canary", default=_PACE.canary, show_default=True, help="Replay so many first.")
@click.option("--rate", default=_PACE.rate, show_default=True, help="Then so many a second.")
@click.option(
    "--most-dead",
    "max_dead",
    default=_PACE.max_dead,
    show_default=True,
    help="Stop once so many were buried again.",
)
@click.option("--patience", "stall_timeout_s", type=Span(), default=f"{_PACE.stall_timeout_s:g}s",
              show_default=True, help="Stop once nothing has settled for so long.")  # fmt: skip
@by_option
@json_option
def replay(
    *,
    chosen: DeadLetterFilter,
    every: bool,
    apply: bool,
    by: str | None,
    as_json: bool,
    **pace: Any,
) -> None:
    """Put dead letters on their way again; a dry run unless told to --apply.

    A turn goes back to its place in its user's lane; of a job that failed a new one is submitted.
    Both keep the time when it was said, and replaying twice does no more than once.
    """
    something(chosen, every=every)
    plan, run = asyncio.run(_replay(chosen, ReplayPace(**pace), by, apply=apply, quiet=as_json))
    if as_json:
        print_json({**plain(run), "plan": plan})
    elif run.state is ReplayState.DRY:
        _show_plan(plan)
        click.echo("Nothing was changed. Add --apply to do it.")
    _tell(run, quiet=as_json)


@click.command()
@click.argument("run_id")
@by_option
@json_option
def resume(*, run_id: str, by: str | None, as_json: bool) -> None:
    """Go on with a run that was stopped, aborted or killed; take it over if someone drives it."""
    run = asyncio.run(_resume(run_id, by, quiet=as_json))
    if as_json:
        print_json(run)
    _tell(run, quiet=as_json)


@click.command()
@click.argument("run_id")
@by_option
@json_option
def abort(*, run_id: str, by: str | None, as_json: bool) -> None:
    """Stop a run, whoever drives it; what was not replayed stays a dead letter."""
    run = asyncio.run(_abort(run_id, by))
    if as_json:
        print_json(run)
        return
    click.echo(f"run {run.id}: {_state(run)}, {_counts(run)}")


@click.command()
@click.argument("run_id", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@json_option
def runs(*, run_id: str | None, limit: int, as_json: bool) -> None:
    """List the newest runs, or show one with what became of each letter."""
    if run_id is not None:
        _show_run(*asyncio.run(_run(run_id)), json=as_json)
        return
    found = asyncio.run(_runs(limit))
    if as_json:
        print_json(found)
        return
    now = utc_now()
    table(
        ("run", "begun", "by", "state", "letters", "left", "outcomes"),
        [
            (one.id, age((now - one.started_at).total_seconds()) + " ago", one.by, _state(one),
             one.dead_letters, one.left, _outcomes(one))
            for one in found
        ],
    )  # fmt: skip


@click.command()
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000))
@json_option
def audit(*, limit: int, as_json: bool) -> None:
    """Show what operators did, newest first."""
    audit_entries = asyncio.run(_audit(limit))
    if as_json:
        print_json(audit_entries)
        return
    table(
        ("when", "by", "what", "run", "more"),
        [
            (f"{one.at:%Y-%m-%d %H:%M:%S}", one.by, one.action, one.run_id,
             ", ".join(f"{name} {value}" for name, value in one.details.items() if value))
            for one in audit_entries
        ],
    )  # fmt: skip


COMMANDS = (replay, resume, abort, runs)


async def _replay(
    chosen: DeadLetterFilter, pace: ReplayPace, by: str | None, *, apply: bool, quiet: bool
) -> tuple[ReplayPlan, ReplayRun]:
    async with AsyncOperator(by=by) as operator:
        plan = await operator.plan(chosen, pace)
        if apply and not quiet:
            _show_plan(plan)
        with _progress(quiet=quiet) as watch:
            return plan, await operator.replay(plan, apply=apply, on_progress=watch)


async def _resume(run_id: str, by: str | None, *, quiet: bool) -> ReplayRun:
    async with AsyncOperator(by=by) as operator:
        with _progress(quiet=quiet) as watch:
            return await operator.resume(run_id, on_progress=watch)


async def _abort(run_id: str, by: str | None) -> ReplayRun:
    async with AsyncOperator(by=by) as operator:
        return await operator.abort(run_id)


async def _run(run_id: str) -> tuple[ReplayRun, dict[str, ReplayOutcome]]:
    async with AsyncOperator() as operator:
        return await operator.replay_run(run_id), await operator.replay_outcomes(run_id)


async def _runs(limit: int) -> list[ReplayRun]:
    async with AsyncOperator() as operator:
        return list(await operator.replay_runs(limit))


async def _audit(limit: int) -> list[AuditEntry]:
    async with AsyncOperator() as operator:
        return list(await operator.audit(limit))


class _Lines:
    """Says on standard error how far a run is: at its beginning, and now and then."""

    def __init__(self) -> None:
        self.run = ""
        self._said_s = float("-inf")

    def __call__(self, run: ReplayRun) -> None:
        now_s = asyncio.get_running_loop().time()
        if not self.run:
            click.echo(f"run {run.id}: begun; Ctrl-C aborts it", err=True)
        if now_s - self._said_s >= _LINE_S:
            click.echo(f"run {run.id}: {_counts(run)}", err=True)
            self._said_s = now_s
        self.run = run.id


class _Bar(_Lines):
    """The same as a bar, where someone looks at a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None

    def __call__(self, run: ReplayRun) -> None:
        if self._bar is None:
            self._bar = click.progressbar(length=run.dead_letters, label=run.id, file=sys.stderr)
        self.run = run.id
        done = run.dead_letters - run.left - run.outcomes.get(ReplayOutcome.WAITING, 0)
        self._bar.update(done - self._bar.pos, _outcomes(run))

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.render_finish()


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[ProgressCallback]:
    """Show progress meanwhile; when it ends before its time, say how to go on."""
    lines = _Bar() if sys.stderr.isatty() and not quiet else _Lines()
    try:
        yield lines
    except (asyncio.CancelledError, LedgerUnavailable):
        if lines.run:
            click.echo(f"to go on: afterword dead resume {lines.run}", err=True)
        raise
    finally:
        if isinstance(lines, _Bar):
            lines.close()


def _tell(run: ReplayRun, *, quiet: bool) -> None:
    """Say how a run ended; exit with 1 if it was not to its end, or letters died again."""
    if run.state is ReplayState.DRY:
        return
    if not quiet:
        click.echo(f"run {run.id}: {_state(run)}, {_counts(run)}" if run.id else "nothing to do")
    if run.state is not ReplayState.DONE:
        click.echo(f"{_REASONS.get(run.reason, run.reason)}", err=True)
        click.echo(f"to go on: afterword dead resume {run.id}", err=True)
    if run.state is not ReplayState.DONE or run.outcomes.get(ReplayOutcome.DEAD):
        raise click.exceptions.Exit(1)


def _show_plan(plan: ReplayPlan) -> None:
    estimate = plan.estimate
    cost = "of an unknown price" if estimate.cost_usd is None else f"${estimate.cost_usd:,.4f}"
    rows = {
        "would replay": f"{plan.turns} turns, {plan.jobs} jobs, of {plan.users} users",
        "reasons": ", ".join(f"{code} {n}" for code, n in plan.reasons.items()) or "-",
        "calls to mem0": f"about {estimate.mem0_calls}",
        "calls to Claude": f"about {estimate.llm_calls}: {estimate.input_tokens} tokens in, "
        f"{estimate.output_tokens} out",
        "cost": f"about {cost}, by {estimate.prices}",
        "time": f"{estimate.minutes:.1f} min or more, at {plan.pace.rate:g} a second, "
        f"{plan.pace.canary} first",
    }
    for name, value in rows.items():
        click.echo(f"{name + ':':<17}{value}")


def _show_run(run: ReplayRun, outcomes: dict[str, ReplayOutcome], *, json: bool) -> None:
    if json:
        print_json({**plain(run), "each": outcomes})
        return
    for name, value in plain(run).items():
        click.echo(f"{name}: {value}")
    for letter, outcome in sorted(outcomes.items()):
        click.echo(f"{letter}: {outcome}")


def _state(run: ReplayRun) -> str:
    return f"{run.state} ({run.reason})" if run.reason else str(run.state)


def _counts(run: ReplayRun) -> str:
    return f"{run.dead_letters - run.left} of {run.dead_letters}: {_outcomes(run)}"


def _outcomes(run: ReplayRun) -> str:
    found = [f"{outcome} {n}" for outcome, n in run.outcomes.items() if n]
    return ", ".join(found) or "nothing yet"
