"""A user's memories from end to end on every backend: real workers, mem0's code, every producer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from afterword.producer import (
    AsyncProducer,
    Memory,
    MemoryNotFound,
    MemoryPage,
    Producer,
    TurnState,
    UserExport,
)
from tests.kit.producers import MemoriesFace
from tests.kit.servers.postgres import Postgres
from tests.kit.workers.fleet import Fleet
from tests.kit.workers.memory_towns import BACKENDS, MemoryTown, town_of

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

AT = datetime(2026, 5, 8, 20, 30, 15, tzinfo=UTC)
HOME, MOVED, DOG = "I live in Lisbon.", "I live in Porto now.", "My dog is called Rex."
QUESTION = "In which city do I live?"


class CommandLine:
    """What `MemoriesFace` does, with the command `afterword memories`."""

    def __init__(self, fleet: Fleet, user: str) -> None:
        self._fleet = fleet
        self._user = user

    def _ran(self, verb: str, *arguments: str) -> Any:
        ran = self._fleet.afterword("memories", verb, self._user, *arguments, "--json")
        return json.loads(ran.stdout)

    async def list(self, limit: int = 100) -> MemoryPage:
        return MemoryPage(memories=self._ran("list", "--limit", str(limit)))

    async def search(self, query: str) -> MemoryPage:
        return MemoryPage(memories=self._ran("search", query))

    async def get(self, memory_id: str) -> Memory:
        code = self._fleet.exit_code("memories", "show", self._user, memory_id)
        if code:
            assert code == 2
            raise MemoryNotFound(memory_id)
        return Memory.model_validate(self._ran("show", memory_id))

    async def edit(self, memory_id: str, text: str) -> Memory:
        return Memory.model_validate(self._ran("edit", memory_id, text, "--apply"))

    async def delete(self, memory_id: str) -> None:
        self._ran("delete", memory_id, "--apply")

    async def export(self) -> str:
        return self._fleet.afterword("memories", "export", self._user).stdout


Face = MemoriesFace | CommandLine


@asynccontextmanager
async def opened(face: str, town: MemoryTown, user: str) -> AsyncIterator[Face]:
    """Open a user's memories by one of the three ways to them."""
    if face == "command line":
        yield CommandLine(town.fleet, user)
    elif face == "async":
        async with AsyncProducer(town.fleet.settings) as producer:
            yield MemoriesFace(producer.memories(user))
    else:
        with Producer(town.fleet.settings) as producer:
            yield MemoriesFace(producer.memories(user))


@pytest.fixture(scope="module", params=BACKENDS)
def town(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[MemoryTown]:
    with town_of(request.param, postgres) as town:
        yield town


FACES = pytest.mark.parametrize("face", ["sync", "async", "command line"])


@FACES
async def test_a_user_sees_what_is_remembered_and_where_it_comes_from(
    town: MemoryTown, face: str
) -> None:
    user = f"ann-{face}".replace(" ", "-")
    job = town.told(user, HOME, conversation_id="c1", at=AT.isoformat())
    pet = town.told(user, DOG)
    async with opened(face, town, user) as memories:
        dog, home = (await memories.list()).memories
        assert (dog.text, home.text) == (DOG, HOME), "the newest first"
        assert (await memories.search(QUESTION)).memories[0].id == home.id
        assert (home.job_id, home.conversation_id, home.created_at) == (job.id, "c1", AT)
        assert (home.stored_by or "").endswith(f":{town.writer().pid}")
        extracts = town.kind == "selfhosted"
        model = town.fleet.settings.memory_model if extracts else None
        assert home.extraction_model == model
        assert job.status().memory_ids == (home.id,), "the turn names its memory"
        question, reply = town.say(user, QUESTION, conversation_id="c2")
        assert home.id in [memory.id for memory in reply.memories]
        shown = await memories.get(home.id)
        assert shown.given_to == (question.id, pet.id)
        assert shown.model_copy(update={"given_to": None}) == home

        found = UserExport.model_validate_json(await memories.export())

        assert (found.user_id, found.memories) == (user, (dog, home))
        assert {one.job_id for one in found.jobs} == {job.id, pet.id, question.id}
        assert {one.job_id: home.id in one.memory_ids for one in found.replies_given} == {
            pet.id: True,
            question.id: True,
        }
        assert len(found.conversations) == 2


@FACES
async def test_a_user_edits_and_deletes_what_is_remembered(town: MemoryTown, face: str) -> None:
    user = f"ada-{face}".replace(" ", "-")
    job = town.told(user, HOME)
    town.told(user, DOG)
    async with opened(face, town, user) as memories:
        _, home = (await memories.list()).memories
        edited = await memories.edit(home.id, MOVED)
        assert edited.model_copy(update={"text": HOME, "updated_at": home.updated_at}) == home
        _, reply = town.say(user, QUESTION)
        assert MOVED in [memory.text for memory in reply.memories]
        assert (MOVED in town.last_prompt(), HOME in town.last_prompt()) == (True, False)
        assert job.status().memory_ids == (home.id,)

        await memories.delete(home.id)

        assert [memory.text for memory in (await memories.list()).memories] == [DOG]
        with pytest.raises(MemoryNotFound):
            await memories.get(home.id)
        _, reply = town.say(user, QUESTION)
        assert home.id not in [memory.id for memory in reply.memories]
        assert MOVED not in town.last_prompt()
        assert job.id not in town.kept(), "mem0 has it no more"
        assert (job.status().memory_ids, job.status().turn_code) == ((), "deleted")


def test_what_was_edited_or_deleted_stays_so_when_everything_starts_anew(town: MemoryTown) -> None:
    town.told("bob", HOME)
    town.told("bob", DOG)
    memories = town.producer.memories("bob")
    dog, home = memories.list().memories
    memories.edit(home.id, MOVED)
    memories.delete(dog.id)
    town.restart()
    assert [(one.id, one.text) for one in memories.list().memories] == [(home.id, MOVED)]
    _, reply = town.say("bob", QUESTION)
    assert [memory.text for memory in reply.memories] == [MOVED]
    assert (HOME in town.last_prompt(), DOG in town.last_prompt()) == (False, False)


def test_a_deleted_memory_is_in_no_overlay_and_no_retry_stores_it(town: MemoryTown) -> None:
    job = town.half_told("cat", HOME)
    town.say("cat", QUESTION)
    assert HOME in town.last_prompt()
    memories = town.producer.memories("cat")
    [home] = memories.list().memories
    assert town.inspector.lane(town.lane("cat")) == [job.id]

    memories.delete(home.id)

    status, record = job.status(), town.inspector.job(job.id)
    assert (status.turn, status.turn_code) == (TurnState.SKIPPED, "deleted")
    assert not {"facts", "event", "turn_intent"} & record.keys(), "nothing is pinned"
    town.inspector.make_due(town.lane("cat"))
    town.told("cat", DOG)  # what the lane holds is stored, in its order
    assert [memory.text for memory in memories.list().memories] == [DOG]
    _, reply = town.say("cat", QUESTION)
    assert (reply.memory, HOME in town.last_prompt()) == ("fresh", False)


def test_an_edited_memory_outlives_the_retry_of_its_turn(town: MemoryTown) -> None:
    job = town.half_told("dan", HOME)
    memories = town.producer.memories("dan")
    [home] = memories.list().memories
    memories.edit(home.id, MOVED)
    town.inspector.make_due(town.lane("dan"))
    town.told("dan", DOG)
    assert {memory.text for memory in memories.list().memories} == {DOG, MOVED}
    assert (job.status().turn, job.status().memory_ids) == (TurnState.STORED, (home.id,))
    town.say("dan", QUESTION)
    assert (MOVED in town.last_prompt(), HOME in town.last_prompt()) == (True, False)


def test_no_replay_brings_a_deleted_memory_back(town: MemoryTown) -> None:
    job = town.half_told("eve", HOME)
    with town.lookups_are_rejected():
        town.inspector.make_due(town.lane("eve"))
        town.ends(job, TurnState.DEAD)
    memories = town.producer.memories("eve")
    [home] = memories.list().memories
    memories.delete(home.id)
    gone = town.fleet.afterword("dead", "replay", job.id, "--apply", code=2)
    assert job.id in gone.stderr, "there is no such dead letter any more"
    town.told("eve", DOG)
    assert [memory.text for memory in memories.list().memories] == [DOG]
    assert job.status().turn is TurnState.SKIPPED
