"""The JSON of the command line is what the documents show: each key, and no other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args

import click
import pytest
from jsonschema import Draft202012Validator

from afterword.producer import (
    Account,
    AuditEntry,
    BudgetPage,
    BudgetRow,
    DeadLetter,
    DeadLetterFilter,
    DeadLetterKind,
    DiscardResult,
    ErasureReceipt,
    ErasureState,
    Event,
    Extraction,
    Inconsistency,
    JobListed,
    JobState,
    JobStatus,
    JobStory,
    Memory,
    MemoryGiven,
    MemoryLeftOut,
    MemoryUsed,
    OrderKind,
    ReplayPace,
    ReplayPlan,
    ReplayRun,
    ReplayState,
    Reply,
    SteeringOrder,
    StepKind,
    StoryStep,
    TurnState,
    Usage,
    UsageSum,
    UserJobs,
)
from afterword.producer.admin.access import NewAccessKey
from afterword.producer.admin.cost_estimate import Estimate
from afterword.producer.admin.explanation import Explanation
from afterword.producer.admin.fleet_status import summary
from afterword.producer.admin.history import ImportCounts
from afterword.producer.cli.checks.finding import ok
from afterword.producer.cli.drain import Drained
from afterword.producer.cli.gate import GatesChanged
from afterword.producer.cli.json_schemas import PRINTED, json_schema
from afterword.producer.cli.main import cli, main
from afterword.producer.cli.migrate import MigrationReport
from afterword.producer.cli.render import plain
from afterword.producer.cli.steering import OrdersChanged
from afterword.shared.contracts import Timings
from afterword.shared.errors import Fault
from afterword.shared.ledger.access_keys import AccessKey, AccessScope
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
from afterword.shared.ledger.tenants import TenantLoad, whole
from tests.conftest import ROOT
from tests.packaging.blocks import examples

#: What has keys of its own in every record: codes, outcomes, states, what was asked for.
FREE = frozenset({"filter", "reasons", "outcomes", "details", "quarantined"})

NOW = datetime(2026, 11, 22, tzinfo=UTC)
WANTED = DeadLetterFilter(code="invalid_request", fault=Fault.REQUEST)
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

KEY = AccessKey("k", "ann", (AccessScope.READ, AccessScope.OPERATE), NOW, "by", NOW)
ORDER = SteeringOrder(OrderKind.PAUSE_MEMORIES, "by", NOW, NOW, tenant="acme")

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
        memory_ids=("m",),
    ).model_dump(exclude={"metadata"})
    | dict.fromkeys(
        ("lane", "priority", "waits_for", "waits_until", "worker", "replay_of", "replayed_as")
    )  # what `tests/ledger/test_details.py` finds
    | {"timings_ms": Timings(queued=0, recall=0, model=0, total=0)},
    "Job story": plain(
        JobStory(
            "j",
            "t",
            "u",
            None,
            JobState.SUCCEEDED,
            TurnState.STORED,
            None,
            None,
            NOW,
            NOW,
            None,
            None,
            (StoryStep(NOW, StepKind.RECALLED),),
            False,
            "fresh",
            (MemoryGiven("m", 0.5, NOW),),
            (MemoryLeftOut("o", "no_place"),),
            ("m",),
            None,
            None,
            extraction=Extraction(),
        )
    )
    | {"explanation": [Explanation("Memory o was found.")]},
    "Jobs of a user": UserJobs(
        (JobListed("j", NOW, JobState.SUCCEEDED, None, TurnState.STORED, None, "fresh", 5, 1),), "j"
    ),
    "Status": summary([OVERVIEW])
    | {
        "gates": [GATE],
        "orders": [ORDER],
        "quarantined": {},
        "newest_quarantined": None,
        "message_batches": {"batches": 1, "turns": 2, "oldest_s": 3.0, "undeleted": 0},
        "durability": "d1",
    },
    "Check": ok("redis", "valkey"),
    "Account": Account("t", {JobState.FAILED: 2}, {TurnState.STORED: 1}, 0, 0, 0.0),
    "Tenants": whole([TenantLoad("acme", 3, 1.5, 2, 2, True, 1, 9, 0.5)]),
    "Gates changed": GatesChanged(ReplayState.DONE, [GATE]),
    "Orders changed": OrdersChanged(ReplayState.DONE, [ORDER]),
    "Memory": Memory(id="m", text="t", given_to=("j",)),
    "Usage": UsageSum(tenant="t"),
    "Budgets": BudgetPage(
        [BudgetRow("acme", None, 1.0, 9, 2.0, None, 1.0, None, 0.5, NOW)], 2, True, True
    ),
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
    "Quarantine note": QuarantineNote(
        "1-0", NOW, UnrecognisedMessage("replies", "malformed", 1, "0")
    ),
    "Cleared notes": {"state": ReplayState.DRY, "notes": 3},
    "Drained": Drained(ReplayState.DONE, [ORDER]),
    "Access key": KEY,
    "New access key": NewAccessKey("afterword_", KEY),
    "Revoked key": {"id": "k", "was_there": True},
    "Import": ImportCounts(),
    "Migration": dict.fromkeys(MigrationReport.model_fields),
    "Event": Event(id="1-0", type="delta"),
}

#: The command whose schema says what a section shows, and whether it prints a list of them.
SCHEMAS = {
    "Job id": "submit",
    "Reply": "submit --wait",
    "Job": "status JOB_ID",
    "Job story": "job JOB_ID",
    "Jobs of a user": "job --user",
    "Status": "status",
    "Check": "doctor",
    "Account": "account",
    "Tenants": "status --tenants",
    "Gates changed": "gate open",
    "Orders changed": "pause",
    "Memory": "memories show",
    "Usage": "usage",
    "Budgets": "budgets",
    "Inconsistency": "reconcile",
    "Erasure receipt": "forget",
    "Dead letter": "dead show",
    "Replay run": "dead resume",
    "Replay plan": "dead replay",
    "Discard": "dead discard",
    "Audit entry": "audit",
    "Quarantine note": "quarantine list",
    "Cleared notes": "quarantine clear",
    "Drained": "drain",
    "Access key": "keys list",
    "New access key": "keys create",
    "Revoked key": "keys revoke",
    "Import": "import",
    "Migration": "migrate memories",
    "Event": "submit --stream",
}

#: What is shown as a part of another record.
_WITHIN = {"gate list": "Status", "gate shut": "Gates changed", "orders": "Orders changed"}

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


def test_every_command_prints_what_the_page_shows() -> None:
    shown = {str(record_of(name)) for name in SCHEMAS.values()}
    assert [
        name
        for name in PRINTED
        if str(record_of(name)) not in shown and _WITHIN.get(name) not in SHOWN
    ] == []


def record_of(name: str) -> Any:
    """Return the record that a command prints, whether it prints one, several or perhaps none."""
    inside = [one for one in get_args(PRINTED[name]) if one is not type(None)]
    return inside[0] if inside else PRINTED[name]


@pytest.mark.parametrize("section", RECORDS)
def test_a_record_has_the_keys_that_the_documents_show(section: str) -> None:
    printed = json.loads(json.dumps(plain(RECORDS[section])))
    assert keys(section, printed) == keys(section, SHOWN[section])


def test_a_filter_is_told_alike_wherever_it_stands() -> None:
    said = {"code": "invalid_request", "fault": "request"}
    assert plain(RUN)["filter"] == plain(PLAN)["filter"] == said
    assert [one["filter"] for one in SHOWN.values() if "filter" in one] == [said, said]


@pytest.mark.parametrize("section", RECORDS)
def test_an_example_fits_the_schema_of_its_command(section: str) -> None:
    Draft202012Validator(part_of(section)).validate(SHOWN[section])


def part_of(section: str) -> dict[str, Any]:
    """Return the schema of one of the records that a command prints, or of a part of its object."""
    schema = json_schema(SCHEMAS[section])
    part = {
        "Account": {"$ref": "#/$defs/Account"},
        "Replay plan": schema.get("properties", {}).get("plan"),
    }.get(section) or schema.get("items", {})
    return {"$defs": schema.get("$defs", {})} | part if part else schema


def test_every_command_that_prints_json_has_a_schema() -> None:
    printing = {
        name
        for name, command in named(cli)
        if any(one.name == "as_json" for one in command.params) or name == "dead export"
    }
    assert {
        name.partition(" --")[0].removesuffix(" JOB_ID").removesuffix(" RUN_ID") for name in PRINTED
    } == printing
    for name in PRINTED:
        Draft202012Validator.check_schema(json_schema(name))


def named(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its whole name."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from named(command, f"{before}{name} ")
        else:
            yield before + name, command


@pytest.mark.parametrize("broken", [{}, {"job_id": 3}])
def test_a_schema_refuses_a_record_that_lacks_a_key_or_has_another_type(broken: Any) -> None:
    assert not Draft202012Validator(json_schema("submit")).is_valid(broken)


def test_the_schema_of_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["schema", "chat"])
    assert ended.value.code == 2
    assert "see: afterword schema" in capsys.readouterr().err
