"""The reply stream: which events are published, in which order, and none after the last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from afterword.producer.client.follow import Follower
from afterword.shared.contracts import MemoryUsed, Recalled
from afterword.shared.errors import JobNotFound, LeaseLost
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Claim
from afterword.shared.lifecycle import JobState, TurnState
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_claim,
    submit_job,
)

pytestmark = pytest.mark.redis


async def test_a_delta_sent_twice_is_stored_once(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = await submit_and_claim(ledger)

    for _ in range(2):
        await ledger.jobs.append_delta(held, 1, "Hel")
    await ledger.jobs.append_delta(held, 2, "lo")

    assert [row.get("text") for row in inspector.events(held.job_id)] == [None, "Hel", "lo"]


GIVEN = Recalled(
    memory="fresh",
    memories=(MemoryUsed(id="m1", text="likes tea", score=0.5, created_at=None),),
)


async def test_the_first_delta_brings_what_was_recalled(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = await submit_and_claim(ledger)

    for _ in range(2):
        await ledger.jobs.append_delta(held, 1, "Hel", GIVEN)
    await ledger.jobs.append_delta(held, 2, "lo", GIVEN)

    events = await ledger.queries.events(held.job_id, None)
    assert [event.type for event in events] == ["started", "recalled", "delta", "delta"]
    assert (events[1].attempt, events[1].memory) == (1, "fresh")
    assert events[1].memories == GIVEN.memories
    assert len(inspector.events(held.job_id)) == 3


@pytest.mark.parametrize(
    ("text", "types"),
    [("Hello", ["started", "recalled", "delta", "final"]), ("", ["started", "recalled", "final"])],
)
async def test_a_reply_that_comes_at_once_brings_what_was_recalled(
    ledger: Ledger, text: str, types: list[str]
) -> None:
    held = await submit_and_claim(ledger)

    for _ in range(2):
        await ledger.jobs.finish(
            held, reply_to(held, text, memories=GIVEN.memories), last=(1, text)
        )

    events = await ledger.queries.events(held.job_id, None)
    assert [event.type for event in events] == types
    assert events[1].memories == GIVEN.memories
    for at, event in enumerate(events):
        assert await ledger.queries.events(held.job_id, event.id) == events[at + 1 :]


async def test_another_attempt_recalls_anew(ledger: Ledger, inspector: LedgerInspector) -> None:
    held = await submit_and_claim(ledger)
    await ledger.jobs.append_delta(held, 1, "old", GIVEN)
    inspector.make_due(held.job_id)
    again = await claim_job(ledger, held.job_id)
    await ledger.jobs.append_delta(again, 1, "new", Recalled(memory="degraded"))

    events = await ledger.queries.events(held.job_id, None)
    seen = [(event.attempt, event.memory) for event in events if event.type == "recalled"]
    assert seen == [(1, "fresh"), (2, "degraded")]
    for at, event in enumerate(events):
        assert await ledger.queries.events(held.job_id, event.id) == events[at + 1 :]


async def test_finish_gives_the_final_the_turn_and_its_hint_in_one_step(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = await submit_and_claim(ledger)
    reply = reply_to(held, "Hello")

    await ledger.jobs.finish(held, reply, last=(1, "Hello"))

    *_, delta, final = await ledger.queries.events(held.job_id, None)
    assert (delta.type, delta.text) == ("delta", "Hello")
    assert (final.type, final.reply) == ("final", reply)
    assert inspector.job(held.job_id)["turn"] == TurnState.PENDING
    assert inspector.lane(lane_of()) == [held.job_id]
    assert inspector.hinted("memories.0") == [lane_of()]


async def test_without_a_last_text_the_final_stands_alone(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = await submit_and_claim(ledger)
    await ledger.jobs.append_delta(held, 1, "Hello")

    await ledger.jobs.finish(held, reply_to(held), last=(2, ""))

    assert [row["type"] for row in inspector.events(held.job_id)] == ["started", "delta", "final"]


async def test_finishing_twice_has_the_effect_of_once(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = await submit_and_claim(ledger, conversation_id="c")

    for _ in range(2):
        await ledger.jobs.finish(held, reply_to(held), last=(1, "Hello"))

    assert [row["type"] for row in inspector.events(held.job_id)] == ["started", "delta", "final"]
    assert inspector.hinted("memories.0") == [lane_of()]
    assert inspector.counts() == {"job:succeeded:default": 1, "turn:pending:default": 1}
    assert len((await submit_and_claim(ledger, conversation_id="c")).history) == 1


async def test_nothing_follows_the_final(ledger: Ledger, inspector: LedgerInspector) -> None:
    held = await submit_and_claim(ledger)
    await ledger.jobs.finish(held, reply_to(held))

    with pytest.raises(LeaseLost):
        await ledger.jobs.append_delta(held, 1, "late")
    with pytest.raises(LeaseLost):
        await ledger.jobs.fail(held, "late")
    with pytest.raises(LeaseLost):
        await ledger.jobs.snooze(held, 0, counted=False)
    assert await ledger.jobs.cancel(held.job_id) == "ended"
    inspector.outlive(held.job_id)
    await ledger.maintenance.sweep()

    assert [row["type"] for row in inspector.events(held.job_id)] == ["started", "final"]


async def test_a_skipped_turn_leaves_the_lane(ledger: Ledger, inspector: LedgerInspector) -> None:
    held = await submit_and_claim(ledger)

    await ledger.jobs.finish(held, reply_to(held, not_remembered="refusal"))

    status = await ledger.queries.status(held.job_id)
    assert (status.turn, status.turn_code) == (TurnState.SKIPPED, "refusal")
    assert inspector.lane(lane_of()) == []
    assert inspector.hinted("memories.0") == []


async def _fail(ledger: Ledger, held: Claim, _: LedgerInspector) -> None:
    await ledger.jobs.fail(held, "broken")


async def _cancel(ledger: Ledger, held: Claim, _: LedgerInspector) -> None:
    await ledger.jobs.cancel(held.job_id)


async def _expire(ledger: Ledger, held: Claim, inspector: LedgerInspector) -> None:
    inspector.outlive(held.job_id)
    await ledger.maintenance.sweep()


async def _skip(ledger: Ledger, held: Claim, _: LedgerInspector) -> None:
    await ledger.jobs.finish(held, reply_to(held, not_remembered="refusal"))


@pytest.mark.parametrize("end", [_fail, _expire, _skip])
async def test_a_job_without_a_turn_gives_its_lane_free(
    ledger: Ledger,
    inspector: LedgerInspector,
    end: Callable[[Ledger, Claim, LedgerInspector], Awaitable[None]],
) -> None:
    first = await submit_and_claim(ledger, "first")
    second = await submit_and_claim(ledger, "second")
    await ledger.jobs.finish(second, reply_to(second))
    inspector.pop_hint("memories.0")
    assert await ledger.turns.claim_lane(lane_of(), "too early", max_turns=20) is None

    await end(ledger, first, inspector)

    assert inspector.lane(lane_of()) == [second.job_id]
    assert inspector.hinted("memories.0") == [lane_of()]


@pytest.mark.parametrize(
    ("end", "state", "code"),
    [
        (_fail, JobState.FAILED, "broken"),
        (_cancel, JobState.CANCELLED, "cancelled"),
        (_expire, JobState.EXPIRED, "deadline"),
    ],
)
async def test_an_end_without_a_reply_says_why_once(
    ledger: Ledger,
    inspector: LedgerInspector,
    end: Callable[[Ledger, Claim, LedgerInspector], Awaitable[None]],
    state: JobState,
    code: str,
) -> None:
    held = await submit_and_claim(ledger)

    for _ in range(2):
        await end(ledger, held, inspector)

    events = await ledger.queries.events(held.job_id, None)
    assert [event.type for event in events] == ["started", "failed"]
    assert (events[-1].state, events[-1].code) == (state, code)
    assert await ledger.queries.reply(held.job_id) is None
    assert inspector.places(held.job_id) == []


async def test_an_expired_job_says_what_held_it_up(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = await submit_and_claim(ledger)
    await ledger.jobs.snooze(held, 1, counted=False, code="overloaded")

    inspector.outlive(held.job_id)
    await ledger.maintenance.sweep()

    assert (await ledger.queries.status(held.job_id)).code == "overloaded"


async def test_a_stream_is_resumed_after_any_event(ledger: Ledger) -> None:
    held = await submit_and_claim(ledger)
    await ledger.jobs.append_delta(held, 1, "Hel", GIVEN)
    await ledger.jobs.finish(held, reply_to(held), last=(2, "lo"))
    whole = await ledger.queries.events(held.job_id, None)

    for at, event in enumerate(whole):
        assert await ledger.queries.events(held.job_id, event.id) == whole[at + 1 :]


async def test_event_ids_grow_over_attempts(ledger: Ledger, inspector: LedgerInspector) -> None:
    held = await submit_and_claim(ledger)
    await ledger.jobs.append_delta(held, 1, "old")
    inspector.make_due(held.job_id)
    again = await claim_job(ledger, held.job_id)
    await ledger.jobs.append_delta(again, 1, "new")

    events = await ledger.queries.events(held.job_id, None)
    assert [(event.type, event.attempt) for event in events] == [
        ("started", 1),
        ("delta", 1),
        ("restart", 2),
        ("delta", 2),
    ]


async def test_an_ended_job_is_kept_for_its_retention_only(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = await submit_and_claim(ledger, remember=False)
    await ledger.jobs.cancel(held.job_id)

    assert 0 < inspector.redis.pttl(inspector.keys.job(held.job_id)) <= 86_400_000
    assert 0 < inspector.redis.pttl(inspector.keys.events(held.job_id)) <= 900_000
    assert await ledger.queries.has_stream(held.job_id)
    inspector.redis.delete(inspector.keys.events(held.job_id))
    assert not await ledger.queries.has_stream(held.job_id)
    for after in (None, "0-0", "9-9"):  # nobody knows any more which events there were
        (last,) = [event async for event in Follower(ledger, held.job_id).events(after)]
        assert (last.type, last.state) == ("failed", JobState.CANCELLED)
    inspector.redis.delete(inspector.keys.job(held.job_id))
    for read in (ledger.queries.status, ledger.queries.reply):
        with pytest.raises(JobNotFound):
            await read(held.job_id)


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_turn_on_its_way_into_memory_never_expires(
    ledger: Ledger, inspector: LedgerInspector, stopped: bool
) -> None:
    held = await submit_and_claim(ledger)
    if stopped:
        await ledger.jobs.cancel(held.job_id)
    else:
        await ledger.jobs.finish(held, reply_to(held))

    assert inspector.redis.pttl(inspector.keys.job(held.job_id)) == -1
    held_lane = await claim_lane(ledger)
    await ledger.turns.begin(held_lane, held.job_id)
    await ledger.turns.settle(held_lane, held.job_id, TurnState.STORED)
    assert 0 < inspector.redis.pttl(inspector.keys.job(held.job_id)) <= 86_400_000


async def test_cancelling_nothing_says_so(ledger: Ledger) -> None:
    job_id = await submit_job(ledger)

    assert await ledger.jobs.cancel(job_id[:-1] + ("0" if job_id[-1] != "0" else "1")) == "gone"
