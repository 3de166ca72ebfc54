"""Every alert fires in a staged fault, not before, and clears after it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from afterword.shared import events
from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import Fault
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.order_records import OrderKind
from afterword.shared.ledger.orders import Whom
from afterword.shared.ledger.records import CallOutcome, CallReport, TaskHealth
from afterword.shared.lifecycle import TurnState
from afterword.shared.observer import emit
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    submit_and_answer,
    submit_job,
)
from tests.kit.ledger.fixtures import inspector, ledger, settings
from tests.kit.promql.evaluate import selectors
from tests.kit.promql.recording import Recording
from tests.kit.promql.rules import FILE, Rule, alert_rules, firing
from tests.kit.promql.stage import STEP_S, Stage, Story

__all__ = ["inspector", "ledger", "settings"]

RULES = alert_rules()


async def away(stage: Stage) -> AsyncIterator[None]:
    stage.lose_the_ledger()
    yield
    await stage.look()


async def unseen(stage: Stage) -> AsyncIterator[None]:
    stage.lose_the_exporter()
    yield
    await stage.look()


async def unfit(stage: Stage) -> AsyncIterator[None]:
    """The Redis of the tests has no append-only file, which only this durability accepts."""
    wanted = stage.ledger.settings.model_copy(update={"durability": "d1"})
    async with Ledger(wanted, patience_s=5.0) as strict:
        await stage.look(ledger=strict)
    yield
    await stage.look()


async def without_workers(stage: Stage) -> AsyncIterator[None]:
    await stage.look(workers=False)
    yield
    await stage.look()


async def waiting_jobs(stage: Stage) -> AsyncIterator[None]:
    job_id = await submit_job(stage.ledger)
    place = stage.inspector.keys.place("hinted", "replies.3")
    stage.inspector.redis.zincrby(place, -600_000, job_id)
    await stage.look()
    yield
    await stage.ledger.jobs.cancel(job_id)
    await stage.look()


async def late_memory(stage: Stage) -> AsyncIterator[None]:
    turn = await submit_and_answer(stage.ledger)
    stage.inspector.redis.zincrby(stage.inspector.keys.behind("default"), -600_000, lane_of())
    await stage.look()
    yield
    lane = await claim_lane(stage.ledger)
    await stage.ledger.turns.begin(lane, turn)
    await stage.ledger.turns.settle(lane, turn, TurnState.STORED, memory_ids=["m"])
    await stage.look()


def shut_gate(fault: Fault, code: str) -> Story:
    async def story(stage: Stage) -> AsyncIterator[None]:
        report = CallReport(CallOutcome.SHUT, code, fault, 600)
        await stage.ledger.gates.report_outcome("remember", "token", report)
        await stage.look()
        yield
        await stage.ledger.gates.open("remember", by="test")
        await stage.look()

    return story


async def dead_letter(stage: Stage) -> AsyncIterator[None]:
    turn = await submit_and_answer(stage.ledger)
    lane = await claim_lane(stage.ledger)
    await stage.ledger.turns.begin(lane, turn)
    await stage.ledger.turns.bury(lane, turn, "rejected", Fault.REQUEST, "0.1.0")
    await stage.look()
    yield
    letter = await stage.ledger.dead_letters.get(turn)
    await stage.ledger.dead_letters.discard(letter.ref)
    await stage.look()


async def held_record(stage: Stage) -> AsyncIterator[None]:
    job_id = await submit_job(stage.ledger)
    key = stage.inspector.keys.job(job_id)
    version = stage.inspector.redis.hget(key, "version")
    stage.inspector.redis.hset(key, "version", RECORD_VERSION + 1)
    await stage.ledger.jobs.claim(job_id, "an old worker")
    await stage.look()
    yield
    stage.inspector.redis.hset(key, "version", version)
    held = stage.inspector.keys.place("held", "replies.3")
    stage.inspector.redis.zincrby(held, -LISTED_S * 1000, job_id)
    await stage.look()


async def forgotten_order(stage: Stage) -> AsyncIterator[None]:
    """An old pause that nobody gave an end; one with an end, and who is slowed, are no fault."""
    give, orders = stage.ledger.orders.give, stage.inspector.keys.orders
    told = {"by": "ann", "reason": ""}
    await give(OrderKind.PAUSE_REPLIES, Whom("acme"), told, for_s=30 * 86_400.0)
    await give(OrderKind.SLOW, Whom("acme"), told | {"every_ms": 1000})
    await give(OrderKind.PAUSE_MEMORIES, Whom("acme"), told)
    for name, text in stage.inspector.redis.hgetall(orders).items():
        order = json.loads(text)
        order["since"] -= 2 * DAY_MS
        stage.inspector.redis.hset(orders, name, json.dumps(order))
    await stage.look()
    yield
    await give(OrderKind.PAUSE_MEMORIES, Whom("acme"), told, for_s=3600.0)
    await stage.look()


async def troubled_task(stage: Stage) -> AsyncIterator[None]:
    await stage.look(tasks=(TaskHealth("sweep", "failing", 3, 1.0, None),))
    yield
    await stage.look()


async def foreign_messages(stage: Stage) -> AsyncIterator[None]:
    def drop() -> None:
        stage.all_is_well()
        emit(events.MessageDropped, queue="replies", reason="not_a_hint", size_bytes=1, sha256="0")

    stage.each = drop
    yield
    stage.each = stage.all_is_well


async def forgetful_replies(stage: Stage) -> AsyncIterator[None]:
    stage.each = lambda: stage.answer(memory="degraded")
    yield
    stage.each = stage.all_is_well


async def failing_jobs(stage: Stage) -> AsyncIterator[None]:
    stage.each = lambda: emit(events.JobGivenUp, code="rejected", fault=Fault.REQUEST)
    yield
    stage.each = stage.all_is_well


async def late_loop(stage: Stage) -> AsyncIterator[None]:
    stage.each = stage.lag
    yield
    stage.each = stage.all_is_well


async def a_bug(stage: Stage) -> AsyncIterator[None]:
    stage.each = lambda: emit(events.InternalError, error="KeyError", place="x.py:1")
    yield
    stage.each = stage.all_is_well


async def late_replies(stage: Stage) -> AsyncIterator[None]:
    stage.each = lambda: stage.answer(queued_s=5.0)
    yield
    stage.each = stage.all_is_well


async def late_turns(stage: Stage) -> AsyncIterator[None]:
    stage.each = lambda: stage.remember(age_s=600.0)
    yield
    stage.each = stage.all_is_well


FAULTS: dict[str, Story] = {
    "AfterwordFleetUnseen": unseen,
    "AfterwordLedgerAway": away,
    "AfterwordLedgerUnfit": unfit,
    "AfterwordNoWorkers": without_workers,
    "AfterwordRepliesWait": waiting_jobs,
    "AfterwordMemoryLate": late_memory,
    "AfterwordProviderAway": shut_gate(Fault.PROVIDER, "overloaded"),
    "AfterwordOperatorNeeded": shut_gate(Fault.OPERATOR, "key_refused"),
    "AfterwordDeadLetters": dead_letter,
    "AfterwordHeld": held_record,
    "AfterwordOrderForgotten": forgotten_order,
    "AfterwordPeriodicTasks": troubled_task,
    "AfterwordForeignMessages": foreign_messages,
    "AfterwordRepliesWithoutMemory": forgetful_replies,
    "AfterwordJobsFail": failing_jobs,
    "AfterwordEventLoopLate": late_loop,
    "AfterwordBug": a_bug,
    "AfterwordWaitBudgetFast": late_replies,
    "AfterwordWaitBudgetSlow": late_replies,
    "AfterwordFreshnessBudgetFast": late_turns,
    "AfterwordFreshnessBudgetSlow": late_turns,
}

#: How long all is well, then there is the fault, then all is well again; in minutes.
BEFORE, FAULT, AFTER = 10, 30, 40
#: How long a record counts as held after it was last met: `LISTED` of `_lib.lua`.
LISTED_S = 300
DAY_MS = 86_400_000


@pytest.fixture
def stage(ledger: Ledger, inspector: LedgerInspector) -> Iterator[Stage]:
    found = Stage(ledger, inspector)
    with found.open():
        yield found


async def play(stage: Stage, story: Story) -> None:
    """Let a fault begin and end, with quiet before and after."""
    await stage.look()
    stage.pass_minutes(BEFORE)
    telling = story(stage)
    await anext(telling)
    stage.pass_minutes(FAULT)
    assert [None async for _ in telling] == []
    stage.pass_minutes(AFTER)


def test_every_alert_has_a_fault_and_none_is_two_alerts() -> None:
    assert FAULTS.keys() == RULES.keys()
    rules = [one for group in yaml.safe_load(FILE.read_text())["groups"] for one in group["rules"]]
    assert len(rules) == len(RULES)


@pytest.mark.redis
@pytest.mark.parametrize("name", RULES)
async def test_an_alert_fires_in_its_fault_and_clears_after(
    stage: Stage, name: str, tmp_path: Path
) -> None:
    await play(stage, FAULTS[name])

    rule, begun = RULES[name], BEFORE * 60.0
    fired = firing(rule, stage.recording, stage.times)

    assert fired, "it fires"
    assert fired[0] >= begun + rule.for_s, "not before"
    assert fired[0] < begun + FAULT * 60, "while the fault lasts"
    assert fired[-1] < stage.times[-1], "it clears"
    assert fired == [at for at in stage.times if fired[0] <= at <= fired[-1]], "without a gap"
    if promtool := shutil.which("promtool"):
        check_with_promtool(promtool, rule, stage, fired, tmp_path)


def check_with_promtool(
    promtool: str, rule: Rule, stage: Stage, fired: list[float], folder: Path
) -> None:
    """Let Prometheus' own code say when the alert fires, from the same samples."""
    query = f'min(ALERTS{{alertname="{rule.name}", alertstate="firing"}})'
    # Prometheus 2 counts a sample at the very beginning of a range, Prometheus 3 does not: so a
    # step is left open at both ends.
    moments = [fired[0] - 2 * STEP_S, fired[0] + STEP_S, fired[-1], fired[-1] + 2 * STEP_S]
    tests = {
        "rule_files": [str(FILE)],
        "evaluation_interval": f"{STEP_S}s",
        "tests": [
            {
                "interval": f"{STEP_S}s",
                "input_series": list(
                    rows(stage.recording, dict(selectors(rule.query)), stage.times)
                ),
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": f"{round(at)}s",
                        "exp_samples": [{"labels": "{}", "value": 1}] if at in fired else [],
                    }
                    for at in moments
                ],
            }
        ],
    }
    file = folder / "test.yml"
    file.write_text(json.dumps(tests))
    ran = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def rows(
    recording: Recording, wanted: Iterable[str], times: list[float]
) -> Iterator[dict[str, str]]:
    """Yield series as `promtool` reads them."""
    for labels, samples in recording.rows(wanted):
        shown = ", ".join(f"{key}={json.dumps(v)}" for key, v in labels.items() if key[0] != "_")
        values = [samples.get(at) for at in times]
        texts = ("_" if v is None else "stale" if math.isnan(v) else repr(v) for v in values)
        yield {"series": f"{labels['__name__']}{{{shown}}}", "values": " ".join(texts)}
