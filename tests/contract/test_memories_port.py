"""The contract of the memory port: one suite for the fake and the real adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain
from pathlib import Path

import pytest
from pydantic import SecretStr

from afterword.shared.errors import IllegalStep, ProviderError
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.bare_owners import BareOwners
from afterword.workers.adapters.mem0.hosted import open_hosted
from afterword.workers.adapters.mem0.sqlite.recipe import open_embedded
from afterword.workers.ports import (
    AddOutcome,
    AddResult,
    BadCursor,
    Exchange,
    Memories,
    MigratableMemories,
    RecalledMemory,
    Turn,
)
from afterword.workers.wiring import open_memories
from tests.kit.claude_api.server import ClaudeStandIn
from tests.kit.fakes.memory import FakeMemories
from tests.kit.mem0_api.server import KEY, Mem0StandIn
from tests.kit.servers.postgres import Postgres

ANA = memory_key("default", "ana")
BEN = memory_key("default", "ben")
AT = datetime(2026, 5, 8, 20, 30, 15, tzinfo=UTC)


BACKENDS = ["fake", "fake, asynchronous", "embedded", "hosted", "hosted, bare owners", "selfhosted"]


@pytest.fixture(params=BACKENDS)
async def memories(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[MigratableMemories]:
    async with Mem0StandIn(polls=2) as mem0, ClaudeStandIn() as claude:
        if request.param == "selfhosted":
            opened = await _open_selfhosted(request.getfixturevalue("postgres"), claude.url)
        else:
            opened = await _open(request.param, tmp_path, mem0.url)
        yield opened
        await opened.aclose()


async def _open_selfhosted(postgres: Postgres, claude_url: str) -> MigratableMemories:
    settings = Settings(
        memory="selfhosted",
        postgres_url=SecretStr(postgres.new_database()),
        anthropic_api_key=SecretStr("test-key"),
        anthropic_base_url=claude_url,
    )
    opened = await open_memories(settings)
    assert opened is not None
    return opened


async def _open(kind: str, folder: Path, mem0_host: str) -> MigratableMemories:
    match kind:
        case "embedded":
            return await open_embedded(Settings(data_dir=folder / "data"))
        case "hosted":
            settings = Settings(mem0_api_key=SecretStr(KEY), mem0_host=mem0_host)
            return await open_hosted(settings, connections=10)
        case "hosted, bare owners":
            settings = Settings(mem0_api_key=SecretStr(KEY), mem0_host=mem0_host)
            return BareOwners(await open_hosted(settings, connections=10))
    return FakeMemories(polls=2 if "asynchronous" in kind else 0, takes_batches=True)


def turn(text: str, number: int = 1, at: datetime = AT) -> Turn:
    return Turn(f"turn-{number}", text, "All right.", at, "conversation-1")


async def settled(memories: Memories, owner: str, said: Turn) -> AddResult:
    added = await memories.add(owner, said)
    while added.outcome is AddOutcome.PENDING:
        assert added.event_id is not None
        added = await memories.follow(owner, added.event_id)
    return added


async def test_an_unknown_owner_has_no_memories(memories: Memories) -> None:
    assert list((await memories.search(ANA, "What do I prefer?", 5)).memories) == []
    assert list(await memories.find(ANA, "turn-1")) == []


async def test_an_added_turn_is_found(memories: Memories) -> None:
    added = await settled(memories, ANA, turn("I prefer Celsius."))
    (found,) = (await memories.search(ANA, "Which temperature do I prefer?", 5)).memories
    assert added.outcome is AddOutcome.STORED
    assert found.id in added.memory_ids
    assert found.owner == ANA
    assert "Celsius" in found.text
    assert found.turn_id == "turn-1"
    assert found.score is not None
    assert 0 <= found.score <= 1


async def test_a_memory_has_the_time_of_its_turn(memories: Memories) -> None:
    late = datetime(2025, 12, 31, 23, 59, 59, 123456, timezone(timedelta(hours=-5)))
    await settled(memories, ANA, turn("I prefer Celsius.", at=late))
    (found,) = (await memories.search(ANA, "Celsius", 5)).memories
    assert (found.created_at, found.text) == (late, "I prefer Celsius.")


async def test_a_message_that_had_no_reply_is_stored_as_any_other(memories: Memories) -> None:
    stopped = replace(turn("I prefer Celsius."), reply_text="")
    added = await settled(memories, ANA, stopped)
    assert added.outcome is AddOutcome.STORED
    (found,) = (await memories.search(ANA, "Celsius", 5)).memories
    assert found.text == "I prefer Celsius."


async def test_a_turn_leads_to_its_memories(memories: Memories) -> None:
    first = await settled(memories, ANA, turn("I prefer Celsius.", 1))
    await settled(memories, ANA, turn("My dog is called Rex.", 2))
    assert tuple(await memories.find(ANA, "turn-1")) == first.memory_ids
    assert list(await memories.find(ANA, "turn-3")) == []


async def test_a_batch_is_stored_under_the_name_and_time_of_its_first_turn(
    memories: Memories,
) -> None:
    if not memories.takes_batches:
        pytest.skip("it is given one turn at a time")
    said = (Exchange("My dog is called Rex.", "Noted."), Exchange("I play cello.", "Nice."))
    added = await settled(memories, ANA, replace(turn("I prefer Celsius."), followed_by=said))
    found = (
        await memories.search(ANA, "I prefer Celsius, my dog is called Rex, I play cello.", 9)
    ).memories
    assert {row.text for row in found} == {"I prefer Celsius.", *(each.user_text for each in said)}
    assert {(row.turn_id, row.created_at) for row in found} == {("turn-1", AT)}
    assert {*added.memory_ids} == {*await memories.find(ANA, "turn-1")}
    assert len(added.memory_ids) == 3


async def test_no_owner_sees_the_memories_of_another(memories: Memories) -> None:
    await settled(memories, ANA, turn("I prefer Celsius."))
    await settled(memories, BEN, turn("I prefer Fahrenheit."))
    found = (await memories.search(BEN, "I prefer Celsius.", 5)).memories
    assert [(row.owner, "Fahrenheit" in row.text) for row in found] == [(BEN, True)]
    assert not set(await memories.find(BEN, "turn-1")) & set(await memories.find(ANA, "turn-1"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b/c"), ("a/b", "c")),
        (("default", "Ana"), ("default", "ana")),
        (("default", "ana"), ("default", "ana ")),
        (("default", "é"), ("default", "e\u0301")),
        (("default", "%"), ("default", "*")),
        (("default", "50% \N{CJK UNIFIED IDEOGRAPH-7528}"), ("default", "50%25")),
    ],
)
async def test_similar_names_are_different_owners(
    memories: Memories, one: tuple[str, str], other: tuple[str, str]
) -> None:
    await settled(memories, memory_key(*one), turn("I prefer Celsius."))
    assert list((await memories.search(memory_key(*other), "Celsius", 5)).memories) == []
    (found,) = (await memories.search(memory_key(*one), "Celsius", 5)).memories
    assert found.owner == memory_key(*one)


async def test_the_best_come_first_and_no_more_than_asked_for(memories: Memories) -> None:
    said = ["My dog is called Rex.", "I prefer Celsius.", "We moved to Lisbon.", "I play cello."]
    for number, text in enumerate(said):
        await settled(memories, ANA, turn(text, number))
    found = (await memories.search(ANA, "What is my dog called?", 2)).memories
    assert len(found) == 2
    assert found[0].text == said[0]
    assert (found[0].score or 0) >= (found[1].score or 0)


async def test_only_the_removed_memories_are_gone(memories: Memories) -> None:
    first = await settled(memories, ANA, turn("I prefer Celsius.", 1))
    await settled(memories, ANA, turn("My dog is called Rex.", 2))
    for _ in range(2):
        await memories.remove(ANA, first.memory_ids)
    assert list(await memories.find(ANA, "turn-1")) == []
    assert len(await memories.find(ANA, "turn-2")) == 1


async def test_copies_of_two_attempts_can_be_told_apart(memories: Memories) -> None:
    said = turn("I prefer Celsius.")
    attempts = [await settled(memories, ANA, replace(said, attempt=name)) for name in "ab"]
    copies = {tuple(copy) for copy in await memories.find_copies(ANA, said.id)}
    assert copies == {one.memory_ids for one in attempts}, "one, or each by itself"
    assert sorted(await memories.find(ANA, said.id)) == sorted(chain.from_iterable(copies))
    assert list(await memories.find_copies(BEN, said.id)) == []


async def test_forgetting_removes_one_owner_and_no_other(memories: Memories) -> None:
    await settled(memories, ANA, turn("I prefer Celsius."))
    await settled(memories, BEN, turn("I prefer Fahrenheit."))
    await memories.forget(ANA)
    assert list((await memories.search(ANA, "Celsius", 5)).memories) == []
    assert list(await memories.find(ANA, "turn-1")) == []
    assert len((await memories.search(BEN, "Fahrenheit", 5)).memories) == 1


async def test_forgetting_can_be_repeated_and_the_owner_can_return(memories: Memories) -> None:
    await memories.forget(ANA)
    await settled(memories, ANA, turn("I prefer Celsius."))
    await memories.forget(ANA)
    await memories.forget(ANA)
    await settled(memories, ANA, turn("I prefer Kelvin."))
    found = (await memories.search(ANA, "What do I prefer?", 5)).memories
    assert ["Kelvin" in row.text for row in found] == [True]


async def test_following_what_is_not_pending_is_an_error(memories: Memories) -> None:
    with pytest.raises((IllegalStep, ProviderError)):
        await memories.follow(ANA, "no-such-event")


@pytest.mark.parametrize(
    "text",
    [
        "I said \"no\" to 'them'; DROP TABLE memories; -- * NEAR(a b) {x}: ^y AND OR NOT",
        "I like \N{HOT BEVERAGE}\N{VARIATION SELECTOR-16} and \N{FAMILY}, ﬁne?! №5",
        "我喜欢摄氏度。\nتفضل ابنتي الشاي.",
        "[8 May 2026] I wrote a date in brackets.",
        "I \\ % _ \t tab",
        "...!",
        "I " + "really " * 3000 + "like tea.",
    ],
)
async def test_any_text_is_stored_and_searched_unchanged(memories: Memories, text: str) -> None:
    await settled(memories, ANA, turn(text))
    (found,) = (await memories.search(ANA, text, 5)).memories
    assert found.text == text


async def test_many_calls_may_run_at_once(memories: Memories) -> None:
    owners = [memory_key("default", f"user-{number}") for number in range(6)]
    await asyncio.gather(
        *(
            settled(memories, owner, turn(f"I have {number} cats.", number))
            for owner in owners
            for number in range(3)
        )
    )
    found = await asyncio.gather(*(memories.search(owner, "cats", 9) for owner in owners))
    for owner, result in zip(owners, found, strict=True):
        assert {row.owner for row in result.memories} == {owner}
        assert {row.turn_id for row in result.memories} == {"turn-0", "turn-1", "turn-2"}


async def listed(memories: Memories, owner: str, limit: int) -> list[tuple[str, ...]]:
    """Return the texts of all pages."""
    pages, after = [], None
    while True:
        page = await memories.list_page(owner, limit, after)
        assert page.malformed == 0
        pages.append(tuple(row.text for row in page.memories))
        after = page.next
        if after is None:
            return pages


async def test_all_memories_of_an_owner_are_listed_page_by_page(memories: Memories) -> None:
    assert await listed(memories, ANA, 2) == [()]
    said = ["My dog is called Rex.", "I prefer Celsius.", "We moved to Lisbon.", "I play cello."]
    for number, text in enumerate(said):
        at = AT + timedelta(minutes=number)
        await settled(memories, ANA, turn(text, number, at))
    await settled(memories, BEN, turn("I prefer Fahrenheit."))
    newest_first = said[::-1]
    assert await listed(memories, ANA, 2) == [tuple(newest_first[:2]), tuple(newest_first[2:])]
    assert await listed(memories, ANA, 3) == [tuple(newest_first[:3]), tuple(newest_first[3:])]
    assert await listed(memories, ANA, 9) == [tuple(newest_first)]


async def test_each_page_has_as_many_memories_as_it_was_asked_for(memories: Memories) -> None:
    for number in range(7):
        at = AT + timedelta(minutes=number)
        await settled(memories, ANA, turn(f"I have {number} cats.", number, at))
    pages: list[list[str]] = []
    after: str | None = None
    for limit in (3, 1, 2, 5):
        page = await memories.list_page(ANA, limit, after)
        pages.append([row.text[7] for row in page.memories])
        after = page.next
        if after is None:
            break
    assert "".join(letter for one in pages for letter in one) == "6543210"
    assert [len(one) for one in pages[:3]] == [3, 1, 2]


@pytest.mark.parametrize(
    "after",
    ["", "x", "-1", "99999999999999999999", "1x0", "a@b", "0x9", "1x9+9", "1x9+0", "\u0661"],
)
async def test_what_ended_no_page_continues_none(memories: Memories, after: str) -> None:
    with pytest.raises(BadCursor):
        await memories.list_page(ANA, 2, after)


async def test_a_memory_says_where_it_comes_from(memories: Memories) -> None:
    said = replace(turn("I prefer Celsius."), stored_by="host:17")
    (memory_id,) = (await settled(memories, ANA, said)).memory_ids
    found = await memories.get(ANA, memory_id)
    assert found is not None
    assert (found.id, found.owner, found.text) == (memory_id, ANA, "I prefer Celsius.")
    assert (found.turn_id, found.created_at) == ("turn-1", AT)
    assert (found.conversation_id, found.stored_by) == ("conversation-1", "host:17")
    (row,) = (await memories.list_page(ANA, 5)).memories
    assert row == found
    (hit,) = (await memories.search(ANA, "Celsius", 5)).memories
    assert replace(hit, score=None) == replace(found, score=None)


async def test_nobody_gets_or_changes_the_memory_of_another(memories: Memories) -> None:
    (memory_id,) = (await settled(memories, ANA, turn("I prefer Celsius."))).memory_ids
    for owner, one in ((BEN, memory_id), (ANA, "no such id"), (ANA, "0" * 32), (ANA, "../x")):
        assert await memories.get(owner, one) is None
        assert not await memories.edit(owner, one, "I prefer Fahrenheit.")
    assert await listed(memories, ANA, 5) == [("I prefer Celsius.",)]


async def test_memories_that_say_the_same_are_found(memories: Memories) -> None:
    said = ["My dog is called Rex.", "I prefer Celsius.", "my dog  is called REX.\n", "Rex."]
    for number, text in enumerate(said):
        await settled(memories, ANA, turn(text, number))
    await settled(memories, BEN, turn(said[0]))
    found = await memories.repeats(ANA, "MY dog is\tcalled Rex.")
    texts = [one.text.strip() for one in [await memories.get(ANA, name) for name in found] if one]
    assert sorted(texts) == [said[0], said[2].strip()]
    assert await memories.repeats(ANA, "I prefer Kelvin.") == []
    assert await memories.repeats(memory_key("default", "cy"), said[0]) == []


async def test_an_edited_memory_keeps_its_id_and_its_origin(memories: Memories) -> None:
    said = replace(turn("I prefer Celsius."), stored_by="host:17")
    (memory_id,) = (await settled(memories, ANA, said)).memory_ids
    before = await memories.get(ANA, memory_id)
    assert before is not None
    assert await memories.edit(ANA, memory_id, "My dog is called Rex.")
    after = await memories.get(ANA, memory_id)
    assert after is not None
    assert after.text == "My dog is called Rex."
    assert replace(after, text=before.text, updated_at=before.updated_at) == before
    (found,) = (await memories.search(ANA, "My dog is called Rex.", 5)).memories
    assert (found.id, found.text) == (memory_id, "My dog is called Rex.")
    assert tuple(await memories.find(ANA, "turn-1")) == (memory_id,)
    assert await memories.edit(ANA, memory_id, "My dog is called Rex.")
    assert await listed(memories, ANA, 5) == [("My dog is called Rex.",)]


async def test_a_removed_memory_is_gone(memories: Memories) -> None:
    (memory_id,) = (await settled(memories, ANA, turn("I prefer Celsius."))).memory_ids
    await memories.remove(ANA, [memory_id])
    assert await memories.get(ANA, memory_id) is None
    assert not await memories.edit(ANA, memory_id, "My dog is called Rex.")
    assert await listed(memories, ANA, 5) == [()]


COPIED = RecalledMemory(
    "elsewhere-1",
    ANA,
    "I prefer Celsius.",
    None,
    AT,
    "turn-1",
    conversation_id="conversation-1",
    stored_by="host:17",
    extraction_model="claude-haiku-5-5",
)


async def test_a_memory_of_another_backend_is_copied_as_it_is(memories: MigratableMemories) -> None:
    (memory_id,) = await memories.copy(ANA, COPIED)
    found = await memories.get(ANA, memory_id)
    assert found is not None
    kept = replace(found, score=None, updated_at=None)
    assert kept == replace(COPIED, id=memory_id, copied_from="elsewhere-1")
    assert list(await memories.find(ANA, "turn-1")) == [memory_id]
    (hit,) = (await memories.search(ANA, "Which temperature do I prefer? Celsius", 5)).memories
    assert hit.id == memory_id


async def test_a_copied_memory_may_come_from_no_turn_and_no_time(
    memories: MigratableMemories,
) -> None:
    bare = RecalledMemory("elsewhere-2", ANA, "[8 May 2026] I like tea.", None, None)
    (memory_id,) = await memories.copy(ANA, bare)
    found = await memories.get(ANA, memory_id)
    assert found is not None
    assert (found.text, found.turn_id) == (bare.text, None)
    assert found.copied_from == "elsewhere-2"


async def test_memories_that_are_alike_are_copied_each_unless_the_backend_drops_one(
    memories: MigratableMemories,
) -> None:
    twice = [replace(COPIED, id=f"elsewhere-{turn}", turn_id=turn) for turn in ("one", "two")]
    copies = [await memories.copy(ANA, one) for one in twice]
    page = await memories.list_page(ANA, 9)
    stored = {memory_id for copy in copies for memory_id in copy}
    assert {row.id for row in page.memories} == stored
    assert [len(copy) for copy in copies] in ([1, 1], [1, 0])


async def test_owners_are_listed_page_by_page(memories: MigratableMemories) -> None:
    assert (await memories.list_owners(2)).owners == ()
    owners = [memory_key(*user) for user in (("default", "a b"), ("default", "cy"), ("x", "d/e"))]
    for owner in (*owners, owners[0]):
        await settled(memories, owner, turn("I prefer Celsius."))
    found, after = list[str](), None
    while True:
        page = await memories.list_owners(2, after)
        found += page.owners
        after = page.next
        if after is None:
            break
        assert len(page.owners) == 2
    assert sorted(found) == sorted(owners)


async def test_what_ended_no_page_of_owners_continues_none(memories: MigratableMemories) -> None:
    with pytest.raises(BadCursor):
        await memories.list_owners(2, "\0")
