"""What following a job costs Redis, and that reading rarely misses no event."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.client import follow as following
from afterword.producer.client.async_client import AsyncJob
from afterword.producer.client.ledger_job_service import LedgerJobService
from afterword.shared.contracts import Event, Recalled
from afterword.shared.errors import JobFailed, JobNotFound
from afterword.shared.ledger import queries as module
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Claim
from afterword.shared.names import Keys, shard_in
from afterword.shared.transport.pipeline import Pipeline
from tests.kit.ledger.builder import reply_to, submit_and_claim
from tests.kit.waiting import until

if TYPE_CHECKING:
    from tests.kit.servers.valkey import Valkey

pytestmark = pytest.mark.redis

_DELTAS = 20
_WHOLE = ["started", "recalled", *["delta"] * _DELTAS, "final"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the commands that only read."""
    counts: Counter[str] = Counter()
    call = Pipeline.send_command

    async def counted(pipeline: Pipeline, *command: str | float) -> object:
        counts[str(command[0])] += 1
        return await call(pipeline, *command)

    monkeypatch.setattr(Pipeline, "send_command", counted)
    return counts


async def test_waiting_for_the_reply_does_not_read_each_delta(
    ledger: Ledger, asked: Counter[str]
) -> None:
    held = await submit_and_claim(ledger)
    follower = handle(ledger, held)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiter = group.create_task(follower.wait())
        await until(lambda: asked["HMGET"] == 1, "the waiter has looked")
        heard: list[str] = []
        async with ledger.listen_to_job(held.job_id, heard.append):
            await _deltas(ledger, held)
            await until(lambda: len(heard) == _DELTAS, "all deltas were heard")
        assert asked["HMGET"] == 1
        await ledger.jobs.finish(held, reply_to(held))
    assert waiter.result().job_id == held.job_id
    assert asked["HMGET"] == 2


async def test_a_wait_ends_at_once_when_the_job_fails(ledger: Ledger, asked: Counter[str]) -> None:
    held = await submit_and_claim(ledger)
    waiter = asyncio.create_task(handle(ledger, held).wait())
    await until(lambda: asked["HMGET"] == 1, "the waiter has looked")
    await ledger.jobs.fail(held, "broken")
    with pytest.raises(JobFailed):
        await asyncio.wait_for(waiter, 5)


async def test_a_wait_without_notifications_polls(
    ledger: Ledger, asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_look_again_after_s", lambda: 0.05)
    held = await submit_and_claim(ledger)
    waiter = asyncio.create_task(handle(ledger, held).wait())
    await until(lambda: asked["HMGET"] > 2, "the waiter has looked again, and again")
    waiter.cancel()


def test_waits_that_began_together_poll_at_different_times() -> None:
    pauses = [following._look_again_after_s() for _ in range(1000)]
    least, most = following.LOOK_AGAIN_S / 2, following.LOOK_AGAIN_S
    tenths = Counter(int(10 * (pause - least) / (most - least)) for pause in pauses)
    assert all(tenths[tenth] for tenth in range(10))
    assert least <= min(pauses) <= max(pauses) <= most


async def test_a_change_that_brings_events_costs_one_read(
    ledger: Ledger, asked: Counter[str]
) -> None:
    held = await submit_and_claim(ledger)
    events: list[Event] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(_follow(handle(ledger, held), events))
        await until(lambda: len(events) == 1, "the start was read")
        asked.clear()
        for number in range(1, _DELTAS + 1):
            await ledger.jobs.append_delta(held, number, "word ")
            await until(lambda: len(events) == number + 1, "the delta was read")  # noqa: B023 now
        assert asked == {"XRANGE": _DELTAS}
        await ledger.jobs.finish(held, reply_to(held))
    assert [event.type for event in events] == ["started", *["delta"] * _DELTAS, "final"]


@pytest.mark.parametrize("page", [1, 3, 22])
async def test_a_stream_longer_than_a_page_is_read_to_its_end_at_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(module, "PAGE", page)
    monkeypatch.setattr(following, "PAGE", page)
    held = await submit_and_claim(ledger)
    await _deltas(ledger, held)
    await ledger.jobs.finish(held, reply_to(held))
    events: list[Event] = []
    await asyncio.wait_for(_follow(handle(ledger, held), events), 5)
    assert [event.type for event in events] == _WHOLE


async def test_pages_that_come_while_one_reads_are_read_at_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    monkeypatch.setattr(following, "PAGE", 3)
    held = await submit_and_claim(ledger)
    events: list[Event] = []
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(_follow(handle(ledger, held), events))
        await until(lambda: len(events) == 1, "the start was read")
        await asyncio.gather(_deltas(ledger, held))
        await ledger.jobs.finish(held, reply_to(held))
    assert [event.type for event in events] == _WHOLE


async def test_a_job_that_is_gone_while_somebody_follows_it_is_noticed(
    ledger: Ledger, valkey: Valkey
) -> None:
    held = await submit_and_claim(ledger)
    events: list[Event] = []
    task = asyncio.create_task(_follow(handle(ledger, held), events))
    await until(lambda: len(events) == 1, "the start was read")
    keys = Keys(ledger.settings.namespace, shard_in(held.job_id))
    with valkey.client() as redis:
        redis.delete(keys.job(held.job_id), keys.events(held.job_id))
        redis.publish(keys.wake(held.job_id), "failed")
    with pytest.raises(JobNotFound):
        await asyncio.wait_for(task, 5)


def handle(ledger: Ledger, claim: Claim) -> AsyncJob:
    return AsyncJob(LedgerJobService(CheckedLedger(ledger)), claim.job_id)


async def _deltas(ledger: Ledger, held: Claim) -> None:
    for number in range(1, _DELTAS + 1):
        await ledger.jobs.append_delta(held, number, "word ", Recalled(memory="off"))


async def _follow(job: AsyncJob, events: list[Event]) -> None:
    async for event in job.stream():
        events.append(event)  # noqa: PERF401 each as it comes
