"""Replay: a dry run first, then a canary, at a set rate; it can be aborted and resumed."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from afterword.producer import (
    AsyncOperator,
    DeadLetterFilter,
    DiscardResult,
    Operator,
    ReplayOutcome,
    ReplayPace,
    ReplayRun,
    ReplayState,
)
from afterword.producer.admin.replay_driver import ProgressCallback
from afterword.shared.errors import IllegalStep, InvalidRequest, JobNotFound, LeaseLost
from afterword.shared.ledger.dead_letter_records import DeadLetterKind
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import lane_id, memory_key, shard_in, shard_of
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    replay_one,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)
from tests.kit.ledger.lane_drainer import LaneDrainer

pytestmark = pytest.mark.redis

USERS = ("ann", "bob", "cyd")
FAST = ReplayPace(rate=1000)
SOON = ReplayPace(rate=1000, stall_timeout_s=1)


@pytest.fixture(params=[1, 3])
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update={"shards": request.param})


@pytest.fixture
async def operator(settings: Settings) -> AsyncIterator[AsyncOperator]:
    async with AsyncOperator(settings, by="olga@ops") as opened:
        yield opened


def lane(ledger: Ledger, user: str) -> str:
    owner = memory_key("default", user)
    return lane_id(owner, shard_of(owner, ledger.settings.shards))


@pytest.fixture
def drainer(ledger: Ledger) -> LaneDrainer:
    return LaneDrainer(ledger, [lane(ledger, user) for user in USERS])


@pytest.fixture
async def letters(ledger: Ledger) -> list[str]:
    """Create twelve dead letters of three users, oldest first."""
    turns = [await submit_and_answer(ledger, user_id=USERS[number % 3]) for number in range(12)]
    gravedigger = LaneDrainer(ledger, [lane(ledger, user) for user in USERS], lambda _: True)
    await gravedigger.write_all()
    for age_s, name in enumerate(reversed(turns), 1):  # else some were said in one millisecond
        inspector = LedgerInspector(ledger.settings, shard_in(name))
        inspector.redis.hincrby(inspector.keys.job(name), "created", -1000 * age_s)
    return turns


async def dead(ledger: Ledger) -> set[str]:
    return {letter.id async for letter in ledger.dead_letters.select()}


def whole(inspector: LedgerInspector) -> dict[str, bytes]:
    """Return all that Redis holds for this test, as it would be stored."""
    raw = inspector.redis.connection_pool.connection_kwargs | {"decode_responses": False}
    client = type(inspector.redis)(
        **{name: raw[name] for name in ("host", "port", "db") if name in raw}
    )
    root = inspector.keys.root.partition(":")[0]
    with client:
        return {key: client.dump(key) for key in client.scan_iter(f"{root}:*", count=1000)}


def after(outcomes: int, do: Callable[[], object]) -> ProgressCallback:
    """Return a callback that does something once so many letters were checked."""
    done: list[bool] = []

    def watch(run: ReplayRun) -> None:
        if run.dead_letters - run.left >= outcomes and not done:
            done.append(True)
            do()

    return watch


# -- dry


async def test_looking_and_dry_runs_change_nothing(
    ledger: Ledger, operator: AsyncOperator, inspector: LedgerInspector, letters: list[str]
) -> None:
    await ledger.jobs.fail(await submit_and_claim(ledger), "broken")
    before = whole(inspector)
    assert len(before) > len(letters)

    plan = await operator.plan(DeadLetterFilter(), FAST)
    run = await operator.replay(plan)
    found = await operator.discard(DeadLetterFilter(user_id="ann"))
    listed = [letter async for letter in operator.dead_letters(content=True)]
    await operator.dead_letter(letters[0])
    assert (await operator.replay_runs(), await operator.audit()) == ([], [])

    assert whole(inspector) == before
    assert (run.state, run.id, run.dead_letters, run.left) == (ReplayState.DRY, "", 13, 13)
    assert (found.state, found.dead_letters, found.discarded) == (ReplayState.DRY, 5, 0)
    assert len(listed) == 13


async def test_a_plan_counts_and_holds_what_it_saw(
    ledger: Ledger, operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    failed = await submit_and_claim(ledger, user_id="dan")
    await ledger.jobs.fail(failed, "too_large")

    plan = await operator.plan(DeadLetterFilter(), FAST)

    assert (plan.turns, plan.jobs, plan.users) == (12, 1, 4)
    assert plan.reasons == {"rejected": 12, "too_large": 1}
    assert [letter.id for letter in plan.dead_letters] == [*letters, failed.job_id], (
        "oldest said first"
    )
    only = await operator.plan(
        DeadLetterFilter(kind=DeadLetterKind.MEMORY, user_id="ann", limit=2), FAST
    )
    assert {letter.id for letter in only.dead_letters} <= set(letters[::3])
    assert len(only.dead_letters) == 2
    later = await submit_and_answer(ledger, user_id="ann")
    await LaneDrainer(ledger, [lane(ledger, "ann")], lambda _: True).write_all()
    async with drainer:
        await operator.replay(only, apply=True)
    assert later in await dead(ledger), "it was not in the plan"


async def test_a_named_dead_letter_must_exist(
    operator: AsyncOperator, letters: list[str], ledger: Ledger
) -> None:
    await replay_one(ledger, letters[0])
    gone = letters[0]
    for name in (gone, f"j00_{0:032x}", "banana", "x" * 100):
        named = DeadLetterFilter(ids=(letters[1], name))
        for ask in (
            lambda named=named: operator.plan(named),
            lambda named=named: operator.discard(named, apply=True),
            lambda named=named: anext(operator.dead_letters(named)),
        ):
            with pytest.raises(InvalidRequest, match=name[:64]) as refused:
                await ask()
            assert refused.value.field == "ids"
    assert [letter.id async for letter in operator.dead_letters(only(letters[1]))] == [letters[1]]
    assert letters[1] in await dead(ledger)


def only(letter_id: str) -> DeadLetterFilter:
    return DeadLetterFilter(ids=(letter_id,))


async def test_nothing_to_replay_begins_no_run(operator: AsyncOperator) -> None:
    run = await operator.replay(await operator.plan(), apply=True)
    assert (run.state, run.dead_letters) == (ReplayState.DONE, 0)
    assert (await operator.replay_runs(), await operator.audit()) == ([], [])


@pytest.mark.parametrize(
    ("field", "value"),
    [("rate", 0), ("rate", float("nan")), ("canary", -1), ("max_dead", 0), ("stall_timeout_s", 0)],
)
def test_a_pace_that_cannot_be_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ReplayPace(**{field: value})  # type: ignore[arg-type]
    assert refused.value.field == field


# -- go


async def test_a_run_replays_all_once_waits_for_them_and_says_so(
    ledger: Ledger, operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    plan = await operator.plan(DeadLetterFilter(code="reject"), FAST)
    async with drainer:
        run = await operator.replay(plan, apply=True)

    assert (run.state, run.reason, run.left) == (ReplayState.DONE, "", 0)
    assert run.outcomes == {ReplayOutcome.STORED: 12}
    assert drainer.added == Counter(letters)
    assert await dead(ledger) == set()
    kept = await operator.replay_run(run.id)
    assert (kept.by, kept.dead_letters, kept.state) == ("olga@ops", 12, ReplayState.DONE)
    assert kept.outcomes == {ReplayOutcome.STORED: 12}
    assert kept.filter == {"code": "reject"}
    assert await operator.replay_outcomes(run.id) == dict.fromkeys(letters, ReplayOutcome.STORED)
    assert [one.id for one in await operator.replay_runs()] == [run.id]


async def test_the_audit_says_who_did_what(
    operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    async with drainer:
        run = await operator.replay(
            await operator.plan(DeadLetterFilter(limit=2), FAST), apply=True
        )
    await operator.discard(DeadLetterFilter(user_id="cyd", limit=1), apply=True)

    audit_entries = [(one.by, one.action, one.details) for one in reversed(await operator.audit())]
    assert audit_entries == [
        ("olga@ops", "replay", {"filter": {"limit": 2}, "dead_letters": 2}),
        ("olga@ops", "done", {"reason": "", "stored": 2}),
        ("olga@ops", "discard", {"filter": {"user_id": "cyd", "limit": 1}, "dead_letters": 1}),
        ("olga@ops", "discarded", {"discarded": 1, "refused": 0}),
    ]
    assert (await operator.audit())[-1].run_id == run.id


async def test_a_note_in_the_audit_is_made_once(ledger: Ledger, operator: AsyncOperator) -> None:
    for _ in range(2):
        await ledger.replay_runs.add_audit_entry("olga", "erase", {"a": 1}, "token")
    assert [audit_entry.action for audit_entry in await operator.audit()] == ["erase"]


async def test_discarded_turns_are_never_stored(
    ledger: Ledger, operator: AsyncOperator, letters: list[str]
) -> None:
    found = await operator.discard(DeadLetterFilter(user_id="bob"), apply=True)
    assert found == DiscardResult(ReplayState.DONE, dead_letters=4, discarded=4)
    assert await dead(ledger) == {one for at, one in enumerate(letters) if at % 3 != 1}


async def test_a_canary_that_is_buried_again_stops_the_run_and_the_rest_is_untouched(
    operator: AsyncOperator,
    inspector: LedgerInspector,
    letters: list[str],
    drainer: LaneDrainer,
    settings: Settings,
) -> None:
    drainer.rejects = lambda _: True
    inspectors = [LedgerInspector(settings, shard) for shard in range(settings.shards)]
    before = {name: one.job(name) for name in letters for one in inspectors if one.job(name)}
    async with drainer:
        run = await operator.replay(await operator.plan(None, FAST), apply=True)

    assert (run.state, run.reason) == (ReplayState.STOPPED, "canary_buried")
    assert (run.outcomes[ReplayOutcome.DEAD], run.left) == (1, 11)
    now = {name: one.job(name) for name in letters for one in inspectors if one.job(name)}
    assert {name for name in letters if now[name] != before[name]} == {letters[0]}
    assert (await operator.replay_run(run.id)).reason == "canary_buried"
    drainer.rejects = lambda _: False
    async with drainer:
        again = await operator.resume(run.id)
    assert again.state is ReplayState.DONE
    assert again.outcomes == {ReplayOutcome.DEAD: 1, ReplayOutcome.STORED: 11}
    assert drainer.added == Counter(letters[1:]), "each letter is replayed once a run"


async def test_the_rest_waits_for_the_whole_canary(
    ledger: Ledger, operator: AsyncOperator, letters: list[str]
) -> None:
    plan = await operator.plan(None, ReplayPace(rate=1000, canary=3, stall_timeout_s=1))
    run = await operator.replay(plan, apply=True)
    assert (run.state, run.reason) == (ReplayState.STOPPED, "canary_not_settled")
    assert (run.outcomes, run.left) == ({ReplayOutcome.WAITING: 3}, 9)
    assert await dead(ledger) == set(letters[3:])


async def test_a_canary_that_someone_else_took_proves_nothing(
    ledger: Ledger, operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    plan = await operator.plan(None, FAST)
    async with drainer:
        for name in letters[:4]:
            await replay_one(ledger, name)
        drainer.rejects = lambda turn_id: turn_id == letters[4]
        run = await operator.replay(plan, apply=True)
    assert run.reason == "canary_buried"
    assert run.outcomes[ReplayOutcome.REFUSED] == 4
    assert run.left == 7


async def test_a_run_stops_once_too_many_are_buried_again(
    operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    drainer.rejects = lambda turn_id: turn_id != letters[0]
    plan = await operator.plan(None, ReplayPace(rate=20, max_dead=2))
    async with drainer:
        run = await operator.replay(plan, apply=True)
    assert (run.state, run.reason) == (ReplayState.STOPPED, "too_many_buried")
    assert run.left > 0
    assert run.outcomes[ReplayOutcome.DEAD] >= 2


async def test_a_run_keeps_its_rate(
    operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    clock = asyncio.get_running_loop().time
    times: dict[int, float] = {}

    def watch(run: ReplayRun) -> None:
        times.setdefault(run.dead_letters - run.left, clock())

    plan = await operator.plan(None, ReplayPace(rate=20, canary=0))
    async with drainer:
        await operator.replay(plan, apply=True, on_progress=watch)
    assert times[12] - times[1] >= 11 / 20 * 0.95
    assert plan.estimate.minutes == pytest.approx(12 / 20 / 60)


async def test_a_run_that_nobody_writes_for_gives_up_waiting_and_can_be_resumed(
    ledger: Ledger, operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    plan = await operator.plan(None, ReplayPace(rate=1000, canary=0, stall_timeout_s=1))
    run = await operator.replay(plan, apply=True)
    assert (run.state, run.reason, run.left) == (ReplayState.STOPPED, "not_settled", 0)
    assert run.outcomes == {ReplayOutcome.WAITING: 12}
    async with drainer:
        assert (await operator.resume(run.id)).outcomes[ReplayOutcome.STORED] == 12
    assert drainer.added == Counter(letters)


async def test_dead_letters_of_erased_users_are_refused_and_counted(
    operator: AsyncOperator, letters: list[str], settings: Settings, drainer: LaneDrainer
) -> None:
    plan = await operator.plan(None, FAST)
    for shard in range(settings.shards):
        inspector = LedgerInspector(settings, shard)
        for name in letters[::3]:
            if inspector.job(name):
                inspector.redis.hset(inspector.keys.job(name), "turn", "erased")
    async with drainer:
        run = await operator.replay(plan, apply=True)
    assert run.outcomes == {ReplayOutcome.ERASED: 4, ReplayOutcome.STORED: 8}


async def test_a_full_ledger_stops_a_run_of_jobs_and_is_resumed(
    ledger: Ledger, operator: AsyncOperator, settings: Settings
) -> None:
    await ledger.jobs.fail(await submit_and_claim(ledger), "broken")
    plan = await operator.plan(None, SOON)
    small = settings.model_copy(update={"max_queued": 1})
    await submit_job(ledger)
    async with AsyncOperator(small) as cramped:
        run = await cramped.replay(plan, apply=True)
    assert (run.state, run.reason, run.left) == (ReplayState.STOPPED, "queue_full", 1)
    assert (await operator.resume(run.id)).outcomes == {ReplayOutcome.WAITING: 1}


# -- stopped, killed, pressed twice


async def test_a_cancelled_run_is_aborted_and_goes_on_when_it_is_resumed(
    ledger: Ledger, operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    plan = await operator.plan(None, ReplayPace(rate=100))
    async with drainer:
        going = asyncio.Event()
        pressed = asyncio.ensure_future(
            operator.replay(plan, apply=True, on_progress=after(5, going.set))
        )
        await going.wait()
        pressed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pressed
        [run] = await operator.replay_runs()
        assert (run.state, run.reason) == (ReplayState.ABORTED, "interrupted")
        assert 0 < run.left <= 7
        assert len(await dead(ledger)) >= run.left
        again = await operator.resume(run.id)
    assert (again.state, again.outcomes[ReplayOutcome.STORED]) == (ReplayState.DONE, 12)
    assert drainer.added == Counter(letters)
    whats = [audit_entry.action for audit_entry in reversed(await operator.audit())]
    assert whats == ["replay", "aborted", "resume", "done"]


async def test_a_replay_that_was_not_recorded_is_not_repeated(
    ledger: Ledger, operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    """The operator's process was killed between the replay and the note."""
    plan = await operator.plan(None, FAST)
    run_id = await ledger.replay_runs.begin(
        plan.dead_letters, by="late@ops", criteria={}, pace=FAST, token="of the killed one"
    )
    for letter in plan.dead_letters[:2]:
        await ledger.dead_letters.replay(letter, run_id)
    drainer.rejects = lambda turn_id: turn_id == letters[0]
    await drainer.write_all()  # one is stored meanwhile, one buried again
    drainer.rejects = lambda _: False
    async with drainer:
        run = await operator.resume(run_id)
        assert run.reason == "canary_buried"
        run = await operator.resume(run_id)
    assert run.outcomes == {ReplayOutcome.DEAD: 1, ReplayOutcome.STORED: 11}
    assert drainer.added == Counter(letters[1:])
    assert await dead(ledger) == {letters[0]}


async def test_resuming_a_run_stops_its_previous_driver(
    settings: Settings, operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    plan = await operator.plan(None, ReplayPace(rate=100))
    taken = asyncio.Event()
    async with drainer, AsyncOperator(settings, by="rita@ops") as other:
        first = asyncio.ensure_future(
            operator.replay(plan, apply=True, on_progress=after(3, taken.set))
        )
        await taken.wait()
        [begun] = await other.replay_runs()
        run = await other.resume(begun.id)
        with pytest.raises(LeaseLost):
            await first
    assert (run.state, run.outcomes[ReplayOutcome.STORED]) == (ReplayState.DONE, 12)
    assert drainer.added == Counter(letters)


async def test_a_run_can_be_aborted_from_elsewhere(
    ledger: Ledger,
    settings: Settings,
    operator: AsyncOperator,
    letters: list[str],
    drainer: LaneDrainer,
) -> None:
    plan = await operator.plan(None, ReplayPace(rate=100))
    going = asyncio.Event()
    async with drainer, AsyncOperator(settings, by="rita@ops") as other:
        first = asyncio.ensure_future(
            operator.replay(plan, apply=True, on_progress=after(3, going.set))
        )
        await going.wait()
        [begun] = await other.replay_runs()
        run = await other.abort(begun.id)
        with pytest.raises(LeaseLost):
            await first
    assert (run.state, run.reason) == (ReplayState.ABORTED, "by rita@ops")
    await drainer.write_all()
    left = await dead(ledger)
    assert run.left - 1 <= len(left) <= run.left, "one may have been on its way"
    assert drainer.added == Counter(letters) - Counter(left)


async def test_two_operators_at_once_replay_each_letter_once_and_account_for_it(
    settings: Settings, operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    runs: list[ReplayRun] = []
    ready = threading.Barrier(2)

    def press() -> None:
        with Operator(settings, by="thread@ops") as mine:
            plan = mine.plan(DeadLetterFilter(), FAST)
            ready.wait(20)
            runs.append(mine.replay(plan, apply=True))

    async with drainer:
        await asyncio.gather(asyncio.to_thread(press), asyncio.to_thread(press))

    assert drainer.added == Counter(letters)
    assert [run.state for run in runs] == [ReplayState.DONE] * 2
    assert [run.left for run in runs] == [0, 0]
    assert sum(run.outcomes.get(ReplayOutcome.STORED, 0) for run in runs) == 12
    assert sum(run.outcomes.get(ReplayOutcome.REFUSED, 0) for run in runs) == 12


async def test_a_dead_letter_buried_again_is_not_replayed_by_an_older_plan(
    ledger: Ledger, operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    plan = await operator.plan(DeadLetterFilter(ids=(letters[0],)), SOON)
    await replay_one(ledger, letters[0])
    drainer.rejects = lambda _: True
    await drainer.write_all()
    run = await operator.replay(plan, apply=True)
    assert run.outcomes == {ReplayOutcome.REFUSED: 1}
    assert (await ledger.dead_letters.get(letters[0])).replays == 1


async def test_a_run_that_is_done_or_unknown_is_not_resumed(
    operator: AsyncOperator, letters: list[str], drainer: LaneDrainer
) -> None:
    async with drainer:
        run = await operator.replay(await operator.plan(None, FAST), apply=True)
    assert (await operator.resume(run.id)).state is ReplayState.DONE
    assert [audit_entry.action for audit_entry in await operator.audit()] == ["done", "replay"]
    for ask in (operator.resume, operator.abort, operator.replay_run):
        with pytest.raises(JobNotFound):
            await ask("r000000000000")


async def test_a_run_of_a_newer_version_is_left_alone(
    ledger: Ledger, operator: AsyncOperator, inspector: LedgerInspector, letters: list[str]
) -> None:
    plan = await operator.plan(None, FAST)
    run_id = await ledger.replay_runs.begin(
        plan.dead_letters, by="x", criteria={}, pace=FAST, token="t"
    )
    inspector.redis.hset(inspector.keys.replay_run(run_id), "version", 99)
    with pytest.raises(IllegalStep, match="newer"):
        await operator.resume(run_id)


async def test_a_run_is_forgotten_after_the_retention_time(
    operator: AsyncOperator, inspector: LedgerInspector, letters: list[str], drainer: LaneDrainer
) -> None:
    async with drainer:
        await operator.replay(await operator.plan(None, FAST), apply=True)
    keys = list(inspector.redis.scan_iter(f"{inspector.keys.root}:replay-*"))
    lives = {key: inspector.redis.pttl(key) for key in keys if not key.endswith(":replay-runs")}
    assert lives
    assert all(0 < life <= 30 * 86_400_000 for life in lives.values()), lives


# -- the operator for plain code


def test_the_plain_operator_offers_the_same(settings: Settings, valkey: object) -> None:
    with Operator(settings, by="olga@ops") as operator:
        assert list(operator.dead_letters()) == []
        plan = operator.plan(DeadLetterFilter(user_id="ann"))
        assert operator.replay(plan).state is ReplayState.DRY
        assert operator.discard(DeadLetterFilter(user_id="ann")).dead_letters == 0
        assert (operator.replay_runs(), operator.audit()) == ([], [])
        for ask in (operator.resume, operator.abort, operator.replay_run, operator.replay_outcomes):
            with pytest.raises(JobNotFound):
                ask("r000000000000")
        with pytest.raises(JobNotFound):
            operator.dead_letter(f"j00_{0:032x}")


def test_both_operators_have_the_same_surface() -> None:
    def surface(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")} - {"close", "aclose"}

    assert surface(Operator) == surface(AsyncOperator)


async def test_closing_an_operator_aborts_what_it_drives(
    settings: Settings, operator: AsyncOperator, letters: list[str]
) -> None:
    other = AsyncOperator(settings)
    going = asyncio.Event()
    plan = await other.plan(None, FAST)
    pressed = asyncio.ensure_future(other.replay(plan, apply=True, on_progress=after(1, going.set)))
    await going.wait()
    await other.aclose()
    await asyncio.wait([pressed])
    assert (await operator.replay_runs())[0].state is ReplayState.ABORTED
