"""Each wait of a job, and of a turn, has its reason in the story: while it waits and afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from afterword.producer import JobState, OrderKind, StepKind, StoryStep, TurnState
from afterword.shared.history import HistoryTurn
from afterword.shared.ledger.imports import ImportOutcome
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.orders import Whom
from afterword.shared.ledger.queries import AT_CAP
from afterword.shared.ledger.story_records import JobListed
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)

pytestmark = pytest.mark.redis

K = StepKind


async def steps_of(ledger: Ledger, job_id: str) -> Sequence[StoryStep]:
    return (await ledger.stories.of(job_id)).steps


async def listed(ledger: Ledger, **options: Any) -> Sequence[JobListed]:
    asked = {"since": None, "limit": 100, "after": None} | options
    return (await ledger.stories.users.newest("ann", "default", **asked)).jobs


async def import_turn(ledger: Ledger, number: int) -> None:
    said = {"user_id": "ann", "message": f"I own {number} boats.", "at": "2024-05-08T10:00:00Z"}
    turn = HistoryTurn.parse(said, max_bytes=65_536, max_tokens=16_000)
    assert await ledger.imports.add(turn) is ImportOutcome.NEW


async def store_next(ledger: Ledger) -> str:
    """Store the first turn of Ann's lane; return its job."""
    lane = await claim_lane(ledger, max_turns=1)
    turn_id = lane.turns[0].id
    await ledger.turns.begin(lane, turn_id, worker="m:1")
    await ledger.turns.settle(lane, turn_id, TurnState.STORED)
    await ledger.turns.release_lane(lane)
    return turn_id


# -- which jobs a user has


async def test_a_job_without_a_turn_is_listed_from_its_submit_on(ledger: Ledger) -> None:
    answered = await submit_and_answer(ledger)
    running = await submit_and_claim(ledger, remember=False)
    queued = await submit_job(ledger, remember=False)

    found = await listed(ledger)

    assert [(one.job_id, one.state) for one in found] == [
        (queued, JobState.QUEUED),
        (running.job_id, JobState.RUNNING),
        (answered, JobState.SUCCEEDED),
    ]
    await ledger.jobs.finish(running, reply_to(running))
    await ledger.jobs.cancel(queued)
    assert [one.job_id for one in await listed(ledger)] == [queued, running.job_id, answered]


async def test_the_list_is_kept_as_long_as_an_open_job_can_be(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_job(ledger, remember=False, expires_in=1000)

    left_ms = inspector.redis.pttl(inspector.keys.user_jobs(lane_of()))
    assert left_ms > 1000 * (ledger.settings.retention_s + 900)


async def test_imported_turns_are_listed_as_such_before_and_after_they_are_stored(
    ledger: Ledger,
) -> None:
    await import_turn(ledger, 1)
    pending = await listed(ledger)
    stored = await store_next(ledger)
    settled = await listed(ledger)

    assert [(one.job_id, one.imported, one.turn) for one in [*pending, *settled]] == [
        (stored, True, TurnState.PENDING),
        (stored, True, TurnState.STORED),
    ]


async def test_a_long_history_does_not_push_out_the_jobs_of_its_user(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    answered = await submit_and_answer(ledger)
    await store_next(ledger)
    for number in range(120):
        await import_turn(ledger, number)

    found = await listed(ledger)
    rest = await listed(ledger, after=found[-1].job_id)

    assert [one.job_id for one in rest] == [answered]
    assert len(found) == 100
    key = inspector.keys.user_jobs(f"{lane_of()}/imported")
    assert inspector.redis.zcard(key) == 100
    assert inspector.redis.pttl(key) > 0


# -- why a job waits


@pytest.fixture
async def capped(settings: Settings) -> AsyncIterator[Ledger]:
    caps = {"max_running_per_tenant": 2, "max_running_per_user": 1}
    async with Ledger(settings.model_copy(update=caps), patience_s=5.0) as ledger:
        yield ledger


@pytest.mark.parametrize(
    ("users", "reason"),
    [(["ann", "ann"], "user_running"), (["bob", "cem", "ann"], "tenant_running")],
)
async def test_a_job_held_back_by_a_cap_says_by_which(
    capped: Ledger, users: list[str], reason: str
) -> None:
    *first, last = [await submit_job(capped, user_id=user) for user in users]
    running = [await capped.jobs.claim(one, f"token {one}") for one in first]
    assert await capped.jobs.claim(last, "early") is None
    assert await capped.jobs.claim(last, "early again") is None

    waiting = await capped.stories.of(last)
    assert [step.kind for step in waiting.steps] == [K.ACCEPTED, K.CAPPED], "told once"
    assert (waiting.steps[1].reason, waiting.steps[1].duration_s) == (reason, None)
    assert waiting.waits_for == AT_CAP

    assert running[0] is not None
    await capped.jobs.finish(running[0], reply_to(running[0]))
    assert await capped.jobs.claim(last, "later", worker="r:1") is not None

    _, cap, claimed = await steps_of(capped, last)
    assert (cap.kind, cap.reason, cap.duration_s is not None) == (K.CAPPED, reason, True)
    assert claimed.duration_s is not None
    assert cap.duration_s is not None
    assert claimed.duration_s >= cap.duration_s, "how long it waited in all"


async def test_the_first_of_a_tenant_that_is_passed_over_at_its_cap_says_so(
    capped: Ledger, inspector: LedgerInspector
) -> None:
    for user in ("bob", "cem"):
        await submit_and_claim(capped, user_id=user, tenant="acme")
    first = await submit_job(capped, user_id="ann", tenant="acme")
    other = await submit_job(capped, user_id="dan", tenant="other")

    claimed = await capped.jobs.claim(other, "token")

    assert claimed is not None
    assert claimed.job_id == other
    assert [step.kind for step in await steps_of(capped, first)] == [K.ACCEPTED, K.CAPPED]
    assert (await capped.stories.of(first)).waits_for == AT_CAP


async def test_a_job_whose_hint_another_tenant_had_says_so(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first = await submit_job(ledger, tenant="acme")
    later = await submit_job(ledger, tenant="acme")
    other = await submit_job(ledger, tenant="other")
    assert (await ledger.jobs.claim(first, "one")) is not None

    taken = await ledger.jobs.claim(later, "two")

    assert taken is not None
    assert taken.job_id == other
    story = await ledger.stories.of(later)
    assert [step.kind for step in story.steps] == [K.ACCEPTED, K.PASSED_OVER]
    assert story.waits_for == "a response worker"

    assert (await ledger.jobs.claim(later, "three", worker="r:1")) is not None
    _, passed, claimed = await steps_of(ledger, later)
    assert passed.duration_s is not None
    assert claimed.duration_s is not None
    assert claimed.duration_s >= passed.duration_s


async def test_a_ready_job_says_how_many_are_before_it(ledger: Ledger) -> None:
    await submit_job(ledger, tenant="acme")
    last = await submit_job(ledger, tenant="acme")
    await submit_job(ledger, tenant="other")

    assert (await ledger.stories.of(last)).waits_for == (
        "a response worker, behind 1 of its tenant's jobs, in turn with 1 other tenants"
    )


async def test_waits_for_a_message_and_for_an_order_last_until_the_next_step(
    ledger: Ledger,
) -> None:
    first = await submit_and_claim(ledger, conversation_id="c")
    second = await submit_job(ledger, conversation_id="c")
    acme, olga = Whom(tenant="acme"), {"by": "olga", "reason": ""}
    await ledger.orders.give(OrderKind.PAUSE_REPLIES, acme, olga)
    third = await submit_job(ledger, tenant="acme")
    assert await ledger.jobs.claim(third, "early") is None
    await ledger.jobs.finish(first, reply_to(first))
    await ledger.orders.lift(OrderKind.PAUSE_REPLIES, acme)
    await ledger.maintenance.sweep()
    await ledger.jobs.claim(third, "later")

    assert (await steps_of(ledger, second))[1].duration_s is not None
    parked = (await steps_of(ledger, third))[1]
    assert (parked.kind, parked.reason, parked.duration_s is not None) == (
        *(K.PARKED, "pause-replies", True),
    )


# -- why a turn waits


async def behind(ledger: Ledger, job_id: str) -> Sequence[StoryStep]:
    return [step for step in await steps_of(ledger, job_id) if step.kind is K.WAITED_BEHIND]


async def held_up(ledger: Ledger, how: str) -> str:
    """Let Ann's lane wait; return why."""
    if how == "order":
        await ledger.orders.give(OrderKind.PAUSE_MEMORIES, Whom(), {"by": "olga", "reason": ""})
        assert await ledger.turns.claim_lane(lane_of(), "token", max_turns=1) is None
        return "pause-memories"
    lane = await claim_lane(ledger, max_turns=1)
    if how == "gate":
        await ledger.turns.release_lane(lane, 30, "quota_spent")
        return "quota_spent"
    turn_id = lane.turns[0].id
    await ledger.turns.begin(lane, turn_id, worker="m:1")
    await ledger.turns.postpone(
        lane, turn_id, 30, counted=how == "retry", code=how, unknown_outcome=False
    )
    return how


@pytest.mark.parametrize("how", ["gate", "order", "retry", "budget", "quota_used_up"])
async def test_a_turn_in_the_middle_says_behind_which_one_it_waits_and_why(
    ledger: Ledger, inspector: LedgerInspector, how: str
) -> None:
    first, _, third = [await submit_and_answer(ledger) for _ in range(3)]
    why = await held_up(ledger, how)

    story = await ledger.stories.of(third)

    (waits,) = [step for step in await behind(ledger, third) if step.about == first]
    assert (waits.reason, waits.duration_s) == (why, None)
    if how == "order":
        assert story.waits_for == "an order: pause-memories by olga"
        return
    assert story.waits_for == f"{first}, an earlier turn ({why})"
    inspector.redis.hincrby(inspector.keys.job(third), "ended", -60_000)
    for _ in range(3):
        await store_next(ledger)

    (waited,) = [step for step in await behind(ledger, third) if step.about == first]
    assert waited.reason == why, "also after it was stored"
    assert waited.duration_s is not None


async def test_the_first_turn_of_a_long_lane_is_named(ledger: Ledger) -> None:
    ids = [await submit_and_answer(ledger) for _ in range(30)]
    why = await held_up(ledger, "gate")

    told = await behind(ledger, ids[-1])

    assert (ids[0], why) in [(step.about, step.reason) for step in told]
    assert len(told) <= 21
