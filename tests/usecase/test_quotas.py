"""A process before the quotas: what it asks, what it tells, and that no trouble breaks a reply."""

from __future__ import annotations

from typing import cast

import pytest

from afterword.shared.contracts import Usage
from afterword.shared.errors import LedgerUnavailable, RateLimited, Unavailable
from afterword.shared.events import GateUnknown
from afterword.shared.ledger.quota_records import QuotaChange, QuotaLevel, Refused, Reserved
from afterword.shared.ledger.quotas import Quotas
from afterword.workers.memories.admitted_model import AdmittedModel
from afterword.workers.ports import Answer, ChatMessage, Prompt
from afterword.workers.quotas import ASK_S, QUOTA, NotAdmitted, QuotaClient, Wanted
from afterword.workers.rules.token_estimate import FIRST_OUTPUT
from tests.kit.fakes.model import FakeModel
from tests.kit.fakes.quotas import FakeQuotas
from tests.kit.workers.observed import observed

MODEL = "m"
LEFT = (QuotaLevel("requests", 50, 20), QuotaLevel("output", 8000, 0))
WANTED = Wanted(lambda: 300, max_tokens=4096)
GRANTED = Reserved(7, "3", 0.9)
USED = Usage(input=100, output=24, cache_read=900, cache_write=20)


class Clock:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Harness:
    """One process before fake quotas."""

    def __init__(self) -> None:
        self.quotas = FakeQuotas()
        self.clock = Clock()
        self.client = self.elsewhere("https://api.anthropic.com")

    def elsewhere(self, base_url: str) -> QuotaClient:
        return QuotaClient(cast("Quotas", self.quotas), base_url, self.clock)

    async def told(self) -> list[QuotaChange]:
        """Return the changes that were told until now."""
        await self.client.flush()
        return [change for settled in self.quotas.settled for change in settled.changes]


@pytest.fixture
def harness() -> Harness:
    return Harness()


def never() -> int:
    raise AssertionError("nothing has to be guessed")


async def test_a_provider_that_tells_no_limit_costs_one_question_in_a_while(
    harness: Harness,
) -> None:
    for _ in range(100):
        reservation = await harness.client.reserve(MODEL, WANTED)
        reservation.note(())
        reservation.settle(USED)
    assert len(harness.quotas.asked) == 1
    await harness.client.flush()
    assert harness.quotas.settled == []

    assert harness.client.unlimited(MODEL, Wanted(never, 1)) is not None
    harness.clock.now += ASK_S
    assert harness.client.unlimited(MODEL, WANTED) is None


async def test_without_quotas_nothing_is_guessed_and_nothing_told() -> None:
    client = QuotaClient()
    reservation = await client.reserve(MODEL, Wanted(never, 1))
    reservation.note(LEFT)
    reservation.settle(USED)
    await client.flush()

    refusal = RateLimited("rate_limited", retry_after_s=3)
    assert reservation.judged(refusal) is refusal
    assert not reservation.counts


async def test_the_first_headers_make_the_limit_known(harness: Harness) -> None:
    (await harness.client.reserve(MODEL, WANTED)).note(LEFT)
    await harness.client.reserve(MODEL, WANTED)
    await harness.client.flush()

    assert len(harness.quotas.asked) == 2
    assert [(one.told, one.number) for one in harness.quotas.settled] == [(LEFT, 0)]


async def test_limits_of_another_place_are_others(harness: Harness) -> None:
    await harness.client.reserve(MODEL, WANTED)
    await harness.elsewhere("http://gateway").reserve(MODEL, WANTED)
    await harness.client.reserve("other", WANTED)

    names = {one.name for one in harness.quotas.asked}
    assert len(names) == 3
    assert all("anthropic" not in name and "gateway" not in name for name in names)


async def test_what_is_reserved_is_settled_by_what_was_used(harness: Harness) -> None:
    harness.quotas.says = GRANTED
    reservation = await harness.client.reserve(MODEL, WANTED)
    assert reservation.counts
    reservation.note(LEFT)
    assert await harness.told() == [
        QuotaChange("3", "requests", 1, 0), QuotaChange("3", "input", 300, 0),
    ]  # fmt: skip
    assert (harness.quotas.settled[0].told, harness.quotas.settled[0].number) == (LEFT, 7)
    reservation.settle(USED)
    reservation.settle(USED)

    both = 300 + FIRST_OUTPUT
    assert (await harness.told())[2:] == [
        QuotaChange("3", "output", FIRST_OUTPUT, FIRST_OUTPUT - 24),
        QuotaChange("3", "tokens", both, both - 24 - 120),
    ]


async def test_what_was_never_sent_is_given_back_whole(harness: Harness) -> None:
    harness.quotas.says = GRANTED
    (await harness.client.reserve(MODEL, WANTED)).settle()

    both = 300 + FIRST_OUTPUT
    assert await harness.told() == [
        QuotaChange("3", "requests", 1, 1),
        QuotaChange("3", "input", 300, 300),
        QuotaChange("3", "output", FIRST_OUTPUT, FIRST_OUTPUT),
        QuotaChange("3", "tokens", both, both),
    ]


async def test_what_many_calls_tell_is_told_once_and_the_newest_headers_count(
    harness: Harness,
) -> None:
    newer = (QuotaLevel("requests", 50, 3),)
    for number, told in ((9, newer), (8, LEFT)):
        harness.quotas.says = Reserved(number, "3", 0.9)
        reservation = await harness.client.reserve(MODEL, WANTED)
        reservation.note(told)
    await harness.client.flush()

    (settled,) = harness.quotas.settled
    assert (settled.told, settled.number) == (newer, 9)
    assert settled.changes[0] == QuotaChange("3", "requests", 2, 0)


async def test_estimates_follow_what_calls_used_for_replies_and_memory_apart(
    harness: Harness,
) -> None:
    harness.quotas.says = GRANTED
    (await harness.client.reserve(MODEL, WANTED)).settle(USED)
    await harness.client.reserve(MODEL, WANTED)
    await harness.client.reserve(MODEL, Wanted(lambda: 300, 4096, reply=False))

    _, second, memory = harness.quotas.asked
    assert (second.input, second.output) == (120, 24)
    assert (memory.input, memory.output, memory.reply) == (300, FIRST_OUTPUT, False)


async def test_who_is_refused_hears_when_to_come_back(harness: Harness) -> None:
    harness.quotas.says = Refused(12.5)

    with pytest.raises(NotAdmitted) as held:
        await harness.client.reserve(MODEL, Wanted(lambda: 1, 1, returning=True))
    assert (held.value.retry_after_s, held.value.code) == (12.5, QUOTA)
    assert harness.quotas.asked[0].returning
    assert not harness.client.is_ample(MODEL)


async def test_a_redis_that_does_not_answer_admits(harness: Harness) -> None:
    harness.quotas.trouble = LedgerUnavailable("away")
    with observed(GateUnknown) as seen:
        reservation = await harness.client.reserve(MODEL, WANTED)

    assert not reservation.counts
    assert seen.of(GateUnknown) == [GateUnknown(gate="quota/m", error="LedgerUnavailable")]


async def test_a_refusal_that_its_headers_explain_shuts_no_gate(harness: Harness) -> None:
    harness.quotas.says = GRANTED
    reservation = await harness.client.reserve(MODEL, WANTED)
    refusal = RateLimited("rate_limited", retry_after_s=3, request_id="req_1")
    assert reservation.judged(refusal) is refusal, "no header says so"
    reservation.note(LEFT)

    found = reservation.judged(refusal)
    assert isinstance(found, NotAdmitted)
    assert found.request_id == "req_1"
    assert (found.retry_after_s or 0) >= 1024 / 8000 * 60
    for other in (RateLimited("ramp_limit"), Unavailable("overloaded")):
        assert reservation.judged(other) is other


async def test_a_refusal_although_there_is_room_is_for_the_gate(harness: Harness) -> None:
    harness.quotas.says = GRANTED
    reservation = await harness.client.reserve(MODEL, WANTED)
    reservation.note((QuotaLevel("requests", 50, 20), QuotaLevel("output", 8000, 8000)))

    refusal = RateLimited("rate_limited")
    assert reservation.judged(refusal) is refusal


# -- the model that extracts memories


PROMPT = Prompt(("system",), (ChatMessage("user", "I like tea."),), MODEL, 8192, "tag")


async def test_an_extraction_is_admitted_after_replies_and_settled(harness: Harness) -> None:
    harness.quotas.says = GRANTED
    inner = FakeModel()
    inner.answers("facts", usage=USED)

    pieces = [piece async for piece in AdmittedModel(inner, harness.client).stream_answer(PROMPT)]

    assert isinstance(pieces[-1], Answer)
    (asked,) = harness.quotas.asked
    assert (asked.reply, asked.input, asked.output) == (False, 6, FIRST_OUTPUT)
    assert any(change.part == "output" and change.back == FIRST_OUTPUT - 24
               for change in await harness.told())  # fmt: skip


async def test_an_extraction_that_is_refused_is_not_sent(harness: Harness) -> None:
    harness.quotas.says = Refused(5.0)
    inner = FakeModel()

    with pytest.raises(NotAdmitted):
        await anext(AdmittedModel(inner, harness.client).stream_answer(PROMPT))
    assert inner.prompts == []


async def test_an_extraction_that_fails_gives_back_what_it_reserved(harness: Harness) -> None:
    harness.quotas.says = GRANTED
    inner = FakeModel()
    inner.fails(Unavailable("overloaded"))

    with pytest.raises(Unavailable):
        async for _ in AdmittedModel(inner, harness.client).stream_answer(PROMPT):
            pass
    assert QuotaChange("3", "requests", 1, 1) in await harness.told()
