"""Migrations between the real backends: a round trip over all three changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import SecretStr

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.hosted import open_hosted
from afterword.workers.adapters.mem0.sqlite.recipe import open_embedded
from afterword.workers.memories.migrate import Counts, MemoryMigration, Progress, Rules
from afterword.workers.ports import MigratableMemories, RecalledMemory, Turn
from afterword.workers.wiring import open_memories
from tests.kit.ledger.fixtures import ledger, settings
from tests.kit.mem0_api.server import KEY, Mem0StandIn
from tests.kit.servers.postgres import Postgres

__all__ = ["ledger", "settings"]

pytestmark = pytest.mark.redis

OWNERS = [memory_key("default", "ann"), memory_key("acme", "b/en ")]
AT = datetime(2026, 5, 8, 20, 30, 15, 123456, tzinfo=UTC)
SAID = ["I prefer Celsius.", "[8 May 2026] I wrote a date in brackets.", "我喜欢摄氏度。"]


@pytest.fixture
async def places(
    tmp_path: Path, postgres: Postgres
) -> AsyncIterator[dict[str, MigratableMemories]]:
    """Give two files, a database and the platform."""
    async with AsyncExitStack() as stack:
        mem0 = await stack.enter_async_context(Mem0StandIn())
        hosted = Settings(mem0_api_key=SecretStr(KEY), mem0_host=mem0.url)
        selfhosted = Settings(
            memory="selfhosted",
            postgres_url=SecretStr(postgres.new_database()),
            anthropic_api_key=SecretStr("none-is-asked"),
            anthropic_base_url="http://127.0.0.1:9",
        )
        database = await open_memories(selfhosted)
        assert database is not None
        opened = {
            "file": await open_embedded(Settings(data_dir=tmp_path / "one")),
            "platform": await open_hosted(hosted, connections=10),
            "database": database,
            "other file": await open_embedded(Settings(data_dir=tmp_path / "two")),
        }
        for one in opened.values():
            stack.push_async_callback(one.aclose)
        yield opened


async def all_of(memories: MigratableMemories, owner: str) -> list[RecalledMemory]:
    """Return what a backend has of a user, oldest first, without what each backend names itself."""
    page = await memories.list_page(owner, 100)
    assert (page.next, page.malformed) == (None, 0)
    rows = page.memories[::-1]
    return [replace(row, id="", score=None, updated_at=None, copied_from=None) for row in rows]


async def test_memories_are_the_same_after_a_way_over_all_backends(
    places: dict[str, MigratableMemories], ledger: Ledger
) -> None:
    for number, owner in enumerate(OWNERS):
        for place, text in enumerate(SAID):
            said = Turn(f"turn-{place}", text, "", AT + timedelta(days=place), f"c{number}", "a")
            await places["file"].add(owner, replace(said, stored_by="host:17"))
    first = [await all_of(places["file"], owner) for owner in OWNERS]
    assert [len(rows) for rows in first] == [3, 3]

    rules = Rules(100_000, 1, apply=True)
    stations = list(places)
    for source, target in pairwise(stations):
        work = MemoryMigration(places[source], places[target], ledger.erasures, rules)
        done = await work.run(Progress())
        assert done.counts == Counts(users=2, memories=6, present=6), (source, target)
        assert [await all_of(places[target], owner) for owner in OWNERS] == first, target

    # And back over the whole way, where each is known again by the id that it came from.
    back = MemoryMigration(places["database"], places["platform"], ledger.erasures, rules)
    assert (await back.run(Progress())).number == 1
