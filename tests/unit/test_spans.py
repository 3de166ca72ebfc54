"""Which spans events make: all are documented, none holds content, and none is kept for ever."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, get_type_hints

import pytest

from afterword.shared import events, spans
from afterword.shared.contracts import MemoryStatus
from afterword.shared.errors import Fault
from afterword.shared.events import Context, JobClaimed, ObserverEvent, RecallFinished
from afterword.shared.lifecycle import TurnState
from afterword.shared.spans import CHAT, Span, SpanRecorder
from afterword.shared.trace_context import span_id_of, trace_of
from tests.conftest import ROOT

#: A value of each type that a field of an event has.
VALUES: dict[Any, Any] = {
    int: 3, float: 0.5, bool: True, str: "word", Fault: Fault.PROVIDER,
    TurnState: TurnState.STORED, MemoryStatus: "fresh",
}  # fmt: skip
PAGE = (ROOT / "docs/reference/traces.md").read_text()


class Recorded:
    """A recorder whose spans a test reads."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.asked: list[str] = []
        self.recorder = SpanRecorder(self.spans.append, self._sampled, {"server.address": "h"})

    def _sampled(self, name: str, *_: object) -> bool:
        self.asked.append(name)
        return True

    def hear(self, kind: type[ObserverEvent], **given: Any) -> None:
        """Hear an event of a class about the same job, with the values above."""
        hints = get_type_hints(kind)
        values = {one.name: VALUES[hints[one.name]] for one in fields(kind)} | {"steps": ""}
        values = {name: values[name] for name in hints}
        context = Context(worker="w", job_id="j1", lane="l1", attempt=1)
        self.recorder.hear(kind(**values | given), context)


def every_span() -> list[Span]:
    """Let every kind of span be made, each with all attributes that it may have."""
    heard = Recorded()
    for ending in heard.recorder.kinds:
        heard.recorder.begin_submit("j1", trace_of("j0"))
        heard.hear(JobClaimed, previous="")
        heard.hear(events.RecallFailed)
        heard.hear(RecallFinished)
        heard.hear(events.ModelAnswered)
        heard.hear(events.TurnBegun, steps="publish/j1/ send/j2/")
        heard.hear(events.ReplayBegun)
        if ending not in (JobClaimed, RecallFinished, events.TurnBegun, events.ReplayBegun):
            heard.hear(ending)
    return heard.spans


def documented(heading: str) -> set[str]:
    """Return the names in the first column of a table of the page."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(.*?)`", row)}


def test_every_span_is_documented() -> None:
    named = {re.sub(r"^chat .*", "chat MODEL", span.name) for span in every_span()}
    assert named == documented("Spans")


def test_every_attribute_is_documented() -> None:
    found = {name for span in every_span() for name in span.attributes}
    assert found | {"server.port"} == documented("Attributes")


def test_values_are_of_types_that_spans_can_have() -> None:
    for span in every_span():
        for name, value in span.attributes.items():
            assert isinstance(value, (str, int, float, tuple)), name
            assert value not in (None, ""), f"{span.name}: {name}"


def test_every_event_that_spans_are_made_of_is_heard_and_leaves_nothing_behind() -> None:
    heard = Recorded()
    for kind in heard.recorder.kinds:
        heard.hear(kind)
    heard.hear(events.JobOvertaken)
    heard.hear(events.LaneOvertaken)
    heard.hear(events.ReplayEnded)
    assert not heard.recorder._replays
    assert not heard.recorder._attempts
    assert not heard.recorder._writes
    assert not heard.recorder._submits


def test_only_so_many_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MOST_OPEN", 3)
    heard = Recorded()
    for number in range(10):
        heard.recorder.begin_submit(f"j{number}", None)
    assert list(heard.recorder._submits) == ["j7", "j8", "j9"]


def test_events_of_a_job_that_is_not_recorded_are_ignored() -> None:
    heard = Recorded()
    for kind in heard.recorder.kinds:
        if kind not in (JobClaimed, events.TurnBegun, events.ReplayBegun):
            heard.hear(kind)
    assert heard.spans == []


def test_a_model_may_have_any_name() -> None:
    heard = Recorded()
    heard.hear(JobClaimed)
    heard.hear(events.ModelAnswered, asked_model="evil\n\x00" + "x" * 900, model="b\u2028d")
    (call,) = [span for span in heard.spans if span.name.startswith(CHAT)]
    assert call.name.isprintable()
    assert len(call.name) < 220
    assert call.attributes["gen_ai.response.model"] == "b?d"


def test_a_recall_that_is_off_is_no_span() -> None:
    heard = Recorded()
    heard.hear(JobClaimed, previous="")
    heard.hear(RecallFinished, status="off")
    assert [span.name for span in heard.spans] == [spans.WAIT]


CONTEXT = "00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01"


def test_an_attempt_is_linked_to_every_message_that_was_joined() -> None:
    heard = Recorded()
    own, *joined = [CONTEXT.format(f"{number:016x}") for number in (1, 2, 3)]
    values: dict[str, Any] = {"queued_s": 0.1, "snoozes": 0, "fence": "7"}
    context = Context(worker="w", job_id="j1", attempt=1, trace=own)
    heard.recorder.hear(JobClaimed(**values, joined="\n".join([*joined, "odd"])), context)
    heard.hear(events.JobOvertaken)

    (process,) = [span for span in heard.spans if span.name == spans.PROCESS]
    assert [link.span_id for link in process.links] == [f"{number:016x}" for number in (1, 2, 3)]


def test_each_letter_of_a_replay_is_linked_to_the_trace_of_what_had_died() -> None:
    heard = Recorded()
    heard.hear(events.ReplayBegun, run="r1")
    heard.hear(
        events.DeadLetterReplayed, run="r1", queue="memories", trace=CONTEXT.format("1" * 16)
    )
    heard.hear(events.DeadLetterReplayed, run="r1", queue="replies", trace="")
    heard.hear(events.DeadLetterReplayed, run="another")
    heard.hear(events.ReplayEnded, run="r1", outcome="stopped", code="canary_buried")

    turn, job, run = heard.spans
    assert [one.name for one in heard.spans] == [spans.LETTER, spans.LETTER, spans.REPLAY]
    assert {turn.parent, job.parent} == {run.context}
    assert [link.trace_id for link in turn.links] == ["4bf92f3577b34da6a3ce929d0e0e4736"]
    assert turn.links[0].span_id == span_id_of("publish", "j1")
    (link,) = job.links
    assert (link.trace_id, link.span_id) == (trace_of("j1").trace_id, span_id_of("wait", "j1"))
    assert (run.error, run.attributes["afterword.outcome"]) == ("canary_buried", "stopped")
