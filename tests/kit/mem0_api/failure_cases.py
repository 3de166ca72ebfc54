"""Every way in which memory fails, also by half: what it does, and what becomes of the turn.

`tests.kit.failures.page` makes the tables of `docs/explanation/failures.md` of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    Fault,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.workers.ports import EventFailed
from tests.kit.failures.row import FailureRow, judged
from tests.kit.mem0_api.scripted_answers import HTML, Mem0Answer
from tests.kit.servers.scripted_http_server import Cue

SECRET = "canary-secret"
SHORT_S = 0.2


@dataclass(frozen=True)
class Mem0Case:
    """One failure: what mem0 does, and the error it becomes."""

    name: str
    play: Mem0Answer
    error: type[ProviderError]
    code: str
    retry_after_s: float | None = None
    call_s: float = 10.0


def status(
    number: int, error: type[ProviderError], code: str, name: str = "", **play: Any
) -> Mem0Case:
    body = f'{{"detail": "about {SECRET}"}}'
    told: dict[str, Any] = {"status": number, "body": body} | play
    return Mem0Case(f"{number} {name or code}", Mem0Answer(**told), error, code)


def waits(name: str, header: str | None, seconds: float | None) -> Mem0Case:
    headers = {"retry-after": header} if header is not None else {}
    play = Mem0Answer(status=429, body=SECRET, headers=headers)
    return Mem0Case(f"429 retry-after {name}", play, RateLimited, "rate_limited", seconds)


TOO_LARGE = "<title>413 Request Entity Too Large</title>"

STATUSES = [
    status(302, AccessDenied, "wrong_address", headers={"location": "http://127.0.0.1:9/"}),
    status(400, Rejected, "invalid_request"),
    status(401, AccessDenied, "key_refused"),
    status(402, AccessDenied, "billing"),
    status(403, AccessDenied, "not_permitted"),
    status(405, AccessDenied, "wrong_address"),
    status(407, AccessDenied, "proxy_refused"),
    status(408, Unavailable, "provider_timeout"),
    status(409, Rejected, "conflict"),
    status(413, AccessDenied, "quota_spent"),
    status(413, AccessDenied, "quota_spent", "a quota", body='{"error": "Quota: too large"}'),
    status(413, Rejected, "too_large", "of a proxy", body=TOO_LARGE),
    status(418, Rejected, "http_418"),
    status(422, Rejected, "invalid_request"),
    status(425, Unavailable, "too_early"),
    status(500, Unavailable, "provider_error"),
    status(501, Unavailable, "provider_error"),
    status(502, Unavailable, "provider_error", body=HTML),
    status(503, Unavailable, "overloaded"),
    status(504, Unavailable, "provider_timeout"),
    status(520, Unavailable, "provider_error", body=HTML),
    status(529, Unavailable, "overloaded"),
]

WAITS = [
    waits("none", None, None),
    waits("7", "7", 7.0),
    waits("0", "0", 0.0),
    waits("2.5", "2.5", 2.5),
    waits("date", "Thu, 01 Oct 2026 12:00:30 GMT", 30.0),
    waits("years", "4294967", 4294967.0),
    waits("nonsense", "later", None),
]

BROKEN = [
    Mem0Case("200 html", Mem0Answer(body=HTML), Unavailable, "bad_json"),
    Mem0Case(
        "200 half a JSON",
        Mem0Answer(body='{"results": [{"memory": "' + SECRET),
        Unavailable,
        "bad_json",
    ),
    Mem0Case("200 nothing", Mem0Answer(body=" "), Unavailable, "bad_json"),
    Mem0Case("200 a list", Mem0Answer(body=f'["{SECRET}"]'), Unavailable, "unexpected_answer"),
    Mem0Case("200 null", Mem0Answer(body="null"), Unavailable, "unexpected_answer"),
    Mem0Case(
        "200 results that are none",
        Mem0Answer(body='{"results": 7}'),
        Unavailable,
        "unexpected_answer",
    ),
    Mem0Case("closed before the answer", Mem0Answer(cue=Cue.CLOSE), Unavailable, "unreachable"),
    Mem0Case("reset before the answer", Mem0Answer(cue=Cue.RESET), Unavailable, "unreachable"),
    Mem0Case(
        "closed in the answer", Mem0Answer(half=True, cue=Cue.CLOSE), Unavailable, "unreachable"
    ),
    Mem0Case(
        "reset in the answer", Mem0Answer(half=True, cue=Cue.RESET), Unavailable, "unreachable"
    ),
    Mem0Case("silence", Mem0Answer(silent=True), Unavailable, "too_slow", call_s=SHORT_S),
    Mem0Case(
        "stalled", Mem0Answer(half=True, cue=Cue.HOLD), Unavailable, "too_slow", call_s=SHORT_S
    ),
]

CASES = [*STATUSES, *WAITS, *BROKEN]

_HOSTED = "tests/contract/test_mem0_failures.py"
_TURNS = "tests/usecase/test_store_turns.py"
_CAUSES = "tests/unit/test_causes_of_memory.py"
_POSTGRES = "tests/contract/test_pgvector_failures.py"
_EXTRACTION = "tests/unit/test_extraction.py"
_SQLITE = "tests/unit/test_mem0_open_source.py"


#: The error of each row that is about one.
TURN_ERRORS: dict[FailureRow, ProviderError] = {}


def turn(what: str, error: ProviderError, test: str) -> FailureRow:
    """Return the row of an error of an add."""
    row = judged(what, error, test=test, work="turn")
    TURN_ERRORS[row] = error
    return row


def good(
    what: str, test: str, ends: str, *, operator: str = "nothing", code: str = ""
) -> FailureRow:
    """Return the row of a half failure that costs at most memories: no work waits for it."""
    return FailureRow(
        what=what, code=code, fault=Fault.PROVIDER, operator=operator, ends=ends, test=test
    )


def recall(what: str, code: str, test: str) -> FailureRow:
    """Return the row of a search that fails: its reply goes out without memories."""
    return FailureRow(
        what=what,
        code=code,
        fault=Fault.PROVIDER,
        gate="`recall` shuts after five",
        operator="a warning each time, and when the gate shuts",
        ends="a reply that is `degraded`",
        test=test,
    )


#: Failures that are the same whichever backend it is.
ANY_ROWS = [
    recall(
        "answers a search after the recall budget",
        "over_budget",
        "tests/unit/test_recall.py::test_a_memory_that_hangs_is_a_failure_of_its_gate",
    ),
    good(
        "returns memories that cannot be read: no id, no text, broken characters, infinite scores",
        f"{_HOSTED}::test_a_malformed_row_is_dropped_and_counted",
        "they are dropped; a reply that is `degraded`",
        operator="a warning with their number",
    ),
    good(
        "returns memories of another user",
        "tests/usecase/test_respond.py::test_a_memory_of_another_user_never_reaches_the_model",
        "they are dropped; a reply that is `degraded`",
        operator="an error with their number",
    ),
    good(
        "returns memories without an owner or a score",
        f"{_HOSTED}::test_a_row_that_names_no_owner_and_has_no_score_is_a_memory_and_is_looked_up",
        "they count as those of the user who was searched for",
    ),
    turn(
        "finds a turn, but returns memories that cannot be read",
        Unavailable("malformed_rows"),
        f"{_HOSTED}::test_a_lookup_whose_rows_cannot_be_read_says_that_mem0_is_out",
    ),
    turn(
        "does not store a turn within `AFTERWORD_WRITE_TIMEOUT_S`",
        Unavailable("write_timeout"),
        f"{_TURNS}::test_an_add_that_hangs_is_left_and_looked_for",
    ),
]

#: What mem0's platform does.
HOSTED_ROWS = [
    turn(
        "accepts adds and never finishes them",
        Unavailable("pending_too_long"),
        f"{_TURNS}::test_an_add_that_is_pending_for_ever_is_an_outage_of_mem0",
    ),
    turn(
        "forgets an add that it accepted",
        Unavailable("event_gone"),
        f"{_TURNS}::test_an_event_that_mem0_forgets_each_time_is_an_outage",
    ),
    turn(
        "accepts an add and fails to process it",
        EventFailed(),
        f"{_TURNS}::test_adds_that_mem0_cannot_process_shut_the_gate",
    ),
    good(
        "stores an add and loses the answer",
        f"{_TURNS}::test_a_turn_that_may_be_stored_is_looked_for_before_it_is_added",
        "found by its turn, stored once",
    ),
    good(
        "processes an add and does not say what it stored",
        f"{_TURNS}::test_an_add_that_does_not_say_what_it_stored_is_looked_up",
        "looked up, stored once",
    ),
    good(
        "forgets an erasure that it accepted",
        f"{_HOSTED}::test_an_erasure_that_mem0_no_longer_knows_ends_if_nothing_is_left",
        "erased, once nothing is left",
    ),
    good(
        "says that a user is erased, and still has memories of them",
        f"{_HOSTED}::test_an_erasure_that_left_something_is_not_done",
        "asked again every 30 s until nothing is left",
        operator="a warning each time, and `afterword status`",
        code="not_erased",
    ),
    turn(
        "cannot be reached: nothing listens",
        Unavailable("connection_refused"),
        f"{_CAUSES}::test_a_port_where_nothing_listens_is_named",
    ),
    turn(
        "cannot be reached: the host is unknown",
        Unavailable("no_such_host"),
        f"{_CAUSES}::test_a_host_that_is_unknown_is_named",
    ),
    turn(
        "shows a certificate that is not trusted",
        AccessDenied("untrusted_certificate"),
        f"{_CAUSES}::test_a_certificate_that_is_not_trusted_is_named",
    ),
    turn(
        "speaks no TLS at an https address",
        AccessDenied("no_tls"),
        f"{_CAUSES}::test_a_server_that_speaks_no_tls_is_named",
    ),
    *(
        turn(
            case.name,
            case.error(case.code, retry_after_s=case.retry_after_s),
            f"{_HOSTED}::test_failure",
        )
        for case in CASES
    ),
]


def _postgres(what: str, error: ProviderError, test: str, file: str = _POSTGRES) -> FailureRow:
    return turn(what, error, f"{file}::{test}")


def _no_start(what: str, test: str) -> FailureRow:
    return FailureRow(
        what=what,
        code="",
        fault=Fault.OPERATOR,
        operator="one line that names the setting",
        ends="the worker does not start until it is fixed",
        test=test,
    )


#: What PostgreSQL does, and Claude as the model that extracts.
SELFHOSTED_ROWS = [
    _postgres(
        "is down",
        Unavailable("connection_refused"),
        "test_a_postgresql_that_is_full_or_away_may_come_back",
        _CAUSES,
    ),
    _postgres(
        "goes down, or cuts the connection while it writes",
        Unavailable("store_unavailable"),
        "test_a_connection_cut_while_it_writes_leaves_the_outcome_unknown",
    ),
    _postgres(
        "is read-only (a standby): searches work",
        Unavailable("store_read_only"),
        "test_a_read_only_server_still_recalls",
    ),
    _postgres(
        "has no connections left",
        Unavailable("store_full"),
        "test_a_postgresql_that_is_full_or_away_may_come_back",
        _CAUSES,
    ),
    _postgres(
        "refuses the password, after a change",
        AccessDenied("store_refused"),
        "test_a_pool_says_why_it_has_no_connection",
        _CAUSES,
    ),
    _postgres(
        "shows a certificate that is not trusted",
        AccessDenied("untrusted_certificate"),
        "test_a_certificate_that_postgresql_shows_is_named",
        _CAUSES,
    ),
    _no_start(
        "refuses the login, wants TLS, or has no such database, when a worker starts",
        f"{_CAUSES}::test_why_postgresql_refuses_a_login_is_named",
    ),
    _no_start(
        "has no extension `vector`, when a worker starts",
        f"{_POSTGRES}::test_a_missing_extension_is_reported_at_the_start",
    ),
    _postgres(
        "stores only some facts of a turn",
        BadAnswer("store_failed"),
        "test_a_turn_is_stored_whole_or_not_at_all",
    ),
    _postgres(
        "the model does not exist",
        AccessDenied("memory_model_not_found"),
        "test_an_extraction_that_fails_is_an_error_and_the_next_one_stores",
    ),
    _postgres(
        "the model gives no facts that can be read",
        BadAnswer("extraction_malformed"),
        "test_an_extraction_that_fails_is_an_error_and_the_next_one_stores",
    ),
    good(
        "the model finds no fact in a turn",
        f"{_POSTGRES}::test_an_extraction_without_facts_stores_nothing",
        "the turn ends as `nothing`, and says so",
        operator="`afterword status` with their share, and a metric",
        code="no_fact",
    ),
    good(
        "the model gives facts about itself",
        f"{_EXTRACTION}::test_facts_about_the_assistant_are_dropped",
        "they are dropped; without others, the turn is one without a fact",
    ),
    good(
        "the model gives facts in another language than the user's",
        f"{_EXTRACTION}::test_facts_in_another_language_than_the_message_are_counted",
        "they are stored so, and found in both languages",
        operator="a line in the log, and a metric",
    ),
    _postgres(
        "the embedder is away",
        Unavailable("embedder_failed"),
        "test_facts_that_cannot_be_embedded_are_an_error",
    ),
    _postgres(
        "the embedder gives vectors that cannot be used",
        Unavailable("embedder_failed"),
        "test_vectors_that_cannot_be_used_are_an_outage_of_the_embedder",
    ),
]

_FILE = "tests/unit/test_sqlite_memory.py"

#: What the SQLite file of the embedded memory does.
EMBEDDED_ROWS = [
    turn(
        "is locked by another process for ten seconds; searches work",
        Unavailable("store_busy"),
        f"{_FILE}::test_a_file_that_another_process_holds_is_busy",
    ),
    turn(
        "is on a full disk; searches work",
        Unavailable("store_full"),
        f"{_FILE}::test_a_full_disk_is_not_the_fault_of_a_turn",
    ),
    _no_start("is damaged, when a worker starts", f"{_FILE}::test_a_damaged_file_is_the_operators"),
    *(
        turn(what, error, f"{_SQLITE}::test_every_error_is_translated_and_quotes_nothing")
        for what, error in (
            ("is damaged while a worker runs", AccessDenied("store_broken")),
            ("cannot be opened, read or written", Unavailable("store_unavailable")),
            ("gives another error", BadAnswer("mem0_failed")),
            ("does not accept a turn", Rejected("not_accepted")),
        )
    ),
]
