"""The JSON of the command line is what the documents show: each key, and no other."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from afterword.producer import (
    AuditEntry,
    DeadLetter,
    DeadLetterFilter,
    DeadLetterKind,
    DiscardResult,
    ReplayPace,
    ReplayPlan,
    ReplayRun,
    ReplayState,
)
from afterword.producer.admin.cost_estimate import Estimate
from afterword.producer.cli.render import plain
from afterword.shared.errors import Fault
from afterword.shared.ledger.dead_letter_records import DeadLetterRef
from tests.conftest import ROOT
from tests.packaging.blocks import examples

#: What holds names of its own in every record: reasons, outcomes, what was asked for.
FREE = frozenset({"filter", "reasons", "outcomes", "details"})

NOW = datetime(2026, 11, 22, tzinfo=UTC)
WANTED = DeadLetterFilter(code="rejected", fault=Fault.REQUEST)
LETTER = DeadLetter(
    "j", DeadLetterKind.MEMORY, "t", "u", NOW, NOW, NOW, "c", "request", 1, 0, 0, "v", None, 1, 9
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
DISCARDED = DiscardResult(ReplayState.DRY, 3)
DEED = AuditEntry("1-0", NOW, "by", "replay", "r", {})


def keys(value: Any) -> Any:
    """Return the keys of a value, and of all in it that has keys of ours."""
    if isinstance(value, list):
        return [keys(inner) for inner in value]
    if isinstance(value, dict):
        return {name: None if name in FREE else keys(inner) for name, inner in value.items()}
    return None


@pytest.mark.parametrize(
    ("place", "record"),
    list(enumerate([LETTER, RUN, PLAN, DISCARDED, DEED])),
    ids=["letter", "run", "plan", "discarded", "audit_entry"],
)
def test_a_record_has_the_keys_that_the_documents_show(place: int, record: object) -> None:
    shown = examples(ROOT / "docs/reference/json.md")
    assert len(shown) == 5
    assert keys(json.loads(json.dumps(plain(record)))) == keys(shown[place])


def test_a_filter_is_told_alike_wherever_it_stands() -> None:
    said = {"code": "rejected", "fault": "request"}
    assert plain(RUN)["filter"] == plain(PLAN)["filter"] == said
    shown = examples(ROOT / "docs/reference/json.md")
    assert [one["filter"] for one in shown if "filter" in one] == [said, said]
