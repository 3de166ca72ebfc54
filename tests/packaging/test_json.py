"""The JSON of the command line is what the documents show: each key, and no other."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from afterword.producer import (
    Account,
    AuditEntry,
    DeadLetter,
    DeadLetterFilter,
    DeadLetterKind,
    DiscardResult,
    ErasureReceipt,
    ErasureState,
    Inconsistency,
    JobState,
    JobStatus,
    MemoryUsed,
    ReplayPace,
    ReplayPlan,
    ReplayRun,
    ReplayState,
    Reply,
    TurnState,
    Usage,
    UsageSum,
)
from afterword.producer.admin.cost_estimate import Estimate
from afterword.producer.cli.checks.finding import ok
from afterword.producer.cli.render import plain
from afterword.producer.cli.status import summary
from afterword.shared.contracts import Timings
from afterword.shared.errors import Fault
from afterword.shared.ledger.dead_letter_records import DeadLetterRef
from afterword.shared.ledger.records import (
    AgendaCount,
    Gate,
    GateState,
    Overview,
    QuarantineNote,
    TaskHealth,
    UnrecognisedMessage,
    WorkerSeen,
)
from tests.conftest import ROOT
from tests.packaging.blocks import examples

#: What has keys of its own in every record: codes, outcomes, states, what was asked for.
FREE = frozenset({"filter", "reasons", "outcomes", "details", "quarantined"})

NOW = datetime(2026, 11, 22, tzinfo=UTC)
WANTED = DeadLetterFilter(code="rejected", fault=Fault.REQUEST)
RUN = ReplayRun(
    "r",
    "by",
    NOW,
    NOW,
    WANTED.to_dict(),
    ReplayPace(),
    ReplayState.DONE,
    "",
    12,
    canary_passed=True,
)
PLAN = ReplayPlan(
    WANTED,
    ReplayPace(),
    (DeadLetterRef("j", DeadLetterKind.MEMORY, 0),),
    1,
    0,
    1,
    {},
    Estimate(1, 0, 0, 0, 0.0, 0.1, "list prices of 2026-11-22"),
)
OVERVIEW = Overview(
    NOW,
    1,
    0,
    0,
    0,
    (WorkerSeen("w", "replies", NOW, "0.1.0", (TaskHealth("sweep", "failing", 3, 0.2, None),)),),
    Counter(),
    (AgendaCount("replies.3", 1, 0, 0, NOW, 1),),
)
GATE = Gate("claude/m", GateState.SHUT, "overloaded", Fault.PROVIDER, NOW, NOW)

#: An instance of what each section of the page shows.
RECORDS: dict[str, Any] = {
    "Job id": {"job_id": "j"},
    "Reply": Reply(
        job_id="j",
        user_id="u",
        conversation_id=None,
        text="Hi.",
        stop_reason="end_turn",
        model="m",
        usage=Usage(),
        memory="fresh",
        memories=(MemoryUsed(id="m", text="t", score=1.0),),
        attempts=1,
        timings_ms=Timings(queued=0, recall=0, model=0, total=0),
    ),
    "Job": JobStatus(
        job_id="j",
        state=JobState.SUCCEEDED,
        turn=TurnState.STORED,
        attempts=1,
        created_at=NOW,
        deadline=NOW,
    ).model_dump(exclude={"metadata"})
    | dict.fromkeys(
        ("lane", "priority", "waits_for", "waits_until", "worker", "replay_of", "replayed_as")
    )  # what `tests/ledger/test_details.py` finds
    | {"timings_ms": Timings(queued=0, recall=0, model=0, total=0)},
    "Status": summary([OVERVIEW])
    | {"gates": [GATE], "quarantined": {}, "newest_quarantined": None, "durability": "d1"},
    "Check": ok("redis", "valkey"),
    "Account": Account("t", {JobState.FAILED: 2}, {TurnState.STORED: 1}, 0, 0, 0.0),
    "Opened gate": {"name": "claude/m", "was_shut": True},
    "Usage": UsageSum(tenant="t"),
    "Inconsistency": Inconsistency("j", "not_placed"),
    "Erasure receipt": ErasureReceipt(
        "u", "t", ErasureState.ASKED, "by", NOW, None, None, None, None, None, 0, 0, 0
    ),
    "Dead letter": DeadLetter(
        "j",
        DeadLetterKind.MEMORY,
        "t",
        "u",
        NOW,
        NOW,
        NOW,
        "c",
        "request",
        1,
        0,
        0,
        "v",
        None,
        1,
        9,
    ),
    "Replay run": RUN,
    "Replay plan": PLAN,
    "Discard": DiscardResult(ReplayState.DRY, 3),
    "Audit entry": AuditEntry("1-0", NOW, "by", "replay", "r", {}),
    "Quarantine note": QuarantineNote(NOW, UnrecognisedMessage("replies", "malformed", 1, "0")),
}

SHOWN = examples(ROOT / "docs/reference/json.md")


def keys(section: str, value: Any) -> Any:
    """Return the keys of a value, and of all in it that has keys of ours."""
    free = FREE | {"jobs", "turns", "secrets"} if section == "Account" else FREE
    if isinstance(value, list):
        return [keys(section, inner) for inner in value]
    if isinstance(value, dict):
        return {k: None if k in free else keys(section, inner) for k, inner in value.items()}
    return None


def test_the_page_shows_every_record() -> None:
    assert list(SHOWN) == list(RECORDS)


@pytest.mark.parametrize("section", RECORDS)
def test_a_record_has_the_keys_that_the_documents_show(section: str) -> None:
    printed = json.loads(json.dumps(plain(RECORDS[section])))
    assert keys(section, printed) == keys(section, SHOWN[section])


def test_a_filter_is_told_alike_wherever_it_stands() -> None:
    said = {"code": "rejected", "fault": "request"}
    assert plain(RUN)["filter"] == plain(PLAN)["filter"] == said
    assert [one["filter"] for one in SHOWN.values() if "filter" in one] == [said, said]
