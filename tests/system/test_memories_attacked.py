"""A user's memories are changed while turns of theirs are stored, replayed, split and merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from afterword.producer import Job, MemoriesUnavailable, MemoryNotFound, TurnState
from tests.kit.claude_api.extraction import memory_of
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.mem0_api.scripted_answers import Mem0Answer
from tests.kit.servers.postgres import Postgres
from tests.kit.waiting import wait_until
from tests.kit.workers.memory_towns import (
    BACKENDS,
    EXTRACTOR,
    HostedTown,
    MemoryTown,
    SelfHostedTown,
    town_of,
)

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

TEA, COFFEE, MILK = "I like tea.", "I drink coffee at noon.", "My cat gets milk."


@pytest.fixture(scope="module", params=BACKENDS)
def town(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[MemoryTown]:
    with town_of(request.param, postgres) as town:
        yield town


def texts(town: MemoryTown, user: str) -> set[str]:
    """Return what is listed of a user."""
    return {memory.text for memory in town.producer.memories(user).all()}


def at_once(*calls: Callable[[], object]) -> list[object]:
    """Make calls at the same time; return what each returned or raised."""

    def made(call: Callable[[], object]) -> object:
        try:
            return call()
        except (MemoriesUnavailable, MemoryNotFound) as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return [*pool.map(made, calls)]


def let_through(town: MemoryTown, call: Callable[[], object]) -> object:
    """Make a call that no gate keeps from mem0; return what it returned or raised."""

    def made() -> list[object] | None:
        town.open_gates()
        [ended] = at_once(call)
        shut = isinstance(ended, MemoriesUnavailable) and ended.code == "gate_shut"
        return None if shut else [ended]

    return wait_until(made, "the gates are open", 30)[0]  # type: ignore[index]


def test_of_edits_at_once_the_last_one_stands(town: MemoryTown) -> None:
    job = town.told("ann", TEA)
    memories = town.producer.memories("ann")
    [tea] = memories.list().memories
    wanted = [f"I like tea number {number}." for number in range(6)]
    edits = [lambda text=text: memories.edit(tea.id, text).text for text in wanted]
    assert at_once(*edits) == wanted, "each saw its own"
    [stands] = texts(town, "ann")
    assert stands in wanted
    assert [one.text for one in memories.search("tea").memories] == [stands]
    assert job.status().memory_ids == (tea.id,)


def test_of_edits_and_deletions_at_once_a_deletion_stands(town: MemoryTown) -> None:
    town.told("ben", TEA)
    memories = town.producer.memories("ben")
    [tea] = memories.list().memories
    calls = [lambda: memories.delete(tea.id), lambda: memories.edit(tea.id, MILK)] * 3
    ended = at_once(*calls)
    assert ended.count(None) == 1, "deleted once"
    assert not [one for one in ended if isinstance(one, MemoriesUnavailable)]
    assert texts(town, "ben") == set()


def test_the_memory_of_another_and_one_that_is_none_are_not_found(town: MemoryTown) -> None:
    town.told("cat", TEA)
    [tea] = town.producer.memories("cat").list().memories
    theirs = town.producer.memories("dan")
    for memory_id in (tea.id, "nobody's", "../x", "%2F", "0" * 32, "?a=b"):
        for call in (theirs.get, theirs.delete, lambda one: theirs.edit(one, MILK)):
            with pytest.raises(MemoryNotFound):
                call(memory_id)
        said = town.fleet.afterword("memories", "show", "dan", memory_id, code=2).stderr
        assert said == "afterword: the user has no memory with this id\n"
    assert texts(town, "cat") == {TEA}


def test_a_change_waits_for_the_turn_that_is_being_stored(town: MemoryTown) -> None:
    town.told("eve", TEA)
    memories = town.producer.memories("eve")
    [tea] = memories.list().memories
    with town.adds_are_held() as held:
        job, _ = town.say("eve", COFFEE)
        wait_until(held, "the turn is being stored", 30)
        with pytest.raises(MemoriesUnavailable) as caught:
            memories.delete(tea.id, timeout=2)
        assert (caught.value.code, caught.value.may_be_done) == ("lane_busy", False)
        line = ("memories", "edit", "eve", tea.id, MILK, "--apply", "--timeout", "2s")
        said = town.fleet.afterword(*line, code=1).stderr
        assert "a turn of the user was being stored all the time: ask again" in said
        assert TEA in texts(town, "eve"), "to read waits for nothing"
        waiting = ThreadPoolExecutor(1).submit(memories.delete, tea.id)
    waiting.result()
    town.ends(job, TurnState.STORED)
    assert texts(town, "eve") == {COFFEE}


def test_turns_that_were_stored_together_name_the_same_memories(town: MemoryTown) -> None:
    with town.adds_are_held() as held:
        first, _ = town.say("fay", TEA)
        wait_until(held, "the turn is being stored", 30)
        others = [town.say("fay", text)[0] for text in (COFFEE, MILK)]
    for job in (first, *others):
        town.ends(job, TurnState.STORED)
    memories = town.producer.memories("fay")
    found = {memory.text: memory for memory in memories.list().memories}
    together = {found[COFFEE].id, found[MILK].id}
    if town.kind == "embedded":  # takes one turn at a time
        assert [job.status().memory_ids for job in others] == [
            (found[COFFEE].id,),
            (found[MILK].id,),
        ]
        return
    assert [set(job.status().memory_ids) for job in others] == [together] * 2
    assert {found[COFFEE].job_id, found[MILK].job_id} == {others[0].id}
    memories.delete(found[MILK].id)
    assert [job.status().memory_ids for job in others] == [(found[COFFEE].id,)] * 2
    assert texts(town, "fay") == {TEA, COFFEE}


def test_a_turn_of_several_facts_names_each_of_them(town: MemoryTown) -> None:
    if town.kind == "embedded":
        pytest.skip("a turn is one memory")
    job = _told_as_three_facts(town)
    memories = town.producer.memories("gil")
    found = {memory.text: memory for memory in memories.list().memories}
    assert {memory.job_id for memory in found.values()} == {job.id}
    assert set(job.status().memory_ids) == {memory.id for memory in found.values()}
    memories.edit(found[TEA].id, "I like cocoa.")
    memories.delete(found[COFFEE].id)
    assert set(job.status().memory_ids) == {found[TEA].id, found[MILK].id}
    assert texts(town, "gil") == {"I like cocoa.", MILK}


def _told_as_three_facts(town: MemoryTown) -> Job:
    said = f"{TEA} {COFFEE} {MILK}"
    if isinstance(town, SelfHostedTown):
        facts = memory_of(TEA, COFFEE, MILK)
        town.fleet.claude.will_answer(ClaudeAnswer(match=EXTRACTOR, text=facts))
        return town.told("gil", said)
    assert isinstance(town, HostedTown)
    town.mem0.order(sentences=True)
    job = town.told("gil", said)
    town.mem0.order(sentences=False)
    return job


def test_what_is_deleted_during_a_replay_stays_deleted(town: MemoryTown) -> None:
    users = [f"hal-{number}" for number in range(3)]
    jobs = [town.half_told(user, TEA) for user in users]
    with town.lookups_are_rejected():
        for user, job in zip(users, jobs, strict=True):
            town.inspector.make_due(town.lane(user))
            town.ends(job, TurnState.DEAD)
    found = [town.producer.memories(user).list().memories[0] for user in users]
    town.open_gates()
    deletions = [
        lambda user=user, memory=memory: town.producer.memories(user).delete(memory.id)
        for user, memory in zip(users[1:], found[1:], strict=True)
    ]
    replay = ("dead", "replay", "--all", "--apply", "--rate", "1000", "--json")
    code, *deleted = at_once(lambda: town.fleet.exit_code(*replay), *deletions)
    assert code in (0, 1)
    assert deleted == [None] * len(deletions)
    town.ends(jobs[0], TurnState.STORED)
    for user in users[1:]:
        town.told(user, MILK)  # after whatever is in the lane
    assert [texts(town, user) for user in users] == [{TEA}, *[{MILK}] * 2]
    assert {job.status().turn_code for job in jobs[1:]} == {"deleted"}


def test_without_a_worker_the_error_says_what_to_do(town: MemoryTown) -> None:
    town.told("ida", TEA)
    writer = town.writer()
    writer.stop()
    memories = town.producer.memories("ida")
    for call in (memories.list, lambda **said: "".join(memories.export(**said))):
        with pytest.raises(MemoriesUnavailable, match="start one, or wait for longer") as caught:
            call(timeout=0.3)
        assert caught.value.code == "no_worker"
    line = ("memories", "delete", "ida", "m", "--apply", "--timeout", "1s")
    said = town.fleet.afterword(*line, code=1)
    assert "no memory worker has answered in time: start one" in said.stderr
    assert said.stdout == ""
    town.fleet.start("memories")
    assert texts(town, "ida") == {TEA}


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_what_mem0_refuses_half_way_can_be_repeated(town: MemoryTown, status: int) -> None:
    if not isinstance(town, HostedTown):
        pytest.skip("it is of mem0's platform")
    user = f"jo-{status}"
    job = town.told(user, TEA)
    memories = town.producer.memories(user)
    [tea] = memories.list().memories
    for verb in ("search", "get_all", "update"):
        town.mem0.will_answer(Mem0Answer(verb=verb, status=status, body="{}"))
        ended = let_through(town, lambda: memories.edit(tea.id, COFFEE))
        assert isinstance(ended, (MemoriesUnavailable, MemoryNotFound)), verb
        assert let_through(town, lambda: memories.get(tea.id).text) == TEA
    assert let_through(town, lambda: memories.edit(tea.id, COFFEE).text) == COFFEE

    town.mem0.will_answer(Mem0Answer(verb="delete", status=status, body="{}"))
    ended = let_through(town, lambda: memories.delete(tea.id))
    if status != 404:  # it would be gone
        assert isinstance(ended, MemoriesUnavailable)
        assert ended.may_be_done
        assert let_through(town, lambda: memories.delete(tea.id)) is None
        assert job.id not in town.kept()
