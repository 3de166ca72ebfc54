"""What tokens of a model cost: the list prices of a day, and prices of one's own before them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from afterword.shared.contracts import Usage

#: US dollars for a million input and output tokens, by what the name of a model begins with.
Prices: TypeAlias = Mapping[str, tuple[float, float]]

#: What the pricing page of Anthropic's documentation said on the day below.
LIST_PRICES: Prices = {
    "claude-haiku-5-5": (0.10, 0.50),
    "claude-sonnet-5-5": (2.00, 10.00),
}
LIST_PRICES_OF = "list prices of 2026-11-22"

#: What a token costs that is written to the prompt cache for five minutes, as a share of the price
#: of an input token. Workers write none for an hour, which would be 2.
CACHE_WRITE = 1.25

#: The same of a token that is read from the cache: of most models, and of those that differ. Sonnet
#: 5.5 went from 0.1 to 0.05 on 2026-10-07.
CACHE_READ = 0.1
CACHE_READS = {"claude-sonnet-5-5": 0.05}

#: Models whose list prices are so many times as high, for all tokens of a call, if its prompt is
#: longer than so many tokens; those of the cache count.
LONG_PROMPTS = {"claude-haiku-5-5": (100_000, 5.0)}

#: So many names of models are remembered with the longest name that they begin with.
_MOST_NAMES = 1024


class Rates(NamedTuple):
    """What tokens of one model cost, in US dollars for a million."""

    input: float
    output: float
    cache_read: float
    cache_write: float
    long_prompt: tuple[int, float] | None = None

    def usd(self, given: int, got: int, read: int, written: int) -> float:
        """Return what a call costs that used so many tokens, as `Usage` names them."""
        cost = (
            given * self.input
            + got * self.output
            + read * self.cache_read
            + written * self.cache_write
        ) / 1e6
        if self.long_prompt is not None and given + read + written > self.long_prompt[0]:
            cost *= self.long_prompt[1]
        return cost


#: What a token of a message batch costs, as a share of what it costs otherwise.
IN_BATCH = 0.5


def price_of(model: str, prices: Prices) -> tuple[float, float] | None:
    """Return the price whose name is the longest prefix of the model's name."""
    name = _prefix_of(model, tuple(prices))
    return None if name is None else prices[name]


def known_price_of(model: str, own: Prices) -> tuple[float, float] | None:
    """Return a model's price: one's own if there is one, else its list price."""
    return price_of(model, own) or price_of(model, LIST_PRICES)


def rates_of(model: str, own: Prices) -> Rates | None:
    """Return what tokens of a model cost; None if its price is unknown.

    A price of one's own is that of prompts of any length.
    """
    return _rates_of(model, tuple(own.items()))


def cost_usd(model: str, usage: Usage, own: Prices) -> float:
    """Return what the tokens of one call cost, in US dollars; 0 if the model's price is unknown."""
    rates = rates_of(model, own)
    if rates is None:
        return 0.0
    return rates.usd(usage.input, usage.output, usage.cache_read, usage.cache_write)


def micro_usd(calls: Iterable[tuple[str, Usage]], own: Prices, share: float = 1.0) -> int:
    """Return what calls cost together, in millionths of a US dollar, rounded.

    They cost that `share` of the prices.
    """
    return round(sum(cost_usd(model, usage, own) for model, usage in calls) * share * 1e6)


@lru_cache(_MOST_NAMES)
def _rates_of(model: str, own: tuple[tuple[str, tuple[float, float]], ...]) -> Rates | None:
    own_price = price_of(model, dict(own))
    price = own_price or price_of(model, LIST_PRICES)
    if price is None:
        return None
    of_input, of_output = price
    read = CACHE_READS.get(_prefix_of(model, tuple(CACHE_READS)) or "", CACHE_READ)
    long_prompt = (
        None if own_price else LONG_PROMPTS.get(_prefix_of(model, tuple(LONG_PROMPTS)) or "")
    )
    return Rates(of_input, of_output, of_input * read, of_input * CACHE_WRITE, long_prompt)


@lru_cache(_MOST_NAMES)
def _prefix_of(model: str, names: tuple[str, ...]) -> str | None:
    return max((name for name in names if model.startswith(name)), key=len, default=None)
