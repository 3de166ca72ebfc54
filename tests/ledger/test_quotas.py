"""Quotas: what is reserved of a provider's limit, who goes first, and what headers correct."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from afterword.shared.ledger import steps
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.quota_records import QuotaChange, QuotaLevel, Refused, Reserved
from afterword.shared.ledger.quotas import Quotas
from afterword.shared.transport import scripts
from afterword.shared.transport.scripts import call_of, script
from benchmarks.quota_rules import QuotaRules
from tests.kit.ledger.builder import LedgerInspector

pytestmark = pytest.mark.redis

NAME = "0123abcd:claude/some model: {odd}"

#: In place of Redis' clock.
CLOCK = "{ redis.call('GET', root .. ':clock') / 1000, 0 }"


def level(part: Any, limit: int, remaining: int, refill_s: float = 60.0) -> QuotaLevel:
    return QuotaLevel(part, limit, remaining, refill_s)


def at_our_clock(name: str, *, batched: bool = False) -> Any:
    """Return a script that reads the time from a key, so that no limit refills by itself."""
    text = script(name, batched=batched).text.replace("redis.call('TIME')", CLOCK)
    assert CLOCK in text
    return SimpleNamespace(text=text, sha=hashlib.sha1(text.encode()).hexdigest())


@pytest.fixture
def quotas(ledger: Ledger, inspector: LedgerInspector, monkeypatch: pytest.MonkeyPatch) -> Quotas:
    monkeypatch.setattr(scripts, "script", at_our_clock)
    inspector.redis.set(f"{inspector.keys.root}:clock", 1_700_000_000_000)
    return ledger.quotas


async def tell(quotas: Quotas, *levels: QuotaLevel, number: int = 0) -> None:
    await quotas.settle(NAME, [], levels, number)


async def reserve(
    quotas: Quotas, given: int = 10, got: int = 1, *, reply: bool = True, returning: bool = False
) -> Reserved | Refused | None:
    return await quotas.reserve(NAME, given, got, reply=reply, returning=returning)


async def reserved(quotas: Quotas, given: int = 10, got: int = 1) -> Reserved:
    found = await reserve(quotas, given, got, returning=True)
    assert isinstance(found, Reserved)
    return found


async def refused_s(quotas: Quotas, **how: Any) -> float:
    found = await reserve(quotas, **how)
    assert isinstance(found, Refused)
    return found.retry_after_s


async def test_without_a_limit_there_is_nothing_to_reserve(
    quotas: Quotas, inspector: LedgerInspector
) -> None:
    assert await reserve(quotas) is None
    await quotas.settle(NAME, [QuotaChange("1", "output", 1, 1)])

    assert not inspector.redis.exists(inspector.keys.quota(NAME))


@pytest.mark.parametrize("part", ["requests", "input", "output", "tokens"])
async def test_calls_are_admitted_until_the_tightest_part_has_no_room(
    quotas: Quotas, part: str
) -> None:
    needs = {"requests": 1, "input": 10, "output": 1, "tokens": 11}
    await tell(
        quotas,
        *(level(each, 1000, needs[each] * 3 if each == part else 1000) for each in needs),
    )

    for _ in range(3):
        await reserved(quotas)
    assert isinstance(await reserve(quotas, returning=True), Refused)


async def test_who_is_refused_gets_a_time_of_their_own(quotas: Quotas) -> None:
    await tell(quotas, level("requests", 100, 0, refill_s=3_000.0))

    waits = [await refused_s(quotas) for _ in range(5)]

    assert waits[0] > 0
    assert all(before < after for before, after in pairwise(waits))


@pytest.mark.parametrize("part", ["requests", "input", "output", "tokens"])
async def test_no_call_waits_more_than_a_minute_for_a_limit_that_hardly_refills(
    quotas: Quotas, part: str
) -> None:
    await tell(quotas, level(part, 50, 0, refill_s=86_400.0))

    for reply in (True, False):
        assert await reserve(quotas, 50, 50, reply=reply, returning=True) is None

    await tell(quotas, level(part, 10_000, 0, refill_s=86_400.0))
    for _ in range(3):
        assert await refused_s(quotas, given=3, got=3) > 0


async def test_newcomers_queue_behind_those_who_wait(quotas: Quotas) -> None:
    await tell(quotas, level("requests", 1000, 0))
    assert await refused_s(quotas) > 0
    await tell(quotas, level("requests", 1000, 50, refill_s=60.0))

    assert isinstance(await reserve(quotas), Refused), "5 % are for those who waited"
    assert isinstance(await reserve(quotas, returning=True), Reserved)
    await tell(quotas, level("requests", 1000, 900, refill_s=60.0), number=1)
    assert isinstance(await reserve(quotas), Reserved), "there is enough for all"


async def test_memory_leaves_a_fifth_to_replies(quotas: Quotas) -> None:
    await tell(quotas, level("requests", 100, 23))

    for _ in range(3):
        assert isinstance(await reserve(quotas, reply=False), Reserved)
    assert await refused_s(quotas, reply=False) >= 5
    for _ in range(20):
        await reserved(quotas)
    assert isinstance(await reserve(quotas, returning=True), Refused)


async def test_a_call_larger_than_the_limit_is_admitted_when_it_is_full(quotas: Quotas) -> None:
    await tell(quotas, level("input", 100, 100))

    assert isinstance(await reserve(quotas, given=500, reply=False), Reserved)
    assert isinstance(await reserve(quotas, returning=True), Refused)


async def test_what_was_not_used_is_given_back(quotas: Quotas) -> None:
    await tell(quotas, level("output", 100, 10))
    found = await reserved(quotas, got=10)
    assert isinstance(await reserve(quotas, got=5, returning=True), Refused)

    await quotas.settle(NAME, [QuotaChange(found.slot, "output", 10, 6)])

    assert isinstance(await reserve(quotas, got=5, returning=True), Reserved)
    assert isinstance(await reserve(quotas, got=5, returning=True), Refused)


async def test_headers_correct_the_guess_less_what_is_still_open(quotas: Quotas) -> None:
    await tell(quotas, level("input", 1000, 1000))
    first, second = await reserved(quotas, 400), await reserved(quotas, 300)

    opened = [QuotaChange(first.slot, "input", 400, 0)]
    await quotas.settle(NAME, opened, [level("input", 1000, 500)], first.number)

    # 500 are left, of which the second will take its 300, more or less as it ages.
    assert isinstance(await reserve(quotas, 499, returning=True), Refused)
    await quotas.settle(NAME, [QuotaChange(second.slot, "input", 300, 0)])
    assert isinstance(await reserve(quotas, 150, returning=True), Reserved)


async def test_the_newest_call_tells_and_later_news_of_older_ones_is_ignored(
    quotas: Quotas,
) -> None:
    await tell(quotas, level("requests", 100, 100))
    older, newer = await reserved(quotas), await reserved(quotas)

    await tell(quotas, level("requests", 100, 0), number=newer.number)
    await tell(quotas, level("requests", 100, 90), number=older.number)
    await tell(quotas, level("requests", 100, 90), number=0)

    assert isinstance(await reserve(quotas, returning=True), Refused)


async def test_a_part_that_is_no_longer_told_is_forgotten(quotas: Quotas) -> None:
    await tell(quotas, level("requests", 100, 0), level("input", 100, 0))
    await tell(quotas, level("input", 100, 50))

    await reserved(quotas, 10)


async def test_a_quota_is_bounded_and_ends_by_itself(
    quotas: Quotas, inspector: LedgerInspector
) -> None:
    key = inspector.keys.quota(NAME)
    await tell(quotas, level("requests", 10_000, 10_000))
    found = await reserved(quotas)
    for slot in range(int(found.slot) - 1000, int(found.slot)):
        inspector.redis.hset(key, f"open:{slot}:requests", 1)

    await tell(quotas, level("requests", 10_000, 9_000), number=found.number)

    assert inspector.redis.hlen(key) < 50
    assert 0 < inspector.redis.pttl(key) <= 86_400_000


# -- the rules that the simulation runs


class Compared:
    """The scripts at a clock that the test sets, and the simulation's rules at the same."""

    def __init__(self, inspector: LedgerInspector) -> None:
        self.inspector = inspector
        self.rules = QuotaRules()
        self.now = 1_700_000_000_000
        self._calls = [(0, 0)]
        inspector.redis.delete(inspector.keys.quota(NAME))

    def play(self, step: tuple[Any, ...]) -> None:
        """Take one step in both, and compare what they say."""
        kind, *what = step
        self.now += what.pop()
        if kind == "reserve":
            given, got, reply, returning = what
            said = self._run(steps.ReserveQuota(NAME, given, got, reply, returning))
            found = self.rules.reserve(self.now, given, got, reply=reply, returning=returning)
            self._compare(said, found)
        elif kind == "settle":
            part, less, back = what
            slot = self._calls[-1][1]
            self._run(steps.SettleQuota(NAME, 0, "", [(str(slot), part, less, back)]))
            self.rules.settle(self.now, [(slot, part, less, back)])
        else:
            levels, ago = what
            number = self._calls[-min(ago, len(self._calls))][0]
            told = " ".join(f"{part} {' '.join(map(str, one))}" for part, one in levels.items())
            self._run(steps.SettleQuota(NAME, number, told, []))
            parts = {part: (most, left, float(ms)) for part, (most, left, ms) in levels.items()}
            self.rules.settle(self.now, told=parts, number=number)

    def _compare(self, said: list[Any], found: tuple[int, int] | float | None) -> None:
        if isinstance(found, tuple):
            assert said[0] == "admitted"
            assert tuple(map(int, said[1:3])) == found
            self._calls.append(found)
        elif found is None:
            assert said == ["unknown"]
        else:
            assert said[0] == "refused"
            assert abs(int(said[1]) - found) <= 1, "Redis rounds what it keeps"

    def _run(self, arguments: Any) -> list[Any]:
        keys = self.inspector.keys
        name, _, sent = call_of(keys.root, "b:", arguments)[:3]
        text = at_our_clock(name).text
        redis = self.inspector.redis
        redis.set(f"{keys.root}:clock", self.now)
        said, _ = redis.eval(text, 1, keys.root, *sent)
        return list(said)


_SIZES = st.integers(1, 400)
_PASSED = st.sampled_from([0, 1, 30, 400, 7_000, 130_000])
_PARTS = st.sampled_from(["requests", "input", "output", "tokens"])
_LEVELS = st.dictionaries(
    _PARTS,
    st.tuples(
        st.integers(1, 2000), st.integers(0, 2000), st.sampled_from([60_000, 200_000, 86_400_000])
    ),
    min_size=1,
    max_size=3,
)
_TELLS = st.tuples(st.just("tell"), _LEVELS, st.integers(1, 5), _PASSED)
_STEPS = st.one_of(
    st.tuples(st.just("reserve"), _SIZES, _SIZES, st.booleans(), st.booleans(), _PASSED),
    st.tuples(st.just("settle"), _PARTS, _SIZES, st.integers(-50, 400), _PASSED),
    _TELLS,
)


@given(first=_TELLS, others=st.lists(_STEPS, max_size=40))
@examples(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_simulation_has_the_rules_of_the_scripts(
    inspector: LedgerInspector, first: tuple[Any, ...], others: list[tuple[Any, ...]]
) -> None:
    compared = Compared(inspector)
    for step in [first, *others]:
        compared.play(step)
