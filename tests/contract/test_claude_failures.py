"""Every way in which a call to Claude fails, and what it is to us: one row each."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from shared.errors import (
    AccessDenied,
    BadAnswer,
    Blame,
    RateLimited,
    Rejected,
    Unavailable,
    Upstream,
)
from tests.standins.claude import ClaudeStandIn
from tests.standins.claude_plays import Fault, Play
from workers.adapters.claude import Claude
from workers.ports import Answer, Prompt, Say

KEY = "sk-canary-key"
SECRET = "canary-secret"
LONG_S = 20.0
SHORT_S = 0.2

PROMPT = Prompt(
    system=(f"system {SECRET}",),
    messages=(Say("user", f"message {SECRET}"),),
    model="claude-sonnet-5-5",
    max_tokens=100,
    user_tag="tag",
)

BLAMES: dict[type[Upstream], Blame] = {
    Unavailable: Blame.THEIRS,
    RateLimited: Blame.THEIRS,
    AccessDenied: Blame.OURS,
    Rejected: Blame.THIS,
    BadAnswer: Blame.THIS,
}


@dataclass(frozen=True)
class Row:
    """One failure: what Claude does, the limits while it does it, and the error of ours."""

    name: str
    play: Play
    error: type[Upstream]
    code: str
    retry_after_s: float | None = None
    limits: dict[str, float] = field(default_factory=dict)


def refusal(
    status: int,
    error: type[Upstream],
    code: str,
    name: str = "",
    retry_after_s: float | None = None,
    **play: Any,
) -> Row:
    told: dict[str, Any] = {"status": status, "error_message": f"about {SECRET}"} | play
    return Row(f"{status} {name or code}", Play(**told), error, code, retry_after_s)


def foreign(status: int, error: type[Upstream], code: str) -> Row:
    """Let a proxy answer in the API's place."""
    return Row(f"{status} of a proxy", Play(status=status, raw_body="<html>no"), error, code)


def in_stream(
    at: int, kind: str, error: type[Upstream], code: str, cause: str | None = None
) -> Row:
    play = Play(
        fault=Fault.ERROR_EVENT, at=at, error_type=kind, error_code=cause, error_message=SECRET
    )
    return Row(f"200, event {at}: {kind} {cause or ''}", play, error, code)


def broken(fault: Fault, at: int, error: type[Upstream], code: str, **limits: float) -> Row:
    play = Play(text="one two three four", deltas=4, fault=fault, at=at)
    return Row(f"{fault} at event {at}", play, error, code, limits=limits)


LOW_CREDIT = "Your credit balance is too low to access the Anthropic API. Please go to Plans"
OWN_LIMIT = "You have reached your specified API usage limits. You will regain access on"
QUOTED = f"messages.0.content: '{LOW_CREDIT}' {SECRET}"

REFUSALS = [
    refusal(400, Rejected, "invalid_request"),
    refusal(400, AccessDenied, "billing", "low credit", error_message=LOW_CREDIT),
    refusal(400, AccessDenied, "billing", "own spend limit", error_message=OWN_LIMIT),
    refusal(400, AccessDenied, "billing", "billing type", error_type="billing_error"),
    refusal(400, Rejected, "invalid_request", "quoted words", error_message=QUOTED),
    refusal(400, AccessDenied, "organization_on_hold", error_code="organization_on_hold"),
    refusal(400, AccessDenied, "encryption_key_disabled", error_code="cmek_key_disabled"),
    refusal(400, Unavailable, "provider_timeout", error_code="request_body_timeout"),
    refusal(400, Rejected, "invalid_request", "unknown cause", error_code="tool_name_conflict"),
    refusal(401, AccessDenied, "key_refused"),
    refusal(402, AccessDenied, "billing"),
    refusal(402, AccessDenied, "spend_limit", error_code="linked_organization_spend_limit_reached"),
    refusal(403, AccessDenied, "not_permitted"),
    refusal(404, Rejected, "not_found", "unknown model"),
    refusal(408, Unavailable, "provider_timeout"),
    refusal(409, Unavailable, "conflict"),
    refusal(412, Rejected, "http_412", error_type="brand_new_error"),
    refusal(413, Rejected, "too_large"),
    refusal(422, Rejected, "invalid_request"),
    refusal(499, Unavailable, "provider_timeout", error_type="brand_new_error"),
    refusal(500, Unavailable, "provider_error"),
    refusal(500, Unavailable, "provider_error", "no-retry", headers={"x-should-retry": "false"}),
    refusal(501, Unavailable, "provider_error"),
    refusal(503, Unavailable, "overloaded", retry_after_s=5.0, headers={"retry-after": "5"}),
    refusal(504, Unavailable, "provider_timeout"),
    refusal(529, Unavailable, "overloaded"),
    refusal(429, AccessDenied, "spend_limit", error_code="enforced_spend_limit_reached"),
    refusal(429, AccessDenied, "spend_limit", error_code="contract_spend_limit_reached"),
    refusal(
        429, RateLimited, "ramp_limit",
        error_code="ramp_limit_exceeded", headers={"retry-after": "12"}, retry_after_s=12.0,
    ),
]  # fmt: skip

WAITS = [
    refusal(
        429,
        RateLimited,
        "rate_limited",
        f"retry-after {wait}",
        retry_after_s=seconds,
        headers=headers,
    )
    for wait, seconds, headers in [
        ("none", None, {}),
        ("7", 7.0, {"retry-after": "7"}),
        ("0", 0.0, {"retry-after": "0"}),
        ("1.5", 1.5, {"retry-after": "1.5"}),
        ("years, uncapped", 4294967.0, {"retry-after": "4294967"}),
        ("in ms", 0.25, {"retry-after-ms": "250", "retry-after": "7"}),
        ("bad ms", 7.0, {"retry-after-ms": "soon", "retry-after": "7"}),
        ("date", 30.0, {"retry-after": "Thu, 01 Oct 2026 12:00:30 GMT"}),
        ("past date", 0.0, {"retry-after": "Thu, 01 Oct 2026 11:00:00 GMT"}),
        ("date without a zone", None, {"retry-after": "Thu, 01 Oct 2026 12:00:30"}),
        ("negative", None, {"retry-after": "-7"}),
        ("nan", None, {"retry-after": "nan"}),
        ("infinite", None, {"retry-after": "inf"}),
        ("nonsense", None, {"retry-after": "later"}),
    ]
]

PROXIES = [
    foreign(302, AccessDenied, "wrong_address"),
    foreign(400, Rejected, "invalid_request"),
    foreign(401, AccessDenied, "key_refused"),
    foreign(403, AccessDenied, "not_permitted"),
    foreign(404, AccessDenied, "wrong_address"),
    foreign(405, AccessDenied, "wrong_address"),
    foreign(407, AccessDenied, "proxy_refused"),
    foreign(413, Rejected, "too_large"),
    foreign(418, Rejected, "http_418"),
    foreign(429, RateLimited, "rate_limited"),
    foreign(502, Unavailable, "provider_error"),
    foreign(503, Unavailable, "overloaded"),
    foreign(520, Unavailable, "provider_error"),
    Row("200 html", Play(fault=Fault.HTML), BadAnswer, "not_a_stream"),
]

STREAM_ERRORS = [
    row
    for at in (0, 5)
    for row in [
        in_stream(at, "overloaded_error", Unavailable, "overloaded"),
        in_stream(at, "api_error", Unavailable, "provider_error"),
        in_stream(at, "timeout_error", Unavailable, "provider_timeout"),
        in_stream(at, "rate_limit_error", RateLimited, "rate_limited"),
        in_stream(
            at, "rate_limit_error", AccessDenied, "spend_limit", "enforced_spend_limit_reached"
        ),
        in_stream(at, "authentication_error", AccessDenied, "key_refused"),
        in_stream(at, "invalid_request_error", Rejected, "invalid_request"),
        in_stream(at, "brand_new_error", Unavailable, "provider_error"),
    ]
]

#: Events of `broken`: start, ping, block start, 4 deltas, block stop, message delta, stop.
EVENTS = range(10)

CUTS = [
    row
    for at in EVENTS
    for row in [
        broken(Fault.TRUNCATE, at, BadAnswer, "truncated"),
        broken(Fault.CUT, at, Unavailable, "cut"),
    ]
] + [
    Row("stop without a reason", Play(stop_reason=None), BadAnswer, "truncated"),
    broken(Fault.RESET, 5, Unavailable, "cut"),
    broken(Fault.BAD_JSON, 5, BadAnswer, "bad_event"),
    broken(Fault.BAD_UTF8, 5, BadAnswer, "bad_event"),
    broken(Fault.NO_OBJECT, 5, BadAnswer, "bad_event"),
    broken(Fault.CLOSE_FIRST, 0, Unavailable, "unreachable"),
    broken(Fault.RESET_FIRST, 0, Unavailable, "unreachable"),
]

SILENCES = [
    broken(Fault.SILENCE, 0, Unavailable, "no_first_event", first_event_s=SHORT_S),
    broken(Fault.STALL, 0, Unavailable, "no_first_event", first_event_s=SHORT_S),
    broken(Fault.PINGS, 0, Unavailable, "no_first_event", first_event_s=SHORT_S),
    broken(Fault.STALL, 5, Unavailable, "stalled", idle_s=SHORT_S),
    broken(Fault.PINGS, 5, Unavailable, "stalled", idle_s=SHORT_S),
    broken(Fault.DRIP, 5, Unavailable, "too_slow", total_s=SHORT_S),
    broken(Fault.SILENCE, 0, Unavailable, "too_slow", total_s=SHORT_S),
]

ROWS = [*REFUSALS, *WAITS, *PROXIES, *STREAM_ERRORS, *CUTS, *SILENCES]


@pytest.fixture
async def claude() -> AsyncIterator[ClaudeStandIn]:
    async with ClaudeStandIn() as claude:
        yield claude


def model_at(url: str, **limits: float) -> Claude:
    patient = {"total_s": LONG_S, "first_event_s": LONG_S, "idle_s": LONG_S}
    return Claude(api_key=KEY, base_url=url, connections=2, **patient | limits)


async def failure_of(model: Claude, prompt: Prompt = PROMPT) -> Upstream:
    items: list[str | Answer] = []
    with pytest.raises(Upstream) as caught:
        await collect(model.ask(prompt), items)
    assert not any(isinstance(item, Answer) for item in items), "a failed call has no answer"
    await model.aclose()
    return caught.value


async def collect(answering: AsyncIterator[str | Answer], items: list[str | Answer]) -> None:
    async for item in answering:
        items.append(item)  # noqa: PERF401 what came before an error counts


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_failure(claude: ClaudeStandIn, row: Row) -> None:
    claude.plays(row.play)
    error = await failure_of(model_at(claude.url, **row.limits))
    assert (type(error), error.code, error.retry_after_s) == (
        row.error,
        row.code,
        row.retry_after_s,
    )
    assert error.blame is BLAMES[row.error]
    assert len(claude.requests) == 1, "nothing is tried twice"
    assert_silent(error)


def assert_silent(error: BaseException) -> None:
    """Nothing of the prompt, the key or the provider's words is in an error, or behind it."""
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = f"{error!r} {''.join(traceback.format_exception(error))} {vars(error)}"
    assert SECRET not in shown
    assert KEY not in shown


async def test_no_one_listens() -> None:
    async with ClaudeStandIn() as claude:
        url = claude.url
    error = await failure_of(model_at(url))
    assert (type(error), error.code) == (Unavailable, "unreachable")
    assert_silent(error)


async def test_a_prompt_that_is_no_unicode_is_this_ones(claude: ClaudeStandIn) -> None:
    prompt = Prompt((), (Say("user", f"{SECRET} \ud800"),), "claude-sonnet-5-5", 100, "tag")
    error = await failure_of(model_at(claude.url), prompt)
    assert (type(error), error.code) == (Rejected, "not_unicode")
    assert_silent(error)


@pytest.mark.parametrize(
    "fault",
    [None, Fault.ERROR_EVENT, Fault.TRUNCATE, Fault.CUT, Fault.STALL, Fault.BAD_JSON, Fault.HTML],
)
async def test_an_error_keeps_the_providers_request_id(
    claude: ClaudeStandIn, fault: Fault | None
) -> None:
    claude.plays(Play(status=200 if fault else 529, fault=fault))
    error = await failure_of(model_at(claude.url, idle_s=SHORT_S))
    assert error.request_id == "req_standin_1"
