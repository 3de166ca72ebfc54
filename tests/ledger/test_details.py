"""What an operator reads of one job: whose it is, what it waits for, and how long it took."""

from __future__ import annotations

import pytest

from afterword.shared.ledger.ledger import Ledger
from tests.kit.ledger.builder import (
    claim_job,
    claim_lane,
    lane_of,
    submit_and_answer,
    submit_job,
)
from tests.packaging.test_json import SHOWN

pytestmark = [pytest.mark.redis, pytest.mark.finding(36)]


async def test_all_is_said_of_a_job_that_was_answered(ledger: Ledger) -> None:
    found = await ledger.queries.details(await submit_and_answer(ledger, priority="high"))

    assert found.keys() == SHOWN["Job"].keys()
    assert (found["tenant"], found["user_id"], found["lane"]) == ("default", "ann", lane_of())
    assert found["priority"] == "high"
    assert found["ended_at"] >= found["created_at"]
    assert found["timings_ms"] is not None


async def test_the_status_says_what_a_job_waits_for(ledger: Ledger) -> None:
    ready = await submit_job(ledger)
    assert (await _waits(ledger, ready)) == ("a response worker", False)

    claimed = await claim_job(ledger, ready)
    assert (await _waits(ledger, ready)) == ("its reply, which a worker is getting", True)

    await ledger.jobs.snooze(claimed, 60, counted=False, code="overloaded")
    assert (await _waits(ledger, ready)) == ("overloaded", True)


async def test_the_status_says_what_a_turn_waits_for(ledger: Ledger) -> None:
    answered = await submit_and_answer(ledger)
    assert (await _waits(ledger, answered)) == ("a memory worker", False)

    await claim_lane(ledger)
    stores = "a memory worker that stores turns of its user"
    assert (await _waits(ledger, answered)) == (stores, True)


async def _waits(ledger: Ledger, job_id: str) -> tuple[str | None, bool]:
    """Return what a job waits for, and whether it is known until when."""
    found = await ledger.queries.details(job_id)
    return found["waits_for"], found["waits_until"] is not None
