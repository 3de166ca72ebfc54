"""Dead letters: found, planned, replayed with progress, aborted and resumed."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from afterword.producer.web.console import Visit
from afterword.producer.web.forms import FILTER_FIELDS, filter_of, pace_of
from afterword.producer.web.replays import Planned
from afterword.producer.web.views.fleet import ROWS, troubles_of_fleet
from afterword.shared.errors import Fault, InvalidRequest
from afterword.shared.ledger.dead_letter_records import DeadLetterKind, ReplayOutcome, ReplayState

#: Outcomes that are read for a page, and those of them that it shows.
_OUTCOMES = 3_000
_BAD = (ReplayOutcome.DEAD, ReplayOutcome.REFUSED, ReplayOutcome.ERASED, ReplayOutcome.GONE)


async def dead_letters(visit: Visit) -> Response:
    """List dead letters that match, the newest first, without content."""
    problem, chosen = "", None
    try:
        chosen = filter_of(visit.asked)
        _check_place(visit.asked("before"))
    except InvalidRequest as error:
        problem = str(error)
    ledger = await visit.console.ledger()
    page = None
    if chosen is not None and not problem:
        page = await ledger.browsing.dead_letter_page(chosen, ROWS, visit.asked("before") or None)
    asked = {name: visit.asked(name) for name in FILTER_FIELDS if visit.asked(name)}
    return visit.page(
        "dead_letters.html",
        status=422 if problem else 200,
        page=page,
        problem=problem,
        asked=asked,
        next_page=urlencode(asked | {"before": page.before}) if page and page.before else "",
        kinds=list(DeadLetterKind),
        faults=list(Fault),
    )


def _check_place(before: str) -> None:
    score, _, _ = before.partition("-")
    if before and not (score.isascii() and score.isdigit()):
        raise InvalidRequest("before", "must be what a page ended with")


async def make_plan(visit: Visit) -> Response:
    """Begin a dry run, and show it."""
    criteria, pace = filter_of(visit.asked), pace_of(visit.asked)
    if criteria.matches_all and visit.asked("all") != "yes":
        raise InvalidRequest("all", "choose dead letters by a filter, or tick all of them")
    planned = visit.console.replays.plan(visit.operator, visit.session.by, criteria, pace)
    return RedirectResponse(f"/plans/{planned.id}", 303)


async def plan(visit: Visit) -> Response:
    """Show a dry run: what would be replayed, its cost, why it is dead and what it waits for."""
    planned = _planned(visit)
    return visit.page("plan.html", planned=planned, troubles=await troubles_of_fleet(visit))


async def replay(visit: Visit) -> Response:
    """Replay what a dry run has shown, and nothing else."""
    planned = _planned(visit)
    if planned.plan is None:
        raise InvalidRequest("plan", "is not made yet")
    run_id = await visit.console.replays.replay(visit.operator, planned)
    return RedirectResponse(f"/runs/{run_id}" if run_id else "/runs", 303)


def _planned(visit: Visit) -> Planned:
    found = visit.console.replays.planned(visit.path["plan_id"], visit.session.by)
    if found is None:
        raise HTTPException(404, "This dry run is over: replayed, or too old. Make another one.")
    return found


async def runs(visit: Visit) -> Response:
    """List replay runs, newest first."""
    return visit.page("runs.html", runs=await visit.operator.replay_runs(ROWS))


async def run(visit: Visit) -> Response:
    """Show how far a run is, and while it runs what it may wait for."""
    ledger = await visit.console.ledger()
    found = await ledger.replay_runs.get(visit.path["run_id"])
    bad, looked_at = [], 0
    async for letter_id, outcome in ledger.replay_runs.outcomes(found.id):
        looked_at += 1
        if outcome in _BAD:
            bad.append((letter_id, outcome))
        if looked_at == _OUTCOMES or len(bad) == ROWS:
            break
    is_running = found.state is ReplayState.RUNNING
    may_resume = found.state in (ReplayState.RUNNING, ReplayState.STOPPED, ReplayState.ABORTED)
    return visit.page(
        "run.html",
        run=found,
        done=found.dead_letters - found.left,
        bad=bad,
        is_running=is_running,
        troubles=await troubles_of_fleet(visit) if is_running else [],
        may_resume=may_resume,
        is_ours=visit.console.replays.drives(found.id),
    )


async def abort(visit: Visit) -> Response:
    """Stop a run, whoever drives it."""
    found = await visit.operator.abort(visit.path["run_id"])
    return RedirectResponse(f"/runs/{found.id}", 303)


async def resume(visit: Visit) -> Response:
    """Continue a run that was stopped, aborted or killed."""
    run_id = await visit.console.replays.resume(visit.operator, visit.path["run_id"])
    return RedirectResponse(f"/runs/{run_id}", 303)
