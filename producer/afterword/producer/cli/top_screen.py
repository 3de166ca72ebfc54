"""What `afterword top` shows: lines, made of looks at the ledger and of nothing else."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from afterword.producer.admin.wording import cause, duration, utc_time
from afterword.producer.cli import render
from afterword.producer.cli.terminal import one_line
from afterword.shared.ledger.account import total
from afterword.shared.ledger.dead_letter_records import ReplayRun
from afterword.shared.ledger.records import Account
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.plurals import quantity

#: A class of prompt_toolkit's style, and a text.
Fragment: TypeAlias = tuple[str, str]

HEAD, PLAIN, LATE, BAD = "class:head", "", "class:late", "class:bad"

#: Looks that a sparkline covers.
LOOKS = 60

#: Most rows of workers and of tenants; what is beyond them is counted.
ROWS = 8

_BARS = "▁▂▃▄▅▆▇█"
_REMEMBERED = (TurnState.STORED, TurnState.NOTHING, TurnState.SKIPPED)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the ledger found; `at_s` is its time on a clock that only goes forward."""

    at: datetime
    at_s: float
    status: dict[str, Any]
    accounts: Sequence[Account]
    runs: Sequence[ReplayRun]
    problems: Sequence[str]

    @property
    def replies(self) -> int:
        """Return how many jobs have succeeded so far."""
        return int(self.status["jobs"][JobState.SUCCEEDED])

    @property
    def remembered(self) -> int:
        """Return how many turns memory is through with so far."""
        return sum(int(self.status["turns"][state]) for state in _REMEMBERED)


@dataclass
class History:
    """The last looks, oldest first; and why the newest failed, if it did."""

    late_s: float
    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=LOOKS))
    failure: str = ""

    def rates(self, name: str) -> list[float]:
        """Return how much a count of the looks grew in a second, between each two of them."""
        pairs = zip(list(self.looks), list(self.looks)[1:], strict=False)
        return [
            max(0.0, (getattr(new, name) - getattr(old, name)) / (new.at_s - old.at_s))
            for old, new in pairs
            if new.at_s > old.at_s
        ]


def sparkline(values: Sequence[float]) -> str:
    """Return a bar for each value, as high as its share of the highest."""
    highest = max(values, default=0.0)
    if highest <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[round(value / highest * (len(_BARS) - 1))] for value in values)


def screen(history: History, *, every_s: float, paused: bool) -> list[Fragment]:
    """Return the whole screen; a failed look is said at its top, above what was true before it."""
    mode = "paused" if paused else f"every {every_s:g} s"
    at = utc_time(history.looks[-1].at) if history.looks else "no look yet"
    lines: list[Fragment] = [(HEAD, f"afterword top  {at}  {mode}")]
    if history.failure:
        lines.append((BAD, f"below is what was seen last: {history.failure}"))
    if history.looks:
        lines += _body(history)
    lines.append((HEAD, "q quit   space pause   r look now   + slower   - faster"))
    return [(style, f"{text}\n") for style, text in lines]


def _body(history: History) -> Iterator[Fragment]:
    newest = history.looks[-1]
    yield from ((BAD, f"unfit: {one_line(problem)}") for problem in newest.problems)
    yield PLAIN, ""
    yield from _queues(history)
    yield PLAIN, ""
    yield from _memory(history)
    yield from _trouble(newest.status)
    if newest.status["gates"]:
        yield PLAIN, ""
        yield from _gates(newest)
    if newest.status["orders"]:
        yield PLAIN, ""
        yield from _orders(newest)
    yield PLAIN, ""
    yield from _workers(newest.status["workers"])
    if len(newest.accounts) > 1:
        yield PLAIN, ""
        yield from _tenants(newest.accounts)
    if newest.runs:
        yield PLAIN, ""
        yield from _runs(newest.runs)


def _queues(history: History) -> Iterator[Fragment]:
    newest = history.looks[-1].status["queues"]
    rates = {"replies": history.rates("replies"), "memories": history.rates("remembered")}
    head = ("queue", "ready", "delayed", "running", "oldest ready", "done/s", "oldest ready, done")
    rows = []
    for name, row in newest.items():
        waits = [look.status["queues"][name]["oldest_ready_s"] for look in history.looks]
        done = rates[name]
        rows.append(
            (name, row["ready"], row["delayed"], row["running"],
             duration(row["oldest_ready_s"]), f"{done[-1]:.1f}" if done else "-",
             f"{sparkline(waits[-20:])}  {sparkline(done[-20:])}")
        )  # fmt: skip
    yield from _table(head, rows)


def _memory(history: History) -> Iterator[Fragment]:
    account = total(history.looks[-1].accounts)
    text = f"users behind: {account.users_behind}"
    if account.users_behind:
        text += f", oldest turn {duration(account.oldest_s)}"
    yield PLAIN, text
    late = f"users late (over {duration(history.late_s)}): {account.users_late}"
    yield LATE if account.users_late else PLAIN, late


def _trouble(status: dict[str, Any]) -> Iterator[Fragment]:
    """Yield what needs somebody's attention, each on a line; one line if nothing does."""
    held = status["held"]
    found = {
        "dead letters": render.counts(status["dead_letters"]),
        f"held for version {held['newest_version']}": render.counts(
            {"jobs": held["jobs"], "lanes": held["lanes"]}
        ),
        "quarantined": render.counts(status["quarantined"]),
    }
    shown = {name: text for name, text in found.items() if text}
    yield from ((LATE, f"{name}: {text}") for name, text in shown.items())
    if not shown:
        yield PLAIN, "dead letters: none"


def _gates(look: Look) -> Iterator[Fragment]:
    rows = [
        (gate.name, gate.state, cause(gate), render.end_of(gate)) for gate in look.status["gates"]
    ]
    yield from _table(("gate", "state", "cause", "until"), rows, style=BAD)


def _orders(look: Look) -> Iterator[Fragment]:
    rows = [
        (render.order_text(order), render.whom(order), order.by, order.waiting)
        for order in look.status["orders"][:ROWS]
    ]
    yield from _table(("order", "whom", "by", "waiting"), rows, style=LATE)
    kinds = Counter(str(order.kind) for order in look.status["orders"])
    yield from _rest(len(look.status["orders"]), kinds, "order")


def _workers(workers: Sequence[dict[str, Any]]) -> Iterator[Fragment]:
    if not workers:
        yield BAD, "no workers: start some with `afterword worker responses|memories`"
        return
    troubled = [one for one in workers if one["periodic_tasks"]]
    healthy = [one for one in workers if not one["periodic_tasks"]]
    rows = [
        (one["name"], one["queue"], one["version"] or "-", f"{duration(one['seen_s'])} ago",
         ", ".join(map(render.task_health, one["periodic_tasks"])) or "ok")
        for one in [*troubled, *healthy][:ROWS]
    ]  # fmt: skip
    lines = _table(("worker", "queue", "version", "last seen", "periodic tasks"), rows)
    for number, (style, text) in enumerate(lines):
        yield LATE if 0 < number <= len(troubled) else style, text
    yield from _rest(len(workers), Counter(one["queue"] for one in workers), "worker")


def _tenants(accounts: Sequence[Account]) -> Iterator[Fragment]:
    """Yield the tenants that most users of wait for, then those with the oldest turn."""
    worst = sorted(accounts, key=lambda one: (-one.users_late, -one.oldest_s, one.tenant))
    rows = [
        (one.tenant, sum(one.jobs[state] for state in JobState if not state.terminal),
         one.users_behind, one.users_late,
         duration(one.oldest_s) if one.users_behind else "-",
         one.turns[TurnState.DEAD], one.jobs[JobState.FAILED])
        for one in worst[:ROWS]
    ]  # fmt: skip
    head = ("tenant", "open jobs", "behind", "late", "oldest turn", "dead turns", "failed jobs")
    yield from _table(head, rows)
    yield from _rest(len(accounts), {}, "tenant")


def _runs(runs: Sequence[ReplayRun]) -> Iterator[Fragment]:
    rows = [(run.id, run.by, render.replay_state(run), render.replay_progress(run)) for run in runs]
    yield from _table(("replay run", "by", "state", "progress"), rows)


def _rest(count: int, kinds: dict[str, int], noun: str) -> Iterator[Fragment]:
    """Yield a line about the rows that were not shown, if there are any."""
    if count > ROWS:
        of_each = f" ({render.counts(kinds)})" if kinds else ""
        yield PLAIN, f"... and {count - ROWS} more; {quantity(count, noun)} in all{of_each}"


def _table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, style: str = PLAIN
) -> Iterator[Fragment]:
    first, *others = render.table_lines(head, rows)
    yield HEAD, first
    yield from ((style, line) for line in others)
