"""What a replay is thought to take."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from afterword.producer.admin.cost_estimate import Estimate, estimate_replay
from afterword.shared.ledger.dead_letter_records import DeadLetterKind
from afterword.shared.settings import Settings

#: Two turns of 300 and 600 bytes, and a job of 30 bytes.
LETTERS = [(DeadLetterKind.MEMORY, 300), (DeadLetterKind.MEMORY, 600), (DeadLetterKind.REPLY, 30)]
HAIKU, SONNET = "claude-haiku-5-5", "claude-sonnet-5-5"


def estimate(
    backend: str,
    letters: list[tuple[DeadLetterKind, int]] = LETTERS,
    own_prices: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    **more: str,
) -> Estimate:
    known: dict[str, Any] = {"model": SONNET, "memory_model": HAIKU} | more
    settings = Settings(memory=backend, model_prices=dict(own_prices), **known)
    return estimate_replay(letters, settings, 0.5)


def test_an_embedded_memory_asks_no_model_for_a_turn() -> None:
    found = estimate("embedded", LETTERS[:2])
    assert (found.mem0_calls, found.llm_calls, found.input_tokens) == (4, 0, 0)
    assert found.cost_usd == 0
    assert found.minutes == pytest.approx(2 / 0.5 / 60)


def test_the_platform_is_polled_and_extracts_by_itself() -> None:
    found = estimate("hosted", LETTERS[:2])
    assert (found.mem0_calls, found.llm_calls) == (10, 0)


def test_a_self_hosted_memory_extracts_each_turn() -> None:
    found = estimate("selfhosted", LETTERS[:2])
    assert (found.mem0_calls, found.llm_calls) == (4, 2)
    assert (found.input_tokens, found.output_tokens) == (20_000 + 100 + 200, 400)
    assert found.cost_usd == pytest.approx((20_300 * 0.10 + 400 * 0.50) / 1e6)


def test_extraction_in_message_batches_costs_half_and_a_reply_does_not() -> None:
    replies = (3_010 * 2 + 300 * 10) / 1e6
    at_once = estimate("selfhosted").cost_usd
    assert at_once is not None
    found = estimate("selfhosted", extraction="batch")
    assert found.cost_usd == pytest.approx(replies + (at_once - replies) / 2)


def test_a_failed_job_is_asked_again_and_then_stored() -> None:
    found = estimate("embedded", LETTERS[2:])
    assert (found.mem0_calls, found.llm_calls) == (3, 1)
    assert found.cost_usd == pytest.approx((3_010 * 2 + 300 * 10) / 1e6)


def test_without_a_memory_nothing_is_asked_of_it() -> None:
    assert estimate("off").mem0_calls == 0


def test_the_price_of_an_unknown_model_is_not_guessed() -> None:
    assert estimate("selfhosted", memory_model="other").cost_usd is None
    assert estimate("embedded", LETTERS[:2], memory_model="other").cost_usd == 0
    assert estimate("embedded", model="other").cost_usd is None


def test_the_list_prices_are_dated() -> None:
    assert estimate("selfhosted").prices == "list prices of 2026-11-22"


def test_a_price_of_ones_own_comes_before_the_list_and_the_longest_name_wins() -> None:
    own = {"claude": (9.0, 9.0), "claude-sonnet-5-5": (4.0, 20.0), "claude-sonnet": (7.0, 7.0)}
    found = estimate("embedded", LETTERS[2:], own)
    assert found.cost_usd == pytest.approx((3_010 * 4 + 300 * 20) / 1e6)
    assert found.prices == "AFTERWORD_MODEL_PRICES"
    assert estimate("embedded", LETTERS[2:], {"other": (1.0, 1.0)}).prices != found.prices
