"""The page of a user shows what is remembered of them: a memory worker answers it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.kept_text import KeptText
from afterword.workers.memories.requests import RequestAnswerer
from afterword.workers.ports import RecalledMemory
from tests.kit.console_client import Browser
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

#: As many as there are on one page, and one more.
MEMORIES = 101


@pytest.fixture
async def memories(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> AsyncIterator[FailingMemories]:
    """Give a memory, of which a worker beside the console answers what is asked."""
    memories = FailingMemories()
    writer = LaneWriter(settings, ledger, memories)
    answerer = RequestAnswerer(
        ledger.memory_requests, ledger.turns, memories, writer.leases, KeptText.of(settings),
        writer.gates, limit_s=5,
    )  # fmt: skip

    def asked() -> list[str]:
        return list(inspector.redis.zrange(inspector.keys.memory_requests, 0, -1))

    async def answer_all() -> None:
        while True:
            for request_id in await until(asked, "somebody asks"):
                await answerer.process(request_id)

    working = asyncio.create_task(answer_all())
    yield memories
    working.cancel()


def remember(memories: FailingMemories, texts: list[str]) -> None:
    for number, text in enumerate(texts):
        memories.rows.append(
            RecalledMemory(f"memory-{number}", memory_key("acme", "ann"), text, None, None)
        )


def shown_on(answer: httpx.Response) -> list[str]:
    assert answer.status_code == httpx.codes.OK, answer.text
    listed = answer.text.partition('<ul class="memories">')[2].partition("</ul>")[0]
    return re.findall(r"<li[^>]*>([^<]*)</li>", listed)


async def test_what_is_remembered_is_shown_page_by_page(
    browser: Browser, memories: FailingMemories
) -> None:
    texts = [f"I own {number} birds." for number in range(MEMORIES)]
    remember(memories, texts)
    page = await browser.get("/users", params={"tenant": "acme", "user_id": "ann"})
    assert "birds" not in page.text, "nobody asked to see it"

    first = await browser.post("/users/memories", tenant="acme", user_id="ann")
    (after,) = re.findall(r'name="memories_after" value="([^"]+)"', first.text)
    second = await browser.post(
        "/users/memories", tenant="acme", user_id="ann", memories_after=after
    )
    assert "More memories" not in second.text
    assert sorted(shown_on(first) + shown_on(second)) == sorted(texts)
    assert (await browser.get("/audit")).text.count("action=look") == 2


async def test_rows_that_cannot_be_shown_are_counted(
    browser: Browser, memories: FailingMemories
) -> None:
    memories.malformed = 3
    await browser.get("/users", params={"user_id": "ann"})
    answer = await browser.post("/users/memories", user_id="ann")
    assert shown_on(answer) == ["Nothing."]
    assert "Left out: 3 rows" in answer.text
