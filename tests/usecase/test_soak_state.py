"""What a soak says that does not settle."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from afterword.shared.ledger.ledger import Ledger
from benchmarks.soak_state import explanation
from tests.kit.ledger.builder import LedgerInspector, lane_of, submit_and_answer
from tests.kit.mem0_api.scripted_answers import Mem0Answer

pytestmark = pytest.mark.redis


async def test_it_shows_the_oldest_lanes_what_is_still_to_be_played_and_the_logs(
    ledger: Ledger, inspector: LedgerInspector, tmp_path: Path
) -> None:
    turn = await submit_and_answer(ledger, "my secret")
    log = tmp_path / "0.log"
    log.write_text("first\nlast\n")

    shown = await asyncio.to_thread(
        explanation,
        {},
        inspector.redis,
        inspector.keys,
        unsettled=[f"{turn} of ann"],
        script=[Mem0Answer(verb="event", status=404, times=None)],
        logs=[log],
    )

    assert "== 1 jobs are not settled" in shown
    assert f"{lane_of()}: 1 turns, {{'hinted': " in shown
    assert "oldest {'turn': 'pending'}" in shown
    assert "status=404" in shown
    assert "== the end of 0.log\nfirst\nlast" in shown
    assert "my secret" not in shown
