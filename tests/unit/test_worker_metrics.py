"""What a worker counts for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_type_hints

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from afterword.shared import events
from afterword.shared.contracts import MemoryStatus
from afterword.shared.errors import Fault
from afterword.shared.events import EVENTS, ObserverEvent, SubscriberFailed
from afterword.shared.lifecycle import TurnState
from afterword.shared.observer import bound, emit
from afterword.workers.metrics import MOST_NAMES, OTHER, counting

#: A value of each type that a field of an event has.
VALUES: dict[Any, Any] = {
    int: 3, float: 0.5, bool: True, Fault: Fault.PROVIDER,
    TurnState: TurnState.STORED, MemoryStatus: "fresh", events.RecordKind: "worker",
}  # fmt: skip


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    found = CollectorRegistry()
    with counting(found):
        yield found


def report(kind: type[ObserverEvent], text: str = "word") -> None:
    """Report an event of a class, with the values above and this text."""
    values, hints = VALUES | {str: text}, get_type_hints(kind)
    emit(kind, **{one.name: values[hints[one.name]] for one in fields(kind)})


def counted(registry: CollectorRegistry) -> dict[str, float]:
    """Return what was counted, by the name and the labels, without times of creation."""
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith(("_created", "_bucket")) and sample.value
    }


@pytest.mark.parametrize("kind", EVENTS)
def test_every_event_is_counted(registry: CollectorRegistry, kind: type[ObserverEvent]) -> None:
    report(kind)

    found = counted(registry)
    assert found
    assert ("afterword_events_total SubscriberFailed" in found) is (kind is SubscriberFailed)


def test_a_reply_is_counted_and_timed(registry: CollectorRegistry) -> None:
    emit(events.JobClaimed, queued_s=2.0, snoozes=0)
    emit(events.RecallFinished, status="fresh", kept=4, dropped=1, duration_s=0.25)
    emit(events.ModelCalled, model="claude", canary=False)
    emit(
        events.ModelAnswered, model="claude", stop_reason="end_turn", input_tokens=100,
        output_tokens=20, cache_read_tokens=50, cache_write_tokens=10, first_text_s=0.5,
        duration_s=1.5, request_id="req_1",
    )  # fmt: skip
    emit(events.ReplyPublished, total_s=4.0, not_remembered="", overhead_s=0.25)

    assert counted(registry) == {
        "afterword_job_queue_wait_seconds_count": 1,
        "afterword_job_queue_wait_seconds_sum": 2.0,
        "afterword_recall_seconds_count fresh": 1,
        "afterword_recall_seconds_sum fresh": 0.25,
        "afterword_memories_total yes": 4,
        "afterword_memories_total no": 1,
        "afterword_model_calls_total claude": 1,
        "afterword_model_first_text_seconds_count claude": 1,
        "afterword_model_first_text_seconds_sum claude": 0.5,
        "afterword_model_seconds_count claude": 1,
        "afterword_model_seconds_sum claude": 1.5,
        "afterword_tokens_total claude input reply default": 100,
        "afterword_tokens_total claude cache_read reply default": 50,
        "afterword_tokens_total claude cache_write reply default": 10,
        "afterword_tokens_total claude output reply default": 20,
        "afterword_replies_total no": 1,
        "afterword_reply_seconds_count": 1,
        "afterword_reply_seconds_sum": 4.0,
        "afterword_reply_overhead_seconds_count": 1,
        "afterword_reply_overhead_seconds_sum": 0.25,
    }


@pytest.mark.parametrize(
    ("prices", "model", "usd"),
    [
        ({}, "claude-sonnet-5-5-20261101", (100 + 0.05 * 50 + 1.25 * 10) * 2e-6 + 20 * 1e-5),
        ({"claude-sonnet": (1.0, 3.0), "claude": (9.0, 9.0)}, "claude-sonnet-6", 0.0001775),
        ({"claude": (9.0, 9.0)}, "gemma", None),
    ],
)
def test_what_answers_cost_is_summed_by_model(
    prices: dict[str, tuple[float, float]], model: str, usd: float | None
) -> None:
    registry = CollectorRegistry()
    with counting(registry, prices):
        emit(
            events.ModelAnswered, model=model, stop_reason="end_turn", input_tokens=100,
            output_tokens=20, cache_read_tokens=50, cache_write_tokens=10, first_text_s=0.5,
            duration_s=1.5, request_id="req_1",
        )  # fmt: skip

    found = counted(registry).get(f"afterword_model_cost_usd_total {model} reply default")
    assert found == (None if usd is None else pytest.approx(usd))


def test_what_is_spent_is_told_apart_by_the_class_of_the_tenant() -> None:
    registry = CollectorRegistry()
    with counting(registry, {"m": (1000.0, 2000.0)}):
        for kind in ("free", "free", "enterprise", ""):
            with bound(tenant_class=kind):
                emit(
                    events.ExtractionPaid, model="m", input_tokens=100, output_tokens=0,
                    cache_read_tokens=0, cache_write_tokens=0,
                )  # fmt: skip

    found = counted(registry)
    for kind, calls in {"free": 2, "enterprise": 1, "default": 1}.items():
        assert found[f"afterword_tokens_total m input extraction {kind}"] == calls * 100
        cost = found[f"afterword_model_cost_usd_total m extraction {kind}"]
        assert cost == pytest.approx(calls * 0.1)


def test_what_calls_cost_that_failed_is_a_cost_of_replies() -> None:
    registry = CollectorRegistry()
    with counting(registry, {"m": (1000.0, 2000.0)}):
        emit(
            events.ModelFailed, model="m", code="truncated", duration_s=1.5, request_id="",
            input_tokens=100, output_tokens=20, cache_read_tokens=0, cache_write_tokens=0,
        )  # fmt: skip

    found = counted(registry)
    assert found["afterword_tokens_total m output reply default"] == 20
    assert found["afterword_model_cost_usd_total m reply default"] == pytest.approx(0.14)
    assert "afterword_model_seconds_count m" not in found  # it has no end


def test_what_lost_attempts_probably_cost_is_told_apart() -> None:
    registry = CollectorRegistry()
    with counting(registry, {"m": (1000.0, 2000.0)}):
        emit(
            events.LostAttemptCounted, model="m", input_tokens=100, output_tokens=20,
            cache_read_tokens=0, cache_write_tokens=0,
        )  # fmt: skip

    found = counted(registry)
    assert found["afterword_tokens_total m input lost default"] == 100
    assert found["afterword_model_cost_usd_total m lost default"] == pytest.approx(0.14)


def test_what_extraction_costs_is_counted_beside_replies_and_apart_from_them() -> None:
    registry = CollectorRegistry()
    with counting(registry, {"m": (1000.0, 2000.0)}):
        emit(
            events.ExtractionPaid, model="m", input_tokens=100, output_tokens=20,
            cache_read_tokens=0, cache_write_tokens=0,
        )  # fmt: skip
        emit(
            events.TurnSettled, outcome=TurnState.STORED, code="", turns=1, memories=2, age_s=7.0
        )  # fmt: skip

    found = counted(registry)
    assert found["afterword_tokens_total m input extraction default"] == 100
    assert found["afterword_tokens_total m output extraction default"] == 20
    cost = found["afterword_model_cost_usd_total m extraction default"]
    assert cost == pytest.approx(0.14)
    assert cost / found["afterword_memories_stored_total"] == pytest.approx(0.07)
    assert "afterword_model_seconds_count m" not in found  # not a reply's time


def test_turns_are_counted_by_how_they_ended(registry: CollectorRegistry) -> None:
    emit(events.StoreAnswered, outcome="stored", duration_s=0.5)
    emit(
        events.TurnSettled, outcome=TurnState.STORED, code="", turns=3, memories=2, age_s=7.0
    )  # fmt: skip
    emit(
        events.TurnPostponed, turns=2, code="unreachable", fault=Fault.PROVIDER, delay_s=1.0,
        counted=False,
    )  # fmt: skip
    emit(events.TurnBuried, code="event_failed", fault=Fault.REQUEST)

    assert counted(registry) == {
        "afterword_store_seconds_count stored": 1,
        "afterword_store_seconds_sum stored": 0.5,
        "afterword_turns_settled_total stored ": 3,
        "afterword_memories_stored_total": 2,
        "afterword_turn_age_seconds_count": 1,
        "afterword_turn_age_seconds_sum": 7.0,
        "afterword_turn_attempts_total postponed unreachable provider": 2,
        "afterword_turn_attempts_total buried event_failed request": 1,
    }


def test_only_so_many_models_get_a_label(registry: CollectorRegistry) -> None:
    for number in range(2 * MOST_NAMES):
        emit(events.ModelCalled, model=f"model-{number}", canary=False)

    found = counted(registry)
    assert len(found) == MOST_NAMES + 1
    assert found[f"afterword_model_calls_total {OTHER}"] == MOST_NAMES


def test_no_label_holds_an_id_of_a_job_a_user_or_a_request(registry: CollectorRegistry) -> None:
    with bound(job_id="canary-job", lane="canary-lane", worker="canary-worker"):
        for kind in EVENTS:
            report(kind)

    samples = [sample for family in registry.collect() for sample in family.samples]
    assert "canary" not in generate_latest(registry).decode()
    assert {label for sample in samples for label in sample.labels} == {
        "status", "given", "model", "kind", "not_remembered", "outcome", "code", "fault",
        "gate", "change", "what", "event", "le", "purpose", "tenant_class",
    }  # fmt: skip


def test_nothing_is_counted_after_the_end() -> None:
    found = CollectorRegistry()
    with counting(found):
        pass

    emit(events.JobClaimed, queued_s=2.0, snoozes=0)

    assert counted(found) == {}
