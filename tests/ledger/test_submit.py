"""Accepting a job: once, whole, or not at all."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest

from afterword.shared.contracts import OLDEST_VERSION, RECORD_VERSION
from afterword.shared.errors import KeyReused, QueueFull
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import moment
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    claim_job,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
    submit_request,
)

pytestmark = pytest.mark.redis

SECRET = "marmalade"


async def test_a_job_is_recorded_queued_and_hinted_at_once(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger, expires_in=60)

    record = inspector.job(job_id)
    assert (record["state"], record["turn"]) == (JobState.QUEUED, TurnState.AWAITED)
    assert record["version"] == str(OLDEST_VERSION)
    assert int(record["deadline"]) - int(record["created"]) == 60_000
    assert inspector.lane(lane_of()) == [job_id]
    assert inspector.hinted("replies.3") == [job_id]
    assert inspector.places(job_id) == [("hinted", "replies.3")]


async def test_a_job_that_says_something_newer_is_left_to_workers_that_know_it(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    for fields in ({"remember": False}, {"at": "2026-05-08T08:00:00Z"}, {"timezone": "UTC"}):
        job_id = await submit_job(ledger, **fields)
        assert inspector.job(job_id)["version"] == str(RECORD_VERSION), fields


async def test_what_is_not_to_be_remembered_waits_in_no_lane(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    quiet = await submit_and_claim(ledger, "one", conversation_id="c", remember=False)
    later = await submit_and_answer(ledger, "two")
    assert inspector.lane(lane_of()) == [later]
    assert [turn.id for turn in (await claim_lane(ledger)).turns] == [later], "nobody waits for it"

    await ledger.jobs.finish(quiet, reply_to(quiet))

    assert inspector.job(quiet.job_id)["turn"] == TurnState.NONE
    assert inspector.lane(lane_of()) == [later]
    held = await submit_and_claim(ledger, "three", conversation_id="c")
    assert [turn.id for turn in held.overlay] == [later]
    assert [turn.user_text for turn in held.history] == ["one"], "a conversation keeps it"


async def test_a_message_has_the_time_at_which_it_was_said(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    said = datetime(2021, 5, 8, 8, 0, 0, 250_000, tzinfo=UTC)
    job_id = await submit_and_answer(ledger, conversation_id="c", at=said)

    (waiting,) = (await claim_lane(ledger)).turns
    later = await submit_and_claim(ledger, conversation_id="c")

    assert [waiting.at, later.overlay[0].at, later.history[0].at] == [said] * 3
    created_s = int(inspector.job(job_id)["created"]) / 1000
    assert later.said_at.timestamp() >= created_s > said.timestamp() + 1e8, "it is new all the same"


async def test_nobody_can_have_said_a_message_after_it_was_accepted(ledger: Ledger) -> None:
    held = await submit_and_claim(ledger, at="2999-01-01T00:00:00Z")
    assert held.said_at == moment(held.created_ms)


@pytest.mark.parametrize(("priority", "step"), [("high", 0), ("normal", 3), ("low", 6)])
async def test_each_priority_has_its_own_list(
    ledger: Ledger, inspector: LedgerInspector, priority: str, step: int
) -> None:
    job_id = await submit_job(ledger, priority=priority)

    assert inspector.hinted(f"replies.{step}") == [job_id]


async def test_a_hint_holds_no_content(ledger: Ledger, inspector: LedgerInspector) -> None:
    await submit_job(ledger, SECRET, user_id=f"{SECRET}-user", metadata={SECRET: SECRET})

    assert SECRET not in str(inspector.redis.lrange(inspector.list_of("replies", 3), 0, -1))


async def test_the_same_id_is_the_same_job(ledger: Ledger, inspector: LedgerInspector) -> None:
    request = chat_request()
    job_id = ledger.jobs.new_id(request)

    first = await submit_request(ledger.jobs, job_id, request)
    again = await submit_request(ledger.jobs, job_id, request)

    assert (first.new, again.new) == (True, False)
    assert inspector.hinted("replies.3") == [job_id]
    assert inspector.counts() == {"job:queued:default": 1, "turn:awaited:default": 1}


@pytest.mark.finding(19)
async def test_a_key_belongs_to_its_tenant_and_user(ledger: Ledger) -> None:
    owners = [("default", "ann"), ("default", "bob"), ("acme", "ann"), ("default/a", "nn")]
    jobs = [
        await submit_job(ledger, text, tenant=tenant, user_id=user_id, idempotency_key="msg-1")
        for (tenant, user_id), text in zip(owners, "abcd", strict=True)
    ]

    assert len(set(jobs)) == len(owners)
    assert await submit_job(ledger, "b", user_id="bob", idempotency_key="msg-1") == jobs[1]


async def test_fifty_submits_with_one_key_are_one_job(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    request = chat_request(idempotency_key="order-7")

    accepted = await asyncio.gather(
        *(submit_request(ledger.jobs, ledger.jobs.new_id(request), request) for _ in range(50))
    )

    assert len({one.job_id for one in accepted}) == 1
    assert sum(one.new for one in accepted) == 1
    assert len(inspector.hinted("replies.3")) == 1
    assert len(inspector.lane(lane_of())) == 1


async def test_the_same_key_gives_the_job_even_after_it_ended(ledger: Ledger) -> None:
    job_id = await submit_and_answer(ledger, idempotency_key="order-7")

    assert await submit_job(ledger, idempotency_key="order-7") == job_id


async def test_a_key_with_another_body_is_refused(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_job(ledger, "one", idempotency_key="order-7")

    with pytest.raises(KeyReused):
        await submit_job(ledger, "two", idempotency_key="order-7")

    assert len(inspector.hinted("replies.3")) == 1


async def test_a_key_belongs_to_its_tenant(ledger: Ledger) -> None:
    ours = await submit_job(ledger, idempotency_key="order-7", tenant="a")
    theirs = await submit_job(ledger, idempotency_key="order-7", tenant="b")

    assert ours != theirs


async def test_tenants_and_keys_never_run_together(ledger: Ledger) -> None:
    one = await submit_job(ledger, tenant="ab", idempotency_key="c")
    other = await submit_job(ledger, tenant="a", idempotency_key="bc")

    assert one != other


async def test_a_key_is_kept_as_a_hash_and_not_for_ever(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_job(ledger, idempotency_key=SECRET)

    kept = list(inspector.redis.scan_iter(inspector.keys.idempotency("*")))
    assert len(kept) == 1
    assert SECRET not in kept[0]
    assert SECRET not in str(inspector.redis.hgetall(kept[0]))
    assert 0 < inspector.redis.pttl(kept[0]) <= 86_400_000


async def test_without_memory_no_turn_is_awaited(
    settings: Settings, inspector: LedgerInspector
) -> None:
    off = settings.model_copy(update={"memory": "off"})
    async with Ledger(off, patience_s=5.0) as ledger:
        job_id = await submit_job(ledger)

    assert inspector.job(job_id)["turn"] == TurnState.NONE
    assert inspector.lane(lane_of()) == []


@pytest.fixture
def small(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_queued": 2})


async def test_a_full_ledger_refuses_new_jobs_and_still_drains(small: Settings) -> None:
    async with Ledger(small, patience_s=5.0) as ledger:
        first = await submit_job(ledger)
        await submit_job(ledger)
        with pytest.raises(QueueFull):
            await submit_job(ledger)

        await ledger.jobs.fail(await claim_job(ledger, first), "broken")
        await submit_job(ledger)


async def test_a_full_ledger_still_knows_what_it_accepted(small: Settings) -> None:
    async with Ledger(small, patience_s=5.0) as ledger:
        job_id = await submit_job(ledger, idempotency_key="order-7")
        await submit_job(ledger)

        assert await submit_job(ledger, idempotency_key="order-7") == job_id


async def test_a_refused_job_leaves_nothing_behind(
    small: Settings, inspector: LedgerInspector
) -> None:
    async with Ledger(small, patience_s=5.0) as ledger:
        await submit_job(ledger)
        await submit_job(ledger)
        before = sorted(inspector.redis.scan_iter(f"{small.namespace}:*"))
        with pytest.raises(QueueFull):
            await submit_job(ledger, user_id="bob", idempotency_key="order-7")

    assert sorted(inspector.redis.scan_iter(f"{small.namespace}:*")) == before


async def test_the_body_comes_back_as_it_was_sent(ledger: Ledger) -> None:
    told = chat_request(
        "Wie geht's, «Ünï» 🦜?\n\t\"]}", metadata={"a": [1, None, 0.5, {"ß": True}]}
    )
    job_id = ledger.jobs.new_id(told)
    await submit_request(ledger.jobs, job_id, told)

    claimed = await claim_job(ledger, job_id)

    assert type(told).model_validate_json(claimed.body) == told
    assert json.loads(claimed.body)["message"] == told.message


async def test_ids_may_hold_what_lua_and_json_find_special(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    user_id = "a\"%d\\'{}[]:* {00} 日本"

    await submit_and_answer(ledger, user_id=user_id)

    assert inspector.hinted("memories.0") == [lane_of(user_id)]
