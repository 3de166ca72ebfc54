"""The corpus: this build reads every state that the first release wrote, and continues from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from afterword.shared.contracts import Event
from afterword.shared.errors import Fault, JobNotFound
from afterword.shared.ledger.dead_letter_records import DeadLetterKind, ReplayOutcome
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Claim, EraseClaim, ErasureState, PastTurn, SweepCounts
from afterword.shared.lifecycle import JobState, TurnState
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    claim_job,
    claim_lane,
    lane_of,
    replay_one,
    reply_to,
    submit_request,
)
from tests.kit.ledger.dump import dump, load
from tests.ledger.corpus.record import EARLIER, FOLDER, JOB, KEY, REQUEST, STATES, reply

pytestmark = pytest.mark.redis

Load = Callable[[str], None]

NAMES = [state.__name__ for state in STATES]
NOT_ENDED = ("queued", "running", "snoozed")
ANSWERED = ("pending", "skipped", "writing", "stored", "nothing", "dead")
PAST_LEASE_S, PAST_DEADLINE_S = 31.0, 3601.0
HALF = ["started", "delta", "delta"]

#: Each dump: the state of its job, of its turn, its attempts, and what stands in its stream.
READ: dict[str, tuple[str, str, int, list[str]]] = {
    "queued": ("queued", "awaited", 0, []),
    "running": ("running", "awaited", 1, HALF),
    "snoozed": ("queued", "awaited", 0, HALF),
    "failed": ("failed", "none", 1, [*HALF, "failed"]),
    "cancelled": ("cancelled", "none", 1, [*HALF, "failed"]),
    "expired": ("expired", "none", 0, ["failed"]),
} | {name: ("succeeded", name, 1, [*HALF, "final"]) for name in ANSWERED}


@pytest.fixture
def given(inspector: LedgerInspector) -> Load:
    """Load a dump into the shard."""
    return lambda name: load(inspector.redis, inspector.keys.root, FOLDER / f"v1-{name}.json")


async def gaps(ledger: Ledger) -> list[tuple[str, str]]:
    return [(gap.job_id, gap.problem) async for gap in ledger.maintenance.find_inconsistencies()]


async def finish(ledger: Ledger, held: Claim) -> list[Event]:
    """Answer a job of the corpus; return its events."""
    await ledger.jobs.finish(held, reply_to(held))
    return list(await ledger.queries.events(JOB, None))


async def store(ledger: Ledger, *, unknown: bool) -> None:
    """Store the one pending turn, and check that nothing is left to do."""
    held = await claim_lane(ledger)
    assert [turn.id for turn in held.turns] == [JOB]
    assert held.turns[0].user_text == REQUEST["message"]
    assert held.turns[0].batch == ((JOB,) if unknown else ()), "what may be stored gets no others"
    assert await ledger.turns.begin(held, JOB) is unknown
    await ledger.turns.settle(held, JOB, TurnState.STORED, memory_ids=["m"])
    await ledger.turns.release_lane(held)
    assert (await ledger.queries.status(JOB)).turn is TurnState.STORED
    assert await gaps(ledger) == []


def tallied(inspector: LedgerInspector, state: str, turn: str) -> bool:
    """Return whether the tallies hold this state of the job, and the earlier turn as stored."""
    states = ("job:succeeded", f"job:{state}", "turn:stored", f"turn:{turn}")
    return inspector.counts() == Counter(f"{name}:default" for name in states)


def test_it_holds_every_state_and_no_other_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {f"v1-{name}" for name in NAMES}
    assert set(READ) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
async def test_each_stored_record_is_read_as_it_was_written(
    ledger: Ledger, inspector: LedgerInspector, given: Load, name: str
) -> None:
    given(name)
    state, turn, attempts, kinds = READ[name]

    status, said = await ledger.queries.status(JOB), await ledger.queries.reply(JOB)

    assert (status.state, status.turn, status.attempts) == (state, turn, attempts)
    assert said == (reply() if state == "succeeded" else None)
    events = await ledger.queries.events(JOB, None)
    assert [event.type for event in events] == kinds
    assert [event.text for event in events if event.text] == ["canary ", "half"][
        : kinds.count("delta")
    ]
    assert tallied(inspector, state, turn)
    assert await gaps(ledger) == []


@pytest.mark.parametrize("name", NAMES)
async def test_its_idempotency_key_stays_taken(ledger: Ledger, given: Load, name: str) -> None:
    given(name)
    expires_in = 0.001 if name == "expired" else None
    request = chat_request(**REQUEST, idempotency_key=KEY, expires_in=expires_in)

    found = await submit_request(ledger.jobs, ledger.jobs.new_id(request), request)

    assert (found.job_id, found.new) == (JOB, False)


@pytest.mark.parametrize("name", NAMES)
async def test_a_sweep_does_no_more_than_is_due(
    ledger: Ledger, inspector: LedgerInspector, given: Load, name: str
) -> None:
    given(name)
    before = inspector.job(JOB)

    assert await ledger.maintenance.sweep() == SweepCounts()

    assert inspector.job(JOB) == before


@pytest.mark.parametrize("name", NAMES)
async def test_it_is_cancelled_unless_it_has_ended(
    ledger: Ledger, inspector: LedgerInspector, given: Load, name: str
) -> None:
    given(name)
    state, turn, *_ = READ[name]

    word = await ledger.jobs.cancel(JOB)

    assert word == ("cancelled" if name in (*NOT_ENDED, "cancelled") else "ended")
    assert tallied(inspector, *(("cancelled", "pending") if name in NOT_ENDED else (state, turn)))
    assert await gaps(ledger) == []


@pytest.mark.parametrize("name", NAMES)
async def test_it_expires_unless_it_has_ended(
    ledger: Ledger, inspector: LedgerInspector, given: Load, name: str
) -> None:
    given(name)
    state, turn, *_ = READ[name]
    inspector.pass_time(PAST_DEADLINE_S)

    swept = await ledger.maintenance.sweep()

    assert swept.expired == (name in NOT_ENDED)
    assert tallied(inspector, *(("expired", "none") if name in NOT_ENDED else (state, turn)))
    assert await gaps(ledger) == []


async def test_a_queued_one_is_answered_with_what_was_said_before(
    ledger: Ledger, given: Load
) -> None:
    given("queued")

    held = await claim_job(ledger, JOB)

    (before,) = held.history
    assert before == PastTurn(
        EARLIER, before.at, "canary asked", "canary replied", stop_reason="end_turn"
    )
    assert (held.attempt, held.remembered, held.body) == (1, True, chat_request(**REQUEST).body())
    assert [event.type for event in await finish(ledger, held)] == ["started", "final"]
    await store(ledger, unknown=False)


async def test_a_running_one_is_taken_back_once_its_lease_is_over(
    ledger: Ledger, inspector: LedgerInspector, given: Load
) -> None:
    given("running")
    assert await ledger.jobs.claim(JOB, "early") is None
    inspector.pass_time(PAST_LEASE_S)

    assert (await ledger.maintenance.sweep()).taken_back == 1
    held = await claim_job(ledger, JOB)

    assert held.attempt == 2
    assert [event.type for event in await finish(ledger, held)] == [*HALF, "restart", "final"]
    await store(ledger, unknown=False)


async def test_a_snoozed_one_wakes_and_has_spent_no_attempt(
    ledger: Ledger, inspector: LedgerInspector, given: Load
) -> None:
    given("snoozed")
    assert 50 < inspector.waits_s(JOB) <= 60
    inspector.pass_time(60)

    assert (await ledger.maintenance.sweep()).woken == 1
    held = await claim_job(ledger, inspector.pop_hint("replies.3"))

    assert (held.attempt, held.snoozes) == (1, 1)
    assert [event.type for event in await finish(ledger, held)] == [*HALF, "restart", "final"]
    await store(ledger, unknown=False)


async def test_the_next_message_of_its_conversation_is_answered_after_it(
    ledger: Ledger, given: Load
) -> None:
    given("pending")
    request = chat_request("and now?", conversation_id="c")
    following = await submit_request(ledger.jobs, ledger.jobs.new_id(request), request)

    held = await claim_job(ledger, following.job_id)

    assert [turn.id for turn in held.history] == [EARLIER, JOB]
    assert [turn.id for turn in held.overlay] == [JOB]


async def test_a_pending_turn_is_stored(ledger: Ledger, given: Load) -> None:
    given("pending")

    await store(ledger, unknown=False)


async def test_a_turn_whose_writer_was_lost_may_be_stored_already(
    ledger: Ledger, inspector: LedgerInspector, given: Load
) -> None:
    given("writing")
    assert await ledger.turns.claim_lane(lane_of(), "early", max_turns=20) is None
    inspector.pass_time(PAST_LEASE_S)

    assert (await ledger.maintenance.sweep()).taken_back == 1

    await store(ledger, unknown=True)


@pytest.mark.parametrize("name", ["pending", "writing"])
async def test_a_turn_that_fails_is_buried_and_comes_back(
    ledger: Ledger, inspector: LedgerInspector, given: Load, name: str
) -> None:
    given(name)
    inspector.make_due(lane_of())
    await ledger.maintenance.sweep()
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, JOB)

    await ledger.turns.bury(held, JOB, "rejected", Fault.REQUEST, "2")
    await ledger.turns.release_lane(held)

    assert [letter.id async for letter in ledger.dead_letters.select()] == [JOB]
    assert await gaps(ledger) == []
    assert await replay_one(ledger, JOB) is ReplayOutcome.WAITING
    await store(ledger, unknown=True)


async def test_a_dead_letter_is_listed_and_replayed(
    ledger: Ledger, inspector: LedgerInspector, given: Load
) -> None:
    given("dead")

    (letter,) = [letter async for letter in ledger.dead_letters.select()]
    assert (letter.id, letter.kind, letter.code) == (JOB, DeadLetterKind.MEMORY, "rejected")
    assert (letter.fault, letter.attempts, letter.replays) == (Fault.REQUEST, 1, 0)
    assert (letter.failed_at, letter.worker_version) == (letter.buried_at, "0.1.0")
    whole = await ledger.dead_letters.get(JOB)
    assert (whole.message, whole.reply) == ("canary asked", "canary replied")

    assert await ledger.dead_letters.replay(letter.ref, "run") is ReplayOutcome.WAITING
    assert await ledger.dead_letters.replay_outcomes([JOB], "run") == {JOB: ReplayOutcome.WAITING}
    assert tallied(inspector, "succeeded", "pending")
    assert await gaps(ledger) == []
    await store(ledger, unknown=True)
    assert await ledger.dead_letters.replay_outcomes([JOB], "run") == {JOB: ReplayOutcome.STORED}


async def test_a_dead_letter_is_discarded(
    ledger: Ledger, inspector: LedgerInspector, given: Load
) -> None:
    given("dead")

    assert await ledger.dead_letters.discard((await ledger.dead_letters.get(JOB)).ref)

    assert tallied(inspector, "succeeded", "skipped")
    assert [letter async for letter in ledger.dead_letters.select()] == []
    assert await gaps(ledger) == []


async def test_a_failed_job_is_discarded(ledger: Ledger, given: Load) -> None:
    given("failed")
    letter = (await ledger.dead_letters.get(JOB)).ref

    assert await ledger.dead_letters.discard(letter)

    assert not await ledger.dead_letters.discard(letter), "it is none any more"
    assert await ledger.dead_letters.replay(letter, "run") is ReplayOutcome.REFUSED
    with pytest.raises(JobNotFound):
        await ledger.dead_letters.get(JOB)


async def test_a_failed_job_is_replayed_as_a_new_one(ledger: Ledger, given: Load) -> None:
    given("failed")
    letter = await ledger.dead_letters.get(JOB)
    assert (letter.kind, letter.code, letter.message) == (
        DeadLetterKind.REPLY,
        "rejected",
        "canary asked",
    )

    assert await ledger.dead_letters.replay(letter.ref, "run") is ReplayOutcome.WAITING

    again = (await ledger.dead_letters.get(JOB)).replayed_as
    assert again is not None
    held = await claim_job(ledger, again)
    assert [turn.id for turn in held.history] == [EARLIER]
    await ledger.jobs.finish(held, reply_to(held))
    assert await ledger.dead_letters.replay_outcomes([JOB], "run") == {JOB: ReplayOutcome.ANSWERED}
    assert (await ledger.queries.status(JOB)).state is JobState.FAILED
    assert await gaps(ledger) == []


@pytest.mark.parametrize("name", NAMES)
async def test_each_stored_record_is_erased(
    ledger: Ledger, inspector: LedgerInspector, given: Load, tmp_path: Path, name: str
) -> None:
    given(name)
    state, *_ = READ[name]
    left = tmp_path / "left.json"
    await ledger.erasures.begin(lane_of(), "an operator")
    inspector.make_due(lane_of())
    await ledger.maintenance.sweep()

    held = await ledger.turns.claim_lane(lane_of(), "eraser", max_turns=20)
    assert isinstance(held, EraseClaim)
    await ledger.erasures.remove_records(held)
    await ledger.erasures.advance(held, ErasureState.ERASED)

    ended = "cancelled" if name in NOT_ENDED else state
    status, said = await ledger.queries.status(JOB), await ledger.queries.reply(JOB)
    turn = TurnState.ERASED if state == "succeeded" else TurnState.NONE
    assert (status.state, status.turn, said) == (ended, turn, None)
    dump(inspector.redis, inspector.keys.root, left)
    assert JOB in left.read_text()
    assert "canary" not in left.read_text()
    assert await gaps(ledger) == []
