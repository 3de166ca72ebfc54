"""A rough estimate of the calls that a replay makes, and of what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from afterword.shared.environment import variable
from afterword.shared.ledger.dead_letter_records import DeadLetterKind
from afterword.shared.prices import IN_BATCH, LIST_PRICES_OF, Prices, known_price_of, price_of
from afterword.shared.settings import Settings
from afterword.shared.tokens import BYTES_PER_TOKEN

OWN_PRICES = variable("model_prices")

#: Tokens of one extraction by mem0: its prompt was measured, the context and output are assumed.
EXTRACTION_TOKENS = 8_000
EXTRACTION_PAST_TOKENS = 2_000
EXTRACTION_OUTPUT_TOKENS = 200

#: Tokens of one reply: the prompt without the message, and the text. Both are assumed.
PROMPT_TOKENS = 3_000
REPLY_TOKENS = 300

#: Calls of mem0 for one turn: a search for what an earlier attempt stored, then the add. The hosted
#: platform is polled until it has finished the add. A reply takes a search.
LOOK_AND_ADD = 2
POLLS = 3
SEARCH = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """About what a replay takes. All numbers are rough."""

    mem0_calls: int
    """Calls of mem0."""

    llm_calls: int
    """Calls of Claude: for replies, and for the extraction of facts by a self-hosted mem0."""

    input_tokens: int
    """Tokens that these calls send to Claude."""

    output_tokens: int
    """Tokens that these calls get from Claude."""

    cost_usd: float | None
    """What the tokens cost, in US dollars; None if the price of a model is not known."""

    minutes: float
    """How long the replay takes at least, at its pace."""

    prices: str
    """Where the prices come from: the list prices with their date, or the setting."""


def estimate_replay(
    letters: Iterable[tuple[DeadLetterKind, int]], settings: Settings, rate: float
) -> Estimate:
    """Return about what it takes to replay dead letters of these kinds and sizes in bytes.

    `rate` is how many are replayed in a second.
    """
    backend, own_prices = settings.backend, settings.model_prices
    sizes: dict[DeadLetterKind, list[int]] = {DeadLetterKind.MEMORY: [], DeadLetterKind.REPLY: []}
    for kind, size in letters:
        sizes[kind].append(-(-size // BYTES_PER_TOKEN))
    replies, turns = len(sizes[DeadLetterKind.REPLY]), len(sizes[DeadLetterKind.MEMORY])
    stored = turns + replies if backend != "off" else 0
    given = replies * PROMPT_TOKENS + sum(sizes[DeadLetterKind.REPLY])
    asked = _Calls(settings.model, replies, given, REPLY_TOKENS)
    extracted = _extraction(settings, stored if backend == "selfhosted" else 0, sizes)
    priced = [one for one in (asked, extracted) if one.number]
    costs = [one.cost_usd(own_prices) for one in priced]
    listed = all(price_of(one.model, own_prices) is None for one in priced)
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
    """Calls of one model: the input tokens of all of them, the output tokens of each.

    They cost a `share` of the price.
    """

    model: str
    number: int
    input: int
    output_each: int
    share: float = 1.0

    @property
    def output(self) -> int:
        return self.number * self.output_each

    def cost_usd(self, own_prices: Prices) -> float | None:
        """Return the cost in US dollars, or None if the price is not known."""
        price = known_price_of(self.model, own_prices)
        if price is None:
            return None
        of_input, of_output = price
        return self.share * (self.input * of_input + self.output * of_output) / 1e6


def _extraction(settings: Settings, number: int, sizes: dict[DeadLetterKind, list[int]]) -> _Calls:
    own = sum(map(sum, sizes.values())) if number else 0
    past = EXTRACTION_TOKENS + EXTRACTION_PAST_TOKENS
    given, share = number * past + own, IN_BATCH if settings.extraction == "batch" else 1.0
    return _Calls(settings.memory_model, number, given, EXTRACTION_OUTPUT_TOKENS, share)


def _calls_a_turn(backend: str) -> int:
    return LOOK_AND_ADD + (POLLS if backend == "hosted" else 0)
