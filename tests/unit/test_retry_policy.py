"""What is done about a failure: whose it is decides, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    Fault,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.workers.rules.retry_policy import (
    FIRST_PAUSE_S,
    LONGEST_OUTAGE_PAUSE_S,
    LONGEST_PAUSE_S,
    OPERATOR_PAUSE_S,
    Decision,
    Verdict,
    follow_pause_s,
    judge,
    pause_s,
)

JITTER = st.floats(0, 1, exclude_max=True)
CAP_S = 60.0
TRIES = st.integers(1, 10_000)


def judged(error: Exception, attempt: int = 1, most: int = 3, tries: int = 1) -> Verdict:
    return judge(
        error, attempt=attempt, most_attempts=most, tries=tries, jitter=0.5, pause_cap_s=CAP_S
    )


@given(
    error=st.sampled_from([Unavailable("down"), RateLimited("slow"), AccessDenied("revoked")]),
    attempt=TRIES,
    tries=TRIES,
    jitter=JITTER,
)
def test_faults_of_the_provider_and_the_operator_are_snoozed_for_ever(
    error: ProviderError, attempt: int, tries: int, jitter: float
) -> None:
    """I14: outages are nobody's fault."""
    verdict = judge(
        error, attempt=attempt, most_attempts=3, tries=tries, jitter=jitter, pause_cap_s=CAP_S
    )

    assert (verdict.decision, verdict.code) == (Decision.SNOOZE, error.code)
    assert verdict.fault is error.fault
    longest = LONGEST_OUTAGE_PAUSE_S if error.fault is Fault.PROVIDER else OPERATOR_PAUSE_S * 1.1
    assert 0 < verdict.delay_s <= longest


def test_after_a_long_outage_work_comes_back_within_a_minute() -> None:
    assert judged(Unavailable("down"), tries=100).delay_s <= LONGEST_OUTAGE_PAUSE_S
    assert judged(RuntimeError("bug"), tries=100).delay_s > LONGEST_OUTAGE_PAUSE_S


@pytest.mark.parametrize("error", [BadAnswer("cut_short"), RuntimeError("bug"), KeyError("x")])
def test_a_transient_error_is_retried_and_then_given_up(error: Exception) -> None:
    decisions = [judged(error, attempt).decision for attempt in (1, 2, 3, 4)]

    assert decisions == [Decision.RETRY, Decision.RETRY, Decision.GIVE_UP, Decision.GIVE_UP]


def test_a_permanent_error_is_given_up_at_once() -> None:
    verdict = judged(Rejected("too_large"))

    assert verdict == Verdict(Decision.GIVE_UP, "too_large", Fault.REQUEST)


def test_an_error_that_nobody_knows_gives_away_nothing() -> None:
    assert judged(RuntimeError("marmalade")).code == "internal_error"


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_bug_of_ours_is_the_operators_fault_and_never_the_requests(attempt: int) -> None:
    assert judged(KeyError("bug"), attempt).fault is Fault.OPERATOR
    assert judged(BadAnswer("cut_short"), attempt).fault is Fault.REQUEST


@pytest.mark.parametrize(
    ("asked_s", "least_s"), [(30.0, 30.0), (0.0, 0.0), (None, 0.0), (10**9, CAP_S)]
)
def test_a_provider_is_given_the_time_it_asks_for_within_reason(
    asked_s: float | None, least_s: float
) -> None:
    verdict = judged(RateLimited("slow", retry_after_s=asked_s))

    assert least_s <= verdict.delay_s <= CAP_S


@given(jitter=JITTER)
def test_an_operators_fault_pauses_for_the_operators_time(jitter: float) -> None:
    error = AccessDenied("revoked")
    verdict = judge(error, attempt=1, most_attempts=3, tries=1, jitter=jitter, pause_cap_s=CAP_S)

    assert OPERATOR_PAUSE_S <= verdict.delay_s <= OPERATOR_PAUSE_S * 1.1


@given(tries=TRIES, jitter=JITTER)
def test_pauses_are_bounded_and_spread(tries: int, jitter: float) -> None:
    pause = pause_s(tries, jitter)

    assert FIRST_PAUSE_S / 2 <= pause <= LONGEST_PAUSE_S
    assert pause_s(tries, 0) <= pause <= 2 * pause_s(tries, 0)


@given(tries=TRIES, jitter=JITTER)
def test_pauses_never_shrink(tries: int, jitter: float) -> None:
    assert pause_s(tries + 1, jitter) >= pause_s(tries, jitter)


def test_pauses_double_at_first() -> None:
    assert [pause_s(tries, 1.0) for tries in (1, 2, 3, 4)] == [1, 2, 4, 8]


def test_an_event_is_asked_after_each_time_it_has_taken_twice_as_long() -> None:
    asked, age_s = [], 0.0
    while age_s < 40:
        age_s += follow_pause_s(age_s)
        asked.append(age_s)
    assert asked == [0.5, 1, 2, 4, 8, 16, 26, 36, 46]
