"""What an operator sees of turns that wait for message batches: late, and why."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from afterword.producer.admin.fleet_status import _message_batches, summary
from afterword.producer.cli.checks.judgement import of_turns
from afterword.producer.cli.status import print_status
from afterword.shared import events
from afterword.shared.ledger.message_batches import OpenMessageBatch
from afterword.shared.ledger.records import Account, Overview
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.observer import emit
from afterword.workers.metrics import counting
from tests.unit.test_worker_metrics import counted

HOUR_S = 3600.0
BATCHES = (
    OpenMessageBatch("b00_1", "msgbatch_1", (), 2 * HOUR_S, 3),
    OpenMessageBatch("b00_2", "", (), 60.0, 1),
)


def account(oldest_s: float) -> list[Account]:
    jobs, turns = dict.fromkeys(JobState, 0), dict.fromkeys(TurnState, 0)
    return [Account("t", jobs, turns, 4, 4, oldest_s)]


def test_the_status_says_how_many_turns_wait_for_message_batches_and_since_when(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = summary([Overview(datetime(2026, 5, 8, tzinfo=UTC), 0, 0, 0, 0, (), {}, ())])
    lists = {"gates": [], "orders": [], "quarantined": {}, "durability": "d1"}
    counts = _message_batches(BATCHES)
    assert counts == {"batches": 2, "turns": 4, "oldest_s": 2 * HOUR_S, "undeleted": 0}
    print_status(found | lists | {"message_batches": counts})
    assert "turns in message batches: 4, the oldest for 2.0 h" in capsys.readouterr().out

    print_status(found | lists | {"message_batches": _message_batches(())})
    assert "message batches" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("oldest_s", "batches", "level"),
    [
        (2 * HOUR_S + 60, BATCHES, "ok"),
        (2 * HOUR_S + 60, (), "fail"),
        (5 * HOUR_S, BATCHES, "fail"),
    ],
)
def test_doctor_takes_a_wait_for_a_message_batch_for_no_trouble(
    oldest_s: float, batches: tuple[OpenMessageBatch, ...], level: str
) -> None:
    found = of_turns(account(oldest_s), batches)
    assert found.level == level
    assert ("4 turns in message batches, for 2.0 h" in found.detail) is bool(batches)


def test_batches_that_could_not_be_deleted_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    batches = (*BATCHES, OpenMessageBatch("b00_3", "msgbatch_3", (), 90 * HOUR_S, 0))
    counts = _message_batches(batches)
    assert counts == {"batches": 2, "turns": 4, "oldest_s": 2 * HOUR_S, "undeleted": 1}
    found = summary([Overview(datetime(2026, 5, 8, tzinfo=UTC), 0, 0, 0, 0, (), {}, ())])
    lists = {"gates": [], "orders": [], "quarantined": {}, "durability": "d1"}
    print_status(found | lists | {"message_batches": counts})
    assert "message batches to delete: 1, which the provider" in capsys.readouterr().out
    judged = of_turns(account(2 * HOUR_S + 60), batches)
    assert judged.level == "warn"
    assert judged.detail.endswith("message batches that the provider did not delete: 1")


def test_turns_of_message_batches_are_counted_by_what_became_of_them() -> None:
    registry = CollectorRegistry()
    with counting(registry):
        emit(events.MessageBatchSent, turns=5)
        emit(events.MessageBatchEnded, turns=5, answered=3, age_s=60.0)
    assert counted(registry) == {
        "afterword_message_batch_turns_total sent": 5,
        "afterword_message_batch_turns_total answered": 3,
        "afterword_message_batch_turns_total alone": 2,
    }


@pytest.mark.parametrize(("in_batch", "usd"), [(False, 0.14), (True, 0.07)])
def test_an_answer_of_a_message_batch_costs_half(in_batch: bool, usd: float) -> None:
    registry = CollectorRegistry()
    with counting(registry, {"m": (1000.0, 2000.0)}):
        emit(
            events.ExtractionPaid, model="m", input_tokens=100, output_tokens=20,
            cache_read_tokens=0, cache_write_tokens=0, in_batch=in_batch,
        )  # fmt: skip
    found = counted(registry)["afterword_model_cost_usd_total m extraction default"]
    assert found == pytest.approx(usd)
