"""Rows and events of mem0, broken one field at a time: nothing raises but a `ProviderError`."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from afterword.shared.contracts import ChatRequest, MemoryUsed
from afterword.shared.errors import ProviderError
from afterword.workers.adapters.mem0.answers import MemoryRow, read_rows, readable_payload
from afterword.workers.adapters.mem0.hosted import HostedMemories
from afterword.workers.ports import AddOutcome, Recall, RecalledMemory, SearchResult, Turn
from afterword.workers.replies import prompt
from tests.kit.fuzz.broken import Broken, broken
from tests.kit.fuzz.doors import door

OWNER = "default/ann"
AT = datetime(2026, 5, 8, 20, 30, 15, tzinfo=UTC)
TURN = Turn("turn-1", "I like tea.", "Noted.", AT, attempt="7.a")

ROW = {
    "id": "memory-1",
    "memory": "I like tea.",
    "user_id": OWNER,
    "agent_id": None,
    "app_id": None,
    "run_id": None,
    "score": 0.5,
    "metadata": {"turn_id": "turn-1", "attempt": "7.a", "said_at": AT.isoformat()},
    "categories": ["food"],
    "created_at": "2026-05-08T13:30:15-07:00",
    "updated_at": "2026-05-08T13:30:15-07:00",
    "expiration_date": None,
}
EVENT: dict[str, Any] = {
    "id": "event-1",
    "event_type": "ADD",
    "status": "SUCCEEDED",
    "payload": {},
    "results": [{"id": "memory-1", "data": {"memory": "I like tea."}, "event": "ADD"}],
    "error": None,
    "latency": 0.25,
}
PAYLOAD = {
    "data": "I like tea.",
    "user_id": OWNER,
    "turn_id": "turn-1",
    "hash": "5d41402a",
    "created_at": AT.isoformat(),
    "updated_at": AT.isoformat(),
}


class Platform:
    """Gives one answer to every call."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def _give(self, *_: object, **__: object) -> Any:
        return self._answer

    search = add = get_all = get_event = delete_all = delete_memory = _give


def hosted(answer: Any) -> HostedMemories:
    return HostedMemories(cast(Any, Platform(answer)))


def used_in_a_reply(found: SearchResult) -> list[MemoryUsed]:
    """Build the prompt and the part of a reply that memories reach, and send it through JSON."""
    limits = prompt.Limits(prompt_tokens=8000, max_tokens=100, model="m", system=None)
    built = prompt.build(
        ChatRequest(user_id="ann", message="What do I like?"),
        Recall(found.memories, lost=found.malformed),
        overlay=(),
        history=(),
        limits=limits,
        user_tag="t",
    )
    json.dumps([message.text for message in built.prompt.messages]).encode()
    for message in built.prompt.messages:
        message.text.encode()
    texts = [memory.model_dump_json() for memory in built.recalled.memories]
    return [MemoryUsed.model_validate_json(text) for text in texts]


@pytest.mark.finding(11)
@door("memories of mem0", row=broken(ROW))
def test_no_row_fails_a_reply_or_hides_another(row: Broken) -> None:
    found = asyncio.run(hosted({"results": [row.value, ROW]}).search(OWNER, "tea", 5))

    assert len(found.memories) + found.malformed == 2
    assert "memory-1" in [used.id for used in used_in_a_reply(found)]
    assert all(_is_sound(memory) for memory in found.memories)


def _is_sound(memory: RecalledMemory) -> bool:
    memory.text.encode()
    memory.id.encode()
    return bool(memory.id) and (memory.score is None or math.isfinite(memory.score))


@door("owners of memories", row=broken(ROW))
def test_a_row_of_somebody_else_is_never_taken_for_the_users(row: Broken) -> None:
    found = asyncio.run(hosted({"results": [row.value]}).search(OWNER, "tea", 5))

    said = row.value.get("user_id") if isinstance(row.value, dict) else None
    assert all(memory.owner == (said or OWNER) for memory in found.memories)


@door(
    "answers of mem0",
    answer=broken({"count": 1, "next": None, "previous": None, "results": [ROW]}),
)
def test_no_answer_to_a_search_or_lookup_raises_anything_else(answer: Broken) -> None:
    mem0 = hosted(answer.value)
    calls: list[Coroutine[Any, Any, object]] = [
        mem0.search(OWNER, "tea", 5),
        mem0.find(OWNER, TURN.id),
        mem0.find_copies(OWNER, TURN.id),
    ]
    for call in calls:
        try:
            asyncio.run(call)
        except ProviderError as error:
            assert not error.unknown_outcome  # noqa: PT017 - most answers are fine


@pytest.mark.finding(1)
@door("lookups in mem0", row=broken(ROW))
def test_a_lookup_finds_the_turn_or_admits_that_it_cannot_say(row: Broken) -> None:
    try:
        found = asyncio.run(hosted({"results": [row.value]}).find(OWNER, TURN.id))
    except ProviderError as error:
        assert error.code == "malformed_rows"  # noqa: PT017 - most rows are fine
        return
    if not found:
        assert (row.value.get("user_id") or OWNER, _turn(row.value)) != (OWNER, TURN.id)


def _turn(row: Mapping[str, Any]) -> Any:
    metadata = row.get("metadata")
    return metadata.get("turn_id") if isinstance(metadata, dict) else None


@door("events of mem0", event=broken(EVENT))
def test_no_event_raises_anything_else(event: Broken) -> None:
    mem0 = hosted(event.value)
    for call in (mem0.add(OWNER, TURN), mem0.follow(OWNER, "event-1")):
        try:
            added = asyncio.run(call)
        except ProviderError as error:
            assert error.unknown_outcome or error.code == "event_failed"  # noqa: PT017
        else:
            assert (added.outcome is AddOutcome.PENDING) == (added.event_id is not None)
            assert all(memory_id.encode() for memory_id in added.memory_ids)


@door("payloads of a store", payload=broken(PAYLOAD))
def test_no_payload_of_a_store_fails_mem0(payload: Broken) -> None:
    from mem0.memory.main import MemoryItem

    read = readable_payload(payload.value)
    item = MemoryItem(
        id="m",
        memory=read.get("data", ""),
        hash=read.get("hash"),
        created_at=read.get("created_at"),
        updated_at=read.get("updated_at"),
    ).model_dump()
    rows, malformed = read_rows([item], MemoryRow)
    assert len(rows) + malformed == 1
