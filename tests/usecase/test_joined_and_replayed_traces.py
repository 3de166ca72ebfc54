"""Traces of what is more than one job's: messages that were joined, and replays of dead letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from afterword.producer import AsyncOperator, DeadLetterFilter, ReplayPace
from afterword.producer.admin.replay_driver import ReplayDriver
from afterword.shared.errors import LedgerUnavailable, Rejected
from afterword.shared.ledger.dead_letter_records import DeadLetterRef
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.replay_runs import ReplayRuns
from afterword.shared.settings import Settings
from afterword.shared.spans import LETTER, PROCESS, PUBLISH, REPLAY, SEND
from tests.kit.ledger.builder import claim_job, lane_of
from tests.kit.ledger.lane_drainer import LaneDrainer
from tests.kit.traced import Traced, ids_of, links_of, traced
from tests.usecase.test_traces import TRACE, Worker, submitted

pytestmark = pytest.mark.redis

TALK = {"conversation_id": "c", "when_busy": "merge"}


@pytest.fixture(autouse=True)
def spans(settings: Settings) -> Iterator[Traced]:
    with traced(settings) as found:
        yield found


@pytest.fixture
def worker(settings: Settings, ledger: Ledger) -> Worker:
    return Worker(settings, ledger)


def caller(number: int) -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{number:016x}-01"}


async def test_a_reply_to_joined_messages_is_linked_to_the_submit_of_each(
    settings: Settings, worker: Worker, spans: Traced
) -> None:
    job_id = await submitted(settings, message="one", trace_context=caller(1), **TALK)
    for number, message in ((2, "two"), (3, "three")):
        found = await submitted(settings, message=message, trace_context=caller(number), **TALK)
        assert found == job_id
    await worker.respond(job_id)

    sends = spans.named(SEND)
    (process,) = spans.named(PROCESS)
    assert len(sends) == 3
    assert links_of(process) == [ids_of(send) for send in sends]


async def test_the_contexts_of_joined_messages_are_bounded(
    settings: Settings, ledger: Ledger
) -> None:
    job_id = await submitted(settings, message="one", trace_context=caller(1), **TALK)
    for number in range(2, 60):
        state = {"tracestate": "vendor=" + "1" * 100}
        await submitted(settings, message=str(number), trace_context=caller(number) | state, **TALK)

    claim = await claim_job(ledger, job_id)

    assert 1000 < len(claim.joined) <= 2000
    assert all(one.startswith(f"00-{TRACE}-") for one in claim.joined.splitlines()), "none is cut"


async def test_a_replay_is_a_trace_linked_to_those_of_what_had_died(
    settings: Settings, ledger: Ledger, worker: Worker, spans: Traced
) -> None:
    turn_id = await submitted(settings, trace_context=caller(1))
    await worker.respond(turn_id)
    await LaneDrainer(ledger, [lane_of()], lambda _: True).write_all()
    known = settings.model_copy(update={"traces": True})
    async with AsyncOperator(known, by="olga") as operator, LaneDrainer(ledger, [lane_of()]):
        plan = await operator.plan(DeadLetterFilter(), ReplayPace(rate=1000))
        run = await operator.replay(plan, apply=True)

    by_name = {span.name: span for span in spans.end()}
    replay, letter = by_name[REPLAY], by_name[LETTER]
    assert (replay.parent, dict(replay.attributes or {})) == (
        *(None, {"afterword.run": run.id, "afterword.outcome": "done"}),
    )
    assert letter.parent is not None
    assert (letter.parent.trace_id, letter.parent.span_id) == ids_of(replay)
    assert links_of(letter) == [ids_of(by_name[PUBLISH])]


class Away(ReplayRuns):
    """A ledger that goes away before anything is replayed."""

    async def next_letters(self, run: str) -> Sequence[DeadLetterRef]:
        raise LedgerUnavailable("gone", cause="closed")


async def test_a_replay_that_fails_has_its_span_all_the_same(
    settings: Settings, ledger: Ledger, worker: Worker, spans: Traced
) -> None:
    worker.model.fails(Rejected("rejected"))
    job_id = await submitted(settings)
    await worker.respond(job_id)
    letter = await ledger.dead_letters.get(job_id)
    run_id = await ledger.replay_runs.begin(
        [letter.ref], by="olga", criteria={}, pace=ReplayPace(), token="t"
    )
    away, run = Away(ledger.replay_runs._shards), await ledger.replay_runs.get(run_id)
    with pytest.raises(LedgerUnavailable):
        await ReplayDriver(ledger.dead_letters, away, run, "t", "olga", None).drive()

    (replay,) = spans.named(REPLAY)
    found = dict(replay.attributes or {})
    assert (found["afterword.outcome"], found["afterword.code"]) == ("failed", "LedgerUnavailable")


async def test_the_context_of_a_dead_letter_is_read_while_traces_are_on(
    settings: Settings, ledger: Ledger, worker: Worker
) -> None:
    job_id = await submitted(settings, trace_context=caller(1))
    worker.model.fails(Rejected("rejected"))
    await worker.respond(job_id)
    known = settings.model_copy(update={"traces": True})
    letter = await ledger.dead_letters.get(job_id)
    async with Ledger(known, patience_s=5.0) as opened:
        assert (await opened.dead_letters.trace_of(letter.ref)).startswith(f"00-{TRACE}-")
    assert await ledger.dead_letters.trace_of(letter.ref) == "", "off, it is not read"
