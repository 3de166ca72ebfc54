"""Erasing a user: their content is removed, running work is fenced, other users keep everything."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import Any

import pytest

from afterword.shared.contracts import MemoryUsed, Recalled
from afterword.shared.errors import Fault, LeaseLost, Unavailable
from afterword.shared.ledger.dead_letter_records import ReplayOutcome
from afterword.shared.ledger.erasures import Erasures
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import (
    AofRewrite,
    CommandLogReset,
    EraseClaim,
    Erasure,
    ErasureState,
    MemoryErasure,
)
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.memories.erase import AGAIN_S, Eraser
from afterword.workers.ports import Turn
from tests.kit.fakes.memory import FakeMemories
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)
from tests.kit.servers.valkey import Valkey

pytestmark = pytest.mark.redis

ANN, LANE = memory_key("default", "ann"), lane_of()
CANARY = "canary"
SETTLE_S = 30.0
AT = datetime(2026, 5, 8, tzinfo=UTC)


REWRITE_LOG = Erasures.rewrite_aof
SECRET = "marmalade"


@pytest.fixture(autouse=True)
def _log_is_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not rewrite the append-only file of the Valkey that all tests share."""

    async def begun(_: Erasures) -> AofRewrite:
        return AofRewrite.BEGUN

    monkeypatch.setattr(Erasures, "rewrite_aof", begun)


@pytest.fixture
def memories() -> FakeMemories:
    return FakeMemories()


@pytest.fixture
def eraser(ledger: Ledger, memories: FakeMemories) -> Eraser:
    return Eraser(ledger.erasures, memories, SETTLE_S)


async def erasures_in_progress(ledger: Ledger) -> list[Erasure]:
    """Return every erasure that is not done, oldest first in each shard."""
    lanes = [
        lane
        for keys in ledger.erasures._shards.all
        for lane in await ledger.erasures._shards.send_command("ZRANGE", keys.erasures, 0, -1)
    ]
    found = [await ledger.erasures.receipt(lane) for lane in lanes]
    return [erasure for erasure in found if erasure is not None]


async def take_erasure(ledger: Ledger) -> EraseClaim:
    """Claim Ann's lane, which is to be erased."""
    found = await ledger.turns.claim_lane(LANE, "eraser", max_turns=20)
    assert isinstance(found, EraseClaim)
    return found


async def erase(ledger: Ledger, inspector: LedgerInspector, eraser: Eraser) -> None:
    """Erase Ann from beginning to end."""
    await ledger.erasures.begin(LANE, "op")
    await eraser.erase(await take_erasure(ledger))
    settle(inspector)
    await eraser.erase(await take_erasure(ledger))


def settle(inspector: LedgerInspector) -> None:
    """Let the time pass within which a write could still arrive."""
    inspector.redis.hset(inspector.keys.erasure(LANE), "due", 0)
    inspector.make_due(LANE)


def everything(inspector: LedgerInspector) -> str:
    """Return all that Redis holds in this shard, as one text."""
    found = []
    for key in inspector.redis.scan_iter(f"{inspector.keys.root}*"):
        match inspector.redis.type(key):
            case "hash":
                found.append((key, inspector.redis.hgetall(key)))
            case "list":
                found.append((key, inspector.redis.lrange(key, 0, -1)))
            case "zset":
                found.append((key, inspector.redis.zrange(key, 0, -1)))
            case "stream":
                found.append((key, inspector.redis.xrange(key)))
            case "set":
                found.append((key, inspector.redis.smembers(key)))
            case _:
                found.append((key, inspector.redis.get(key)))
    return repr(found)


async def in_every_state(ledger: Ledger, user: str) -> dict[str, str]:
    """Bring one job of a user into every state in which something was said."""
    said = {"user_id": user, "conversation_id": "talk", "tenant": "default"}
    lane = lane_of(user)
    stored = await submit_and_answer(ledger, f"stored {CANARY} {user}", **said)
    dead = await submit_and_answer(ledger, f"dead {CANARY} {user}", **said)
    held = await claim_lane(ledger, lane)
    await ledger.turns.begin(held, stored)
    await ledger.turns.settle(held, stored, TurnState.STORED, memory_ids=["m"])
    await ledger.turns.begin(held, dead)
    await ledger.turns.bury(held, dead, "rejected", Fault.REQUEST, "1")
    await ledger.turns.release_lane(held)
    failed = await submit_and_claim(ledger, f"failed {CANARY} {user}", user_id=user)
    await ledger.jobs.fail(failed, "rejected")
    pending = await submit_and_answer(ledger, f"pending {CANARY} {user}", **said)
    key = f"k-{user}"
    keyed = await submit_and_answer(
        ledger, f"keyed {CANARY} {user}", user_id=user, idempotency_key=key
    )
    queued = await submit_job(ledger, f"queued {CANARY} {user}", user_id=user, priority="low")
    return {
        "stored": stored, "dead": dead, "failed": failed.job_id, "pending": pending,
        "keyed": keyed, "queued": queued,
    }  # fmt: skip


async def test_all_content_of_the_user_is_removed_and_none_of_others(
    ledger: Ledger, inspector: LedgerInspector, eraser: Eraser, memories: FakeMemories
) -> None:
    ann = await in_every_state(ledger, "ann")
    await in_every_state(ledger, "ann2")
    running = await submit_and_claim(ledger, f"running {CANARY} ann")
    used = MemoryUsed(id="m", text=f"recalled {CANARY} ann", score=None)
    recalled = Recalled(memory="fresh", memories=(used,))
    await ledger.jobs.append_delta(running, 1, "half", recalled)
    await memories.add(ANN, Turn("t", "I said so.", "", AT))
    await memories.add(memory_key("default", "ann2"), Turn("u", "So did I.", "", AT))
    others = everything(inspector).count(f"{CANARY} ann2")

    await erase(ledger, inspector, eraser)

    left = everything(inspector)
    assert f"{CANARY} ann2" in left
    assert left.count(f"{CANARY} ann2") == others
    assert left.replace(f"{CANARY} ann2", "").count(CANARY) == 0
    assert not inspector.redis.exists(inspector.keys.conversation(LANE))
    assert not inspector.redis.exists(inspector.keys.user_jobs(LANE))
    assert [row.owner for row in memories.rows] == ["default/ann2"]
    for name, job_id in (ann | {"running": running.job_id}).items():
        status = await ledger.queries.status(job_id)
        assert status.turn is TurnState.ERASED or name in ("failed", "queued", "running")
        assert status.state.terminal


async def test_the_receipt_says_what_was_done_and_for_whom(
    ledger: Ledger, inspector: LedgerInspector, eraser: Eraser
) -> None:
    await in_every_state(ledger, "ann")

    await erase(ledger, inspector, eraser)

    receipt = await ledger.erasures.receipt(LANE)
    assert receipt is not None
    assert (receipt.state, receipt.asked_by) == (ErasureState.ERASED, "op")
    assert receipt.memory is MemoryErasure.FORGOTTEN
    assert (receipt.jobs, receipt.ended, receipt.records) == (6, 1, 4)
    assert receipt.asked_at <= receipt.forgotten_at <= receipt.erased_at  # type: ignore[operator]
    assert not await erasures_in_progress(ledger)
    assert inspector.redis.pttl(inspector.keys.erasure(LANE)) > 0


async def test_the_tallies_agree_with_what_is_left(
    ledger: Ledger, inspector: LedgerInspector, eraser: Eraser
) -> None:
    await in_every_state(ledger, "ann")
    await erase(ledger, inspector, eraser)
    counts = inspector.counts()
    assert counts == {
        "job:succeeded:default": 4,
        "job:failed:default": 1,
        "job:cancelled:default": 1,
        "turn:erased:default": 4,
        "turn:none:default": 2,
    }
    assert not inspector.open_ends()


async def test_running_workers_of_the_user_are_fenced_and_notified(
    ledger: Ledger, eraser: Eraser
) -> None:
    turn = await submit_and_answer(ledger, "fact")
    writer = await claim_lane(ledger)
    await ledger.turns.begin(writer, turn)
    running = await submit_and_claim(ledger, "more")
    heard: asyncio.Queue[str] = asyncio.Queue()

    async with ledger.listen_to_fences(lambda name: heard.put_nowait(name or "")):
        await ledger.erasures.begin(LANE, "op")
        async with asyncio.timeout(5):
            while await heard.get() != LANE:
                pass
        with pytest.raises(LeaseLost):
            await ledger.turns.settle(writer, turn, TurnState.STORED)
        await eraser.erase(await take_erasure(ledger))
        async with asyncio.timeout(5):
            while await heard.get() != running.job_id:
                pass
    with pytest.raises(LeaseLost):
        await ledger.jobs.finish(running, reply_to(running))
    assert (await ledger.queries.status(running.job_id)).state is JobState.CANCELLED
    assert (await ledger.queries.status(running.job_id)).code == "erased"


async def test_a_write_that_was_on_its_way_is_removed_the_second_time(
    ledger: Ledger, inspector: LedgerInspector, eraser: Eraser, memories: FakeMemories
) -> None:
    await submit_and_answer(ledger, "fact")
    await ledger.erasures.begin(LANE, "op")
    await eraser.erase(await take_erasure(ledger))
    await memories.add(ANN, Turn("late", "It arrives late.", "", AT))

    assert await ledger.turns.claim_lane(LANE, "early", max_turns=1) is None, "held until then"
    assert 0 < inspector.waits_s(LANE) <= SETTLE_S
    settle(inspector)
    await eraser.erase(await take_erasure(ledger))

    assert memories.rows == []


async def test_a_turn_submitted_after_an_erasure_began_is_kept_and_stored_after_it(
    ledger: Ledger, inspector: LedgerInspector, eraser: Eraser
) -> None:
    await submit_and_answer(ledger, "old")
    await ledger.erasures.begin(LANE, "op")
    new = await submit_and_answer(ledger, "new")
    await eraser.erase(await take_erasure(ledger))
    settle(inspector)
    await eraser.erase(await take_erasure(ledger))

    held = await claim_lane(ledger)
    assert [turn.id for turn in held.turns] == [new]
    assert held.turns[0].user_text == "new"


async def test_while_an_erasure_is_in_flight_a_claim_holds_nothing_of_before(
    ledger: Ledger, inspector: LedgerInspector, eraser: Eraser
) -> None:
    for talk in ("old", None):
        await submit_and_answer(ledger, f"before {CANARY}", conversation_id=talk)
    before = await submit_and_claim(ledger, conversation_id="old")
    assert (len(before.overlay), len(before.history), before.erasing) == (2, 1, False)
    await ledger.jobs.cancel(before.job_id)
    await ledger.erasures.begin(LANE, "op")
    await submit_and_answer(ledger, "since", conversation_id="old")

    since = ["since"]
    for _ in range(2):  # asked, forgotten
        claimed = await submit_and_claim(ledger, "stopped", conversation_id="old")
        assert [turn.user_text for turn in claimed.overlay] == since
        since.append("stopped")
        assert (claimed.history, claimed.erasing) == ((), True)
        await ledger.jobs.cancel(claimed.job_id)
        await eraser.erase(await take_erasure(ledger))
        settle(inspector)

    assert not (await submit_and_claim(ledger)).erasing
    assert not (await submit_and_claim(ledger, user_id="bob")).erasing


async def test_a_dead_letter_of_an_erased_user_cannot_be_replayed(
    ledger: Ledger, inspector: LedgerInspector, eraser: Eraser
) -> None:
    made = await in_every_state(ledger, "ann")
    letters = [(await ledger.dead_letters.get(made[name])).ref for name in ("dead", "failed")]
    await ledger.erasures.begin(LANE, "op")
    for letter in letters:
        assert await ledger.dead_letters.replay(letter, "early") is ReplayOutcome.ERASED, (
            "it is about to be"
        )
    await erase(ledger, inspector, eraser)
    for letter in letters:
        assert await ledger.dead_letters.replay(letter, "late") is ReplayOutcome.ERASED
    assert [letter async for letter in ledger.dead_letters.select()] == []


async def test_an_idempotency_key_of_an_erased_user_is_free_again(
    ledger: Ledger, inspector: LedgerInspector, eraser: Eraser
) -> None:
    first = await submit_and_answer(ledger, "fact", idempotency_key="k")
    await erase(ledger, inspector, eraser)
    assert await submit_job(ledger, "something else", idempotency_key="k") != first


async def test_while_mem0_is_down_an_erasure_waits_and_holds_the_lane(
    ledger: Ledger, inspector: LedgerInspector, eraser: Eraser, memories: FakeMemories
) -> None:
    await submit_and_answer(ledger, "fact")
    await ledger.erasures.begin(LANE, "op")
    memories.fail("forget", Unavailable("overloaded"))

    await eraser.erase(await take_erasure(ledger))

    (waiting,) = await erasures_in_progress(ledger)
    assert waiting.state is ErasureState.ASKED
    assert 0 < inspector.waits_s(LANE) <= AGAIN_S
    settle(inspector)
    await eraser.erase(await take_erasure(ledger))
    settle(inspector)
    await eraser.erase(await take_erasure(ledger))
    assert not await erasures_in_progress(ledger)


async def test_an_erasure_whose_worker_was_lost_is_taken_on_by_another(
    ledger: Ledger, inspector: LedgerInspector, eraser: Eraser
) -> None:
    await submit_and_answer(ledger, f"fact {CANARY}")
    await ledger.erasures.begin(LANE, "op")
    lost = await take_erasure(ledger)
    inspector.make_due(LANE)
    await ledger.maintenance.sweep()
    again = await ledger.turns.claim_lane(LANE, "second", max_turns=1)
    assert isinstance(again, EraseClaim)

    with pytest.raises(LeaseLost):
        await eraser.erase(lost)
    await eraser.erase(again)

    assert CANARY not in everything(inspector)


async def test_a_second_request_is_the_same_erasure_until_it_is_done(
    ledger: Ledger, inspector: LedgerInspector, eraser: Eraser
) -> None:
    first = await ledger.erasures.begin(LANE, "op")
    second = await ledger.erasures.begin(LANE, "someone else")
    assert second == first
    await eraser.erase(await take_erasure(ledger))
    settle(inspector)
    await eraser.erase(await take_erasure(ledger))
    third = await ledger.erasures.begin(LANE, "someone else")
    assert (third.state, third.asked_by) == (ErasureState.ASKED, "someone else")


async def test_without_memory_one_pass_is_enough(ledger: Ledger) -> None:
    await submit_and_answer(ledger, "fact")
    await ledger.erasures.begin(LANE, "op")
    await Eraser(ledger.erasures, None, SETTLE_S).erase(await take_erasure(ledger))
    assert not await erasures_in_progress(ledger)
    receipt = await ledger.erasures.receipt(LANE)
    assert receipt is not None
    assert (receipt.state, receipt.memory) == (ErasureState.ERASED, MemoryErasure.OFF)
    assert (receipt.forgotten_at, receipt.jobs) == (None, 1)


async def test_a_worker_that_is_told_to_stop_gives_the_erasure_back(
    ledger: Ledger, eraser: Eraser, memories: FakeMemories
) -> None:
    await ledger.erasures.begin(LANE, "op")
    hang = memories.hang("forget")
    erasing = asyncio.create_task(eraser.erase(await take_erasure(ledger)))
    await hang.reached.wait()
    erasing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await erasing
    assert isinstance(await ledger.turns.claim_lane(LANE, "next", max_turns=1), EraseClaim)


async def test_a_lane_that_is_erased_is_listed(ledger: Ledger) -> None:
    assert await ledger.erasures.receipt(LANE) is None
    asked = await ledger.erasures.begin(LANE, "op")
    assert await erasures_in_progress(ledger) == [asked]


async def test_an_erasure_ends_when_redis_begins_to_write_its_log_anew(
    ledger: Ledger, inspector: LedgerInspector, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [AofRewrite.BUSY, AofRewrite.REFUSED]

    async def rewrite() -> AofRewrite:
        return answers.pop(0)

    await ledger.erasures.begin(LANE, "op")
    await eraser.erase(await take_erasure(ledger))
    monkeypatch.setattr(ledger.erasures, "rewrite_aof", rewrite)
    found = []
    for _ in range(2):
        settle(inspector)
        await eraser.erase(await take_erasure(ledger))
        found.append(await ledger.erasures.receipt(LANE))
    assert [(one.state, one.log, one.command_log) for one in found if one] == [
        (ErasureState.FORGOTTEN, None, None),
        (ErasureState.ERASED, AofRewrite.REFUSED, CommandLogReset.RESET),
    ]


@pytest.mark.finding(16)
async def test_redis_forgets_what_was_said_in_slow_and_large_commands() -> None:
    with Valkey() as server, server.client() as redis:
        settings = Settings(redis_url=server.url, durability="none", memory="embedded")
        redis.config_set("commandlog-execution-slower-than", 0)
        redis.config_set("commandlog-request-larger-than", 1000)
        async with Ledger(settings, patience_s=5.0) as ledger:
            await submit_job(ledger, f"{SECRET} " + "x" * 2000)
            assert SECRET in _logged(redis)
            redis.config_set("commandlog-execution-slower-than", -1)

            assert await ledger.erasures.reset_command_log() is CommandLogReset.RESET
            assert SECRET not in _logged(redis)

            redis.execute_command("ACL", "SETUSER", "default", "-commandlog", "-slowlog")
            assert await ledger.erasures.reset_command_log() is CommandLogReset.REFUSED


@pytest.mark.finding(16)
async def test_a_redis_without_a_command_log_forgets_its_slow_log() -> None:
    """As Redis, and Valkey before 8.1."""
    hidden = ("--rename-command", "COMMANDLOG", "") if "TESTED_SERVER" not in os.environ else ()
    with Valkey(*hidden) as server, server.client() as redis:
        settings = Settings(redis_url=server.url, durability="none", memory="embedded")
        redis.config_set("slowlog-log-slower-than", 0)
        async with Ledger(settings, patience_s=5.0) as ledger:
            await submit_job(ledger, f"{SECRET} " + "x" * 2000)
            assert SECRET in repr(redis.slowlog_get(100))
            redis.config_set("slowlog-log-slower-than", -1)

            assert await ledger.erasures.reset_command_log() is CommandLogReset.RESET
            assert SECRET not in repr(redis.slowlog_get(100))


def _logged(redis: Any) -> str:
    return "".join(
        str(redis.execute_command("COMMANDLOG", "GET", -1, kind))
        for kind in ("slow", "large-request", "large-reply")
    )


async def test_redis_is_asked_to_write_its_log_anew() -> None:
    with Valkey("--appendonly", "yes") as server:
        settings = Settings(redis_url=server.url, durability="d1", memory="embedded")
        async with Ledger(settings, patience_s=5.0) as ledger:
            assert await REWRITE_LOG(ledger.erasures) is AofRewrite.BEGUN
            with server.client() as redis:
                redis.execute_command("ACL", "SETUSER", "default", "-bgrewriteaof")
            assert await REWRITE_LOG(ledger.erasures) is AofRewrite.REFUSED
