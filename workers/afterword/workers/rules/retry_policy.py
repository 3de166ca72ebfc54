"""What to do after a failure: one pure function of our own error classes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from afterword.shared.errors import BadAnswer, Fault, ProviderError

#: The first pause, doubled with every attempt; whole jobs wait, not threads.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0

#: The longest pause for a fault of the provider: its gate paces the calls while it is away, and
#: opens again about once a minute, so whoever slept longer would be late for nothing.
LONGEST_OUTAGE_PAUSE_S = 60.0

#: However long a provider asks us to wait, and however often, we try again after this time.
LONGEST_SNOOZE_S = 900.0

#: How long work waits for an operator to fix a key, an account or a setting.
OPERATOR_PAUSE_S = 60.0

#: Seconds until the outcome of an add that mem0 processes is asked for: at first, and at most.
FOLLOW_S = 0.5
LONGEST_FOLLOW_S = 10.0


class Decision(StrEnum):
    """What is done after a failure: wait and not count it, retry, or end."""

    SNOOZE = "snooze"
    RETRY = "retry"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do after a failure; the next attempt is due after `delay_s` seconds."""

    decision: Decision
    code: str
    fault: Fault
    delay_s: float = 0.0


def judge(
    error: Exception,
    *,
    attempt: int,
    most_attempts: int,
    tries: int,
    jitter: float,
    pause_cap_s: float,
) -> Verdict:
    """Decide what to do after a failed attempt; attempts count from 1.

    `tries` are the attempts and the snoozes so far; pauses grow with them. `jitter` is a random
    number in [0, 1). A provider can ask for a pause of up to `pause_cap_s` seconds.

    Failures of a provider, and what an operator has to configure, are snoozed: they spend no
    attempt and end nothing (promise I14). A bad answer is retried, then given up; so is a bug of
    ours, whose fault is the operator's, since it may concern this one request alone. A refused
    request is given up at once.
    """
    if not isinstance(error, ProviderError):
        pause = pause_s(tries, jitter)
        return _retried("internal_error", Fault.OPERATOR, attempt, most_attempts, pause)
    if error.fault is Fault.PROVIDER:
        asked = min(error.retry_after_s or 0.0, pause_cap_s)
        delay_s = max(asked, pause_s(tries, jitter, LONGEST_OUTAGE_PAUSE_S))
        return Verdict(Decision.SNOOZE, error.code, error.fault, delay_s)
    if error.fault is Fault.OPERATOR:
        return Verdict(
            Decision.SNOOZE, error.code, error.fault, OPERATOR_PAUSE_S * (1 + jitter / 10)
        )
    if isinstance(error, BadAnswer):
        return _retried(error.code, error.fault, attempt, most_attempts, pause_s(tries, jitter))
    return Verdict(Decision.GIVE_UP, error.code, error.fault)


def pause_s(tries: int, jitter: float, longest_s: float = LONGEST_PAUSE_S) -> float:
    """Return the pause after `tries` tries: exponential, capped, with jitter in its upper half."""
    doubled = min(FIRST_PAUSE_S * 2.0 ** min(tries - 1, 20), longest_s)
    return doubled * (0.5 + jitter / 2)


def follow_pause_s(age_s: float) -> float:
    """Return when to ask about an event of that age again: once it is twice as old."""
    return min(max(age_s, FOLLOW_S), LONGEST_FOLLOW_S)


def _retried(code: str, fault: Fault, attempt: int, most_attempts: int, delay_s: float) -> Verdict:
    if attempt >= most_attempts:
        return Verdict(Decision.GIVE_UP, code, fault)
    return Verdict(Decision.RETRY, code, fault, delay_s)
