"""The Python API against real workers: from threads, loops, forks and other processes.

What every producer promises, the fakes too, is in `tests/contract/test_producers.py`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from afterword.producer import (
    AsyncJob,
    AsyncProducer,
    Event,
    Job,
    JobFailed,
    JobState,
    KeyReused,
    LedgerUnavailable,
    Producer,
    Settings,
    TurnState,
)
from tests.kit.claude_api.scripted_answers import ClaudeAnswer, ServerFault
from tests.kit.waiting import until, wait_until
from tests.kit.workers.fleet import CANARY, Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

MANY = 2000
TEXT = f"A long answer of a {CANARY}, in many pieces, told slowly."

#: What another process does with a job's id and an event's.
ELSEWHERE = """
import sys
from afterword.producer import Producer
with Producer() as producer:
    job = producer.job(sys.argv[1])
    for event in job.stream(after=sys.argv[2] or None):
        print(event.model_dump_json(), flush=True)
    print(job.wait().model_dump_json())
    print(job.status().model_dump_json())
"""

#: Parent and child go on at the same time, and the child throws away what it inherited.
FORKED = """
import gc, os, warnings
from afterword.producer import Producer
warnings.simplefilter("ignore")  # the child cannot close the connections of its parent
with Producer() as producer:
    first = producer.submit(user_id="ann", message="before")
    first.wait()
    child = os.fork()
    if child == 0:
        del first
        producer.submit(user_id="ann", message="in the child").wait()
        gc.collect()
        producer.close()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    print(producer.submit(user_id="ann", message="in the parent").wait().text)
    print(first.wait().text)
"""


@pytest.fixture(scope="module")
def crew() -> Iterator[Fleet]:
    with Fleet(AFTERWORD_MEMORY="off", AFTERWORD_LEASE_S="60") as fleet:
        fleet.launch("responses", "--concurrency", "100").ready()
        yield fleet


@pytest.fixture
def fleet(crew: Fleet) -> Iterator[Fleet]:
    """Give the fleet with nothing left over from other tests."""
    crew.claude.forget()
    yield crew
    crew.claude.release()


@pytest.fixture
def producer(fleet: Fleet) -> Iterator[Producer]:
    with Producer(fleet.settings) as producer:
        yield producer


@pytest.fixture
async def asking(fleet: Fleet) -> AsyncIterator[AsyncProducer]:
    async with AsyncProducer(_counted(fleet)) as producer:
        yield producer


def _counted(fleet: Fleet) -> Settings:
    """Return settings under which Redis knows our connections by their user."""
    with fleet.valkey.client() as client:
        client.acl_setuser(
            "ours", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+all"]
        )
    url = fleet.valkey.url.replace("://", "://ours:any@", 1)
    return fleet.settings.model_copy(update={"redis_url": url})


def _connections(fleet: Fleet) -> int:
    with fleet.valkey.client() as client:
        return sum(one["user"] == "ours" for one in client.client_list())


def _parsed(lines: str) -> tuple[list[Event], str]:
    *events, reply, status = lines.splitlines()
    assert json.loads(status)["state"] == "succeeded"
    text: str = json.loads(reply)["text"]
    return [Event.model_validate_json(line) for line in events], text


def _text(events: list[Event]) -> str:
    return "".join(event.text or "" for event in events)


def test_a_stream_goes_on_in_another_process_where_it_was_left(
    fleet: Fleet, producer: Producer
) -> None:
    fleet.claude.will_answer(ClaudeAnswer(text=TEXT, fault=ServerFault.PAUSE, at=6))
    job = producer.submit(user_id="ann", message="hello")
    stream = job.stream()
    seen = [next(stream) for _ in range(3)]
    assert [event.type for event in seen] == ["started", "recalled", "delta"]
    wait_until(lambda: fleet.claude.held() == 1, "the answer stands still")
    fleet.claude.release()
    rest, reply = _parsed(fleet.python(ELSEWHERE, job.id, seen[-1].id))
    assert rest[-1].type == "final"
    assert _text(seen) + _text(rest) == reply == TEXT
    whole, _ = _parsed(fleet.python(ELSEWHERE, job.id, ""))
    assert whole == seen + rest == list(job.stream())


def test_a_job_that_claude_refuses_fails_with_a_code_and_no_content(
    fleet: Fleet, producer: Producer
) -> None:
    fleet.claude.will_answer(ClaudeAnswer(status=400, error_message=f"no {CANARY}s"))
    job = producer.submit(user_id="ann", message="hello")
    with pytest.raises(JobFailed) as failure:
        job.wait()
    assert CANARY not in str(failure.value)
    last = list(job.stream())[-1]
    assert (last.type, last.state, last.code) == ("failed", JobState.FAILED, failure.value.code)
    assert job.status().turn is TurnState.NONE


def test_a_job_out_of_time_expires_while_it_runs(fleet: Fleet, producer: Producer) -> None:
    fleet.claude.will_answer(ClaudeAnswer(hold=True))
    before = fleet.claude.abandoned()
    job = producer.submit(user_id="ann", message="hello", expires_in=5.0)
    wait_until(lambda: fleet.claude.held() == 1, "the answer is held")
    with pytest.raises(JobFailed, match="expired"):
        job.wait(timeout=60)
    wait_until(lambda: fleet.claude.abandoned() == before + 1, "nobody listens any more")


def test_the_same_key_is_the_same_job_however_often_it_is_sent(
    fleet: Fleet, producer: Producer
) -> None:
    def send(_: int) -> Job:
        return producer.submit(user_id="ann", message="once", idempotency_key="k1")

    with ThreadPoolExecutor(20) as threads:
        jobs = {job.id for job in threads.map(send, range(100))}
    assert len(jobs) == 1
    producer.job(jobs.pop()).wait()
    assert len(fleet.claude.requests()) == 1
    with pytest.raises(KeyReused):
        producer.submit(user_id="ann", message="twice", idempotency_key="k1")
    other = producer.submit(user_id="ann", message="twice", idempotency_key="k1", tenant="b")
    assert other.wait().attempts == 1


def test_fifty_threads_share_one_producer(fleet: Fleet) -> None:
    def ask(number: int) -> tuple[str, str]:
        job = shared.submit(user_id=f"u{number}", message=f"question {number}")
        streamed = _text(list(job.stream()))
        return streamed, job.wait().text

    with Producer(_counted(fleet)) as shared, ThreadPoolExecutor(50) as threads:
        texts = list(threads.map(ask, range(200)))
        assert _connections(fleet) == 3
    for number, (streamed, text) in enumerate(texts):
        assert streamed == text
        assert f"question {number} " in text
    wait_until(lambda: _connections(fleet) == 0, "closed is closed")


def test_a_producer_made_before_a_fork_works_on_both_sides(fleet: Fleet) -> None:
    after, before = fleet.python(FORKED).splitlines()
    assert "in the parent" in after
    assert "before" in before
    assert len(fleet.claude.requests()) == 3


async def test_thousands_of_jobs_are_waited_for_over_two_connections(
    fleet: Fleet, asking: AsyncProducer
) -> None:
    [worker] = fleet.workers
    worker.send(signal.SIGSTOP)
    try:
        asked = [{"user_id": f"u{number}", "message": "hello"} for number in range(MANY)]
        jobs = [job for job in await asking.submit_many(asked) if isinstance(job, AsyncJob)]
        waits = [asyncio.create_task(job.wait(timeout=150)) for job in jobs]
        with fleet.valkey.client() as client:
            await until(lambda: client.info("stats")["pubsub_channels"] >= MANY, "all wait", 30)
        assert _connections(fleet) == 2
    finally:
        worker.send(signal.SIGCONT)
    replies = await asyncio.gather(*waits)
    assert [reply.job_id for reply in replies] == [job.id for job in jobs]
    assert _connections(fleet) == 2


async def test_a_wait_that_is_given_up_leaves_nothing_behind(
    fleet: Fleet, asking: AsyncProducer
) -> None:
    fleet.claude.will_answer(ClaudeAnswer(hold=True))
    job = await asking.submit(user_id="ann", message="hello")
    waiting = asyncio.create_task(job.wait())
    with fleet.valkey.client() as client:
        await until(lambda: job.id in str(client.pubsub_channels()), "it waits")
        waiting.cancel()
        await until(lambda: job.id not in str(client.pubsub_channels()), "it does not")
    assert await job.cancel()


def test_a_redis_that_is_away_is_an_error_in_time(fleet: Fleet) -> None:
    away = {"redis_url": "redis://127.0.0.1:1/0", "submit_timeout_s": 0.5}
    nowhere = fleet.settings.model_copy(update=away)
    with Producer(nowhere) as producer:
        began = time.monotonic()
        with pytest.raises(LedgerUnavailable):
            producer.submit(user_id="ann", message="hello")
        assert time.monotonic() - began < fleet.settings.submit_timeout_s, "it keeps its own time"


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_a_wait_that_cannot_look_does_not_say_that_the_job_goes_on(
    fleet: Fleet, timeout: float
) -> None:
    away = {"redis_url": "redis://127.0.0.1:1/0", "submit_timeout_s": 0.5}
    with Producer(fleet.settings.model_copy(update=away)) as producer:
        job = producer.job("j00_" + "0" * 32)
        with pytest.raises(LedgerUnavailable) as raised:
            job.wait(timeout=timeout)
    assert raised.value.cause == "refused"
