"""The small model is given what belongs to a question, and nothing that does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.sqlite.recipe import open_embedded
from afterword.workers.local_stack.model_server import DEFAULTS
from afterword.workers.ports import Memories, Turn
from tests.kit.offline_model import exam

AT = datetime(2026, 11, 1, tzinfo=UTC)
LEAST = float(DEFAULTS["recall_min_score"])


@pytest.fixture
async def memories(tmp_path: Path) -> AsyncIterator[Memories]:
    opened = await open_embedded(Settings(data_dir=tmp_path))
    yield opened
    await opened.aclose()


async def test_its_least_score_divides_what_it_was_told_from_what_it_was_not(
    memories: Memories,
) -> None:
    for number, case in enumerate(exam.cases("tuning")):
        owner = f"case-{number}"
        for place, text in enumerate(case.told):
            await memories.add(owner, Turn(f"{owner}-{place:08}", text, "Noted.", AT))
        found = (await memories.search(owner, case.asked, 1)).memories
        best = max((one.score or 0.0 for one in found), default=0.0)
        assert (best >= LEAST) == (case.kind not in exam.UNKNOWN), (case.asked, best)
