"""What every producer says of turns when memory is on: the real ones and the fakes for tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from afterword.producer import (
    AsyncProducer,
    JobFailed,
    JobState,
    JobStatus,
    Producer,
    Settings,
    TurnState,
)
from afterword.producer.testing import FakeAsyncProducer, FakeProducer
from tests.kit.producers import FakeStage, JobFace, RealStage, Stage
from tests.kit.waiting import until
from tests.kit.workers.fleet import Fleet

_REAL = [pytest.mark.redis, pytest.mark.system]
KINDS = [
    pytest.param(Producer, marks=_REAL),
    pytest.param(AsyncProducer, marks=_REAL),
    FakeProducer,
    FakeAsyncProducer,
]


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, fleets: list[Fleet]) -> Iterator[Stage]:
    stage: Stage
    if issubclass(request.param, (FakeProducer, FakeAsyncProducer)):
        stage = FakeStage(request.param, Settings(memory="embedded"))
    else:
        if not fleets:
            fleets.append(Fleet(AFTERWORD_MEMORY="embedded").__enter__())
            fleets[0].start("responses", "memories")
        stage = RealStage(request.param, fleets[0])
    stage.forget()
    yield stage
    stage.forget()


async def settled(job: JobFace) -> JobStatus:
    """Return the status of a job whose turn has come to its end."""

    async def look() -> JobStatus | None:
        status = await job.status()
        return status if status.turn.settled else None

    status = await until(look, "the turn is settled", 30)
    assert status is not None
    return status


async def test_a_turn_is_awaited_and_then_stored(stage: Stage) -> None:
    async with stage.open() as producer:
        stage.hold("I will remember.")
        job = await producer.submit(user_id="ann", message="I keep two birds.")
        assert (await job.status()).turn is TurnState.AWAITED
        await stage.all_held(1)
        stage.release()

        reply = await job.wait()

        assert reply.memory == "fresh"
        status = await settled(job)
        assert (status.state, status.turn) == (JobState.SUCCEEDED, TurnState.STORED)
        assert status.turn_code is None


async def test_a_message_that_is_not_to_be_remembered_is_answered_and_has_no_turn(
    stage: Stage,
) -> None:
    async with stage.open() as producer:
        stage.answer("I will forget.")
        job = await producer.submit(user_id="ida", message="I keep no bird.", remember=False)
        assert (await job.status()).turn is TurnState.NONE

        reply = await job.wait()

        assert (reply.text, reply.memory) == ("I will forget.", "fresh")
        assert (await job.status()).turn is TurnState.NONE


async def test_the_stream_says_what_is_recalled_before_the_text(stage: Stage) -> None:
    async with stage.open() as producer:
        user_id = uuid.uuid4().hex
        told = await producer.submit(user_id=user_id, message="I keep five birds.")
        await settled(told)
        stage.answer("Five.", memories=["I keep five birds."], skipped="question_only")
        job = await producer.submit(user_id=user_id, message="How many birds do I keep?")

        events = await job.events()

        types = [event.type for event in events]
        recalled = events[types.index("recalled")]
        assert types.index("recalled") + 1 == types.index("delta")
        assert [memory.text for memory in recalled.memories or ()] == ["I keep five birds."]
        reply = await job.wait()
        assert (recalled.memory, recalled.memories) == (reply.memory, reply.memories)


async def test_a_reply_says_at_once_whether_its_turn_is_remembered(stage: Stage) -> None:
    async with stage.open() as producer:
        stage.answer("Noted.")
        told = await producer.submit(user_id="fay", message="I keep six birds.")
        assert (await told.wait()).not_remembered is None

        stage.answer("Six.", skipped="question_only")
        job = await producer.submit(user_id="fay", message="How many birds do I keep?")
        assert (await job.wait()).not_remembered == "question_only"

        status = await job.status()
        assert (status.turn, status.turn_code) == (TurnState.SKIPPED, "question_only")


async def test_the_turn_of_a_job_that_failed_is_dropped(stage: Stage) -> None:
    async with stage.open() as producer:
        stage.fail()
        job = await producer.submit(user_id="ben", message="I keep three birds.")
        with pytest.raises(JobFailed):
            await job.wait()
        assert (await job.status()).turn is TurnState.NONE


async def test_what_was_said_in_a_cancelled_job_is_stored(stage: Stage) -> None:
    async with stage.open() as producer:
        stage.hold()
        job = await producer.submit(user_id="eve", message="I keep four birds.")
        assert await job.cancel()
        status = await settled(job)
        assert (status.state, status.turn) == (JobState.CANCELLED, TurnState.STORED)


async def test_what_was_not_to_be_remembered_is_not_stored_if_it_is_cancelled(stage: Stage) -> None:
    async with stage.open() as producer:
        stage.hold()
        job = await producer.submit(user_id="eve", message="I keep no bird.", remember=False)
        assert await job.cancel()
        assert (await job.status()).turn is TurnState.NONE
