"""What the status of a job says of its request and of its times, over all attempts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from afterword.shared.contracts import Timings
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import EraseClaim
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    lane_of,
    reply_to,
    submit_and_claim,
    submit_job,
)

pytestmark = pytest.mark.redis


async def test_a_job_started_with_its_first_attempt(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    held = await claim_job(ledger, job_id)
    first = (await ledger.queries.status(job_id)).started_at
    await ledger.jobs.snooze(held, 0, counted=False, code="overloaded")
    inspector.redis.hset(inspector.keys.job(job_id), "started", held.claimed_ms - 5000)

    await claim_job(ledger, job_id)

    status = await ledger.queries.status(job_id)
    assert first is not None
    assert status.started_at == first - timedelta(seconds=5)
    assert (status.snoozes, status.attempts, status.ended_at) == (1, 1, None)


@pytest.mark.parametrize("first_text", [None, 340])
async def test_a_reply_says_when_its_text_began(ledger: Ledger, first_text: int | None) -> None:
    held = await submit_and_claim(ledger)
    timings = Timings(queued=10, recall=20, model=900, total=930, first_text=first_text)
    await ledger.jobs.finish(held, reply_to(held).model_copy(update={"timings_ms": timings}))

    status = await ledger.queries.status(held.job_id)

    told = first_text and status.created_at + timedelta(milliseconds=first_text)
    assert status.first_text_at == told
    assert status.ended_at is not None


async def test_a_record_of_an_older_build_has_no_times(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = await submit_and_claim(ledger)
    await ledger.jobs.finish(held, reply_to(held))
    inspector.redis.hdel(inspector.keys.job(held.job_id), "started", "first_text")
    status = await ledger.queries.status(held.job_id)
    assert (status.started_at, status.first_text_at) == (None, None)


async def test_nothing_of_an_erased_users_request_is_given_back(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger, conversation_id="c", metadata={"page": 3})
    before = await ledger.queries.status(job_id)
    assert (before.user_id, before.conversation_id, before.metadata) == ("ann", "c", {"page": 3})
    await ledger.erasures.begin(lane_of(), "an operator")
    held = await ledger.turns.claim_lane(lane_of(), "eraser", max_turns=20)
    assert isinstance(held, EraseClaim)
    await ledger.erasures.remove_records(held)

    after = await ledger.queries.status(job_id)

    assert (after.user_id, after.conversation_id, after.metadata) == (None, None, None)
    assert (after.tenant, after.code) == ("default", "erased")
