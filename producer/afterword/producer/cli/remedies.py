"""What keeps a job from its reply, in words, and what to do about it. Pure rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from afterword.producer.admin.wording import cause, duration, utc_time
from afterword.producer.cli.workers_seen import running
from afterword.shared.contracts import JobStatus
from afterword.shared.errors import Fault
from afterword.shared.ledger.queries import NOT_KNOWN, Waits
from afterword.shared.ledger.records import Gate, GateState, Overview
from afterword.shared.lifecycle import JobState
from afterword.shared.names import gate_of, model_of

NOTHING = "Nothing to do: it is tried again by itself"
_KEY = "Set ANTHROPIC_API_KEY to a valid one and restart the workers"
_ACCOUNT = "Look at the account with Anthropic; work goes on within a minute"
_ADDRESS = "Check ANTHROPIC_BASE_URL and restart the workers"
_PROXY = "Fix HTTPS_PROXY or the proxy, and restart the workers"

#: What a code of a model says, and what to do; see docs/reference/codes.md.
OF_A_MODEL = {
    "key_refused": ("Claude refuses the API key", _KEY),
    "not_permitted": ("the API key lacks a right", _KEY),
    "billing": ("the account has no credit", _ACCOUNT),
    "spend_limit": ("a spend limit of the account is reached", _ACCOUNT),
    "organization_on_hold": ("the account is on hold", _ACCOUNT),
    "encryption_key_disabled": ("the account's encryption key is off", _ACCOUNT),
    "model_not_found": (
        "the model does not exist or is not open to the account",
        "Set AFTERWORD_MODEL to another one and restart the workers",
    ),
    "wrong_address": ("this is not the address of Claude", _ADDRESS),
    "connection_refused": ("nothing listens at the address of Claude", _ADDRESS),
    "no_such_host": ("the host name of Claude is unknown", _ADDRESS),
    "untrusted_certificate": ("the certificate is not trusted", _ADDRESS),
    "no_tls": ("the address does not speak TLS", _ADDRESS),
    "proxy_failed": ("the proxy cannot be reached", _PROXY),
    "proxy_refused": ("the proxy refuses", _PROXY),
    "unreachable": ("Claude cannot be reached", "Check the network"),
    "overloaded": ("Claude is overloaded", NOTHING),
    "provider_error": ("Claude has an error of its own", NOTHING),
    "provider_timeout": ("Claude took too long", NOTHING),
    "no_first_event": ("Claude does not begin to answer", NOTHING),
    "rate_limited": ("Claude limits the requests or tokens of the account", NOTHING),
    "ramp_limit": ("Claude limits how fast requests may grow", NOTHING),
    "quota_used_up": ("the account's rate limit with Claude has no room", NOTHING),
}

_MEM0_KEY = "Set MEM0_API_KEY to a valid one and restart the workers"

#: What to do about a memory that cannot be reached, where nobody knows which backend it is.
STORE = (
    "Check MEM0_HOST, AFTERWORD_POSTGRES_URL or AFTERWORD_DATA_DIR, and that what it names is there"
)
_MEM0 = "Look at mem0's status page, or ask mem0, if it stays"

#: What a code of memory says, and what to do; see docs/reference/codes.md.
OF_MEMORY = {
    "key_refused": ("mem0 refuses the API key", _MEM0_KEY),
    "not_permitted": ("the API key of mem0 lacks a right", _MEM0_KEY),
    "quota_spent": ("the plan with mem0 is used up", "Look at the account with mem0"),
    "rate_limited": ("mem0 limits the requests of the account", NOTHING),
    "wrong_address": ("this is not the address of mem0's platform", "Check MEM0_HOST"),
    "connection_refused": ("nothing listens at the address of the memory", STORE),
    "no_such_host": ("the host name of the memory is unknown", STORE),
    "unreachable": ("the memory cannot be reached", STORE),
    "store_unavailable": ("the database of the memory is away", STORE),
    "store_refused": ("the database refuses the password or the user", STORE),
    "store_busy": ("the database of the memory is busy", "Look at the database if it stays"),
    "store_full": (
        "the database of the memory has no room or no connection left",
        "Make room on the disk of AFTERWORD_DATA_DIR or of the database, or allow more connections",
    ),
    "store_read_only": (
        "the database of the memory takes no writes",
        "Name the primary in AFTERWORD_POSTGRES_URL, or let workers write to AFTERWORD_DATA_DIR",
    ),
    "embedder_failed": ("the embedder gives no usable vectors", "Check the embedder"),
    "write_timeout": (
        "storing took too long",
        "Check the memory and the embedder, or raise AFTERWORD_WRITE_TIMEOUT_S",
    ),
    "too_slow": ("mem0 took too long", _MEM0),
    "bad_json": ("the answer is not one of mem0's platform", "Check MEM0_HOST"),
    "unexpected_answer": ("the answer is not one of mem0's platform", "Check MEM0_HOST"),
    "pending_too_long": ("mem0 does not finish what it accepted", _MEM0),
    "malformed_rows": ("the memories cannot be read", "Look what else writes to your mem0"),
    "over_budget": ("the search took too long", "Raise AFTERWORD_RECALL_BUDGET_MS if it stays"),
    "recall_queue": ("too many searches at once", "Start another response worker"),
    "shut": ("the gate of recall is shut", "See afterword gate list"),
    "shut_by_hand": ("somebody shut the gate of recall", "See afterword gate list"),
}

_LOG = "The log of the response workers says more"

#: What a code of a job that failed says, and what to do; see docs/reference/codes.md.
_OF_A_FAILED_JOB = {
    "invalid_request": ("Claude refuses this request", "Say it in another way"),
    "too_large": ("the message is too long for the model", "Send a shorter one"),
    "not_found": ("the model that the message asks for does not exist", "Name another one"),
    "no_room_for_text": ("the model had no room to answer", "Raise AFTERWORD_MAX_TOKENS"),
    "too_slow": ("the model took too long", "Send it again, or raise AFTERWORD_REPLY_TIMEOUT_S"),
    "crashed_too_often": ("each worker that tried was lost", "Look for what kills workers"),
    "internal_error": ("a bug of Afterword", f"{_LOG}: please report it"),
    "deadline": ("no reply came in time", "Send it again"),
    "erased": ("this user is being erased", "Send it again once that is done"),
}

_BY_FAULT = {
    Fault.OPERATOR: "Fix the key, the account, the model or the address, and restart the workers",
    Fault.PROVIDER: NOTHING,
}

#: So long may a job be ready, or without a first word, before that is worth a line.
_BUSY_S = 10.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """What keeps a job: a word that tells it from others, and a line for a person."""

    code: str
    text: str


def failure(code: str) -> str:
    """Return why a job failed, and what to do, for a person."""
    known = {**OF_A_MODEL, **_OF_A_FAILED_JOB}
    what, cure = known.get(code, ("the request failed", _LOG))
    return f"{what} ({code}). {cure}"


def of_gate(gate: Gate) -> str:
    """Return what to do about a gate that is shut, for a person."""
    if gate.by:
        return f"Open it if the reason is gone: afterword gate open {gate.name} --apply"
    known = OF_A_MODEL if model_of(gate.name) else OF_MEMORY
    _, cure = known.get(gate.code, ("", _BY_FAULT.get(gate.fault, "")))
    return cure


def unread(code: str) -> str:
    """Return why memory could not be read for a reply, and what to do, for a person."""
    what, cure = OF_MEMORY.get(code, ("not every memory could be read", "Run afterword doctor"))
    return f"{what} ({code}). {cure}" if code else f"{what}. {cure}"


def trouble(
    status: JobStatus,
    gates: Sequence[Gate],
    shards: Sequence[Overview],
    model: str,
    waits: Waits = NOT_KNOWN,
) -> Trouble | None:
    """Return what keeps a job from its reply, None if that is only time."""
    now = shards[0].at
    if not running(shards, "responses"):
        cure = "Start one: afterword worker responses"
        return _waits("no_worker", "no response worker is running", cure, status, now)
    if gate := _shut_gate(gates, model):
        return _of_gate(gate, status, now)
    if status.state is JobState.QUEUED and status.code in OF_A_MODEL:
        return _of_code(status.code, *OF_A_MODEL[status.code], status, now)
    is_soon = (now - status.created_at).total_seconds() < _BUSY_S
    return None if is_soon and not waits.by_order else _of_waiting(status, waits, now)


def _of_waiting(status: JobStatus, waits: Waits, now: datetime) -> Trouble:
    if status.state is not JobState.QUEUED:
        return _waits("silent", "the model has not begun to answer", "Nothing to do", status, now)
    if waits.what and not waits.for_a_worker:
        until = f" until {utc_time(waits.until)}" if waits.until else ""
        cure = f"See afterword job {status.job_id}"
        return _waits(waits.what, f"it waits for {waits.what}{until}", cure, status, now)
    cure = "Start another one (afterword worker responses), or wait"
    return _waits("busy", "the response workers are busy", cure, status, now)


def _shut_gate(gates: Sequence[Gate], model: str) -> Gate | None:
    """Return the gate that is shut before this model, or before another one if that is not."""
    shut = [gate for gate in gates if gate.state is GateState.SHUT and model_of(gate.name)]
    return min(shut, key=lambda gate: gate.name != gate_of(model), default=None)


def _of_gate(gate: Gate, status: JobStatus, now: datetime) -> Trouble:
    cure = of_gate(gate)
    if gate.by:
        return _waits("by_hand", f"{gate.name} is {cause(gate)}", cure, status, now)
    what, _ = OF_A_MODEL.get(gate.code, ("Claude cannot be asked", cure))
    return _of_code(gate.code, what, cure, status, now, since=gate.since)


def _of_code(
    code: str, what: str, cure: str, status: JobStatus, now: datetime, since: datetime | None = None
) -> Trouble:
    lasts = f" for {duration((now - since).total_seconds())}" if since else ""
    return _waits(code, f"{what} ({code}){lasts}", cure, status, now)


def _waits(code: str, what: str, cure: str, status: JobStatus, now: datetime) -> Trouble:
    left = duration((status.deadline - now).total_seconds())
    return Trouble(code, f"{what}. {cure}. Your message waits for up to {left}")
