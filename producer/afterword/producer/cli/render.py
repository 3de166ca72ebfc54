"""What commands print: JSON for programs, tables and lines for people."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

from pydantic import BaseModel

from afterword.producer.admin.cost_estimate import Estimate
from afterword.producer.admin.plan import ReplayPlan
from afterword.producer.admin.wording import cause, duration, exact_time, run_state, utc_time
from afterword.producer.cli.terminal import echo, indented, json_text, one_line, tell_of_dry_run
from afterword.shared.clock import utc_now
from afterword.shared.contracts import Usage
from afterword.shared.ledger.access_keys import AccessKey
from afterword.shared.ledger.dead_letter_records import (
    AuditEntry,
    DeadLetter,
    DeadLetterFilter,
    ReplayOutcome,
    ReplayRun,
    ReplayState,
)
from afterword.shared.ledger.order_records import SteeringOrder
from afterword.shared.ledger.records import Account, Gate, Inconsistency, QuarantineNote
from afterword.shared.lifecycle import TurnState
from afterword.shared.plurals import quantity
from afterword.shared.usage_contracts import UsageSum

# --- values


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: an object per record, a filter as what was asked for."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, DeadLetterFilter):
        value = value.to_dict()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {plain(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def share(part: int, whole: int) -> str:
    """Return a number, and its share of a larger one in per cent."""
    return f"{part} ({100 * part / whole:.0f} %)" if part else "0"


def counts(values: Mapping[Any, int]) -> str:
    """Return what was counted, without what there was none of."""
    return ", ".join(f"{count} {one_line(str(name))}" for name, count in values.items() if count)


def end_of(gate: Gate) -> str:
    """Return until when a gate is shut, or is opening."""
    return utc_time(gate.until) if gate.until else "opened by hand"


def _ago(moment: datetime, now: datetime) -> str:
    return f"{duration((now - moment).total_seconds())} ago"


def _text(value: Any) -> str:
    """Return a plain value as one text: `-` for none, `name value` for each of an object."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)


# --- shapes


def json_record(value: Any) -> None:
    """Print a value as JSON."""
    echo(json_text(plain(value), indent=2))


def json_line(value: Any) -> None:
    """Print a value as one line of JSON."""
    echo(json_text(plain(value)))


async def json_array(values: AsyncIterator[Any]) -> None:
    """Print values as one JSON array, each as it comes: there may be any number of them."""
    before = "["
    async for value in values:
        echo(f"{before}\n{textwrap.indent(json_text(plain(value), indent=2), '  ')}", nl=False)
        before = ","
    echo("[]" if before == "[" else "\n]")


def record(value: Any) -> None:
    """Print each field of a record on a line of its own, those without a value left out."""
    _fields(plain(value), value)


def _fields(shown: Mapping[str, Any], of: Any) -> None:
    """Print names and plain values `of` a record, those without a value left out."""
    for name, inner in shown.items():
        moment = getattr(of, name, None)
        text = exact_time(moment) if isinstance(moment, datetime) else _text(inner)
        if inner is not None:
            echo(f"{name}: {indented(text)}")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns under a head, or that there are none."""
    lines = table_lines(head, rows)
    for line in lines if len(lines) > 1 else [*lines, "none"]:
        echo(line)


def table_lines(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a line for the head and one for each row, in columns, no two of one name."""
    assert len(set(head)) == len(head), head
    cells = [list(head), *([one_line(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


# --- records


def access_keys(found: Sequence[AccessKey]) -> None:
    """Print a key of the console a row, without its secret."""
    table(
        ("id", "name", "scopes", "created", "by", "expires"),
        [
            (one.id, one.name, ", ".join(one.scopes), utc_time(one.created_at), one.created_by,
             utc_time(one.expires_at) if one.expires_at else "never")
            for one in found
        ],
    )  # fmt: skip


def accounts(found: Sequence[Account], late_s: float) -> None:
    """Print an account a row; the one without a tenant is the sum."""
    states = [state for state in TurnState if any(one.turns[state] for one in found)]
    late = f"over {duration(late_s)}"
    secrets = ["secrets"] if any(one.secrets for one in found) else []
    counts = ("degraded replies", "no fact", *secrets)
    head = ("tenant", *states, "users behind", late, "oldest", *counts)
    table(
        head,
        [
            (
                one.tenant or "all",
                *(one.turns[state] for state in states),
                one.users_behind,
                one.users_late,
                duration(one.oldest_s) if one.users_behind else "-",
                one.degraded_replies,
                _no_fact(one),
                *(sum(one.secrets.values()) for _ in secrets),
            )
            for one in found
        ],
    )


def _no_fact(one: Account) -> str:
    empty = one.turns_without_facts
    return share(empty, empty + one.turns[TurnState.STORED])


def audit(entries: Sequence[AuditEntry]) -> None:
    """Print an audit entry a row."""
    table(
        ("time", "by", "action", "run", "details"),
        [
            (utc_time(one.at), one.by, one.action, one.run_id or "-",
             _text({name: value for name, value in plain(one.details).items() if value}))
            for one in entries
        ],
    )  # fmt: skip


def dead_letters(found: Sequence[DeadLetter]) -> None:
    """Print a dead letter a row, without content."""
    now = utc_now()
    table(
        ("id", "kind", "tenant", "user", "code", "fault", "attempts", "replays", "buried"),
        [
            (one.id, one.kind, one.tenant, one.user_id, one.code, one.fault, one.attempts,
             one.replays, _ago(one.buried_at, now))
            for one in found
        ],
    )  # fmt: skip


def gates(found: Sequence[Gate]) -> None:
    """Print a gate that is not open a row."""
    table(
        ("gate", "state", "cause", "since", "until"),
        [(one.name, one.state, cause(one), utc_time(one.since), end_of(one)) for one in found],
    )


def orders(found: Sequence[SteeringOrder]) -> None:
    """Print an order a row."""
    table(
        ("order", "whom", "by", "since", "until", "waiting", "reason"),
        [
            (order_text(one), whom(one), one.by or "-", utc_time(one.since),
             utc_time(one.until) if one.until else end_of_order(one), one.waiting,
             one.reason or "-")
            for one in found
        ],
    )  # fmt: skip


def order_text(order: SteeringOrder) -> str:
    """Return what an order does, in a few words."""
    if order.every_s is not None:
        return f"{order.kind}: a reply every {duration(order.every_s)}"
    if order.limits is not None:
        return f"{order.kind}: {_text(order.limits.set_ones())}"
    return str(order.kind)


def whom(order: SteeringOrder) -> str:
    """Return whom an order concerns."""
    if order.worker is not None:
        return f"worker {order.worker}"
    if order.tenant is None:
        return "everybody"
    user = "" if order.user_id is None else f" user {order.user_id}"
    return f"tenant {order.tenant}{user}"


def end_of_order(order: SteeringOrder) -> str:
    """Return what ends an order that has no time."""
    return "it has ended" if order.worker is not None else "it is lifted"


def inconsistencies(found: Sequence[Inconsistency], *, fixed: bool) -> None:
    """Print what is not where it must be, and what was done about it."""
    if not found:
        echo("no inconsistencies")
        return
    table(("job", "inconsistency"), [(one.job_id, one.problem) for one in found])
    if fixed:
        echo("Fixed.")
    else:
        tell_of_dry_run("fix them", option="--fix")


def plan(found: ReplayPlan, *, apply: bool) -> None:
    """Print what a replay does, or would do."""
    estimate = found.estimate
    rows = {
        "replaying" if apply else "would replay": (
            f"{quantity(found.turns, 'turn')} and {quantity(found.jobs, 'job')} "
            f"of {quantity(found.users, 'user')}"
        ),
        "codes": counts(found.reasons) or "-",
        "mem0 calls": f"about {estimate.mem0_calls:,}",
        **_of_claude(estimate),
        "time": f"at least {duration(estimate.minutes * 60)} at {found.pace.rate:g} per second, "
        f"{found.pace.canary} first as a canary",
    }
    for name, value in rows.items():
        echo(f"{name + ':':<14}{value}")


def _of_claude(estimate: Estimate) -> dict[str, str]:
    """Return what a replay asks of Claude, and what that costs."""
    if not estimate.llm_calls:
        return {"Claude calls": "none"}
    cost = "unknown price" if estimate.cost_usd is None else f"about ${estimate.cost_usd:,.4f}"
    tokens = f"{estimate.input_tokens:,} input tokens, {estimate.output_tokens:,} output tokens"
    return {"Claude calls": f"about {estimate.llm_calls:,} ({tokens})", "cost": cost}


def quarantined(notes: Sequence[QuarantineNote]) -> None:
    """Print a note of a dropped message a row."""
    now = utc_now()
    table(
        ("found", "queue", "reason", "task", "bytes", "sha256"),
        [
            (_ago(note.at, now), note.found.queue, note.found.reason,
             note.found.task or "-", note.found.size, note.found.sha256)
            for note in notes
        ],
    )  # fmt: skip


def replay_run(run: ReplayRun, outcomes: Mapping[str, ReplayOutcome]) -> None:
    """Print a run, and the outcome of each of its dead letters that was looked at."""
    shown = plain(run) | {"filter": run.filter or "all dead letters"}
    if run.state is ReplayState.RUNNING:
        shown["state"] = replay_state(run)
    _fields(shown, run)
    for dead_letter, outcome in sorted(outcomes.items()):
        echo(f"{dead_letter}: {outcome}")


def replay_runs(found: Sequence[ReplayRun]) -> None:
    """Print a run a row."""
    now = utc_now()
    table(
        ("run", "started", "by", "state", "dead letters", "left", "outcomes"),
        [
            (one.id, _ago(one.started_at, now), one.by, replay_state(one),
             one.dead_letters, one.left, counts(one.outcomes) or "-")
            for one in found
        ],
    )  # fmt: skip


def replay_state(run: ReplayRun) -> str:
    """Return the state of a run; why, if it stopped; its last sign of life, if it should run."""
    return run_state(run, utc_now())


def replay_progress(run: ReplayRun) -> str:
    """Return how far a run has come."""
    done = f"{run.dead_letters - run.left} of {run.dead_letters}"
    return f"{done} ({counts(run.outcomes)})" if counts(run.outcomes) else done


def usage(found: UsageSum) -> None:
    """Print a sum of replies and memories: their tokens, what they cost together and each."""
    memory = found.extraction
    replies_usd = found.cost_usd - memory.cost_usd
    table(
        ("for", "how many", "input", "output", "cache read", "cache write", "USD", "USD each"),
        [
            ("replies", found.replies, *_tokens(found.usage),
             *_cost(replies_usd, replies_usd / found.replies if found.replies else None)),
            ("memories", memory.facts, *_tokens(memory.usage),
             *_cost(memory.cost_usd, memory.fact_usd)),
        ],
    )  # fmt: skip
    echo(f"{found.cost_usd:.4f} USD together")
    if found.resets_at is not None:
        usd, tokens = found.period_cost_usd or 0.0, found.period_tokens or 0
        most_usd = "" if found.most_usd is None else f" of {found.most_usd:,.4f}"
        most_tokens = "" if found.most_tokens is None else f" of {found.most_tokens:,}"
        echo(
            f"in this period of the budgets {usd:,.4f}{most_usd} USD and "
            f"{tokens:,}{most_tokens} tokens; the next one begins {utc_time(found.resets_at)}"
        )


def _tokens(found: Usage) -> Iterator[int]:
    return (tokens for _, tokens in found)


def _cost(usd: float, each: float | None) -> tuple[str, str]:
    return f"{max(usd, 0.0):.4f}", "-" if each is None else f"{max(each, 0.0):.6f}"


def workers(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a worker a row, with its periodic tasks that fail or are late."""
    table(
        ("worker", "queue", "version", "memory", "last seen", "periodic tasks"),
        [
            (row["name"], row["queue"], row["version"] or "-", row["memory"] or "-",
             f"{duration(row['seen_s'])} ago",
             ", ".join(map(task_health, row["periodic_tasks"])) or "ok")
            for row in rows
        ],
    )  # fmt: skip


def task_health(task: Mapping[str, Any]) -> str:
    """Return how a periodic task is, and when it last succeeded."""
    since = task["last_success_s"]
    last = "never ok" if since is None else f"last ok {duration(since)} ago"
    return f"{task['name']} {task['state']}, {last}"
