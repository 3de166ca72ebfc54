"""The breaker: whoever does not answer is asked only now and then."""

from __future__ import annotations

from workers.breaker import FAILURES, OPEN_S, Breaker


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.allows(now)
        breaker.failed(now)
    return breaker


def test_a_few_failures_change_nothing() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.failed(100.0)

    assert all(breaker.allows(100.0) for _ in range(10))


def test_enough_failures_in_a_row_open_it() -> None:
    breaker = opened()

    assert not breaker.allows(100.0)
    assert not breaker.allows(100.0 + OPEN_S - 0.01)


def test_a_success_between_them_starts_the_count_anew() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(FAILURES - 1):
            breaker.failed(100.0)
        breaker.succeeded()

    assert breaker.allows(100.0)


def test_it_lets_one_probe_through_at_a_time() -> None:
    breaker = opened()
    later = 100.0 + OPEN_S

    assert [breaker.allows(later) for _ in range(3)] == [True, False, False]
    assert breaker.allows(later + OPEN_S)


def test_a_probe_that_fails_keeps_it_open_and_one_that_works_closes_it() -> None:
    breaker = opened()
    assert breaker.allows(105.0)
    breaker.failed(106.0)
    assert not breaker.allows(110.5)
    assert breaker.allows(111.0)
    breaker.succeeded()

    assert all(breaker.allows(111.0) for _ in range(10))
