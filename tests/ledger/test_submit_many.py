"""Many submits in one command to Redis: each is accepted or refused on its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from afterword.producer import AsyncJob, AsyncProducer
from afterword.shared.contracts import ChatRequest
from afterword.shared.errors import InvalidRequest, KeyReused, LedgerUnavailable, QueueFull
from afterword.shared.ledger.jobs import Jobs, _hashed
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import SubmitResult
from afterword.shared.ledger.shard import Shards
from afterword.shared.settings import Settings
from afterword.shared.transport.pipeline import Pipeline
from afterword.shared.transport.scripts import script
from tests.kit.ledger.builder import LedgerInspector, chat_request, lane_of, submit_request
from tests.kit.servers.faulty_proxy import FaultyProxy
from tests.kit.servers.valkey import Valkey

pytestmark = pytest.mark.redis

COUNT = 300  # more than one pipeline


@pytest.fixture
def settings(valkey: Valkey, namespace: str) -> Settings:
    return Settings(redis_url=valkey.url, namespace=namespace, durability="none")


@pytest.fixture
async def jobs(settings: Settings) -> AsyncIterator[Jobs]:
    async with Ledger(settings, patience_s=5.0) as ledger:
        yield ledger.jobs


def accepted(told: Sequence[object]) -> list[str]:
    return [one.job_id for one in told if isinstance(one, SubmitResult)]


async def test_a_batch_of_submits_takes_few_commands(
    jobs: Jobs, valkey: Valkey, inspector: LedgerInspector
) -> None:
    asked = [(jobs.new_id(one), one) for one in [chat_request()] * COUNT]
    await jobs.submit_many(asked)  # Redis has the script from now on
    with valkey.client() as client:
        client.config_resetstat()
        again = [(jobs.new_id(one), one) for one in [chat_request()] * COUNT]
        told = await jobs.submit_many(again)
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]

    assert accepted(told) == [job_id for job_id, _ in again]
    assert calls == 19
    assert inspector.lane(lane_of()) == [job_id for job_id, _ in asked + again], "in their order"
    assert sorted(inspector.hinted("replies.3")) == sorted(job_id for job_id, _ in asked + again)


@pytest.mark.parametrize(
    ("fields", "commands"),
    [
        ({"message": "hello"}, 1),
        ({"message": "x" * 60_000}, 2),
        ({"message": '"' * 60_000}, 4),
        ({"message": "hello", "conversation_id": "c", "when_busy": "enqueue"}, 1),
        ({"message": "hello", "conversation_id": "c", "when_busy": "merge"}, 4),
    ],
)
async def test_submits_that_take_redis_longer_share_a_command_with_fewer(
    jobs: Jobs, valkey: Valkey, inspector: LedgerInspector, fields: dict[str, str], commands: int
) -> None:
    asked = [chat_request(**fields)] * 16
    await jobs.submit_many([(jobs.new_id(one), one) for one in asked])
    with valkey.client() as client:
        client.config_resetstat()
        told = await jobs.submit_many([(jobs.new_id(one), one) for one in asked])
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]

    assert len(accepted(told)) == 16
    assert calls == commands
    assert inspector.open_counts() == inspector.expected_open_counts()


async def test_only_the_submits_beyond_the_limit_are_refused(
    settings: Settings, inspector: LedgerInspector
) -> None:
    small = settings.model_copy(update={"max_queued": 20})
    async with Ledger(small, patience_s=5.0) as ledger:
        new_id = ledger.jobs.new_id
        told = await ledger.jobs.submit_many((new_id(one), one) for one in [chat_request()] * COUNT)

    assert [isinstance(one, SubmitResult) for one in told] == [True] * 20 + [False] * (COUNT - 20)
    assert {type(one) for one in told[20:]} == {QueueFull}
    assert len(inspector.hinted("replies.3")) == 20


@pytest.mark.finding(12)
async def test_a_bad_one_late_among_many_costs_only_itself(
    settings: Settings, inspector: LedgerInspector
) -> None:
    asked: list[Any] = [{"user_id": f"u{at}", "message": "hello"} for at in range(2500)]
    asked[2400] = "oops"
    async with AsyncProducer(settings) as producer:
        # A Redis that does not know the script yet is sent its first batches again, behind others.
        await producer.submit_many(asked[:32])
        known = len(inspector.hinted("replies.3"))
        told = await producer.submit_many(asked)

    jobs = [one.id for one in told if isinstance(one, AsyncJob)]
    assert [type(one) for one in told if not isinstance(one, AsyncJob)] == [InvalidRequest]
    assert isinstance(told[2400], InvalidRequest)
    assert inspector.hinted("replies.3")[known:] == jobs


@pytest.mark.finding(12)
async def test_a_bug_in_a_later_group_hides_no_job_of_an_earlier_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of one conversation: each is a wave of its own."""
    accept = Jobs.submit_many

    async def break_once(jobs: Jobs, requests: list[tuple[str, ChatRequest]]) -> object:
        if requests[0][1].message == "broken":
            raise ZeroDivisionError
        return await accept(jobs, requests)

    monkeypatch.setattr(Jobs, "submit_many", break_once)
    asked = [
        {"user_id": "ann", "message": text, "conversation_id": "c"}
        for text in ("one", "broken", "three")
    ]
    async with AsyncProducer(settings) as producer:
        first, broken, third = await producer.submit_many(asked)

    assert isinstance(first, AsyncJob)
    assert isinstance(third, AsyncJob)
    assert isinstance(broken, LedgerUnavailable)


async def test_one_key_among_them_is_one_job(jobs: Jobs, inspector: LedgerInspector) -> None:
    same = chat_request(idempotency_key="k")
    told = await jobs.submit_many(
        (jobs.new_id(one), one) for one in [same, same, chat_request("else", idempotency_key="k")]
    )

    first, second, third = told
    assert isinstance(first, SubmitResult)
    assert second == SubmitResult(first.job_id, new=False)
    assert isinstance(third, KeyReused)
    assert inspector.hinted("replies.3") == [first.job_id]


async def test_one_may_end_another_of_the_same_command(
    jobs: Jobs, inspector: LedgerInspector
) -> None:
    """The deferred hint of the first is not written once the second has ended it."""
    talk = chat_request(conversation_id="c", when_busy="interrupt")
    asked = [(jobs.new_id(one), one) for one in [chat_request(), talk, talk, chat_request()]]

    await jobs.submit_many(asked)

    (alone, _), (ended, _), (last, _), (other, _) = asked
    assert inspector.job(ended)["state"] == "cancelled"
    assert inspector.counts()["job:queued:default"] == 3
    assert sorted(inspector.hinted("replies.3")) == sorted([alone, ended, last, other])
    for name in ("open", "hinted:replies.3"):
        held = inspector.redis.zrange(f"{inspector.keys.root}:{name}", 0, -1)
        assert sorted(held) == sorted([alone, last, other])


async def test_one_failing_request_of_a_batch_fails_no_other(
    jobs: Jobs, inspector: LedgerInspector
) -> None:
    inspector.redis.set(inspector.keys.idempotency(_hashed("default/ann", "k")), "not a hash")
    requests = [chat_request(), chat_request(idempotency_key="k"), chat_request()]
    told = await asyncio.gather(
        *(submit_request(jobs, jobs.new_id(one), one) for one in requests), return_exceptions=True
    )

    assert [type(one) for one in told] == [SubmitResult, LedgerUnavailable, SubmitResult]
    assert inspector.hinted("replies.3") == accepted(told)
    assert inspector.counts()["job:queued:default"] == 2


async def test_a_replay_among_them_is_a_command_of_its_own(
    jobs: Jobs, inspector: LedgerInspector
) -> None:
    request = chat_request()
    told = await asyncio.gather(
        submit_request(jobs, jobs.new_id(request), request),
        jobs.resubmit(f"j00_{7:032x}", request.body(), "run"),
        submit_request(jobs, jobs.new_id(request), request),
    )

    assert told[1] == "gone"
    assert inspector.hinted("replies.3") == accepted(told)


async def test_concurrent_submits_are_few_commands(
    jobs: Jobs, valkey: Valkey, inspector: LedgerInspector
) -> None:
    await asyncio.gather(
        *(submit_request(jobs, jobs.new_id(chat_request()), chat_request()) for _ in range(32))
    )
    with valkey.client() as client:
        client.config_resetstat()
        told = await asyncio.gather(
            *(submit_request(jobs, jobs.new_id(chat_request()), chat_request()) for _ in range(32))
        )
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]

    assert calls == 2
    assert len(set(accepted(told)) & set(inspector.hinted("replies.3"))) == 32


async def test_each_hint_is_handed_out_once_if_the_broker_is_elsewhere(settings: Settings) -> None:
    sent: list[str] = []

    def send(hints: Sequence[tuple[str, str]]) -> None:
        sent.extend(name for _, name in hints)

    pipeline = Pipeline(str(settings.redis_url), patience_s=5.0)
    jobs = Jobs(Shards(settings, [pipeline], send))
    told = await jobs.submit_many((jobs.new_id(one), one) for one in [chat_request()] * COUNT)
    await pipeline.aclose()

    assert sent == accepted(told)
    assert len(sent) == COUNT


async def test_submits_whose_answers_are_lost_create_one_job_each(
    settings: Settings, valkey: Valkey, inspector: LedgerInspector
) -> None:
    async with (
        FaultyProxy(valkey.port) as line,
        Ledger(settings.model_copy(update={"redis_url": line.url}), patience_s=5.0) as ledger,
    ):
        await submit_request(ledger.jobs, ledger.jobs.new_id(chat_request()), chat_request())
        line.lose_answer_to(script("job/submit", batched=True).sha.encode())
        asked = [(ledger.jobs.new_id(one), one) for one in [chat_request()] * COUNT]
        told = await ledger.jobs.submit_many(asked)

    assert line.lost_answers == 1
    assert accepted(told) == [job_id for job_id, _ in asked]
    assert inspector.counts() == {
        "job:queued:default": COUNT + 1,
        "turn:awaited:default": COUNT + 1,
    }
