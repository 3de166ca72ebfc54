"""Every way in which a call to Claude ends that is no plain answer, and what it is to us."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    NoSuchModel,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.workers.adapters.claude.rate_limits import BUDGETS
from tests.kit.claude_api.scripted_answers import ClaudeAnswer, ServerFault
from tests.kit.failures.row import judged

SECRET = "canary-secret"
SHORT_S = 0.2


@dataclass(frozen=True)
class FailureCase:
    """One failure: what Claude does, the limits while it does it, and the error of ours.

    What stands in a name after `VARIES` tells rows of one case apart.
    """

    name: str
    play: ClaudeAnswer
    error: type[ProviderError]
    code: str
    retry_after_s: float | None = None
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def case(self) -> str:
        """What is told of it in the documents."""
        return self.name.partition(VARIES)[0]


@dataclass(frozen=True)
class GoodAnswer:
    """One answer that is good for all its looks: its text, and why it stopped."""

    name: str
    play: ClaudeAnswer
    text: str = "Warm."
    stop_reason: str = "end_turn"


VARIES = ", event "


#: How far away the resets are that stand on every answer of the stand-in.
RESET_S = 60.0


def refusal(
    status: int,
    error: type[ProviderError],
    code: str,
    name: str = "",
    retry_after_s: float | None = None,
    **play: Any,
) -> FailureCase:
    told: dict[str, Any] = {"status": status, "error_message": f"about {SECRET}"} | play
    return FailureCase(
        f"{status} {name or told.get('error_code', code)}",
        ClaudeAnswer(**told),
        error,
        code,
        retry_after_s,
    )


def foreign(status: int, error: type[ProviderError], code: str) -> FailureCase:
    """Let a proxy answer in the API's place."""
    return FailureCase(
        f"{status} of a proxy", ClaudeAnswer(status=status, raw_body="<html>no"), error, code
    )


def in_stream(
    at: int, kind: str, error: type[ProviderError], code: str, cause: str | None = None
) -> FailureCase:
    play = ClaudeAnswer(
        fault=ServerFault.ERROR_EVENT,
        at=at,
        error_type=kind,
        error_code=cause,
        error_message=SECRET,
    )
    told = f"error event in a 200: {cause or kind}{VARIES}{at}"
    wait_s = RESET_S if error is RateLimited else None
    return FailureCase(told, play, error, code, wait_s)


def broken(
    what: str, fault: ServerFault, at: int, error: type[ProviderError], code: str, **limits: float
) -> FailureCase:
    play = ClaudeAnswer(text="one two three four", deltas=4, fault=fault, at=at)
    return FailureCase(f"{what}{VARIES}{at}", play, error, code, limits=limits)


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
    refusal(404, NoSuchModel, "model_not_found", "unknown or retired model"),
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

RESETS = [f"anthropic-ratelimit-{budget}-reset" for budget in BUDGETS]
NO_RESETS = dict.fromkeys(RESETS, "")
SPENT = {
    "anthropic-ratelimit-tokens-remaining": "0",
    "anthropic-ratelimit-tokens-reset": "2026-10-01T12:01:30Z",
}

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
        ("none, but a reset", RESET_S, {}),
        ("none, no reset", None, NO_RESETS),
        ("none, a budget used up", 90.0, SPENT),
        ("7", 7.0, {"retry-after": "7"}),
        ("0", 0.0, {"retry-after": "0"}),
        ("1.5", 1.5, {"retry-after": "1.5"}),
        ("years, uncapped", 4294967.0, {"retry-after": "4294967"}),
        ("in ms", 0.25, {"retry-after-ms": "250", "retry-after": "7"}),
        ("bad ms", 7.0, {"retry-after-ms": "soon", "retry-after": "7"}),
        ("date", 30.0, {"retry-after": "Thu, 01 Oct 2026 12:00:30 GMT"}),
        ("past date", 0.0, {"retry-after": "Thu, 01 Oct 2026 11:00:00 GMT"}),
        ("date without a zone", RESET_S, {"retry-after": "Thu, 01 Oct 2026 12:00:30"}),
        ("negative", RESET_S, {"retry-after": "-7"}),
        ("nan", RESET_S, {"retry-after": "nan"}),
        ("infinite", RESET_S, {"retry-after": "inf"}),
        ("nonsense", RESET_S, {"retry-after": "later"}),
    ]
]

PROXIES = [
    foreign(301, AccessDenied, "wrong_address"),
    foreign(302, AccessDenied, "wrong_address"),
    foreign(400, Rejected, "invalid_request"),
    foreign(401, AccessDenied, "key_refused"),
    foreign(403, AccessDenied, "not_permitted"),
    foreign(404, AccessDenied, "wrong_address"),
    foreign(405, AccessDenied, "wrong_address"),
    foreign(407, AccessDenied, "proxy_refused"),
    foreign(413, Rejected, "too_large"),
    foreign(422, Rejected, "invalid_request"),
    foreign(418, Rejected, "http_418"),
    foreign(429, RateLimited, "rate_limited"),
    foreign(502, Unavailable, "provider_error"),
    foreign(503, Unavailable, "overloaded"),
    foreign(504, Unavailable, "provider_timeout"),
    foreign(520, Unavailable, "provider_error"),
    FailureCase(
        "503 in plain words",
        ClaudeAnswer(status=503, raw_body="upstream connect error"),
        Unavailable,
        "overloaded",
    ),
    FailureCase(
        "200 with JSON and no stream",
        ClaudeAnswer(headers={"content-type": "application/json"}),
        BadAnswer,
        "not_a_stream",
    ),
    FailureCase("200 with HTML", ClaudeAnswer(fault=ServerFault.HTML), BadAnswer, "not_a_stream"),
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
        in_stream(at, "conflict_error", Unavailable, "conflict"),
        in_stream(at, "permission_error", AccessDenied, "not_permitted"),
        in_stream(at, "billing_error", AccessDenied, "billing"),
        in_stream(at, "not_found_error", NoSuchModel, "model_not_found"),
        in_stream(at, "request_too_large", Rejected, "too_large"),
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
        broken(
            "stream ends cleanly before its end", ServerFault.TRUNCATE, at, BadAnswer, "truncated"
        ),
        broken("connection is closed in the middle", ServerFault.CUT, at, Unavailable, "cut"),
    ]
] + [
    FailureCase("stop without a reason", ClaudeAnswer(stop_reason=None), BadAnswer, "truncated"),
    broken("connection is reset in the middle", ServerFault.RESET, 5, Unavailable, "cut"),
    broken("broken JSON in the stream", ServerFault.BAD_JSON, 5, BadAnswer, "bad_event"),
    broken("broken UTF-8 in the stream", ServerFault.BAD_UTF8, 5, BadAnswer, "bad_event"),
    broken("an event that is none", ServerFault.NO_OBJECT, 5, BadAnswer, "bad_event"),
    broken(
        "connection is closed before the answer",
        ServerFault.CLOSE_FIRST,
        0,
        Unavailable,
        "unreachable",
    ),
    broken(
        "connection is reset before the answer",
        ServerFault.RESET_FIRST,
        0,
        Unavailable,
        "unreachable",
    ),
]

SILENCES = [
    broken(
        "no first byte",
        ServerFault.SILENCE,
        0,
        Unavailable,
        "no_first_event",
        first_event_s=SHORT_S,
    ),
    broken(
        "head and no event",
        ServerFault.STALL,
        0,
        Unavailable,
        "no_first_event",
        first_event_s=SHORT_S,
    ),
    broken(
        "pings and no event",
        ServerFault.PINGS,
        0,
        Unavailable,
        "no_first_event",
        first_event_s=SHORT_S,
    ),
    broken(
        "no first byte, ever",
        ServerFault.SILENCE,
        0,
        Unavailable,
        "no_first_event",
        total_s=SHORT_S,
    ),
    broken("silence before text", ServerFault.STALL, 2, Unavailable, "stalled", idle_s=SHORT_S),
    broken("silence in text", ServerFault.STALL, 5, Unavailable, "stalled", idle_s=SHORT_S),
    broken("pings only in text", ServerFault.PINGS, 5, Unavailable, "stalled", idle_s=SHORT_S),
    FailureCase(
        "pings only before text (it may think)",
        ClaudeAnswer(fault=ServerFault.PINGS, at=2),
        BadAnswer,
        "too_slow",
        limits={"idle_s": SHORT_S, "total_s": 4 * SHORT_S},
    ),
    broken(
        "text that drips for ever", ServerFault.DRIP, 5, BadAnswer, "too_slow", total_s=2 * SHORT_S
    ),
]

WITHOUT_TEXT = [
    FailureCase(
        f"no text, stop reason {reason}",
        ClaudeAnswer(thinking=thinking, text=text, stop_reason=reason.partition(" ")[0]),
        error,
        code,
    )
    for reason, thinking, text, error, code in [
        ("max_tokens (it only thought)", "endless", "", Rejected, "no_room_for_text"),
        ("model_context_window_exceeded", None, "", Rejected, "no_room_for_text"),
        ("end_turn", None, "", BadAnswer, "no_text"),
        ("end_turn (blanks only)", None, " \n", BadAnswer, "no_text"),
        ("pause_turn", "hm", "", BadAnswer, "no_text"),
        ("brand_new", None, "", BadAnswer, "no_text"),
    ]
]

FAILURES = [*REFUSALS, *WAITS, *PROXIES, *STREAM_ERRORS, *CUTS, *SILENCES, *WITHOUT_TEXT]

GOOD = [
    *(
        GoodAnswer(
            f"text, stop reason {reason}",
            ClaudeAnswer(text="Warm.", stop_reason=reason),
            stop_reason=reason,
        )
        for reason in ("max_tokens", "pause_turn", "stop_sequence", "tool_use", "brand_new")
    ),
    GoodAnswer(
        "refusal with text", ClaudeAnswer(text="Warm.", stop_reason="refusal"), "Warm.", "refusal"
    ),
    GoodAnswer("refusal without text", ClaudeAnswer(text="", stop_reason="refusal"), "", "refusal"),
    GoodAnswer(
        "refusal with a reason",
        ClaudeAnswer(
            text="Warm.",
            stop_reason="refusal",
            stop_details={"type": "refusal", "category": "bio", "explanation": "no"},
        ),
        stop_reason="refusal",
    ),
    GoodAnswer(
        "stop reason that is none", ClaudeAnswer(text="Warm.", stop_reason=7), "Warm.", "unknown"
    ),
    GoodAnswer("no usage", ClaudeAnswer(text="Warm.", usage=None)),
    GoodAnswer(
        "usage that is none",
        ClaudeAnswer(
            text="Warm.",
            usage={
                "input_tokens": -7,
                "output_tokens": 10**30,
                "cache_read_input_tokens": 1.5,
                "cache_creation_input_tokens": "12",
            },
        ),
    ),
    GoodAnswer(
        "surrogate pair cut in two",
        ClaudeAnswer(text="Warm.", fault=ServerFault.HALVES),
        "\U0001f321Warm.",
    ),
    GoodAnswer("thinking before text", ClaudeAnswer(text="Warm.", thinking="hm")),
    GoodAnswer(
        "event of an unknown type", ClaudeAnswer(text="Warm.", fault=ServerFault.UNKNOWN_EVENT)
    ),
    GoodAnswer(
        "block of an unknown type", ClaudeAnswer(text="Warm.", fault=ServerFault.UNKNOWN_BLOCK)
    ),
    GoodAnswer("body that does not end", ClaudeAnswer(text="Warm.", fault=ServerFault.LINGER)),
]

#: Why there may be no connection, and the error of each.
CONNECTIONS: dict[str, tuple[type[ProviderError], str]] = {
    "nothing listens at the address": (Unavailable, "connection_refused"),
    "the host name is unknown": (Unavailable, "no_such_host"),
    "the certificate is not trusted": (AccessDenied, "untrusted_certificate"),
    "it does not speak TLS": (AccessDenied, "no_tls"),
    "a proxy cannot be reached": (AccessDenied, "proxy_failed"),
    "a proxy refuses us": (AccessDenied, "proxy_refused"),
}
_CONNECTION_TESTS = {
    "nothing listens at the address": "test_no_server_listens",
    "the host name is unknown": "test_no_such_host",
    "the certificate is not trusted": "test_an_untrusted_certificate",
    "it does not speak TLS": "test_a_server_without_tls",
    "a proxy cannot be reached": "test_a_proxy_that_is_not_there",
    "a proxy refuses us": "test_a_proxy_that_refuses_us",
}

#: The test that plays every row of `FAILURES`.
_TEST = "tests/contract/test_claude_failures.py::test_failure"

#: The rows of the page. Rows that differ only in when they happen are one there.
CLAUDE_ROWS = [
    *(
        judged(case.case, case.error(case.code, retry_after_s=case.retry_after_s), test=_TEST)
        for case in FAILURES
    ),
    *(
        judged(
            f"no connection: {case}",
            error(code),
            test=f"tests/contract/test_claude_connections.py::{_CONNECTION_TESTS[case]}",
        )
        for case, (error, code) in CONNECTIONS.items()
    ),
    judged(
        "404 unknown model, which only the request names",
        Rejected("not_found"),
        test="tests/usecase/test_respond.py::test_a_model_that_only_the_job_names_fails_the_job",
    ),
]


def answer_table() -> list[str]:
    """Return the table of answers that count for all their looks."""
    return [
        "| what Claude does | the reply | remembered |",
        "|---|---|---|",
        *(_answer_line(good) for good in GOOD),
    ]


def _answer_line(good: GoodAnswer) -> str:
    text = "the text" if good.text else "an empty text"
    kept = "no" if good.stop_reason == "refusal" else "yes"
    return f"| {good.name} | {text}, `{good.stop_reason}` | {kept} |"
