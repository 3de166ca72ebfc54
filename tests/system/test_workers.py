"""Response workers under load and at their end: no job is lost, and none is answered twice."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from afterword.producer import AsyncJob, AsyncProducer, Event, Job, JobFailed, JobState, Producer
from afterword.shared.contracts import Priority
from afterword.shared.names import REPLIES, RUN_TASK
from tests.kit.claude_api.scripted_answers import ClaudeAnswer, ServerFault
from tests.kit.ledger.hint_messages import hint_list
from tests.kit.waiting import until, wait_until
from tests.kit.workers.fleet import CANARY, Fleet, WorkerProcess

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

MANY = 1000
WAVE = 100

#: Times so long that nothing in a test can be due to their end.
ENVIRON = {
    "AFTERWORD_LEASE_S": "60",
    "AFTERWORD_DRAIN_S": "60",
    "AFTERWORD_REPLY_TIMEOUT_S": "600",
    "AFTERWORD_FIRST_TOKEN_TIMEOUT_S": "600",
}
TEXT = f"The {CANARY} sings in the morning, at noon, in the evening and at night."


class Watch:
    """A fleet with one worker on duty, who may be relieved, and a producer."""

    def __init__(self, fleet: Fleet, producer: Producer) -> None:
        self.fleet = fleet
        self.producer = producer
        self.on_duty = self.launch().ready()

    def launch(self, **environ: str) -> WorkerProcess:
        """Start a worker with slots for many jobs."""
        slots = ("--concurrency", str(MANY))
        return self.fleet.launch("responses", *slots, **ENVIRON | environ)

    def submit(self) -> Job:
        """Submit a job full of words that nobody may log."""
        return self.producer.submit(user_id="ann", message=f"Sing, {CANARY}!")

    def held(self, *will_answer: ClaudeAnswer) -> Job:
        """Submit a job and wait until its answer is held in its middle or before its start."""
        self.fleet.claude.will_answer(*will_answer)
        job = self.submit()
        wait_until(lambda: self.fleet.claude.held() == 1, "the answer is held")
        return job

    @contextmanager
    def relief(self) -> Iterator[WorkerProcess]:
        """Have another worker on duty in the end; meanwhile it is still on its way."""
        relief = self.launch()
        yield self.on_duty
        self.on_duty = relief.ready()


@pytest.fixture(scope="module")
def duty() -> Iterator[Watch]:
    with Fleet(AFTERWORD_MEMORY="off") as fleet, Producer(fleet.settings) as producer:
        yield Watch(fleet, producer)


@pytest.fixture
def watch(duty: Watch) -> Iterator[Watch]:
    """Give the watch with nothing left over from other tests."""
    duty.fleet.claude.forget()
    yield duty
    duty.fleet.claude.release()


@pytest.fixture
async def asking(watch: Watch) -> AsyncIterator[AsyncProducer]:
    async with AsyncProducer(watch.fleet.settings) as producer:
        yield producer


def _last_attempt(events: list[Event]) -> str:
    """Return the text of the deltas that no restart has made void."""
    text = ""
    for event in events:
        text = "" if event.type == "restart" else text + (event.text or "")
    return text


async def test_a_thousand_answers_are_in_flight_in_one_process(
    watch: Watch, asking: AsyncProducer
) -> None:
    fleet, worker = watch.fleet, watch.on_duty
    assert (await (await asking.submit(user_id="ann", message="hello")).wait()).attempts == 1
    threads = worker.threads
    fleet.claude.will_answer(ClaudeAnswer(text=TEXT, hold=True, times=MANY))
    jobs: list[AsyncJob] = []

    def all_held(count: int) -> bool:
        return fleet.claude.held() == count

    # In waves: a busy machine may not open a thousand connections at once within their time limit.
    for first in range(0, MANY, WAVE):
        asked = [
            {"user_id": f"{CANARY}-{n}", "message": f"{CANARY} {n}", "system": f"A {CANARY}."}
            for n in range(first, first + WAVE)
        ]
        accepted = await asking.submit_many(asked)
        jobs += [job for job in accepted if isinstance(job, AsyncJob)]
        await until(partial(all_held, first + WAVE), "all answers are held", 40)
    assert worker.threads == threads

    shown = fleet.inspect_active(worker)
    [active] = json.loads(shown).values()
    assert {one["id"].partition(".")[0] for one in active} == {job.id for job in jobs}
    assert not any(one["args"] for one in active)
    assert {one["name"] for one in active} == {RUN_TASK}
    assert CANARY not in shown
    assert fleet.ask("stats")[0]["pool"]["running"] == MANY

    fleet.claude.release()
    replies = [await job.wait() for job in jobs]
    assert {reply.text for reply in replies} == {TEXT}
    assert worker.threads == threads


def test_nothing_on_the_way_to_a_worker_tells_what_was_said(watch: Watch) -> None:
    watch.on_duty.send(signal.SIGSTOP)
    try:
        jobs = [watch.submit() for _ in range(3)]
        with watch.fleet.valkey.client() as client:
            hints = client.lrange(hint_list(REPLIES, "normal"), 0, -1)
    finally:
        watch.on_duty.send(signal.SIGCONT)
    assert hints
    assert not [hint for hint in hints if CANARY in hint]
    assert CANARY not in Path(f"/proc/{watch.on_duty.pid}/cmdline").read_text()
    for job in jobs:
        job.wait()


def test_a_purge_of_the_queue_loses_nothing(watch: Watch) -> None:
    priorities: tuple[Priority, ...] = ("high", "normal", "low")
    watch.on_duty.send(signal.SIGSTOP)
    try:
        jobs = [
            watch.producer.submit(user_id="ann", message="hello", priority=priorities[number % 3])
            for number in range(12)
        ]
        # One hint may be in the socket of the worker already.
        assert watch.fleet.app.control.purge() >= len(jobs) - 1
    finally:
        watch.on_duty.send(signal.SIGCONT)
    assert {job.wait(timeout=60).attempts for job in jobs} == {1}


def test_cancelling_a_running_job_ends_its_call_and_nothing_else(watch: Watch) -> None:
    before = watch.fleet.claude.abandoned()
    watch.fleet.claude.will_answer(ClaudeAnswer(text=TEXT, hold=True, times=2))
    other = watch.submit()
    wait_until(lambda: watch.fleet.claude.held() == 1, "the first answer is held")
    job = watch.submit()
    wait_until(lambda: watch.fleet.claude.held() == 2, "both answers are held")
    assert job.cancel()
    wait_until(lambda: watch.fleet.claude.abandoned() == before + 1, "the call is aborted")
    with pytest.raises(JobFailed, match="cancelled"):
        job.wait()
    assert job.cancel(), "it is cancelled, however often one asks"
    watch.fleet.claude.release()
    assert other.wait().text == TEXT
    assert not other.cancel(), "it has ended before"


def test_a_warm_stop_finishes_what_is_held(watch: Watch) -> None:
    job = watch.held(ClaudeAnswer(text=TEXT, hold=True))
    with watch.relief() as worker:
        worker.send(signal.SIGTERM)
        wait_until(lambda: "Warm shutdown" in worker.log, "the worker is stopping")
        watch.fleet.claude.release()
        assert job.wait().text == TEXT
        assert worker.process.wait(10) == 0
    assert job.status().attempts == 1


def test_a_warm_stop_gives_back_what_outlasts_the_grace(watch: Watch) -> None:
    hasty = watch.launch(AFTERWORD_DRAIN_S="0.5").ready()
    watch.on_duty.send(signal.SIGSTOP)
    try:
        job = watch.held(ClaudeAnswer(text="too late", hold=True))
        assert hasty.stop() == 0
    finally:
        watch.on_duty.send(signal.SIGCONT)
    assert job.wait().text != "too late"
    assert job.status().attempts == 1, "not counted"


def test_a_cold_stop_loses_nothing(watch: Watch) -> None:
    job = watch.held(ClaudeAnswer(text="too late", hold=True))
    with watch.relief() as worker:
        worker.stop(signal.SIGQUIT)
    assert job.wait().text != "too late"
    assert job.status().attempts == 1, "not counted"


def test_another_worker_takes_over_from_a_killed_one_and_the_stream_begins_anew(
    watch: Watch,
) -> None:
    victim = watch.launch(AFTERWORD_LEASE_S="2").ready()
    watch.on_duty.send(signal.SIGSTOP)
    job = watch.held(
        ClaudeAnswer(text=f"Half a {CANARY} and", fault=ServerFault.PAUSE, at=5),
        ClaudeAnswer(text=TEXT),
    )
    stream = job.stream()
    events = [next(stream), next(stream), next(stream)]
    victim.kill()
    watch.on_duty.send(signal.SIGCONT)
    events += stream
    kinds = [event.type for event in events]
    restart = kinds.index("restart")
    assert kinds[:2] == ["started", "recalled"]
    assert set(kinds[2:restart]) == {"delta"}
    assert kinds[restart + 1] == "recalled"
    assert set(kinds[restart + 2 : -1]) == {"delta"}
    assert {event.attempt for event in events[:restart]} == {1}
    assert {event.attempt for event in events[restart:-1]} == {2}
    final = events[-1].reply
    assert final is not None
    assert _last_attempt(events[:-1]) == final.text == TEXT
    assert final.attempts == 2
    assert job.status().state is JobState.SUCCEEDED
