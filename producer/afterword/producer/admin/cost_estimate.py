"""What a replay would ask of mem0 and of Claude, and what that would cost: a rough sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from afterword.shared.environment import variable
from afterword.shared.ledger.dead_letter_records import DeadLetterKind
from afterword.shared.tokens import BYTES_PER_TOKEN

#: US dollars for a million input and output tokens, by the prefix of a model's name: what the
#: models overview of Anthropic's documentation said on the day below.
LIST_PRICES: Mapping[str, tuple[float, float]] = {
    "claude-haiku-5-5": (0.10, 0.50),
    "claude-sonnet-5-5": (2.00, 10.00),
}
LIST_PRICES_OF = "list prices of 2026-11-22"
OWN_PRICES = variable("model_prices")

#: mem0's prompt for extraction was measured; what it adds of the past, and the answers, is assumed.
EXTRACTION_TOKENS = 8_000
EXTRACTION_PAST_TOKENS = 2_000
EXTRACTION_OUTPUT_TOKENS = 200

#: A whole prompt of the model that replies, beside the message, and its reply: assumed.
PROMPT_TOKENS = 3_000
REPLY_TOKENS = 300

#: A turn that was begun before is looked for, then added. The platform's adds are followed.
LOOK_AND_ADD = 2
POLLS = 3
SEARCH = 1

MemoryBackend = Literal["hosted", "selfhosted", "embedded", "off"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """About how much there is to do; `cost_usd` is None if the price of a model is not known.

    `prices` says where the prices come from.
    """

    mem0_calls: int
    llm_calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    minutes: float
    prices: str


def estimated(
    letters: Iterable[tuple[DeadLetterKind, int]],
    *,
    backend: MemoryBackend,
    model: str,
    memory_model: str,
    rate: float,
    own_prices: Mapping[str, tuple[float, float]],
) -> Estimate:
    """Return about what replaying letters of these kinds and bytes takes, at so many a second.

    `own_prices` come before the list prices.
    """
    sizes: dict[DeadLetterKind, list[int]] = {DeadLetterKind.MEMORY: [], DeadLetterKind.REPLY: []}
    for kind, size in letters:
        sizes[kind].append(-(-size // BYTES_PER_TOKEN))
    replies, turns = len(sizes[DeadLetterKind.REPLY]), len(sizes[DeadLetterKind.MEMORY])
    stored = turns + replies if backend != "off" else 0
    asked = _Calls(
        model, replies, replies * PROMPT_TOKENS + sum(sizes[DeadLetterKind.REPLY]), REPLY_TOKENS
    )
    extracted = _extraction(memory_model, stored if backend == "selfhosted" else 0, sizes)
    priced = [one for one in (asked, extracted) if one.number]
    costs = [one.cost_usd({**LIST_PRICES, **own_prices}) for one in priced]
    listed = all(one.price_of(own_prices) is None for one in priced)
    known = [cost for cost in costs if cost is not None]
    return Estimate(
        mem0_calls=stored * _calls_a_turn(backend) + (replies * SEARCH if stored else 0),
        llm_calls=asked.number + extracted.number,
        input_tokens=asked.input + extracted.input,
        output_tokens=asked.output + extracted.output,
        cost_usd=sum(known) if len(known) == len(costs) else None,
        minutes=(turns + replies) / rate / 60,
        prices=LIST_PRICES_OF if listed else OWN_PRICES,
    )


@dataclass(frozen=True, slots=True)
class _Calls:
    """So many calls of one model: tokens in, all together, and out, each."""

    model: str
    number: int
    input: int
    output_each: int

    @property
    def output(self) -> int:
        return self.number * self.output_each

    def price_of(self, prices: Mapping[str, tuple[float, float]]) -> tuple[float, float] | None:
        """Return the price of the model, the one with the longest prefix of its name."""
        found = max((name for name in prices if self.model.startswith(name)), key=len, default=None)
        return None if found is None else prices[found]

    def cost_usd(self, prices: Mapping[str, tuple[float, float]]) -> float | None:
        """Return the cost in US dollars, None if the price is not known."""
        price = self.price_of(prices)
        if price is None:
            return None
        of_input, of_output = price
        return (self.input * of_input + self.output * of_output) / 1e6


def _extraction(model: str, number: int, sizes: dict[DeadLetterKind, list[int]]) -> _Calls:
    own = sum(map(sum, sizes.values())) if number else 0
    past = EXTRACTION_TOKENS + EXTRACTION_PAST_TOKENS
    return _Calls(model, number, number * past + own, EXTRACTION_OUTPUT_TOKENS)


def _calls_a_turn(backend: MemoryBackend) -> int:
    return LOOK_AND_ADD + (POLLS if backend == "hosted" else 0)
