"""Dead letters: nothing is lost, the lane continues, and each can be replayed once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from afterword.producer import AsyncOperator
from afterword.shared.errors import (
    Fault,
    IllegalStep,
    InvalidRequest,
    JobNotFound,
    LedgerUnavailable,
)
from afterword.shared.ledger import dead_letters as dead_module
from afterword.shared.ledger.dead_letter_records import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterKind,
    DeadLetterRef,
    ReplayOutcome,
)
from afterword.shared.ledger.dead_letters import DeadLetters
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.settings import Settings
from afterword.shared.trace_context import context_of
from afterword.shared.version import __version__
from tests.kit.command_line import Printed, afterword
from tests.kit.ledger.builder import (
    LedgerInspector,
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


@pytest.fixture
async def operator(settings: Settings) -> AsyncIterator[AsyncOperator]:
    async with AsyncOperator(settings, by="olga") as opened:
        yield opened


DAY_MS = 86_400_000


async def bury(ledger: Ledger, *turn_ids: str, user: str = "ann", code: str = "rejected") -> None:
    """Bury turns of a user, oldest first, and release the lane."""
    held = await claim_lane(ledger, lane_of(user))
    for turn_id in turn_ids:
        await ledger.turns.begin(held, turn_id)
        await ledger.turns.bury(held, turn_id, code, Fault.REQUEST, "0.1.0")
    await ledger.turns.release_lane(held)


async def buried(ledger: Ledger, message: str = "hello", **fields: object) -> str:
    """Bury a turn and return its id."""
    turn_id = await submit_and_answer(ledger, message, **fields)
    await bury(ledger, turn_id, user=str(fields.get("user_id", "ann")))
    return turn_id


async def failed(ledger: Ledger, message: str = "hello", **fields: object) -> str:
    """Fail a job and return its id."""
    started = await submit_and_claim(ledger, message, **fields)
    await ledger.jobs.fail(started, "too_large")
    return started.job_id


async def ids(ledger: Ledger, **said: object) -> list[str]:
    chosen = DeadLetterFilter(**said)  # type: ignore[arg-type]
    return [letter.id async for letter in ledger.dead_letters.select(chosen)]


async def chosen(ledger: Ledger, letter_id: str) -> DeadLetterRef:
    return (await ledger.dead_letters.get(letter_id)).ref


# -- buried by hand


async def test_a_turn_that_waits_is_buried_by_hand_and_its_lane_goes_on(
    ledger: Ledger, operator: AsyncOperator
) -> None:
    stuck, later = [await submit_and_answer(ledger, text) for text in ("stuck", "later")]

    for _ in range(2):
        await operator.bury(stuck)

    letter = await ledger.dead_letters.get(stuck)
    assert (letter.code, letter.fault, letter.attempts) == ("buried_by_hand", "operator", 0)
    assert letter.message == "stuck"
    assert [turn.id for turn in (await claim_lane(ledger)).turns] == [later]
    assert [(one.action, one.details) for one in await operator.audit()] == [
        ("bury", {"job_id": stuck})
    ] * 2
    assert await replay_one(ledger, stuck) is ReplayOutcome.WAITING


async def test_a_bury_is_recorded_before_it_happens(
    ledger: Ledger, operator: AsyncOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process may end right after it, or never hear that it was done."""

    async def unanswered(_: object, job_id: str) -> None:
        raise LedgerUnavailable(job_id)

    with pytest.raises(JobNotFound):
        await operator.bury("nothing")
    monkeypatch.setattr(DeadLetters, "bury", unanswered)
    with pytest.raises(LedgerUnavailable):
        await operator.bury("stuck")

    actions = [(one.action, one.details["job_id"]) for one in reversed(await operator.audit())]
    assert actions == [("bury", "nothing"), ("bury_refused", "nothing"), ("bury", "stuck")]


async def test_the_command_line_buries_a_turn_that_waits(
    ledger: Ledger, settings: Settings
) -> None:
    env = {
        "AFTERWORD_REDIS_URL": str(settings.redis_url),
        "AFTERWORD_NAMESPACE": settings.namespace,
        "AFTERWORD_DURABILITY": "none",
    }

    async def bury_it(*words: str) -> Printed:
        return await asyncio.to_thread(partial(afterword, "dead", "bury", *words, env=env))

    turn = await submit_and_answer(ledger)
    dry = await bury_it(turn)
    assert (dry.code, dry.stdout.splitlines()[-1]) == (
        0,
        "Nothing was changed. Add --apply to bury it.",
    )
    assert (await ledger.queries.status(turn)).turn is TurnState.PENDING
    assert (await bury_it(turn, "--apply")).stdout == "buried: 1 turn\n"
    assert (await ledger.queries.status(turn)).turn is TurnState.DEAD
    again = await bury_it(turn)
    assert (again.code, again.stdout) == (1, "the turn is dead\n")
    asked = await submit_job(ledger)
    refused = await bury_it(asked, "--apply")
    assert (refused.code, refused.stderr) == (1, "afterword: its job has not ended\n")
    assert (await bury_it("j00_" + "0" * 32, "--apply")).code == 2


async def test_a_turn_that_does_not_wait_alone_is_not_buried(
    ledger: Ledger, operator: AsyncOperator, inspector: LedgerInspector
) -> None:
    async def refusal(job_id: str) -> str:
        with pytest.raises(IllegalStep) as caught:
            await operator.bury(job_id)
        return str(caught.value)

    asked = await submit_and_claim(ledger, user_id="bob")
    assert await refusal(asked.job_id) == "its job has not ended"
    turns = [await submit_and_answer(ledger, text) for text in ("one", "two", "three")]
    held = await claim_lane(ledger)
    assert "holds its user's lane" in await refusal(turns[0])
    await ledger.turns.begin(held, *turns[:2])
    assert await refusal(turns[0]) == "its turn is writing"
    await ledger.turns.postpone(held, turns[0], 1, counted=True, code="x", unknown_outcome=True)
    for turn in turns[:2]:
        assert "together with other turns" in await refusal(turn)
    await operator.bury(turns[2])
    dead = await buried(ledger, user_id="cyd")
    assert await refusal(dead) == "it is a dead letter already"
    with pytest.raises(JobNotFound):
        await operator.bury("j00_" + "0" * 32)
    assert inspector.job(turns[0])["turn"] == "pending"


# -- what is kept


async def test_a_dead_letter_keeps_everything_and_says_why(ledger: Ledger) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")

    await bury(ledger, turn_id)

    letter = await ledger.dead_letters.get(turn_id)
    assert (letter.kind, letter.code, letter.fault) == (
        DeadLetterKind.MEMORY,
        "rejected",
        "request",
    )
    assert (letter.attempts, letter.snoozes, letter.replays) == (1, 0, 0)
    assert (letter.tenant, letter.user_id) == ("default", "ann")
    assert (letter.message, letter.reply) == ("I prefer Celsius.", "hi there")
    assert (letter.worker_version, letter.record_version) == ("0.1.0", 1)
    assert letter.submitted_at <= letter.failed_at == letter.buried_at
    assert letter.size > len("I prefer Celsius.")
    assert (await ledger.queries.status(turn_id)).turn is TurnState.DEAD


async def test_it_keeps_its_first_failure_its_snoozes_and_its_event(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger)
    for code, counted in (("storing", False), ("overloaded", False), ("broken", True)):
        held = await claim_lane(ledger)
        await ledger.turns.begin(held, turn_id)
        await ledger.turns.record_event(held, turn_id, "event-7")
        await ledger.turns.postpone(
            held, turn_id, 1, counted=counted, code=code, unknown_outcome=True
        )
        if code == "storing":
            assert "turn_first_failed" not in inspector.job(turn_id), "that is no failure"
        else:
            first = inspector.job(turn_id)["turn_first_failed"]
            inspector.redis.hset(
                inspector.keys.job(turn_id), "turn_first_failed", int(first) - 5000
            )
        inspector.make_due(lane_of())
    await bury(ledger, turn_id)

    letter = await ledger.dead_letters.get(turn_id)
    assert (letter.attempts, letter.snoozes, letter.event_id) == (2, 1, "event-7")
    assert letter.buried_at - letter.failed_at >= timedelta(seconds=10)


async def test_a_failed_job_is_a_dead_letter_too(ledger: Ledger) -> None:
    started = await submit_and_claim(ledger, "hello", user_id="a/b %", tenant="t:1")
    await ledger.jobs.snooze(started, 0, counted=False, code="overloaded")
    again = await claim_job(ledger, started.job_id)
    await ledger.jobs.fail(again, "too_large", Fault.OPERATOR)

    [letter] = [letter async for letter in ledger.dead_letters.select()]
    assert (letter.id, letter.kind) == (started.job_id, DeadLetterKind.REPLY)
    assert (letter.tenant, letter.user_id) == ("t:1", "a/b %")
    assert (letter.code, letter.fault, letter.attempts) == ("too_large", "operator", 1)
    assert (letter.snoozes, letter.worker_version) == (1, __version__)
    assert letter.submitted_at <= letter.failed_at <= letter.buried_at
    assert letter.message is None, "content is given to who asks for it"
    whole = await ledger.dead_letters.get(letter.id)
    assert (whole.message, whole.reply) == ("hello", None)


async def test_a_job_that_crashed_too_often_is_one_as_well(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    for _ in range(3):
        await claim_job(ledger, job_id)
        inspector.make_due(job_id)
    assert await ledger.jobs.claim(job_id, "late") is None
    assert [letter.code async for letter in ledger.dead_letters.select()] == ["crashed_too_often"]
    assert inspector.redis.pttl(inspector.keys.job(job_id)) > 29 * DAY_MS


async def test_other_ends_of_a_job_are_none(ledger: Ledger, inspector: LedgerInspector) -> None:
    await ledger.jobs.cancel(await submit_job(ledger))
    late = await submit_job(ledger)
    inspector.outlive(late)
    await ledger.maintenance.sweep()
    assert (await ledger.queries.status(late)).state is JobState.EXPIRED
    assert await ids(ledger) == []


async def test_burying_twice_buries_once(ledger: Ledger, inspector: LedgerInspector) -> None:
    turn_id = await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn_id)

    for _ in range(2):
        await ledger.turns.bury(held, turn_id, "rejected", Fault.REQUEST, "0.1.0")

    assert await ids(ledger) == [turn_id]
    assert inspector.counts()["turn:dead:default"] == 1


async def test_a_memory_never_expires_and_a_failed_job_in_its_own_time(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    assert inspector.redis.pttl(inspector.keys.job(await buried(ledger))) == -1
    assert (
        29 * DAY_MS < inspector.redis.pttl(inspector.keys.job(await failed(ledger))) <= 30 * DAY_MS
    )


async def test_a_failed_job_whose_time_is_over_is_listed_no_more(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    old = await failed(ledger)
    inspector.redis.delete(inspector.keys.job(old))
    inspector.redis.zadd(inspector.keys.failed_jobs, {old: 0})
    new = await failed(ledger)
    assert await ids(ledger) == [new]
    assert inspector.redis.zrange(inspector.keys.failed_jobs, 0, -1) == [new]


@pytest.mark.finding(31)
async def test_the_overview_counts_failed_jobs_and_dead_turns_apart(ledger: Ledger) -> None:
    async def counted() -> tuple[int, int]:
        (row,) = await ledger.maintenance.overview()
        return row.failed_jobs, row.dead_turns

    lost = [await failed(ledger) for _ in range(3)]
    await buried(ledger)
    assert await counted() == (3, 1)
    await replay_one(ledger, lost[0])
    assert await counted() == (2, 1)


async def test_the_lane_goes_on_after_a_burial(ledger: Ledger) -> None:
    poison, next_one = await submit_and_answer(ledger), await submit_and_answer(ledger)

    await bury(ledger, poison)

    assert [turn.id for turn in (await claim_lane(ledger)).turns] == [next_one]


async def test_an_unknown_dead_letter_is_not_found(ledger: Ledger) -> None:
    unknown = f"j00_{0:032x}"
    for name in (unknown, await submit_and_answer(ledger), "nonsense"):
        with pytest.raises(JobNotFound):
            await ledger.dead_letters.get(name)
    assert (
        await ledger.dead_letters.replay(DeadLetterRef(unknown, DeadLetterKind.MEMORY, 0), "r")
        is ReplayOutcome.GONE
    )
    assert (
        await ledger.dead_letters.replay(DeadLetterRef(unknown, DeadLetterKind.REPLY, 0), "r")
        is ReplayOutcome.GONE
    )
    assert not await ledger.dead_letters.discard(DeadLetterRef(unknown, DeadLetterKind.MEMORY, 0))


# -- which


@pytest.mark.parametrize("page", [1, 2, 3, 1000])
async def test_dead_letters_are_listed_oldest_burial_first_over_all_pages(
    ledger: Ledger, inspector: LedgerInspector, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(dead_module, "_PAGE", page)
    monkeypatch.setattr(dead_module, "_BATCH", 2)
    turns = sorted([await submit_and_answer(ledger) for _ in range(5)])
    await bury(ledger, *turns)
    jobs = sorted([await failed(ledger) for _ in range(3)])
    times = dict(zip(turns, (10, 20, 20, 20, 30), strict=True))
    inspector.redis.zadd(inspector.keys.dead_turns, times)
    inspector.redis.zadd(inspector.keys.failed_jobs, dict(zip(jobs, (15, 25, 35), strict=True)))

    expected = [turns[0], jobs[0], *turns[1:4], jobs[1], turns[4], jobs[2]]
    assert await ids(ledger) == expected
    assert await ids(ledger, kind=DeadLetterKind.MEMORY) == turns
    assert await ids(ledger, kind=DeadLetterKind.REPLY) == jobs
    assert await ids(ledger, limit=3) == expected[:3]


async def test_dead_letters_removed_meanwhile_hide_no_others(
    ledger: Ledger, inspector: LedgerInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_module, "_PAGE", 2)
    monkeypatch.setattr(dead_module, "_BATCH", 1)
    turns = [await submit_and_answer(ledger) for _ in range(8)]
    await bury(ledger, *turns)
    inspector.redis.zadd(
        inspector.keys.dead_turns, {turn: place for place, turn in enumerate(turns)}
    )
    seen = []
    async for letter in ledger.dead_letters.select():
        seen.append(letter.id)
        await ledger.dead_letters.replay(letter.ref, "r")
    assert seen == turns


LETTER = DeadLetter(
    id=f"j00_{1:032x}", kind=DeadLetterKind.MEMORY, tenant="acme", user_id="ann",
    submitted_at=datetime(2026, 11, 1, tzinfo=UTC), failed_at=datetime(2026, 11, 1, tzinfo=UTC),
    buried_at=datetime(2026, 11, 2, tzinfo=UTC), code="mem0_rejected", fault="request",
    attempts=1, snoozes=0, replays=0, worker_version="0.1.0", event_id=None, record_version=1,
    size=9,
)  # fmt: skip
NOW = datetime(2026, 11, 3, tzinfo=UTC)
DAY = 86_400.0

LET_THROUGH = [
    DeadLetterFilter(),
    DeadLetterFilter(kind=DeadLetterKind.MEMORY, tenant="acme", user_id="ann", fault=Fault.REQUEST),
    DeadLetterFilter(code="REJECT", worker_version="0.1.0"),
    DeadLetterFilter(since=LETTER.buried_at, until=NOW),
    DeadLetterFilter(older_than_s=DAY),
    DeadLetterFilter(code="mem0"),
    DeadLetterFilter(ids=(LETTER.id,)),
]
STOPPED = [
    DeadLetterFilter(kind=DeadLetterKind.REPLY),
    DeadLetterFilter(tenant="acm"),
    DeadLetterFilter(tenant="default"),
    DeadLetterFilter(user_id="an"),
    DeadLetterFilter(user_id="anna"),
    DeadLetterFilter(fault=Fault.PROVIDER),
    DeadLetterFilter(code="timeout"),
    DeadLetterFilter(worker_version="0.1"),
    DeadLetterFilter(since=NOW),
    DeadLetterFilter(until=LETTER.buried_at),
    DeadLetterFilter(older_than_s=DAY + 1),
    DeadLetterFilter(ids=(f"j00_{2:032x}",)),
]


@pytest.mark.parametrize("these", LET_THROUGH)
def test_a_filter_selects_what_matches_all_its_fields(these: DeadLetterFilter) -> None:
    assert these.matches(LETTER, NOW)


def test_a_burial_that_a_clock_set_back_puts_into_the_future_is_not_hidden() -> None:
    assert DeadLetterFilter().matches(LETTER, LETTER.buried_at - timedelta(days=1))


@pytest.mark.parametrize("these", STOPPED)
def test_one_field_that_does_not_match_excludes_a_letter(these: DeadLetterFilter) -> None:
    assert not these.matches(LETTER, NOW)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant", ""), ("user_id", ""), ("code", ""), ("worker_version", ""),
        ("since", datetime(2026, 1, 1)), ("limit", 0), ("older_than_s", -1.0),  # noqa: DTZ001
        ("older_than_s", float("nan")),
    ],
)  # fmt: skip
def test_a_filter_that_can_match_nothing_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        DeadLetterFilter(**{field: value})  # type: ignore[arg-type]
    assert refused.value.field == field


async def test_a_user_or_tenant_whose_name_begins_alike_is_another_one(ledger: Ledger) -> None:
    mine = await buried(ledger, user_id="ann")
    await buried(ledger, user_id="anna")
    other = await submit_and_answer(ledger, user_id="ann", tenant="default2")
    held = await claim_lane(ledger, lane_of("ann", "default2"))
    await ledger.turns.begin(held, other)
    await ledger.turns.bury(held, other, "rejected", Fault.REQUEST, "0.1.0")
    assert await ids(ledger, user_id="ann", tenant="default") == [mine]
    assert await ids(ledger, tenant="default2") == [other]


# -- replay of a memory


async def test_a_replayed_turn_goes_back_to_its_place(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first, second, third = [await submit_and_answer(ledger) for _ in range(3)]
    await bury(ledger, first, second)
    inspector.drop_hints()

    await replay_one(ledger, second)
    await replay_one(ledger, first)

    assert inspector.lane(lane_of()) == [first, second, third]
    assert await ids(ledger) == []
    assert [turn.id for turn in (await claim_lane(ledger)).turns] == [first, second, third]


async def test_a_replayed_turn_starts_over_and_is_counted(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await buried(ledger)
    inspector.drop_hints()

    assert await replay_one(ledger, turn_id) is ReplayOutcome.WAITING

    assert inspector.hinted("memories.0") == [lane_of()]
    held = await claim_lane(ledger)
    assert held.turns[0].attempts == 0
    assert await ledger.turns.begin(held, turn_id), "it may have been stored before its burial"
    await ledger.turns.bury(held, turn_id, "rejected", Fault.REQUEST, "0.1.0")
    assert (await ledger.dead_letters.get(turn_id)).replays == 1


async def test_one_run_replays_a_letter_once_even_if_it_is_buried_again(ledger: Ledger) -> None:
    turn_id = await buried(ledger)
    letter = await chosen(ledger, turn_id)
    for _ in range(2):
        assert await ledger.dead_letters.replay(letter, "mine") is ReplayOutcome.WAITING
    await bury(ledger, turn_id)
    assert await ledger.dead_letters.replay(letter, "mine") is ReplayOutcome.WAITING
    assert await ids(ledger) == [turn_id], "asked again, it is not done again"
    assert await ledger.dead_letters.replay_outcomes([turn_id], "mine") == {
        turn_id: ReplayOutcome.DEAD
    }


async def test_only_one_of_two_runs_replays_a_dead_letter(ledger: Ledger) -> None:
    turn_id = await buried(ledger)
    letter = await chosen(ledger, turn_id)
    found = await asyncio.gather(
        *(ledger.dead_letters.replay(letter, f"run-{n}") for n in range(5))
    )
    assert sorted(found) == [ReplayOutcome.REFUSED] * 4 + [ReplayOutcome.WAITING]
    await bury(ledger, turn_id)
    assert await ledger.dead_letters.replay(letter, "late") is ReplayOutcome.REFUSED, (
        "it is another one by now"
    )
    assert (
        await ledger.dead_letters.replay(await chosen(ledger, turn_id), "late")
        is ReplayOutcome.WAITING
    )


async def test_a_turn_of_an_erased_user_is_refused(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await buried(ledger)
    letter = await chosen(ledger, turn_id)
    inspector.redis.hset(inspector.keys.job(turn_id), "turn", "erased")
    assert await ledger.dead_letters.replay(letter, "r") is ReplayOutcome.ERASED
    assert inspector.lane(lane_of()) == []
    assert await ids(ledger) == []


@pytest.mark.parametrize("end", [TurnState.STORED, TurnState.NOTHING])
async def test_the_outcome_of_a_replay_is_told(ledger: Ledger, end: TurnState) -> None:
    turn_id = await buried(ledger)
    await ledger.dead_letters.replay(await chosen(ledger, turn_id), "r")
    assert await ledger.dead_letters.replay_outcomes([turn_id], "r") == {
        turn_id: ReplayOutcome.WAITING
    }
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn_id)
    await ledger.turns.settle(held, turn_id, end)
    assert await ledger.dead_letters.replay_outcomes([turn_id], "r") == {
        turn_id: ReplayOutcome(end)
    }


# -- replay of a reply


async def test_a_failed_job_is_replayed_as_a_new_one_of_its_own_time(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    old = await failed(ledger, "I prefer Celsius.", conversation_id="c", priority="low")
    before = inspector.job(old)
    letter = await chosen(ledger, old)

    for _ in range(2):
        assert await ledger.dead_letters.replay(letter, "r") is ReplayOutcome.WAITING

    new = inspector.job(old)["replayed_as"]
    record = inspector.job(new)
    assert (record["state"], record["replay_of"]) == ("queued", old)
    assert (record["body"], record["created"]) == (before["body"], before["created"])
    assert record["agenda"] == before["agenda"]
    assert inspector.job(old)["state"] == "failed", "it has ended for good (I1)"
    assert await ids(ledger) == []
    assert (await ledger.dead_letters.get(old)).replayed_as == new
    assert await ledger.dead_letters.replay(letter, "another") is ReplayOutcome.REFUSED
    assert await ledger.dead_letters.replay_outcomes([old], "r") == {old: ReplayOutcome.WAITING}
    held = await claim_job(ledger, new)
    await ledger.jobs.finish(held, reply_to(held))
    assert await ledger.dead_letters.replay_outcomes([old], "r") == {old: ReplayOutcome.ANSWERED}
    assert (await claim_lane(ledger)).turns[0].at == letter_time(before)


def letter_time(record: dict[str, str]) -> datetime:
    return datetime.fromtimestamp(int(record["created"]) / 1000, UTC)


async def test_several_operators_submit_one_job(ledger: Ledger, inspector: LedgerInspector) -> None:
    letter = await chosen(ledger, await failed(ledger))
    found = await asyncio.gather(
        *(ledger.dead_letters.replay(letter, f"run-{n}") for n in range(5))
    )
    assert sorted(found) == [ReplayOutcome.REFUSED] * 4 + [ReplayOutcome.WAITING]
    assert inspector.counts()["job:queued:default"] == 1


async def test_a_replay_ends_no_other_job_of_its_conversation(ledger: Ledger) -> None:
    said = {"conversation_id": "c", "user_id": "ann"}
    old = await failed(ledger, "first", when_busy="interrupt", **said)
    newer = await submit_job(ledger, "second", **said)
    assert await replay_one(ledger, old) is ReplayOutcome.WAITING
    assert (await ledger.queries.status(newer)).state is JobState.QUEUED


async def test_a_job_that_fails_again_is_a_letter_of_its_own(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    old = await failed(ledger)
    await ledger.dead_letters.replay(await chosen(ledger, old), "r")
    new = inspector.job(old)["replayed_as"]
    await ledger.jobs.fail(await claim_job(ledger, new), "too_large")
    assert await ledger.dead_letters.replay_outcomes([old], "r") == {old: ReplayOutcome.DEAD}
    assert await ids(ledger) == [new]


async def test_a_job_that_cannot_be_read_is_refused(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    old = await failed(ledger)
    inspector.redis.hset(inspector.keys.job(old), "body", '{"user_id": "ann"}')
    assert (
        await ledger.dead_letters.replay(DeadLetterRef(old, DeadLetterKind.REPLY, 0), "r")
        is ReplayOutcome.REFUSED
    )


# -- discard


@pytest.mark.parametrize("kind", [DeadLetterKind.MEMORY, DeadLetterKind.REPLY])
async def test_a_discarded_dead_letter_is_gone_for_good(
    ledger: Ledger, inspector: LedgerInspector, kind: DeadLetterKind
) -> None:
    letter_id = await (buried(ledger) if kind is DeadLetterKind.MEMORY else failed(ledger))
    letter = await chosen(ledger, letter_id)

    assert await ledger.dead_letters.discard(letter)

    assert await ids(ledger) == []
    assert not await ledger.dead_letters.discard(letter)
    assert await ledger.dead_letters.replay(letter, "r") is ReplayOutcome.REFUSED
    assert 0 < inspector.redis.pttl(inspector.keys.job(letter_id)) <= DAY_MS
    status = await ledger.queries.status(letter_id)
    if kind is DeadLetterKind.MEMORY:
        assert (status.turn, status.turn_code) == (TurnState.SKIPPED, "discarded")
    else:
        assert (status.state, status.code) == (JobState.FAILED, "too_large")


async def test_a_dead_letter_replayed_meanwhile_is_not_discarded(ledger: Ledger) -> None:
    turn_id = await buried(ledger)
    letter = await chosen(ledger, turn_id)
    await replay_one(ledger, turn_id)
    await bury(ledger, turn_id)
    assert not await ledger.dead_letters.discard(letter)
    assert await ids(ledger) == [turn_id]


# -- how long failed jobs are kept


async def test_the_lifetime_of_failed_jobs_is_a_setting(
    settings: Settings, inspector: LedgerInspector
) -> None:
    short = settings.model_copy(update={"dead_retention_s": 60.0})
    async with Ledger(short, patience_s=5) as ledger:
        assert 0 < inspector.redis.pttl(inspector.keys.job(await failed(ledger))) <= 60_000


async def test_a_replayed_job_goes_on_in_the_trace_of_the_failed_one(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    first = await submit_and_claim(ledger, trace_context=context_of({"traceparent": parent}))
    await ledger.jobs.fail(first, "boom")

    await replay_one(ledger, first.job_id)

    again = await claim_job(ledger, inspector.job(first.job_id)["replayed_as"])
    assert (again.trace, again.previous) == (parent, "")
