"""Message batches with a real ledger, mem0 in PostgreSQL, and the API over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import pytest
from pydantic import SecretStr

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.adapters.claude.batches import ClaudeBatches
from afterword.workers.adapters.claude.client import Claude
from afterword.workers.adapters.mem0.extraction import parse_facts
from afterword.workers.memories.message_batches import Batching
from afterword.workers.ports import Memories
from afterword.workers.wiring import open_memories
from tests.kit.claude_api.message_batches import PATH
from tests.kit.claude_api.server import ClaudeStandIn
from tests.kit.ledger.builder import LedgerInspector, lane_of, submit_and_answer
from tests.kit.ledger.fixtures import inspector, ledger, settings
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter
from tests.kit.servers.postgres import Postgres

__all__ = ["inspector", "ledger", "settings"]

pytestmark = pytest.mark.redis

KEY = "test-key"
MANY_S = 60.0


@pytest.fixture
async def claude() -> AsyncIterator[ClaudeStandIn]:
    async with ClaudeStandIn() as claude:
        yield claude


@pytest.fixture
async def batching(ledger: Ledger, claude: ClaudeStandIn) -> AsyncIterator[Batching]:
    client = Claude(
        api_key=KEY, base_url=claude.url, connections=2,
        total_s=MANY_S, first_event_s=MANY_S, idle_s=MANY_S,
    )  # fmt: skip
    api = ClaudeBatches(client)
    yield Batching(ledger.message_batches, api, parse_facts, 0.0, {}, {})
    await api.aclose()


@pytest.fixture
async def memories(
    settings: Settings, postgres: Postgres, claude: ClaudeStandIn, batching: Batching
) -> AsyncIterator[Memories]:
    selfhosted = settings.model_copy(
        update={
            "memory": "selfhosted",
            "extraction": "batch",
            "postgres_url": SecretStr(postgres.new_database()),
            "anthropic_api_key": SecretStr(KEY),
            "anthropic_base_url": claude.url,
        }
    )
    opened = await open_memories(selfhosted, batching=batching)
    assert opened is not None
    yield opened
    await opened.aclose()


async def test_facts_of_a_message_batch_are_stored_by_mem0(
    settings: Settings,
    ledger: Ledger,
    inspector: LedgerInspector,
    claude: ClaudeStandIn,
    batching: Batching,
    memories: Memories,
) -> None:
    writer = LaneWriter(settings, ledger, cast("FailingMemories", memories))
    said = {"ann": "I prefer Celsius.", "bob": "I live in Cologne."}
    turns = [await submit_and_answer(ledger, text, user_id=user) for user, text in said.items()]

    async def write() -> None:
        for user in said:
            inspector.make_due(lane_of(user))
            await writer.write(lane_of(user))

    async def run() -> None:
        key = inspector.keys.message_batches
        if names := inspector.redis.zrange(key, 0, -1):
            inspector.redis.zadd(key, dict.fromkeys(names, 0))
        await batching.run()

    await write()
    await run()
    await run()
    assert [request.path for request in claude.requests if request.path == PATH] == [PATH]
    claude.batches.end({turns[1]: "expired"})
    await run()
    await write()

    for user, text in said.items():
        found = await memories.search(memory_key("default", user), "What do I like?", 5)
        assert [memory.text for memory in found.memories] == [text]
    assert {(await ledger.queries.status(turn)).turn for turn in turns} == {TurnState.STORED}
    extracted = [one for one in claude.requests if one.path == "/v1/messages"]
    assert len(extracted) == 1, "only what expired in the batch had a call of its own"
    assert claude.batches.batches == {}
