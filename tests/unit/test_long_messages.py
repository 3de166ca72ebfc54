"""What a user wrote is found and arrives as it was written, on the real embedded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from afterword.shared.ledger.gates import Gates
from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.sqlite.recipe import open_embedded
from afterword.workers.gate import GateClient
from afterword.workers.ports import Memories, Turn
from afterword.workers.replies.recall import RecallBudget, Recaller
from tests.kit.fakes.gates import FakeGates

AT = datetime(2026, 5, 8, tzinfo=UTC)


@pytest.fixture
async def memories(tmp_path: Path) -> AsyncIterator[Memories]:
    opened = await open_embedded(Settings(data_dir=tmp_path))
    yield opened
    await opened.aclose()


async def store(memories: Memories, texts: list[str]) -> None:
    for number, text in enumerate(texts):
        await memories.add("ana", Turn(f"turn-{number}", text, "All right.", AT))


async def test_a_question_before_or_after_a_long_paste_is_recalled(memories: Memories) -> None:
    talk = "The meeting about the budget of {} was long, and the minutes say who was there."
    await store(
        memories, [*(talk.format(year) for year in range(1990, 2010)), "My dog is called Rex."]
    )
    paste = " ".join(f"In {year} the meeting agreed on the budget." for year in range(1900, 2000))
    recaller = Recaller(
        memories,
        GateClient(cast("Gates", FakeGates()), lambda: 0.0),
        budget=RecallBudget(60.0),
        limit=3,
        least_score=0.0,
    )
    for message in (f"{paste}\n\nWhat's my dog's name?", f"What's my dog's name?\n\n{paste}"):
        found = (await recaller.recall("ana", message)).memories or ()
        assert "My dog is called Rex." in [row.text for row in found]


async def test_what_is_stored_is_recalled_letter_for_letter(memories: Memories) -> None:
    said = [
        "https://x.example/?a=1&region=eu&copy=2&lt=5#top",
        "def f(x):\n    if x:\n\treturn [x]\n\n    return {}",
        "👨\u200d👩\u200d👧\u200d👦 🇩🇪 \u0645\u06cc\u200c\u062e",
        "क\u094d\u200dष e\u0301 [brackets] <b>",
    ]
    await store(memories, said)

    found = (await memories.search("ana", "x", len(said))).memories
    assert {row.text for row in found} == set(said)
