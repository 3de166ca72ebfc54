"""`afterword dead replay|resume|abort|runs`: dead letters, run again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.plan import ReplayPlan
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.held_up import Concerned, look, print_below_plan, told
from afterword.producer.cli.interruptible import run_interruptible
from afterword.producer.cli.options import (
    Duration,
    after_option,
    all_option,
    apply_option,
    by_option,
    check_something_chosen,
    dead_filter,
    ids_argument,
    json_option,
    limit_option,
    tell_of_more,
    with_options,
)
from afterword.producer.cli.replay_progress import progress_of
from afterword.producer.cli.terminal import echo, tell_of_dry_run
from afterword.shared.ledger.dead_letter_records import (
    DeadLetterFilter,
    ReplayOutcome,
    ReplayPace,
    ReplayRun,
    ReplayState,
)

#: What to do about the reason of a run that stopped.
_REASONS = {
    "canary_buried": "The canary was buried again. Look at it with `afterword dead show`, and fix "
    "the cause.",
    "canary_not_settled": "The canary did not settle in time. `afterword status` shows the "
    "workers, gates and orders that it may wait for.",
    "too_many_buried": "Too many dead letters were buried again. Look at them, and fix the cause.",
    "not_settled": "Everything was replayed, but nothing has settled for a while. `afterword "
    "status` shows the workers, gates and orders that it may wait for.",
    "queue_full": "Redis or the queue of jobs is full.",
    "interrupted": "The replay was interrupted.",
}

_PACE = ReplayPace()

_PACE_OPTIONS = (
    click.option(
        "--canary",
        default=_PACE.canary,
        show_default=True,
        metavar="N",
        help="Replay this many first, and the rest only if none of them is buried again.",
    ),
    click.option(
        "--rate",
        default=_PACE.rate,
        show_default=True,
        metavar="N",
        help="Replay at most this many per second.",
    ),
    click.option(
        "--max-dead",
        default=_PACE.max_dead,
        show_default=True,
        metavar="N",
        help="Stop once this many were buried again.",
    ),
    click.option(
        "--stall-timeout",
        "stall_timeout_s",
        type=Duration(),
        default="5m",
        show_default=True,
        help="Stop once nothing has settled for this long.",
    ),
)


_UNFINISHED = "the run stopped, or a dead letter was buried again"


@command(
    exit_1=_UNFINISHED,
    examples=[
        "afterword dead replay --all",
        "afterword dead replay --code invalid_request --since 2h --apply",
        "afterword dead replay JOB_ID --apply",
    ],
)
@ids_argument
@dead_filter
@all_option
@apply_option
@with_options(*_PACE_OPTIONS)
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
    """Replay dead letters: store their turns, or run their jobs again.

    Choose them by id, by filters, or with --all. A turn goes back to its place in its user's lane;
    a failed job is submitted again as a new job. Both keep the time of the message, and replaying
    twice has the effect of replaying once. Without --apply, only the plan and its cost are shown.
    """
    check_something_chosen(chosen, every=every)
    plan, run = run_interruptible(
        _replay(chosen, ReplayPace(**pace), by, apply=apply, quiet=as_json)
    )
    if as_json:
        render.json_record({**render.plain(run), "plan": plan})
    elif not plan.dead_letters:
        echo("nothing to replay: no dead letter matches")
    elif run.state is ReplayState.DRY:
        tell_of_dry_run("replay them")
    _finish(run, quiet=as_json)


@command(exit_1=_UNFINISHED, examples=["afterword dead resume RUN_ID"])
@click.argument("run_id")
@by_option
@json_option
def resume(*, run_id: str, by: str | None, as_json: bool) -> None:
    """Continue a run that was stopped, aborted or killed.

    If another process still drives the run, that process is stopped first. What was replayed
    before is not replayed again.
    """
    run = run_interruptible(_resume(run_id, by, quiet=as_json))
    if as_json:
        render.json_record(run)
    _finish(run, quiet=as_json)


@command(examples=["afterword dead abort RUN_ID"])
@click.argument("run_id")
@by_option
@json_option
def abort(*, run_id: str, by: str | None, as_json: bool) -> None:
    """Stop a run, whichever process drives it.

    What was not replayed yet stays a dead letter. `afterword dead resume` continues the run.
    """
    run = asyncio.run(_abort(run_id, by))
    if as_json:
        render.json_record(run)
    else:
        echo(f"run {run.id}: {render.replay_state(run)}, {render.replay_progress(run)}")


@command(examples=["afterword dead runs", "afterword dead runs RUN_ID"])
@click.argument("run_id", required=False)
@limit_option(20, 1_000)
@after_option("the run")
@json_option
def runs(*, run_id: str | None, limit: int, after: str | None, as_json: bool) -> None:
    """List replay runs, newest first, or show one with each outcome.

    A run that is "running" and took its last step minutes ago was killed: resume it. Nothing is
    changed.
    """
    if run_id is None:
        return _show_runs(asyncio.run(_runs(limit + 1, after)), limit, as_json=as_json)
    run, outcomes = asyncio.run(_run(run_id))
    if as_json:
        return render.json_record({**render.plain(run), "outcomes_by_id": outcomes})
    return render.replay_run(run, outcomes)


def _show_runs(found: Sequence[ReplayRun], limit: int, *, as_json: bool) -> None:
    show = render.json_record if as_json else render.replay_runs
    show(found[:limit])
    if len(found) > limit:
        tell_of_more(found[limit - 1].id)


COMMANDS = (replay, resume, abort, runs)


async def _replay(
    chosen: DeadLetterFilter, pace: ReplayPace, by: str | None, *, apply: bool, quiet: bool
) -> tuple[ReplayPlan, ReplayRun]:
    async with AsyncOperator(by=by) as operator:
        plan = await operator.plan(chosen, pace)
        concerned = Concerned.by_plan(plan)
        if plan.dead_letters and not quiet:
            render.plan(plan, apply=apply)
            print_below_plan(await look(concerned))
        with progress_of(quiet=quiet) as watch:
            async with told(watch, concerned):
                return plan, await operator.replay(plan, apply=apply, on_progress=watch)


async def _resume(run_id: str, by: str | None, *, quiet: bool) -> ReplayRun:
    async with AsyncOperator(by=by) as operator:
        concerned = Concerned.by_filter((await operator.replay_run(run_id)).filter)
        with progress_of(quiet=quiet) as watch:
            async with told(watch, concerned):
                return await operator.resume(run_id, on_progress=watch)


async def _abort(run_id: str, by: str | None) -> ReplayRun:
    async with AsyncOperator(by=by) as operator:
        return await operator.abort(run_id)


async def _run(run_id: str) -> tuple[ReplayRun, dict[str, ReplayOutcome]]:
    async with AsyncOperator() as operator:
        return await operator.replay_run(run_id), await operator.replay_outcomes(run_id)


async def _runs(limit: int, after: str | None) -> Sequence[ReplayRun]:
    async with AsyncOperator() as operator:
        return await operator.replay_runs(limit, after=after)


def _finish(run: ReplayRun, *, quiet: bool) -> None:
    """Print how a run ended; exit with 1 if it stopped early, or something was buried again."""
    if run.state is ReplayState.DRY:
        return
    if run.id and not quiet:
        echo(f"run {run.id}: {render.replay_state(run)}, {render.replay_progress(run)}")
    if run.state is not ReplayState.DONE:
        echo(_REASONS.get(run.reason, run.reason), err=True)
        echo(f"To continue: afterword dead resume {run.id}", err=True)
    if run.state is not ReplayState.DONE or run.outcomes.get(ReplayOutcome.DEAD):
        raise click.exceptions.Exit(1)
