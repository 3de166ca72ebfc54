"""Composing a turn: its secrets are counted once, and the count is kept until it is settled."""

from __future__ import annotations

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from afterword.workers.kept_text import KeptText
from afterword.workers.memories import compose_turn
from afterword.workers.memories.compose_turn import TurnComposer
from afterword.workers.memories.extraction_meters import ExtractionMeters
from tests.kit.ledger.builder import claim_lane, submit_and_answer

pytestmark = pytest.mark.redis

SAID = "My card is 4242 4242 4242 4242."


async def test_counts_are_kept_of_as_many_batches_as_the_bound_says(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose_turn, "MOST_COUNTS", 2)
    meters = ExtractionMeters({})
    kept = KeptText.of(settings.model_copy(update={"redaction": "redact"}))
    composer = TurnComposer(ledger.turns, kept, meters, pins=False, stored_by="w")
    for _ in range(5):
        await submit_and_answer(ledger, SAID)
    claim = await claim_lane(ledger)

    with meters.measuring(claim):
        for turn in claim.turns:
            assert composer.turn_of(claim, (turn,)) is not None
    assert len(composer._secrets) == 2

    for turn in claim.turns:
        assert composer.secrets_in(claim, (turn,)) == {"card_number": 1}, "counted anew, if need be"
    assert not composer._secrets
