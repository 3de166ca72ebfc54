"""Every way in which a call to mem0's platform can fail, and the error it becomes: one row each."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    Fault,
    IllegalStep,
    Misconfigured,
    ProviderError,
    Rejected,
    Unavailable,
)
from afterword.shared.events import MalformedMemoriesDropped
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.hosted import HostedMemories, open_hosted
from afterword.workers.ports import (
    NO_FACT,
    AddOutcome,
    AddResult,
    EventFailed,
    EventGone,
    Exchange,
    Turn,
)
from afterword.workers.wiring import open_memories
from tests.kit.mem0_api.failure_cases import CASES, SECRET, Mem0Case
from tests.kit.mem0_api.scripted_answers import Mem0Answer
from tests.kit.mem0_api.server import KEY, Mem0StandIn
from tests.kit.secrecy import assert_quotes_nothing
from tests.kit.servers.scripted_http_server import Cue
from tests.kit.workers.observed import observed

ANA = "owner-ana"
BEN = "owner-ben"
AT = datetime(2026, 5, 8, 20, 30, 15, 250_000, tzinfo=UTC)
TURN = Turn("turn-1", f"I like {SECRET}.", f"Noted, {SECRET}.", AT, "conversation-1", "7.a")

CALLS: dict[str, Callable[[HostedMemories], Awaitable[object]]] = {
    "search": lambda memories: memories.search(ANA, f"what about {SECRET}", 5),
    "add": lambda memories: memories.add(ANA, TURN),
    "get_all": lambda memories: memories.find(ANA, "turn-1"),
    "event": lambda memories: memories.follow(ANA, "event-1"),
    "delete": lambda memories: memories.remove(ANA, ["memory-1"]),
    "delete_all": lambda memories: memories.forget(ANA),
}

#: Calls after which something may have changed, or may still come.
CHANGING = ("add", "event")


@pytest.fixture
async def mem0() -> AsyncIterator[Mem0StandIn]:
    async with Mem0StandIn() as mem0:
        yield mem0


@pytest.fixture
async def memories(mem0: Mem0StandIn) -> AsyncIterator[HostedMemories]:
    opened = await opened_at(mem0.url)
    yield opened
    await opened.aclose()


async def opened_at(url: str, call_s: float = 10.0, key: str = KEY) -> HostedMemories:
    settings = Settings(mem0_api_key=SecretStr(key), mem0_host=url)
    memories = cast(HostedMemories, await open_hosted(settings, connections=2))
    memories._call_s = call_s
    return memories


async def failure_of(call: Awaitable[object]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("verb", CALLS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_failure(
    mem0: Mem0StandIn,
    memories: HostedMemories,
    case: Mem0Case,
    verb: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    # Twice: the HTTP library repeats reads and deletes once if the connection was lost.
    mem0.will_answer(*[replace(case.play, verb=verb)] * 2)
    memories._call_s = case.call_s
    error = await failure_of(CALLS[verb](memories))
    assert (type(error), error.code) == (case.error, case.code)
    assert error.retry_after_s == case.retry_after_s
    may_be_stored = verb in CHANGING and case.error in (Unavailable, BadAnswer)
    assert error.unknown_outcome is may_be_stored
    assert_quotes_nothing(error, SECRET, KEY)
    assert SECRET not in caplog.text
    assert KEY not in caplog.text
    assert ANA not in caplog.text


@pytest.mark.parametrize("verb", ["search", "add", "get_all", "delete_all"])
async def test_an_unknown_path_is_a_wrong_address(
    mem0: Mem0StandIn, memories: HostedMemories, verb: str
) -> None:
    mem0.will_answer(Mem0Answer(verb=verb, status=404))
    error = await failure_of(CALLS[verb](memories))
    assert (type(error), error.code) == (AccessDenied, "wrong_address")


@pytest.mark.parametrize("verb", ["search", "add"])
async def test_no_failed_post_is_repeated(
    mem0: Mem0StandIn, memories: HostedMemories, verb: str
) -> None:
    await memories.search(ANA, "warm up", 1)  # so that the next call reuses a connection
    mem0.requests.clear()
    mem0.will_answer(Mem0Answer(verb=verb, cue=Cue.RESET))
    await failure_of(CALLS[verb](memories))
    assert len(mem0.seen(verb)) == 1


async def test_a_wrong_key_is_the_fault_of_the_operator() -> None:
    async with Mem0StandIn() as mem0:
        memories = await opened_at(mem0.url, key="another")
        error = await failure_of(memories.search(ANA, "tea", 5))
        await memories.aclose()
    assert (type(error), error.code) == (AccessDenied, "key_refused")


async def test_a_missing_key_is_a_misconfiguration() -> None:
    with pytest.raises(Misconfigured) as caught:
        await open_memories(Settings(memory="hosted"))
    assert caught.value.setting == "MEM0_API_KEY"


async def test_it_opens_without_a_server() -> None:
    async with Mem0StandIn() as mem0:
        url = mem0.url
    settings = Settings(mem0_api_key=SecretStr(KEY), mem0_host=url)
    memories = await open_memories(settings)
    assert memories is not None
    error = await failure_of(memories.add(ANA, TURN))
    await memories.aclose()
    assert (type(error), error.code) == (Unavailable, "connection_refused")
    assert_quotes_nothing(error, SECRET, KEY)


async def test_opening_makes_no_request(mem0: Mem0StandIn, memories: HostedMemories) -> None:
    assert isinstance(memories, HostedMemories)
    assert list(mem0.requests) == []
    assert "mem0" in sys.modules


async def test_an_add_sends_the_turn_and_nothing_else(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    await memories.add(ANA, TURN)
    (seen,) = mem0.seen("add")
    assert seen.body == {
        "messages": [{"role": "user", "content": TURN.user_text}],
        "user_id": ANA,
        "metadata": {
            "turn_id": "turn-1",
            "attempt": "7.a",
            "said_at": AT.isoformat(),
            "conversation_id": "conversation-1",
        },
        "timestamp": int(AT.timestamp()),
    }


@pytest.mark.parametrize(
    ("zone", "date"),
    [
        ("America/New_York", " [2 December 2026]"),
        ("Asia/Tokyo", " [3 December 2026]"),
        ("No/Where", ""),
        (None, ""),
    ],
)
async def test_an_add_says_which_day_the_user_means(
    mem0: Mem0StandIn, memories: HostedMemories, zone: str | None, date: str
) -> None:
    at = datetime(2026, 12, 2, 1, tzinfo=UTC)  # the evening before in New York
    followed_by = (Exchange("And then I rest.", ""),)
    said = Turn("t", "I have an exam tomorrow.", "", at, timezone=zone, followed_by=followed_by)
    await memories.add(ANA, said)
    (seen,) = mem0.seen("add")
    told = [message["content"] for message in seen.body["messages"]]
    assert told == [f"I have an exam tomorrow{date}.", "And then I rest."]


async def test_a_search_is_for_one_owner_and_not_too_long(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    await memories.search(ANA, "tea " * 10_000 + "with milk?", 7)
    (seen,) = mem0.seen("search")
    assert seen.body["filters"] == {"user_id": ANA}
    assert seen.body["top_k"] == 7
    assert len(seen.body["query"]) <= 2000
    assert seen.body["query"].endswith("milk?")


async def test_a_lookup_is_for_one_turn_of_one_owner(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    await memories.find(ANA, "turn-1")
    (seen,) = mem0.seen("get_all")
    assert seen.body["filters"] == {"AND": [{"user_id": ANA}, {"metadata": {"turn_id": "turn-1"}}]}


async def test_memories_of_the_same_attempt_are_one_copy(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    mem0.extract = lambda messages: [f"{messages[0]['content']} {n}" for n in (1, 2)]
    mem0.polls = 1
    for attempt in ("7.a", "9.b"):
        await followed(memories, await memories.add(ANA, replace(TURN, attempt=attempt)))
    ids = [row["id"] for row in mem0.rows]
    newest_first = [ids[1::-1], ids[:1:-1]]
    assert await memories.find_copies(ANA, TURN.id) == newest_first
    await memories.remove(ANA, ids[2:])
    assert [request.path for request in mem0.seen("delete")] == [
        f"/v1/memories/{memory_id}/" for memory_id in ids[2:]
    ]
    assert await memories.find_copies(ANA, TURN.id) == newest_first[:1]


@pytest.mark.parametrize("memory_id", ["", "a/../b?user_id=c"])
async def test_an_id_cannot_change_the_path(
    mem0: Mem0StandIn, memories: HostedMemories, memory_id: str
) -> None:
    if not memory_id:
        await failure_of(memories.remove(ANA, [memory_id]))
    else:
        await memories.remove(ANA, [memory_id])
    assert [request.verb for request in mem0.requests] == ["delete"] * bool(memory_id)


def test_mem0_sends_no_telemetry_and_writes_nothing_home(tmp_path: Path) -> None:
    script = """
import asyncio
from afterword.shared.events import MalformedMemoriesDropped
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.hosted import open_hosted
settings = Settings(mem0_api_key="key", mem0_host="http://127.0.0.1:9")
asyncio.run(open_hosted(settings, connections=2))
from mem0.memory import telemetry
print(telemetry.MEM0_TELEMETRY)
"""
    left_out = ("MEM0_TELEMETRY", "MEM0_DIR")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    command = [sys.executable, "-c", script]
    ran = subprocess.run(
        command, env=env | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"
    assert list(tmp_path.iterdir()) == []


def test_the_platform_client_imports_only_what_it_needs() -> None:
    script = """
import asyncio, sys
from afterword.shared.events import MalformedMemoriesDropped
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.hosted import open_hosted
settings = Settings(mem0_api_key="key", mem0_host="http://127.0.0.1:9")
asyncio.run(open_hosted(settings, connections=2))
print([name for name in ("grpc", "numpy", "openai", "qdrant_client") if name in sys.modules])
import mem0
print(bool(mem0.__version__), mem0.AsyncMemory.__name__, "qdrant_client" in sys.modules)
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[]", "True AsyncMemory True"]


async def test_an_empty_search_makes_no_request(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    assert list((await memories.search(ANA, " \n", 5)).memories) == []
    assert list(mem0.requests) == []


@pytest.mark.finding(1)
async def test_a_row_has_the_owner_that_it_says_or_who_was_asked_for(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    mem0.plant(ANA, {"id": "m", "memory": "tea", "user_id": BEN, "score": 1, "metadata": None})
    mem0.plant(ANA, {"id": "n", "memory": "tea", "score": 0.5, "created_at": "2026-05-08T20:30:15"})
    found = (await memories.search(ANA, "tea", 5)).memories
    assert [(row.owner, row.turn_id) for row in found] == [(BEN, None), (ANA, None)]
    assert found[1].created_at == AT.replace(microsecond=0)


@pytest.mark.finding(1)
async def test_a_row_that_names_no_owner_and_has_no_score_is_a_memory_and_is_looked_up(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    await followed(memories, await memories.add(ANA, TURN))
    mem0.row_fields = {"user_id": None, "score": None}
    found = await memories.search(ANA, SECRET, 5)
    ids = [mem0.rows[0]["id"]]
    assert [(row.id, row.owner, row.score) for row in found.memories] == [(ids[0], ANA, None)]
    assert (found.malformed, await memories.find(ANA, TURN.id)) == (0, ids)


@pytest.mark.finding(11)
async def test_a_malformed_row_is_dropped_and_counted(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    await followed(memories, await memories.add(ANA, TURN))
    mem0.plant(ANA, {"id": "m", "memory": None})
    mem0.plant(ANA, {"id": 7, "memory": SECRET})
    with observed(MalformedMemoriesDropped) as seen:
        found = await memories.search(ANA, SECRET, 5)
    assert ([row.text for row in found.memories], found.malformed) == ([TURN.user_text], 2)
    assert [event.count for event in seen.of(MalformedMemoriesDropped)] == [2]


async def test_a_lookup_whose_rows_cannot_be_read_says_that_mem0_is_out(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    mem0.will_answer(Mem0Answer(verb="get_all", body='{"results": [{"memory": "tea"}]}'))
    error = await failure_of(memories.find(ANA, TURN.id))
    assert (type(error), error.code) == (Unavailable, "malformed_rows")


@pytest.mark.parametrize("filters_ignored", [("user_id", BEN), ("metadata", {"turn_id": "turn-2"})])
async def test_rows_of_other_turns_are_not_found(
    mem0: Mem0StandIn, memories: HostedMemories, filters_ignored: tuple[str, Any]
) -> None:
    row = {"id": "m", "memory": "tea", "user_id": ANA, "metadata": {"turn_id": "turn-1"}}
    answer = {"results": [row | dict([filters_ignored]), row | {"id": "ours"}]}
    mem0.will_answer(Mem0Answer(verb="get_all", body=str(answer).replace("'", '"')))
    assert list(await memories.find(ANA, "turn-1")) == ["ours"]


async def followed(memories: HostedMemories, added: AddResult) -> AddResult:
    assert added.event_id is not None
    return await memories.follow(ANA, added.event_id)


async def test_an_add_is_followed_one_step_at_a_time(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    mem0.polls = 3
    added = pending = await memories.add(ANA, TURN)
    for _ in range(2):
        pending = await followed(memories, pending)
        assert pending == added
        assert pending.outcome is AddOutcome.PENDING
    stored = await followed(memories, pending)
    assert (stored.outcome, stored.memory_ids) == (AddOutcome.STORED, (mem0.rows[0]["id"],))
    assert len(mem0.seen("event")) == 3


async def test_an_extraction_may_find_nothing(mem0: Mem0StandIn, memories: HostedMemories) -> None:
    mem0.extract = lambda _: []
    assert await followed(memories, await memories.add(ANA, TURN)) is NO_FACT


async def test_a_failed_event_may_be_added_again(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    mem0.failing = 1
    error = await failure_of(followed(memories, await memories.add(ANA, TURN)))
    assert (type(error), error.code) == (EventFailed, "event_failed")
    assert not error.unknown_outcome
    assert (await followed(memories, await memories.add(ANA, TURN))).outcome is AddOutcome.STORED


async def test_an_event_that_is_gone_is_no_failure_of_its_add(memories: HostedMemories) -> None:
    error = await failure_of(memories.follow(ANA, "no-such-event"))
    assert (type(error), error.code) == (EventGone, "event_gone")
    assert error.fault is Fault.PROVIDER


@pytest.mark.parametrize("status", ['"PAUSED"', '""'])
@pytest.mark.parametrize("verb", CHANGING)
async def test_a_status_that_is_new_is_one_in_progress(
    mem0: Mem0StandIn, memories: HostedMemories, verb: str, status: str
) -> None:
    mem0.will_answer(Mem0Answer(verb=verb, body=f'{{"event_id": "event-1", "status": {status}}}'))
    added = cast(AddResult, await CALLS[verb](memories))
    assert (added.outcome, added.event_id) == (AddOutcome.PENDING, "event-1")


@pytest.mark.parametrize("results", ["null", '[{"id": null}]'])
async def test_an_add_that_does_not_say_what_it_stored_has_no_ids(
    mem0: Mem0StandIn, memories: HostedMemories, results: str
) -> None:
    body = f'{{"id": "event-1", "status": "SUCCEEDED", "results": {results}}}'
    mem0.will_answer(Mem0Answer(verb="event", body=body))
    assert await memories.follow(ANA, "event-1") == AddResult(AddOutcome.STORED)


@pytest.mark.parametrize(
    "play",
    [
        Mem0Answer(verb="add", status=504, done=True),
        Mem0Answer(verb="add", cue=Cue.CLOSE, done=True),
    ],
    ids=["504", "cut"],
)
async def test_an_add_whose_answer_was_lost_is_found_later(
    mem0: Mem0StandIn, memories: HostedMemories, play: Mem0Answer
) -> None:
    mem0.will_answer(play)
    error = await failure_of(memories.add(ANA, TURN))
    assert error.unknown_outcome
    (event_id,) = mem0.events
    assert list(await memories.find(ANA, TURN.id)) == []
    await memories.follow(ANA, event_id)
    assert list(await memories.find(ANA, TURN.id)) == [mem0.rows[0]["id"]]


@pytest.mark.finding(9)
async def test_memories_that_others_have_stored_under_a_bare_user_id_are_recalled_and_erased(
    mem0: Mem0StandIn,
) -> None:
    settings = Settings(
        memory="hosted", memory_owner="user", mem0_api_key=SecretStr(KEY), mem0_host=mem0.url
    )
    memories = await open_memories(settings)
    assert memories is not None
    owner = memory_key("default", "ann@example.org")
    told = {"metadata": {"source": "crm", "turn_id": 7}, "categories": None}
    mem0.rows = [
        {"id": "m1", "memory": "I like tea.", "user_id": "ann@example.org"} | told,
        {"id": "m2", "memory": "I like tea.", "user_id": owner} | told,
    ]
    mem0.plant("ann@example.org", mem0.rows[1] | {"score": 1.0})
    found = await memories.search(owner, "tea", 5)
    await memories.forget(owner)
    await memories.aclose()
    assert [(row.id, row.owner) for row in found.memories] == [("m2", ""), ("m1", owner)]
    assert [row["id"] for row in mem0.rows] == ["m2"]


async def test_forgetting_waits_until_it_is_done(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    await followed(memories, await memories.add(ANA, TURN))
    mem0.polls = 2
    await memories.forget(ANA)
    assert mem0.rows == []


@pytest.mark.finding(6)
async def test_an_erasure_that_mem0_no_longer_knows_ends_if_nothing_is_left(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    await followed(memories, await memories.add(ANA, TURN))
    mem0.will_answer(Mem0Answer(verb="event", status=404, times=2))
    assert (await failure_of(memories.forget(ANA))).code == "not_erased"
    mem0.rows.clear()
    await memories.forget(ANA)


async def test_an_erasure_that_left_something_is_not_done(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    await followed(memories, await memories.add(ANA, TURN))
    mem0.will_answer(Mem0Answer(verb="delete_all", body='{"message": "done"}'))
    error = await failure_of(memories.forget(ANA))
    assert (type(error), error.code) == (Unavailable, "not_erased")


async def test_forgetting_that_fails_is_an_error(
    mem0: Mem0StandIn, memories: HostedMemories
) -> None:
    mem0.will_answer(Mem0Answer(verb="event", body='{"id": "event-1", "status": "FAILED"}'))
    error = await failure_of(memories.forget(ANA))
    assert error.code == "event_failed"


@pytest.mark.parametrize("verb", ["search", "add", "find", "forget"])
async def test_without_an_owner_no_request_is_made(
    mem0: Mem0StandIn, memories: HostedMemories, verb: str
) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "search": lambda: memories.search("", "tea", 5),
        "add": lambda: memories.add("", TURN),
        "find": lambda: memories.find("", "turn-1"),
        "forget": lambda: memories.forget(""),
    }
    with pytest.raises(IllegalStep):
        await calls[verb]()
    assert list(mem0.requests) == []


async def test_a_turn_that_is_not_unicode_is_rejected(memories: HostedMemories) -> None:
    turn = replace(TURN, user_text=f"{SECRET} \ud800")
    error = await failure_of(memories.add(ANA, turn))
    assert (type(error), error.code) == (Rejected, "not_unicode")
    assert_quotes_nothing(error, SECRET, KEY)
