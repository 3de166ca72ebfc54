"""What is exported of a user: all that an erasure removes, and nothing of anybody else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from afterword.producer.client.export_document import ExportDocument
from afterword.producer.client.memory_calls import Owner
from afterword.shared.contracts import MemoryUsed
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.memory_contracts import UserExport
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)

pytestmark = pytest.mark.redis

AT = datetime(2026, 5, 8, tzinfo=UTC)


async def exported(ledger: Ledger, lane: str) -> tuple[UserExport, str]:
    document, pieces = ExportDocument(Owner("default", "ann"), AT), list[str]()
    async for section, record in ledger.user_records.all(lane):
        pieces.append(document.add(section, record))
    text = "".join([*pieces, document.end()])
    return UserExport.model_validate_json(text), text


async def test_all_that_an_erasure_removes_is_exported(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    answered = await submit_and_answer(
        ledger, "I like tea.", conversation_id="c", idempotency_key="k"
    )
    claim = await submit_and_claim(ledger, "What do I like?", conversation_id="c", remember=False)
    used = MemoryUsed(id="m1", text="I like tea.", score=1.0)
    await ledger.jobs.append_delta(claim, 1, "You like")
    await ledger.jobs.finish(claim, reply_to(claim, "You like tea.", memories=(used,)))
    failed = await submit_and_claim(ledger, "This one fails.")
    await ledger.jobs.fail(failed, "rejected")
    waiting = await submit_job(ledger, "This one waits.")
    inspector.redis.sadd(inspector.keys.imported(lane_of()), "past-1", "past-2")

    found, _ = await exported(ledger, lane_of())

    jobs = {job.job_id: job for job in found.jobs}
    assert jobs.keys() == {answered, claim.job_id, failed.job_id, waiting}
    assert jobs[answered].record["body"]["message"] == "I like tea."
    (key,) = jobs[answered].idempotency
    assert (key["job"], len(key["hash"])) == (answered, 64)
    assert jobs[claim.job_id].record["reply"]["text"] == "You like tea."
    assert [event["type"] for event in jobs[claim.job_id].events] == ["started", "delta", "final"]
    assert jobs[failed.job_id].record["state"] == "failed"
    (conversation,) = found.conversations
    assert [turn["user"] for turn in conversation.turns] == ["I like tea.", "What do I like?"]
    (given,) = found.replies_given
    assert (given.job_id, given.memory_ids) == (claim.job_id, ("m1",))
    assert set(found.imported_turns) == {"past-1", "past-2"}
    assert found.usage.replies == 2
    assert found.erasure is None
    for record in jobs.values():
        assert inspector.job(record.job_id).keys() == record.record.keys()


async def test_nothing_of_another_user_is_exported(ledger: Ledger) -> None:
    for user in ("ann", "anna", "ben"):
        for message in ("I like tea.", f"I am {user}."):
            await submit_and_answer(ledger, message, user_id=user, conversation_id="c")
    found, text = await exported(ledger, lane_of())
    assert len(found.jobs) == 2
    assert len(found.conversations) == 1
    assert "anna" not in text
    assert "ben" not in text


async def test_after_an_erasure_the_receipt_is_exported(ledger: Ledger) -> None:
    await ledger.erasures.begin(lane_of(), "me")
    found, _ = await exported(ledger, lane_of())
    assert found.erasure is not None
    assert (found.erasure["asked_by"], found.erasure["state"]) == ("me", "asked")


async def test_a_long_stream_is_exported_whole(ledger: Ledger) -> None:
    claim = await claim_job(ledger, await submit_job(ledger))
    count = 1100
    for number in range(1, count + 1):
        await ledger.jobs.append_delta(claim, number, f"{number}")
    found, _ = await exported(ledger, lane_of())
    (job,) = found.jobs
    texts = [event["text"] for event in job.events if event["type"] == "delta"]
    assert texts == [str(number) for number in range(1, count + 1)]
