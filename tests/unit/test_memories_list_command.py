"""What `afterword memories list` prints of the pages that a memory worker answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from afterword.producer.client.ledger_job_service import LedgerJobService
from afterword.producer.client.memory_calls import MemoryCall
from tests.kit.command_line import afterword

#: Nobody is there: no command is sent.
ENV = {"AFTERWORD_REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Answer two pages, of which each left a row out; return how many memories they may have."""
    asked: list[int] = []

    async def answer(_: LedgerJobService, call: MemoryCall) -> Any:
        asked.append(call.arguments["limit"])
        one = {"id": f"memory-{len(asked)}", "text": "I keep five birds."}
        return {"memories": [one], "next": "2" if len(asked) == 1 else None, "dropped": 1}

    monkeypatch.setattr(LedgerJobService, "ask_about_memories", answer)
    return asked


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_list_says_how_many_rows_are_left_out(limits: list[int], options: tuple[str]) -> None:
    printed = afterword("memories", "list", "ann", "--limit", "50", *options, env=ENV)
    assert limits == [50, 49], printed.stderr
    assert printed.stderr == "2 more could not be read, or were another user's\n"
    if options:
        assert [row["id"] for row in json.loads(printed.stdout)] == ["memory-1", "memory-2"]
