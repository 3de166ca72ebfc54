"""What the page of failures says of a job, its gate and its attempts is what happens to them."""

from __future__ import annotations

import pytest

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import GateState
from afterword.shared.lifecycle import JobState
from afterword.shared.names import gate_of
from afterword.shared.settings import Settings
from tests.kit.failures.row import judged
from tests.kit.ledger.builder import LedgerInspector, submit_job
from tests.usecase.test_respond import Desk

pytestmark = pytest.mark.redis

#: What is published of an attempt that fails depends on how fast it does.
PIECES = ("recalled", "delta")

#: Failures without a success in between that shut a gate.
FIVE = 5

ERRORS = [
    Unavailable("overloaded"),
    RateLimited("rate_limited", retry_after_s=30),
    AccessDenied("key_refused"),
    Rejected("too_large"),
    BadAnswer("truncated"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_job_ends_as_its_row_says(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, error: ProviderError
) -> None:
    desk = Desk(settings, ledger, None)
    row = judged("", error, test="")
    desk.model.fails(error, "half")
    job_id = await submit_job(ledger)

    await desk.respond(job_id)

    status = await ledger.queries.status(job_id)
    assert status.code == row.code
    assert (status.attempts == 0) == (row.attempts == "none")
    assert (status.state is JobState.FAILED) == (row.ends == "`failed`")
    if status.state is JobState.QUEUED:
        inspector.make_due(job_id)
        inspector.end_pause(gate_of(settings.model))
        desk.model.answers("whole")
        await desk.respond(job_id)
        events = await ledger.queries.events(job_id, None)
        assert [event.type for event in events if event.type not in PIECES] == [
            "started",
            "restart",
            "final",
        ]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_gate_shuts_as_its_row_says(
    settings: Settings, ledger: Ledger, error: ProviderError
) -> None:
    desk = Desk(settings, ledger, None)
    shut_after = []
    for failures in range(1, FIVE + 1):
        desk.model.fails(error)
        await desk.respond(await submit_job(ledger))
        gates = {gate.name: gate.state for gate in await ledger.gates.not_open()}
        if gates.get(gate_of(settings.model)) is GateState.SHUT:
            shut_after.append(failures)

    words = {1: "shuts", FIVE: "shuts after five", None: "stays open"}
    assert judged("", error, test="").gate == words[shut_after[0] if shut_after else None]
