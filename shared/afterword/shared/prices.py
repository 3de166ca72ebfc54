"""What tokens of a model cost: the list prices of a day, and prices of one's own before them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from afterword.shared.contracts import Usage

#: US dollars for a million input and output tokens, by what the name of a model begins with.
Prices: TypeAlias = Mapping[str, tuple[float, float]]

#: What the models overview of Anthropic's documentation said on the day below.
LIST_PRICES: Prices = {
    "claude-haiku-5-5": (0.10, 0.50),
    "claude-sonnet-5-5": (2.00, 10.00),
}
LIST_PRICES_OF = "list prices of 2026-11-22"

#: What a token costs that is read from the prompt cache, or written to it for five minutes, as a
#: share of the price of an input token.
CACHE_READ, CACHE_WRITE = 0.1, 1.25


def price_of(model: str, prices: Prices) -> tuple[float, float] | None:
    """Return the price whose name is the longest prefix of the model's name."""
    found = max((name for name in prices if model.startswith(name)), key=len, default=None)
    return None if found is None else prices[found]


def known_price_of(model: str, own: Prices) -> tuple[float, float] | None:
    """Return a model's price: one's own if there is one, else its list price."""
    return price_of(model, {**LIST_PRICES, **own})


def cost_usd(model: str, usage: Usage, own: Prices) -> float:
    """Return what tokens of a model cost, in US dollars; 0 if its price is unknown."""
    of_input, of_output = known_price_of(model, own) or (0.0, 0.0)
    given = usage.input + CACHE_READ * usage.cache_read + CACHE_WRITE * usage.cache_write
    return (given * of_input + usage.output * of_output) / 1e6


def micro_usd(calls: Iterable[tuple[str, Usage]], own: Prices) -> int:
    """Return what calls cost together, in millionths of a US dollar, rounded."""
    return round(sum(cost_usd(model, usage, own) for model, usage in calls) * 1e6)
