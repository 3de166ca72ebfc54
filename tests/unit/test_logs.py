"""Logs: one line an event, with the ids of the job at hand, as text or as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any, Literal

import pytest

from afterword.shared.errors import Fault
from afterword.shared.events import Context, GateClosed, ModelReplaced, RecallFailed, SweepFinished
from afterword.shared.logs import LOGGER, formatter, log_event
from afterword.shared.observer import bound

JOB = Context(worker="host:1", job_id="j00_1", lane="l00_2", attempt=3)


class Lines:
    """A handler in one of the two forms, and what it wrote."""

    def __init__(self, form: Literal["text", "json"]) -> None:
        self._stream = StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(formatter(form))

    @property
    def all(self) -> list[str]:
        return self._stream.getvalue().splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.all]


@pytest.fixture
def text() -> Iterator[Lines]:
    yield from _writing("text")


@pytest.fixture
def as_json() -> Iterator[Lines]:
    yield from _writing("json")


def _writing(form: Literal["text", "json"]) -> Iterator[Lines]:
    lines, level = Lines(form), LOGGER.level
    LOGGER.addHandler(lines.handler)
    LOGGER.setLevel(logging.DEBUG)
    yield lines
    LOGGER.setLevel(level)
    LOGGER.removeHandler(lines.handler)


def test_a_line_of_text_ends_with_the_ids_of_the_job(text: Lines) -> None:
    log_event(RecallFailed(code="over_budget"), JOB)

    (line,) = text.all
    assert line.endswith(" WARNING recall failed: over_budget [job_id=j00_1 lane=l00_2 attempt=3]")


def test_a_line_of_json_has_the_event_its_fields_and_the_ids(as_json: Lines) -> None:
    log_event(GateClosed(gate="recall", code="http_401", fault=Fault.OPERATOR), JOB)

    (entry,) = as_json.objects
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "error",
        "logger": "afterword",
        "message": "gate recall is shut: http_401 (operator)",
        "worker": "host:1",
        "job_id": "j00_1",
        "lane": "l00_2",
        "attempt": 3,
        "event": "GateClosed",
        "gate": "recall",
        "code": "http_401",
        "fault": "operator",
        "setting": "",
    }


def test_every_log_line_during_a_job_has_its_ids(as_json: Lines) -> None:
    with bound(job_id="j1"):
        logging.getLogger("afterword.somewhere").warning("said %s", "so")

    (entry,) = as_json.objects
    assert entry["job_id"] == "j1"
    assert entry["message"] == "said so"


def test_a_line_that_has_nothing_to_do_with_a_job_names_none(text: Lines) -> None:
    log_event(RecallFailed(code="over_budget"), Context())
    assert text.all[0].endswith("over_budget")


@pytest.mark.parametrize(
    ("fault", "level"), [(Fault.OPERATOR, logging.ERROR), (Fault.PROVIDER, logging.WARNING)]
)
def test_a_gate_shut_by_the_operators_fault_is_logged_as_an_error(
    fault: Fault, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    log_event(GateClosed(gate="recall", code="x", fault=fault), Context())
    assert [record.levelno for record in caplog.records] == [level]


def test_a_sweep_that_found_nothing_is_below_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)
    log_event(SweepFinished(expired=0, woken=5, taken_back=0, hinted_again=0), Context())
    log_event(SweepFinished(expired=1, woken=2, taken_back=3, hinted_again=4), Context())

    assert [record.message for record in caplog.records] == [
        "swept: 1 expired, 3 taken back, 4 hinted again"
    ]


def test_a_message_of_several_lines_is_one_line_of_text(text: Lines) -> None:
    LOGGER.error("no connection.\nTrying again in 1 second\n")

    (line,) = text.all
    assert line.endswith(" ERROR no connection. Trying again in 1 second")


def test_nobody_forges_a_line_with_the_name_of_a_model(text: Lines, as_json: Lines) -> None:
    name = "nice\n2026-01-01 00:00:00,000 CRITICAL forged" + "x" * 1000
    log_event(ModelReplaced(model=name, code="gone", replacement="other"), Context())

    assert len(text.all) == len(as_json.all) == 1
    assert len(text.all[0]) < 500
