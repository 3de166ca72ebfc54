"""The story of a job: the script that takes a step tells it, within bounds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from afterword.producer import (
    InvalidRequest,
    JobNotFound,
    JobState,
    MemoryUsed,
    OrderKind,
    StepKind,
    StoryStep,
    TurnState,
    UserJobs,
)
from afterword.shared.clock import utc_now
from afterword.shared.errors import Fault
from afterword.shared.ledger.attempt_note import AttemptNote, NotedRecall
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.orders import Whom
from afterword.shared.ledger.records import LaneClaim
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    claim_job,
    claim_lane,
    lane_of,
    replay_one,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)

pytestmark = pytest.mark.redis

K = StepKind


async def steps_of(ledger: Ledger, job_id: str) -> list[StoryStep]:
    return list((await ledger.stories.of(job_id)).steps)


async def kinds_of(ledger: Ledger, job_id: str) -> list[StepKind]:
    return [step.kind for step in await steps_of(ledger, job_id)]


async def stored(ledger: Ledger, claim: LaneClaim, turn_id: str, *ids: str) -> None:
    await ledger.turns.begin(claim, turn_id, worker="m:1")
    await ledger.turns.settle(claim, turn_id, TurnState.STORED, memory_ids=ids)


async def test_a_job_that_is_answered_and_stored_is_told_from_end_to_end(ledger: Ledger) -> None:
    job_id = await submit_job(ledger, priority="high")
    claim = await ledger.jobs.claim(job_id, "token", worker="r:1")
    assert claim is not None
    note = AttemptNote()
    note.recall = NotedRecall("fresh", "", 7, 5, 0, 12, (("m6", "no_place"),))
    note.add_call("claude", "req_1", "", 0.5)
    await ledger.jobs.finish(claim, reply_to(claim), note=note.text)
    lane = await claim_lane(ledger)
    await stored(ledger, lane, job_id, "m1", "m2")
    await ledger.turns.release_lane(lane)

    story = await ledger.stories.of(job_id)

    accepted, claimed, recalled, called, replied, storing, settled = story.steps
    assert (accepted.kind, accepted.details) == (K.ACCEPTED, {"priority": "high"})
    assert (claimed.kind, claimed.attempt, claimed.worker) == (K.CLAIMED, 1, "r:1")
    assert (recalled.kind, recalled.duration_s) == (K.RECALLED, 0.012)
    assert recalled.details == {"memory": "fresh", "found": 7, "given": 5, "overlay": 0}
    assert (called.kind, called.about, called.worker) == (K.MODEL_CALLED, "claude", "r:1")
    assert called.details == {"request_id": "req_1"}
    assert (replied.kind, replied.attempt) == (K.REPLIED, 1)
    assert (storing.kind, storing.worker, storing.about) == (K.STORING, "m:1", None)
    assert (settled.kind, settled.details) == (K.STORED, {"memories": 2})
    assert [(one.id, one.reason) for one in story.left_out] == [("m6", "no_place")]
    assert story.memory_ids == ("m1", "m2")
    assert (story.state, story.turn) == (JobState.SUCCEEDED, TurnState.STORED)
    assert not story.steps_left_out


async def test_each_pause_of_a_job_is_told_with_its_reason(ledger: Ledger) -> None:
    job_id = await submit_job(ledger)
    note = AttemptNote()
    note.add_call("claude", "req_9", "overloaded", 1.5)
    await ledger.jobs.snooze(
        await claim_job(ledger, job_id), 4, counted=False, code="overloaded", note=note.text
    )
    await ledger.jobs.snooze(
        await claim_job(ledger, job_id), 2, counted=False, tried=False, code="overloaded"
    )
    await ledger.jobs.snooze(await claim_job(ledger, job_id), 1, counted=True, code="cut")
    await ledger.jobs.fail(await claim_job(ledger, job_id), "too_long", Fault.REQUEST)

    steps = await steps_of(ledger, job_id)

    assert [step.kind for step in steps] == [
        K.ACCEPTED,
        *(K.CLAIMED, K.MODEL_CALLED, K.SNOOZED),
        *(K.CLAIMED, K.RELEASED),
        *(K.CLAIMED, K.RETRIED),
        *(K.CLAIMED, K.FAILED),
    ]
    assert [(s.kind, s.attempt, s.reason, s.duration_s) for s in steps if s.reason][:4] == [
        (K.MODEL_CALLED, 1, "overloaded", 1.5),
        (K.SNOOZED, 1, "overloaded", 4.0),
        (K.RELEASED, 1, "overloaded", 2.0),
        (K.RETRIED, 1, "cut", 1.0),
    ]
    assert (steps[-1].attempt, steps[-1].reason) == (2, "too_long")
    assert steps[-1].details == {"fault": "request"}


async def test_a_lost_worker_and_a_lost_hint_are_told(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    inspector.drop_hints()
    inspector.make_due(job_id)
    await ledger.maintenance.sweep()
    await claim_job(ledger, job_id)
    inspector.make_due(job_id)
    await ledger.maintenance.sweep()

    assert await kinds_of(ledger, job_id) == [
        *(K.ACCEPTED, K.HINTED_AGAIN, K.CLAIMED, K.LEASE_LOST)
    ]


async def test_a_message_behind_another_says_behind_which(ledger: Ledger) -> None:
    first = await submit_and_claim(ledger, conversation_id="c")
    second = await submit_job(ledger, conversation_id="c")
    assert await ledger.jobs.claim(second, "early") is None

    await ledger.jobs.finish(first, reply_to(first))

    steps = await steps_of(ledger, second)
    assert [step.kind for step in steps] == [K.ACCEPTED, K.SET_ASIDE, K.NEXT]
    assert steps[1].about == first.job_id


@pytest.mark.parametrize("end", ["cancelled", "expired"])
async def test_a_job_that_ends_without_a_worker_says_how(
    ledger: Ledger, inspector: LedgerInspector, end: str
) -> None:
    job_id = await submit_job(ledger)
    if end == "cancelled":
        await ledger.jobs.cancel(job_id)
    else:
        inspector.outlive(job_id)
        await ledger.maintenance.sweep()

    last = (await steps_of(ledger, job_id))[-1]
    assert (last.kind, last.reason) == (K(end), {"expired": "deadline"}.get(end, end))


async def test_a_turn_that_is_buried_replayed_and_stored_is_told(ledger: Ledger) -> None:
    turn_id = await submit_and_answer(ledger)
    lane = await claim_lane(ledger)
    await ledger.turns.begin(lane, turn_id, worker="m:1")
    await ledger.turns.postpone(
        lane, turn_id, 3, counted=True, code="store_busy", unknown_outcome=False
    )
    lane = await claim_lane(ledger)
    await ledger.turns.begin(lane, turn_id, worker="m:2")
    await ledger.turns.bury(lane, turn_id, "not_accepted", Fault.REQUEST, "1.0")
    await ledger.turns.release_lane(lane)
    await replay_one(ledger, turn_id)
    await stored(ledger, await claim_lane(ledger), turn_id, "m1")

    steps = (await steps_of(ledger, turn_id))[3:]

    assert [step.kind for step in steps] == [
        *(K.STORING, K.POSTPONED, K.STORING, K.BURIED, K.REPLAYED, K.STORING, K.STORED)
    ]
    assert [step.worker for step in steps if step.kind is K.STORING] == ["m:1", "m:2", "m:1"]
    assert [step.attempt for step in steps if step.kind is K.STORING] == [1, 2, 1]
    assert (steps[1].reason, steps[1].duration_s) == ("store_busy", 3.0)
    assert steps[3].reason == "not_accepted"


async def test_a_lane_that_waits_for_its_gate_is_told_once(ledger: Ledger) -> None:
    turn_id = await submit_and_answer(ledger)
    for _ in range(3):
        await ledger.turns.release_lane(await claim_lane(ledger), 30, "quota_spent")
    await stored(ledger, await claim_lane(ledger), turn_id)

    steps = (await steps_of(ledger, turn_id))[3:]
    assert [step.kind for step in steps] == [K.LANE_WAITS, K.STORING, K.STORED]
    assert steps[0].reason == "quota_spent"


async def test_every_turn_of_a_batch_has_its_story(ledger: Ledger) -> None:
    first, second = [await submit_and_answer(ledger) for _ in range(2)]
    lane = await claim_lane(ledger)
    await ledger.turns.begin(lane, first, second, worker="m:1")
    await ledger.turns.settle(lane, first, TurnState.STORED, secrets={"email": 2})

    told = [(await steps_of(ledger, one))[-2:] for one in (first, second)]

    assert [[step.kind for step in steps] for steps in told] == [[K.STORING, K.STORED]] * 2
    assert [steps[0].about for steps in told] == [None, first]
    assert [steps[0].details for steps in told] == [{"turns": 2}] * 2
    assert told[1][1].details == {"memories": 0, "secrets": "email:2"}


async def test_replies_that_were_given_a_memory_later_are_told(ledger: Ledger) -> None:
    turn_id = await submit_and_answer(ledger)
    await stored(ledger, await claim_lane(ledger), turn_id, "m1", "m2")
    claim = await submit_and_claim(ledger)
    given = [MemoryUsed(id=name, text="secret", score=0.5) for name in ("m2", "m3")]
    await ledger.jobs.finish(claim, reply_to(claim, memories=given))

    last = (await steps_of(ledger, turn_id))[-1]
    assert (last.kind, last.about, last.details) == (
        *(K.RECALLED_LATER, claim.job_id, {"memories": 1}),
    )


async def test_content_is_told_only_on_request_and_without_secrets(ledger: Ledger) -> None:
    message = "I like tea, my key is sk-ant-api03-" + "Ab1" * 31 + "AA"
    claim = await submit_and_claim(ledger, message)
    await ledger.jobs.finish(claim, reply_to(claim, "Noted."))

    bare = await ledger.stories.of(claim.job_id)
    whole = await ledger.stories.of(claim.job_id, content=True)

    assert "tea" not in repr(bare)
    assert whole.reply == "Noted."
    assert whole.message is not None
    assert "I like tea" in whole.message
    assert "Ab1" not in whole.message


async def test_a_story_keeps_its_first_and_its_newest_steps_within_bounds(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    for number in range(120):
        claim = await claim_job(ledger, job_id)
        await ledger.jobs.snooze(claim, 1, counted=False, code=f"code_{number}")

    story = await ledger.stories.of(job_id)

    assert len(inspector.job(job_id)["story"]) <= 4200
    assert story.steps_left_out
    reasons = [step.reason for step in story.steps if step.kind is K.SNOOZED]
    assert reasons[:3] == ["code_0", "code_1", "code_2"]
    assert reasons[-3:] == ["code_117", "code_118", "code_119"]


async def test_a_job_of_an_older_version_is_told_from_its_other_fields(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger)
    await stored(ledger, await claim_lane(ledger), turn_id, "m1")
    inspector.redis.hdel(inspector.keys.job(turn_id), "story")

    assert await kinds_of(ledger, turn_id) == [K.ACCEPTED, K.CLAIMED, K.REPLIED, K.STORED]


async def test_no_story_is_told_of_an_unknown_job(ledger: Ledger) -> None:
    with pytest.raises(JobNotFound):
        await ledger.stories.of(f"j00_{7:032x}")


async def test_the_newest_jobs_of_a_user_are_listed_page_by_page(ledger: Ledger) -> None:
    old = await submit_and_answer(ledger)
    await submit_job(ledger, user_id="bob")
    new = await submit_job(ledger)

    async def page(**options: Any) -> UserJobs:
        asked = {"since": None, "limit": 20, "after": None} | options
        return await ledger.stories.users.newest("ann", "default", **asked)

    both = await page()
    first = await page(limit=1)
    assert [one.job_id for one in both.jobs] == [new, old]
    assert (both.jobs[1].state, both.jobs[1].turn) == (JobState.SUCCEEDED, TurnState.PENDING)
    assert ([one.job_id for one in first.jobs], first.next) == ([new], new)
    assert [one.job_id for one in (await page(after=new)).jobs] == [old]
    assert (await page(since=utc_now() + timedelta(days=1))).jobs == ()
    with pytest.raises(InvalidRequest, match="after"):
        await page(after="j00_gone")


async def test_a_user_has_a_hundred_listed_jobs_at_most(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    requests = [(ledger.jobs.new_id(asked := chat_request(str(n))), asked) for n in range(130)]
    await ledger.jobs.submit_many(requests)
    for job_id, _ in requests:
        await ledger.jobs.cancel(job_id)

    key = inspector.keys.user_jobs(lane_of())
    assert inspector.redis.zcard(key) == 100
    assert inspector.redis.pttl(key) > 0


async def test_a_turn_says_which_earlier_one_it_waited_for(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first, second = await submit_and_answer(ledger), await submit_and_answer(ledger)
    lane = await claim_lane(ledger)
    await ledger.turns.begin(lane, first, worker="m:1")
    await ledger.turns.postpone(
        lane, first, 30, counted=True, code="store_busy", unknown_outcome=False
    )
    (waits,) = [s for s in await steps_of(ledger, second) if s.kind is K.WAITED_BEHIND]
    assert (waits.about, waits.reason, waits.duration_s) == (first, "store_busy", None)

    lane = await claim_lane(ledger)
    await ledger.turns.begin(lane, first, worker="m:1")
    await ledger.turns.bury(lane, first, "not_accepted", Fault.REQUEST, "1.0")
    inspector.redis.hincrby(inspector.keys.job(second), "ended", -60_000)
    await stored(ledger, lane, second, "m1")
    same = inspector.job(second)["turn_ended"]  # two steps may share a millisecond
    inspector.redis.hset(inspector.keys.job(first), "turn_ended", same)

    (waited,) = [s for s in await steps_of(ledger, second) if s.kind is K.WAITED_BEHIND]
    assert (waited.about, waited.reason, waited.details) == (
        *(first, "not_accepted", {"turn": "dead"}),
    )
    assert waited.duration_s is not None
    assert waited.duration_s >= 59
    assert K.WAITED_BEHIND not in await kinds_of(ledger, first)


async def test_an_order_that_lets_work_wait_is_told(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    answered = await submit_and_answer(ledger)
    waiting = await submit_job(ledger)
    await ledger.orders.give(OrderKind.PAUSE_REPLIES, Whom(), {"by": "olga", "reason": ""})
    await ledger.orders.give(OrderKind.PAUSE_MEMORIES, Whom(), {"by": "olga", "reason": ""})
    assert await ledger.jobs.claim(waiting, "token") is None
    assert await ledger.turns.claim_lane(lane_of(), "token", max_turns=1) is None

    for job_id, order in ((waiting, "pause-replies"), (answered, "pause-memories")):
        last = (await steps_of(ledger, job_id))[-1]
        assert (last.kind, last.reason) == (K.PARKED, order)
