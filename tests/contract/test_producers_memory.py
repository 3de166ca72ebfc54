"""What every producer says of turns when memory is on: the real ones and the fakes for tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from afterword.producer import (
    AsyncProducer,
    InvalidRequest,
    JobFailed,
    JobState,
    JobStatus,
    Memory,
    MemoryNotFound,
    MemoryUsed,
    Producer,
    Settings,
    TurnState,
    UserExport,
)
from afterword.producer.testing import FakeAsyncProducer, FakeProducer
from tests.kit.producers import FakeStage, JobFace, ProducerFace, RealStage, Stage
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


# -- a user's memories


async def stored(stage: Stage, producer: ProducerFace, user_id: str, *said: str) -> list[JobStatus]:
    """Let a user say something, and wait until it is stored; return what became of each."""
    found = []
    for text in said:
        stage.answer("Noted.")
        job = await producer.submit(user_id=user_id, message=text, conversation_id="c")
        found.append(await settled(job))
    return found


async def test_a_user_sees_all_memories_page_by_page(stage: Stage) -> None:
    async with stage.open() as producer:
        user_id = uuid.uuid4().hex
        memories = producer.memories(user_id)
        assert (await memories.list()).memories == ()

        said = [f"I keep {number} birds in the garden." for number in ("two", "five", "nine")]
        statuses = await stored(stage, producer, user_id, *said)

        first = await memories.list(limit=2)
        rest = await memories.list(limit=2, after=first.next)
        found = [*first.memories, *rest.memories]
        assert [memory.text for memory in found] == said[::-1]
        assert (first.next is None, rest.next) == (False, None)
        assert [memory.job_id for memory in found] == [one.job_id for one in statuses][::-1]
        assert [(memory.id,) for memory in found] == [one.memory_ids for one in statuses][::-1]
        assert {memory.conversation_id for memory in found} == {"c"}
        assert all(memory.stored_by and memory.created_at for memory in found)
        assert await memories.all() == found
        assert await producer.memories(user_id, tenant="other").all() == []


async def test_a_memory_names_the_replies_that_were_given_it(stage: Stage) -> None:
    async with stage.open() as producer:
        user_id = uuid.uuid4().hex
        await stored(stage, producer, user_id, "I keep five birds.")
        (memory,) = await producer.memories(user_id).all()
        assert (await producer.memories(user_id).get(memory.id)).given_to == ()
        used = MemoryUsed(id=memory.id, text=memory.text, score=1.0)
        stage.answer("Five.", memories=[used], skipped="question_only")
        job = await producer.submit(user_id=user_id, message="How many birds do I keep?")
        assert [one.id for one in (await job.wait()).memories] == [memory.id]
        assert (await producer.memories(user_id).get(memory.id)).given_to == (job.id,)


async def test_a_search_gives_the_best_first(stage: Stage) -> None:
    async with stage.open() as producer:
        user_id = uuid.uuid4().hex
        said = ["I keep five birds in the garden.", "My sister lives in Oslo."]
        await stored(stage, producer, user_id, *said)
        page = await producer.memories(user_id).search("Where does my sister live?", limit=1)
        assert [memory.text for memory in page.memories] == ["My sister lives in Oslo."]
        assert page.memories[0].score is not None


async def test_a_memory_is_edited(stage: Stage) -> None:
    async with stage.open() as producer:
        user_id = uuid.uuid4().hex
        (status,) = await stored(stage, producer, user_id, "I keep five birds.")
        memories = producer.memories(user_id)
        (before,) = await memories.all()

        edited = await memories.edit(before.id, "I keep six birds.")

        assert (edited.id, edited.text) == (before.id, "I keep six birds.")
        assert await memories.all() == [edited]
        assert edited.job_id == status.job_id
        assert (await producer.job(status.job_id).status()).memory_ids == (before.id,)


async def test_a_memory_is_deleted(stage: Stage) -> None:
    async with stage.open() as producer:
        user_id = uuid.uuid4().hex
        said = ["I keep five birds.", "My sister lives in Oslo."]
        *_, status = await stored(stage, producer, user_id, *said)
        memories = producer.memories(user_id)
        (memory_id,) = status.memory_ids

        await memories.delete(memory_id)

        assert [memory.text for memory in await memories.all()] == ["I keep five birds."]
        assert (await producer.job(status.job_id).status()).memory_ids == ()
        for call in (memories.get(memory_id), memories.delete(memory_id)):
            with pytest.raises(MemoryNotFound) as caught:
                await call
            assert caught.value.memory_id == memory_id


@pytest.mark.parametrize("verb", ["edit", "delete"])
async def test_what_was_said_twice_is_changed_as_one(stage: Stage, verb: str) -> None:
    async with stage.open() as producer:
        user_id = uuid.uuid4().hex
        said = ["I keep five birds.", "I live in Oslo.", "i keep five  birds."]
        statuses = await stored(stage, producer, user_id, *said)
        memories = producer.memories(user_id)
        (memory_id,) = statuses[2].memory_ids
        if verb == "delete":
            await memories.delete(memory_id)
        else:
            for _ in range(2):  # to repeat it is safe
                await memories.edit(memory_id, "I keep six birds.")
        left = {memory.text for memory in await memories.all()} - {"I live in Oslo."}
        assert left == ({"I keep six birds."} if verb == "edit" else set())
        assert (await producer.job(statuses[0].job_id).status()).memory_ids == ()


async def test_nobody_sees_or_changes_the_memories_of_another(stage: Stage) -> None:
    async with stage.open() as producer:
        user_id = uuid.uuid4().hex
        await stored(stage, producer, user_id, "I keep five birds.")
        (memory,) = await producer.memories(user_id).all()
        for other in (producer.memories("eve"), producer.memories(user_id, tenant="other")):
            calls = (other.get(memory.id), other.edit(memory.id, "x"), other.delete(memory.id))
            for call in calls:
                with pytest.raises(MemoryNotFound):
                    await call
        assert await producer.memories(user_id).all() == [memory]


async def test_all_that_is_known_of_a_user_is_one_document(stage: Stage) -> None:
    async with stage.open() as producer:
        user_id = uuid.uuid4().hex
        said = ["I keep five birds.", 'My sister says "Oslo\\n" \t \u00e9.']
        statuses = await stored(stage, producer, user_id, *said)
        await stored(stage, producer, uuid.uuid4().hex, "I am somebody else.")

        text = await producer.memories(user_id).export()

        found = UserExport.model_validate_json(text)
        assert (found.tenant, found.user_id, found.memory) == ("default", user_id, "on")
        assert [memory.text for memory in found.memories] == said[::-1]
        assert {job.job_id for job in found.jobs} == {one.job_id for one in statuses}
        assert {job.record["body"]["message"] for job in found.jobs} == set(said)
        assert {job.record["reply"]["text"] for job in found.jobs} == {"Noted."}
        assert all(job.events for job in found.jobs)
        assert (found.usage.replies, found.usage.user_id) == (2, user_id)
        assert found.erasure is None
        assert "somebody else" not in text


async def test_of_an_unknown_user_an_empty_document_is_exported(stage: Stage) -> None:
    async with stage.open() as producer:
        text = await producer.memories(uuid.uuid4().hex).export()
        found = UserExport.model_validate_json(text)
        assert (found.memories, found.jobs, found.conversations) == ((), (), ())
        assert found.usage.replies == 0


REFUSED: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("limit", "list", (), {"limit": 0}),
    ("limit", "list", (), {"limit": 101}),
    ("after", "list", (), {"after": "no cursor"}),
    ("after", "list", (), {"after": ""}),
    ("timeout", "list", (), {"timeout": 601.0}),
    ("query", "search", (" ",), {}),
    ("query", "search", ("x" * 70_000,), {}),
    ("memory_id", "get", ("",), {}),
    ("memory_id", "get", ("a\nb",), {}),
    ("memory_id", "delete", (5,), {}),
    ("text", "edit", ("m", ""), {}),
    ("text", "edit", ("m", "a\x00b"), {}),
    ("text", "edit", ("m", "\u200b \u2060"), {}),
    ("text", "edit", ("m", "x" * 70_000), {}),
]


@pytest.mark.parametrize(("field", "verb", "said", "named"), REFUSED)
async def test_what_is_not_valid_is_refused(
    stage: Stage, field: str, verb: str, said: tuple[Any, ...], named: dict[str, Any]
) -> None:
    async with stage.open() as producer:
        with pytest.raises(InvalidRequest) as caught:
            await getattr(producer.memories("ann"), verb)(*said, **named)
        assert caught.value.field == field


async def test_a_new_text_with_a_secret_is_refused_if_the_tenant_wants_that(stage: Stage) -> None:
    async with stage.open(redaction="refuse") as producer:
        with pytest.raises(InvalidRequest, match="holds a secret") as caught:
            await producer.memories("ann").edit("m", "Mine is https://ann:hunter2@example.com/")
        assert caught.value.field == "text"


@pytest.mark.parametrize(("user_id", "tenant"), [("", "default"), ("ann", " x")])
async def test_whose_memories_they_are_is_checked(stage: Stage, user_id: str, tenant: str) -> None:
    async with stage.open() as producer:
        with pytest.raises(InvalidRequest):
            producer.memories(user_id, tenant=tenant)


def test_a_fake_can_be_told_what_a_user_has_said_before() -> None:
    with FakeProducer(settings=Settings(memory="embedded")) as fake:
        memory_id = fake.remember("ann", "I keep five birds.")
        found = fake.memories("ann").get(memory_id)
        assert isinstance(found, Memory)
        assert (found.text, found.job_id, found.created_at) == (
            "I keep five birds.",
            None,
            fake.clock.now(),
        )
