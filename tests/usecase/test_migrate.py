"""A migration of memories, stopped anywhere: neither a gap nor a double, and nobody comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from afterword.shared.errors import (
    AccessDenied,
    IllegalStep,
    LeaseLost,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import memory_key
from afterword.workers.memories import migrate
from afterword.workers.memories.migrate import (
    TRIES,
    Counts,
    MemoryMigration,
    PauseMemories,
    Progress,
    Rules,
)
from afterword.workers.ports import RecalledMemory, Turn
from tests.kit.fakes.memory import Call, FakeMemories, Verb
from tests.kit.ledger.builder import LedgerInspector, lane_of

pytestmark = pytest.mark.redis

ANN, BEN = memory_key("default", "ann"), memory_key("acme", "b/en")
AT = datetime(2026, 5, 8, tzinfo=UTC)


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Time:
    """A clock that only a sleep moves."""

    at: float = 0.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds


class MortalMemories(FakeMemories):
    """Lets the process be killed before or after one of its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.kill_at: int | None = None
        self.wrote = 0

    async def copy(self, owner: str, memory: RecalledMemory) -> Sequence[str]:
        self._count()
        copied = await super().copy(owner, memory)
        self._count()
        return copied

    def _count(self) -> None:
        self.wrote += 1
        if self.wrote == self.kill_at:
            raise Killed


class Move:
    """A migration between two fakes, beside a real ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.source, self.target = FakeMemories(), MortalMemories()
        self.time = Time()
        self.apply = True
        self.named: list[tuple[str, Counts]] = []
        self.waited: list[tuple[float, str]] = []

    async def say(self, owner: str, *texts: str) -> None:
        for number, text in enumerate(texts):
            at = AT + timedelta(minutes=len(self.source.rows))
            turn = Turn(f"{owner} {text} {number}", text, "", at, "c1", stored_by="host:1")
            await self.source.add(owner, turn)

    async def run(self, name: str = "m", pause_memories: PauseMemories | None = None) -> Progress:
        lease = await self.ledger.migrations.begin(name)

        async def keep(progress: Progress) -> None:
            await lease.keep(progress.model_dump_json())

        migration = self.migration(keep)
        try:
            return await migration.run(Progress.read(lease.progress), pause_memories)
        finally:
            await lease.leave()

    def migration(self, keep: object = None) -> MemoryMigration:
        named, waited = self.named, self.waited
        rules = Rules(
            *(10, 1, self.apply),
            visible_s=7.0,
            now=self.time.now,
            sleep=self.time.sleep,
            on_wait=lambda seconds, code: waited.append((seconds, code)),
        )
        return MemoryMigration(
            self.source,
            self.target,
            self.ledger.erasures,
            rules,
            keep,  # type: ignore[arg-type]
            lambda owner, counts: named.append((owner, counts)),
        )

    def check_equal(self) -> None:
        for owner in (ANN, BEN):
            here, there = (
                [row for row in each.rows if row.owner == owner]
                for each in (self.source, self.target)
            )
            assert [bare(row) for row in there] == [bare(row) for row in here]
            assert [row.copied_from for row in there] == [row.id for row in here]


def calls_of(memories: FakeMemories, *verbs: Verb) -> list[Call]:
    return [call for call in memories.calls if call.verb in verbs]


def bare(row: RecalledMemory) -> RecalledMemory:
    return replace(row, id="", score=None, copied_from=None)


@pytest.fixture
async def move(ledger: Ledger) -> Move:
    made = Move(ledger)
    await made.say(ANN, "I drink tea.", "I live in Oslo.", "I play cello.")
    await made.say(BEN, "My dog is Rex.", "My dog is Rex.")
    return made


async def test_all_is_copied_in_order_and_a_second_pass_verifies_it(move: Move) -> None:
    done = await move.run()
    move.check_equal()
    assert done.counts == Counts(users=2, memories=5, present=5)
    assert (done.counts.equal, done.number) == (True, 2)
    assert not calls_of(move.source, "copy", "edit", "remove", "forget")


async def test_what_is_stored_until_all_is_quiet_is_copied(move: Move) -> None:
    async def pause_memories(_: object) -> None:
        if not calls_of(move.source, "add")[5:]:
            await move.say(ANN, "I moved to Bergen.")

    done = await move.run(pause_memories=pause_memories)

    move.check_equal()
    assert done.counts.equal
    assert done.number == 3, "all, what came meanwhile, and the proof"


async def test_all_is_quiet_in_each_pass_but_the_first_of_all(move: Move) -> None:
    """Also in that of a run that goes on where one was killed."""
    passes = list[int]()

    async def pause_memories(_: object) -> None:
        passes.append(len(calls_of(move.source, "owners")))
        if len(passes) == 1:
            raise Killed

    with pytest.raises(Killed):
        await move.run(pause_memories=pause_memories)
    done = await move.run(pause_memories=pause_memories)

    assert done.counts.equal
    assert passes == [1, 1], "before anything of the second pass was listed"


async def test_without_apply_nothing_is_written(move: Move) -> None:
    move.apply = False
    found = await move.migration().run(Progress())
    assert (found.counts.copied, found.counts.memories, found.counts.equal) == (5, 5, False)
    assert move.target.rows == []


@pytest.mark.parametrize("at", range(1, 11))
async def test_killed_anywhere_and_run_again_it_leaves_neither_gap_nor_double(
    move: Move, at: int
) -> None:
    move.target.kill_at = at
    with pytest.raises(Killed):
        await move.run()
    done = await move.run()
    assert done.counts.equal
    move.check_equal()


async def test_a_run_goes_on_behind_the_users_that_were_done(move: Move) -> None:
    for number in range(60):
        await move.say(memory_key("t", f"u{number:02}"), "I drink tea.")
    move.target.kill_at = 2 * 60  # in the second page of users
    with pytest.raises(Killed):
        await move.run()
    before = len(calls_of(move.source, "page"))
    move.source.calls.clear()
    assert (await move.run()).counts.equal
    move_on = [one.owner for one in calls_of(move.source, "page")]
    assert before >= 50
    assert move_on.count(ANN) == 3, "once less than in a run of two passes from the beginning"
    assert sorted(row.owner for row in move.target.rows) == sorted(
        row.owner for row in move.source.rows
    )


async def test_what_was_changed_meanwhile_is_changed_in_the_target(move: Move) -> None:
    await move.run()
    tea, oslo, *_ = move.source.rows
    await move.source.edit(ANN, tea.id, "I drink coffee.")
    await move.source.remove(ANN, [oslo.id])
    await move.say(ANN, "I moved.")
    done = await move.run()
    assert (done.counts.equal, done.number) == (True, 2)
    texts = [row.text for row in move.target.rows if row.owner == ANN]
    assert texts == ["I drink coffee.", "I play cello.", "I moved."]


async def test_a_user_who_is_gone_from_the_source_is_gone_from_the_target(move: Move) -> None:
    await move.run()
    await move.source.forget(BEN)
    assert (await move.run()).counts.equal
    assert {row.owner for row in move.target.rows} == {ANN}


async def test_a_source_without_anything_is_refused_and_removes_nothing(move: Move) -> None:
    await move.run()
    move.source.rows.clear()
    with pytest.raises(IllegalStep, match="holds no memories"):
        await move.run()
    assert len(move.target.rows) == 5


async def test_a_user_who_is_being_erased_is_left_out(move: Move) -> None:
    await move.run()
    await move.ledger.erasures.begin(lane_of("b/en", tenant="acme"), "op")
    done = await move.run()
    assert (done.counts.erased, done.counts.equal) == (1, True)
    assert {row.owner for row in move.target.rows} == {ANN}


async def test_a_user_who_asks_to_be_forgotten_while_copied_does_not_come_back(move: Move) -> None:
    hang = move.target.hang("copy")
    running = asyncio.create_task(move.run())
    await hang.reached.wait()
    await move.ledger.erasures.begin(lane_of("ann"), "op")
    hang.released.set()
    done = await running
    assert done.counts.erased == 1
    assert {row.owner for row in move.target.rows} == {BEN}


async def test_a_user_who_asks_to_be_forgotten_in_the_last_pass_is_left_out(move: Move) -> None:
    await move.run()
    hang = move.target.hang("page")  # Ben's, who is compared first
    running = asyncio.create_task(move.run())
    await hang.reached.wait()
    await move.ledger.erasures.begin(lane_of("b/en", tenant="acme"), "op")
    hang.released.set()
    done = await running
    assert (done.number, done.counts.erased, done.counts.copied) == (1, 1, 0)
    assert {row.owner for row in move.target.rows} == {ANN}


async def test_a_backend_that_is_away_is_waited_for(move: Move) -> None:
    move.target.fail("copy", RateLimited("rate_limited", retry_after_s=9.0))
    move.source.fail("page", Unavailable("overloaded"), times=2)
    assert (await move.run()).counts.equal
    move.check_equal()
    assert 9.0 in move.time.slept
    assert move.waited == [(1.0, "overloaded"), (2.0, "overloaded"), (9.0, "rate_limited")]


async def test_a_copy_whose_outcome_is_unknown_is_looked_for_when_it_is_visible(move: Move) -> None:
    move.target.fail_after("copy", Unavailable("too_slow", unknown_outcome=True))
    assert (await move.run()).counts.equal
    move.check_equal()
    assert 7.0 in move.time.slept


@pytest.mark.parametrize(("verb", "behind"), [("copy", 1), ("edit", 1), ("remove", 2)])
@pytest.mark.parametrize("is_done", [False, True])
async def test_what_was_done_before_a_retry_is_counted_once(
    move: Move, monkeypatch: pytest.MonkeyPatch, verb: Verb, behind: int, is_done: bool
) -> None:
    """Be it that an earlier write was answered, or that this one's answer is lost."""
    await move.run()
    tea, oslo, cello, *_ = move.source.rows
    await move.source.edit(ANN, tea.id, "I drink coffee.")
    await move.source.edit(ANN, oslo.id, "I live in Porto.")
    await move.source.remove(ANN, [cello.id])
    await move.say(ANN, "I moved.", "I sing.")
    await move.source.forget(BEN)
    if is_done:
        move.target.fail_after(verb, Unavailable("too_slow", unknown_outcome=True))
    else:
        for _ in range(behind):
            move.target.hang(verb).released.set()
        move.target.fail(verb, Unavailable("overloaded"))
    monkeypatch.setattr(migrate, "MOST_PASSES", 1)
    done = (await move.run()).counts
    assert (done.copied, done.edited, done.removed) == (2, 2, 3)
    assert done.present == done.memories == 4
    assert move.waited, "there was a retry"


async def test_a_backend_that_stays_away_ends_the_run_and_the_next_goes_on(move: Move) -> None:
    move.target.fail("copy", Unavailable("overloaded"), times=TRIES)
    with pytest.raises(Unavailable):
        await move.run()
    assert (await move.run()).counts.equal
    move.check_equal()


async def test_a_key_that_is_refused_ends_the_run_at_once(move: Move) -> None:
    move.target.fail("copy", AccessDenied("key_refused"))
    with pytest.raises(AccessDenied):
        await move.run()
    assert max(move.time.slept, default=0) <= 1


async def test_a_memory_that_the_target_refuses_is_named_and_the_rest_is_copied(move: Move) -> None:
    move.target.fail("copy", Rejected("too_large"), times=3)
    done = await move.run()
    assert done.counts.equal, "refused in the first pass, copied in the second"
    move.target.rows.clear()
    move.target.fail("copy", Rejected("too_large"), times=99)
    done = await move.run()
    assert (done.counts.refused, done.counts.equal) == (5, False)
    assert {owner for owner, _ in move.named} == {ANN, BEN}


async def test_what_the_target_has_of_its_own_is_named_and_kept(move: Move) -> None:
    await move.target.add(ANN, Turn("t", "I like jazz.", "", AT))
    done = await move.run()
    assert (done.counts.own, done.counts.equal) == (1, False)
    assert move.named[-1][0] == ANN
    assert "I like jazz." in [row.text for row in move.target.rows]


async def test_rows_that_cannot_be_read_are_counted(move: Move) -> None:
    move.source.malformed = 2
    done = await move.run()
    assert done.counts.unreadable
    assert not done.counts.equal


async def test_owners_of_other_programs_are_left_alone(move: Move) -> None:
    for stranger in ("agent-7", "a/b/c", "default/a b"):
        await move.say(stranger, "I am none of yours.")
    done = await move.run()
    assert (done.counts.strangers, done.counts.equal) == (3, True)
    assert {row.owner for row in move.target.rows} == {ANN, BEN}


async def test_calls_are_no_faster_than_the_rate(move: Move) -> None:
    await move.run()
    calls = [*move.source.calls, *move.target.calls]
    assert move.time.at == pytest.approx((len(calls) - len(calls_of(move.source, "add")) - 1) / 10)


async def test_one_process_works_at_a_migration_at_a_time(
    move: Move, inspector: LedgerInspector
) -> None:
    first = await move.ledger.migrations.begin("m")
    with pytest.raises(IllegalStep):
        await move.ledger.migrations.begin("m")
    await move.ledger.migrations.begin("another")
    inspector.redis.hset(inspector.keys.migration("m"), "until", 0)
    second = await move.ledger.migrations.begin("m")
    with pytest.raises(LeaseLost):
        await first.keep("{}")
    await second.leave()
    await move.ledger.migrations.begin("m")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"number": "x"}', '{"over": true, "number": 3}'])
def test_a_progress_that_cannot_be_read_or_is_over_begins_anew(text: str) -> None:
    assert Progress.read(text) == Progress()


def test_a_progress_of_a_later_version_is_read() -> None:
    found = Progress.read('{"number": 2, "cursor": "7", "later": 1, "counts": {"users": 3}}')
    assert (found.number, found.cursor, found.counts.users) == (2, "7", 3)
