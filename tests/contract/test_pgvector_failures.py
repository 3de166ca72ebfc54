"""Every way in which the selfhosted memory can fail, and the error it becomes: one row each."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    LeaseLost,
    Misconfigured,
    NoSuchModel,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.pgvector.database import TABLE
from afterword.workers.ports import KNOWN_FACTS, NO_FACT, AddOutcome, Memories, Turn
from afterword.workers.wiring import open_memories
from tests.kit.claude_api.extraction import memory_of
from tests.kit.claude_api.scripted_answers import ClaudeAnswer, ServerFault
from tests.kit.claude_api.server import ClaudeStandIn
from tests.kit.claude_api.wire_format import told
from tests.kit.servers.postgres import STRANGER, Postgres
from tests.kit.waiting import until, wait_until

ANA, BEN = "owner-ana", "owner-ben"
SECRET = "canary-secret"
AT = datetime(2026, 5, 8, 20, 30, 15, tzinfo=UTC)
TURN = Turn("turn-1", f"I like {SECRET}.", f"Noted, {SECRET}.", AT, "conversation-1", "7.a")
SOUND = memory_of(f"The user likes {SECRET}.")


def settings_for(url: str, claude_url: str, **more: Any) -> Settings:
    return Settings(
        memory="selfhosted",
        postgres_url=SecretStr(url),
        anthropic_api_key=SecretStr("test-key"),
        anthropic_base_url=claude_url,
        **more,
    )


async def opened(settings: Settings) -> Memories:
    memories = await open_memories(settings)
    assert memories is not None
    return memories


@pytest.fixture
async def claude() -> AsyncIterator[ClaudeStandIn]:
    async with ClaudeStandIn() as server:
        yield server


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture
async def memories(claude: ClaudeStandIn, url: str) -> AsyncIterator[Memories]:
    memories = await opened(settings_for(url, claude.url))
    yield memories
    await memories.aclose()


@dataclass(frozen=True)
class Row:
    """One failure of the extraction: what Claude does, and the error it becomes."""

    name: str
    play: ClaudeAnswer
    error: type[ProviderError]
    code: str
    retry_after_s: float | None = None
    patience: dict[str, float] = field(default_factory=dict)


def says(name: str, text: str, code: str, **more: Any) -> Row:
    return Row(name, ClaudeAnswer(text=text, **more), BadAnswer, code)


EXTRACTIONS = [
    says("junk", f"%%% {SECRET}", "extraction_malformed"),
    says("prose with braces", f"I found {{a}} and {{b}} on {SECRET}.", "extraction_malformed"),
    says("empty", "", "no_text"),
    says("only spaces", " \n", "no_text"),
    says("cut by its length", SOUND[:30], "extraction_truncated", stop_reason="max_tokens"),
    says("whole but cut", SOUND, "extraction_truncated", stop_reason="max_tokens"),
    says("refusal", "", "extraction_refused", stop_reason="refusal"),
    says("a pause", SOUND, "extraction_unfinished", stop_reason="pause_turn"),
    says("a list", "[1, 2]", "extraction_malformed"),
    says("no memory", '{"facts": []}', "extraction_malformed"),
    says("memory is no list", '{"memory": "none"}', "extraction_malformed"),
    says("a fact is a text", '{"memory": ["I like tea"]}', "extraction_malformed"),
    says("a fact without text", '{"memory": [{"text": ""}]}', "extraction_malformed"),
    says("one fact of two", '{"memory": [{"text": "a"}, {"id": "1"}]}', "extraction_malformed"),
    says("half a JSON", SOUND[:-4], "extraction_malformed"),
    says("nested too deep", '{"memory":' + "[" * 5000, "extraction_malformed"),
    Row("400", ClaudeAnswer(status=400), Rejected, "invalid_request"),
    Row("401", ClaudeAnswer(status=401), AccessDenied, "key_refused"),
    Row("402", ClaudeAnswer(status=402), AccessDenied, "billing"),
    Row(
        "429",
        ClaudeAnswer(status=429, headers={"retry-after": "17"}),
        RateLimited,
        "rate_limited",
        17.0,
    ),
    Row("404", ClaudeAnswer(status=404), NoSuchModel, "memory_model_not_found"),
    Row("500", ClaudeAnswer(status=500), Unavailable, "provider_error"),
    Row("529", ClaudeAnswer(status=529), Unavailable, "overloaded"),
    Row(
        "silence",
        ClaudeAnswer(fault=ServerFault.SILENCE),
        Unavailable,
        "no_first_event",
        patience={"first_token_timeout_s": 0.5},
    ),
    Row(
        "stall",
        ClaudeAnswer(fault=ServerFault.STALL),
        Unavailable,
        "stalled",
        patience={"idle_timeout_s": 0.5},
    ),
    Row("cut", ClaudeAnswer(fault=ServerFault.CUT), Unavailable, "cut"),
    Row("reset", ClaudeAnswer(fault=ServerFault.RESET_FIRST), Unavailable, "unreachable"),
    Row("no end", ClaudeAnswer(fault=ServerFault.TRUNCATE), BadAnswer, "truncated"),
]


@pytest.mark.parametrize("row", EXTRACTIONS, ids=lambda row: row.name)
async def test_an_extraction_that_fails_is_an_error_and_the_next_one_stores(
    memories: Memories, claude: ClaudeStandIn, url: str, row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    claude.will_answer(row.play)
    asked = await opened(settings_for(url, claude.url, **row.patience))
    try:
        with pytest.raises(row.error) as raised:
            await asked.add(ANA, TURN)
    finally:
        await asked.aclose()
    error = raised.value
    assert (type(error), error.code, error.unknown_outcome) == (row.error, row.code, False)
    assert error.retry_after_s == row.retry_after_s
    assert len(claude.requests) == 1, "nothing is tried twice behind our back"
    assert SECRET not in caplog.text + str(error)
    assert (await memories.add(ANA, TURN)).outcome is AddOutcome.STORED


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{SOUND}\n```",
        f"Here {{you}} are: {SOUND} Done {{so}}.",
        f'{{"note": 1}} {SOUND}',
        memory_of("<think>tea</think>", "``` code ```", "a\0b"),
    ],
)
async def test_facts_are_found_among_prose(
    memories: Memories, claude: ClaudeStandIn, text: str
) -> None:
    claude.will_answer(ClaudeAnswer(text=text))
    added = await memories.add(ANA, TURN)
    found = [row.text for row in (await memories.search(ANA, "tea", 9)).memories]
    assert added.outcome is AddOutcome.STORED
    assert found == [f"The user likes {SECRET}."] or set(found) == {
        "<think>tea</think>", "``` code ```", "ab"
    }  # fmt: skip


async def test_an_extraction_without_facts_stores_nothing(
    memories: Memories, claude: ClaudeStandIn
) -> None:
    claude.will_answer(ClaudeAnswer(text=memory_of()))
    assert await memories.add(ANA, TURN) is NO_FACT


async def test_facts_that_are_known_already_are_told_from_none(
    memories: Memories, claude: ClaudeStandIn
) -> None:
    assert (await memories.add(ANA, TURN)).outcome is AddOutcome.STORED
    assert await memories.add(ANA, replace(TURN, id="turn-2")) is KNOWN_FACTS
    noted = memory_of(TURN.user_text)
    assert await memories.add(ANA, replace(TURN, id="turn-3", facts=noted)) is KNOWN_FACTS
    assert await memories.add(ANA, replace(TURN, id="turn-4", facts=memory_of())) is NO_FACT
    assert len(claude.requests) == 2


async def test_only_what_the_user_wrote_is_sent_and_stored(
    memories: Memories, claude: ClaudeStandIn
) -> None:
    await memories.add(BEN, replace(TURN, user_text="I like gin."))
    await memories.add(ANA, replace(TURN, reply_text="You like rum."))
    fact = {"text": "likes rum", "attributed_to": "assistant"}
    claude.will_answer(ClaudeAnswer(text=json.dumps({"memory": [fact]})))
    second = replace(TURN, id="turn-2", user_text="What do I like?", reply_text="You like rum.")
    assert await memories.add(ANA, second) is NO_FACT
    asked = [told(seen.body)[-1] for seen in claude.requests]
    assert not [text for text in asked if "You like rum" in text]
    assert [SECRET in text.partition("## New Messages")[0] for text in asked] == [
        False,
        False,
        True,
    ]
    assert "I like gin" not in asked[1] + asked[2], "of no other user's turn in this process"


async def test_the_extraction_request_holds_the_turn_and_its_date(
    memories: Memories, claude: ClaudeStandIn
) -> None:
    await memories.add(ANA, TURN)
    (seen,) = claude.requests
    assert seen.body["model"] == "claude-haiku-5-5"
    assert seen.body["system"][-1]["cache_control"] == {"type": "ephemeral"}
    assert "written on 2026-05-08" in told(seen.body)[-1]
    assert ANA not in json.dumps(seen.body)
    assert not {"temperature", "top_p", "top_k"} & set(seen.body)


async def test_noted_facts_are_not_extracted_again(
    memories: Memories, claude: ClaudeStandIn, postgres: Postgres, url: str
) -> None:
    noted: list[str] = []

    async def note(facts: str) -> None:
        noted.append(facts)
        postgres.tell(f"ALTER TABLE {TABLE} ADD CONSTRAINT no CHECK (false) NOT VALID", url)

    with pytest.raises(BadAnswer):
        await memories.add(ANA, replace(TURN, note_facts=note))
    postgres.tell(f"ALTER TABLE {TABLE} DROP CONSTRAINT no", url)
    again = replace(TURN, facts=noted[0], note_facts=note, attempt="8.b")
    assert (await memories.add(ANA, again)).outcome is AddOutcome.STORED
    assert (await memories.add(ANA, again)).outcome is AddOutcome.STORED
    assert len(claude.requests) == len(noted) == 1
    assert len(await memories.find(ANA, TURN.id)) == 1


async def test_a_writer_that_lost_its_lane_stores_nothing(memories: Memories) -> None:
    async def note(_: str) -> None:
        raise LeaseLost("overtaken")

    with pytest.raises(LeaseLost):
        await memories.add(ANA, replace(TURN, note_facts=note))
    assert list(await memories.find(ANA, TURN.id)) == []


async def test_a_cancelled_add_cannot_commit(
    memories: Memories, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, released, over = threading.Event(), threading.Event(), threading.Event()
    store = memories._memory.vector_store  # type: ignore[attr-defined]
    insert = store.insert

    def late(**rows: Any) -> None:
        reached.set()
        released.wait(20)
        try:
            insert(**rows)
        finally:
            over.set()

    monkeypatch.setattr(store, "insert", late)
    add = asyncio.create_task(memories.add(ANA, TURN))
    await asyncio.to_thread(reached.wait, 20)
    add.cancel()
    with pytest.raises(asyncio.CancelledError):
        await add
    await memories.forget(ANA)
    released.set()
    await asyncio.to_thread(over.wait, 20)
    assert list(await memories.find(ANA, TURN.id)) == []


async def test_postgresql_commits_nothing_after_the_deadline(
    claude: ClaudeStandIn, url: str
) -> None:
    memories = await opened(settings_for(url, claude.url, write_timeout_s=2.0))
    try:
        await memories.find(ANA, TURN.id)
        with psycopg.connect(url) as other:
            other.execute(f"LOCK TABLE {TABLE} IN EXCLUSIVE MODE")
            async with asyncio.timeout(30):
                with pytest.raises(Unavailable, match="store_unavailable"):
                    await memories.add(ANA, TURN)
        assert list(await memories.find(ANA, TURN.id)) == []
        assert (await memories.add(ANA, TURN)).outcome is AddOutcome.STORED, (
            "the limit was for one write"
        )
    finally:
        await memories.aclose()


async def test_a_turn_is_stored_whole_or_not_at_all(
    memories: Memories, claude: ClaudeStandIn, postgres: Postgres, url: str
) -> None:
    check = f"ALTER TABLE {TABLE} ADD CONSTRAINT no CHECK (payload->>'data' <> 'two')"
    postgres.tell(check, url)
    claude.will_answer(ClaudeAnswer(text=memory_of("one", "two", "three"), times=2))
    with pytest.raises(BadAnswer, match="store_failed"):
        await memories.add(ANA, TURN)
    assert list(await memories.find(ANA, TURN.id)) == []
    postgres.tell(f"ALTER TABLE {TABLE} DROP CONSTRAINT no", url)
    assert len((await memories.add(ANA, TURN)).memory_ids) == 3


async def test_facts_that_cannot_be_embedded_are_an_error(memories: Memories) -> None:
    embedder = memories._memory.embedding_model._embedder  # type: ignore[attr-defined]
    works = embedder.embed_batch

    def fail(texts: list[str], action: str) -> Any:
        if action == "add":
            raise ConnectionError(SECRET)
        return works(texts, action)

    embedder.embed_batch = fail
    with pytest.raises(Unavailable, match="embedder_failed"):
        await memories.add(ANA, TURN)
    assert list(await memories.find(ANA, TURN.id)) == []


@pytest.mark.parametrize(
    "vector",
    [[math.nan] * 384, [0.5] * 383, ["a"] * 384, None, [[0.5]] * 384],
    ids=["not a number", "too short", "texts", "none", "lists"],
)
async def test_vectors_that_cannot_be_used_are_an_outage_of_the_embedder(
    memories: Memories, vector: Any
) -> None:
    embedder = memories._memory.embedding_model._embedder  # type: ignore[attr-defined]
    embedder.embed_batch = lambda texts, _: [vector for _ in texts]
    with pytest.raises(Unavailable, match="embedder_failed"):
        await memories.add(ANA, TURN)
    assert list(await memories.find(ANA, TURN.id)) == []


async def test_two_writers_of_the_same_facts_store_them_once(memories: Memories) -> None:
    asked: list[str] = []
    both = asyncio.Event()

    async def note(facts: str) -> None:
        asked.append(facts)
        if len(asked) == 2:
            both.set()
        await both.wait()  # both have read the existing rows by now

    writers = [replace(TURN, note_facts=note, attempt=name) for name in ("7.a", "8.b")]
    await asyncio.gather(*(memories.add(ANA, writer) for writer in writers))
    assert len(await memories.find(ANA, TURN.id)) == 1


CALLS: dict[str, Callable[[Memories], Awaitable[object]]] = {
    "search": lambda memories: memories.search(ANA, "tea", 5),
    "add": lambda memories: memories.add(ANA, TURN),
    "find": lambda memories: memories.find(ANA, TURN.id),
    "forget": lambda memories: memories.forget(ANA),
}


@pytest.mark.faults
async def test_a_server_that_returns_is_used_again(claude: ClaudeStandIn) -> None:
    with Postgres() as server:
        memories = await opened(settings_for(server.new_database(), claude.url))
        try:
            await memories.add(ANA, TURN)
            server.restart()
            assert len((await memories.search(ANA, "tea", 5)).memories) == 1, (
                "no call is lost to a restart"
            )
            server.halt()
            for call in CALLS.values():
                with pytest.raises(Unavailable, match="store_unavailable"):
                    await call(memories)
            server.start()
            assert len((await memories.search(ANA, "tea", 5)).memories) == 1
        finally:
            await memories.aclose()


@pytest.mark.faults
async def test_a_server_may_be_away_at_the_start(claude: ClaudeStandIn) -> None:
    with Postgres() as server:
        url = server.new_database()
        server.halt()
        memories = await opened(settings_for(url, claude.url))
        try:
            with pytest.raises(Unavailable):
                await memories.add(ANA, TURN)
            server.start()
            assert (await memories.add(ANA, TURN)).outcome is AddOutcome.STORED
        finally:
            await memories.aclose()


@pytest.mark.faults
async def test_a_connection_cut_while_it_writes_leaves_the_outcome_unknown(
    memories: Memories, postgres: Postgres, url: str
) -> None:
    await memories.find(ANA, TURN.id)
    lock = f"""DO $$ BEGIN
        LOCK TABLE {TABLE} IN EXCLUSIVE MODE;
        FOR i IN 1..1000 LOOP
            PERFORM pg_sleep(0.02);
            PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock';
            IF FOUND THEN EXIT; END IF;
        END LOOP; END $$"""
    cutting = asyncio.create_task(asyncio.to_thread(postgres.tell, lock, url))
    held = f"SELECT count(*) FROM pg_locks WHERE relation = '{TABLE}'::regclass AND granted"
    await until(lambda: postgres.tell(held, url) != [(0,)], "the table is locked")
    with pytest.raises(Unavailable, match="store_unavailable") as raised:
        await memories.add(ANA, TURN)
    assert raised.value.unknown_outcome
    await cutting
    assert list(await memories.find(ANA, TURN.id)) == []
    assert (await memories.add(ANA, TURN)).outcome is AddOutcome.STORED


async def test_a_read_only_server_still_recalls(
    memories: Memories, postgres: Postgres, url: str, claude: ClaudeStandIn
) -> None:
    await memories.add(ANA, TURN)
    name = url.partition("@/")[2].partition("?")[0]
    postgres.tell(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    other = await opened(settings_for(url, claude.url))
    try:
        assert len((await other.search(ANA, "tea", 5)).memories) == 1
        with pytest.raises(Unavailable, match="store_read_only"):
            await other.add(ANA, replace(TURN, id="turn-2", user_text="I play cello."))
    finally:
        await other.aclose()


async def refused(settings: Settings, variable: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words) as raised:
        await opened(settings)
    assert raised.value.setting == variable
    assert SECRET not in str(raised.value)


async def test_a_wrong_password_is_reported_at_the_start(
    claude: ClaudeStandIn, postgres: Postgres, url: str
) -> None:
    postgres.tell(f"DROP ROLE IF EXISTS {STRANGER}")
    postgres.tell(f"CREATE ROLE {STRANGER} LOGIN PASSWORD 'right'")
    name = url.partition("@/")[2].partition("?")[0]
    wrong = postgres.url(name, STRANGER, SECRET)
    await refused(settings_for(wrong, claude.url), "AFTERWORD_POSTGRES_URL", "refuses")
    postgres.tell(f"DROP ROLE {STRANGER}")


async def test_a_missing_extension_is_reported_at_the_start(
    claude: ClaudeStandIn, postgres: Postgres, url: str
) -> None:
    role = url.partition("@/t_")[2].partition("?")[0]
    postgres.tell(f"CREATE ROLE r_{role} LOGIN")
    poor = postgres.url(f"t_{role}", f"r_{role}")
    await refused(settings_for(poor, claude.url), "AFTERWORD_POSTGRES_URL", "extension `vector`")


STARTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no database": ({"postgres_url": None}, "AFTERWORD_POSTGRES_URL", "must be set"),
    "no address": (
        {"postgres_url": SecretStr(f"{SECRET}!")}, "AFTERWORD_POSTGRES_URL", "not a PostgreSQL URL"
    ),
    "no key": ({"anthropic_api_key": None}, "ANTHROPIC_API_KEY", "must be set"),
    "no such embedder": ({"embedder": "nonesuch"}, "AFTERWORD_EMBEDDER", "is not an embedder"),
    "a part is missing": ({"embedder": "huggingface"}, "AFTERWORD_EMBEDDER", "needs "),
    "not its options": (
        {"embedder": "openai", "embedder_config": SecretStr(f'{{"{SECRET}": 1}}')},
        "AFTERWORD_EMBEDDER_CONFIG",
        "does not accept",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
async def test_a_misconfiguration_is_reported_at_the_start(
    claude: ClaudeStandIn, url: str, name: str
) -> None:
    change, variable, words = STARTS[name]
    settings = settings_for(url, claude.url).model_copy(update=change)
    await refused(settings, variable, words)


async def test_vectors_of_another_length_are_refused(
    claude: ClaudeStandIn, postgres: Postgres, url: str
) -> None:
    postgres.tell("CREATE EXTENSION vector", url)
    postgres.tell(f"CREATE TABLE {TABLE} (id uuid, vector vector(3), payload jsonb)", url)
    await refused(settings_for(url, claude.url), "AFTERWORD_EMBEDDER", "384 dimensions, .* have 3")


_ENSURE = """
import sys, psycopg
from afterword.workers.adapters.mem0.pgvector.database import ensure_table
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    sys.stdin.readline()
    ensure_table(connection, 384)
"""


def test_several_processes_may_create_the_table_at_once(url: str, postgres: Postgres) -> None:
    command = [sys.executable, "-c", _ENSURE, url]
    connected = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    with ExitStack() as held:
        makers = [
            held.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE)) for _ in range(4)
        ]
        wait_until(lambda: postgres.tell(connected, url) == [(5,)], "all are connected", 30)
        for maker in makers:
            assert maker.stdin is not None
            maker.stdin.close()
        assert [maker.wait(30) for maker in makers] == [0] * 4
    indices = f"SELECT count(*) FROM pg_indexes WHERE tablename = '{TABLE}'"
    assert postgres.tell(indices, url) == [(3,)]


async def test_a_search_reads_all_memories_of_a_user(
    memories: Memories, postgres: Postgres, url: str
) -> None:
    rows = f"""INSERT INTO {TABLE} SELECT gen_random_uuid(),
        ARRAY(SELECT random() - 0.5 FROM generate_series(1, 384) WHERE n > 0)::vector,
        jsonb_build_object('user_id', 'user-' || n % 40, 'data', 'fact ' || n, 'turn_id', n)
        FROM generate_series(1, 2000) n"""
    postgres.tell(rows, url)
    found = (await memories.search("user-7", "fact", 50)).memories
    assert len(found) == 50
    assert {row.owner for row in found} == {"user-7"}


async def test_forgetting_leaves_no_row(memories: Memories, postgres: Postgres, url: str) -> None:
    await memories.add(ANA, TURN)
    await memories.add(BEN, TURN)
    await memories.forget(ANA)
    owners = f"SELECT payload->>'user_id' FROM {TABLE}"
    assert postgres.tell(owners, url) == [(BEN,)]
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    assert postgres.tell(tables, url) == [(TABLE,)], "there is no other place to look"
