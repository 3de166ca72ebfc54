"""Compares what a fault run accepted with what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from afterword.shared.contracts import Event
from afterword.shared.lifecycle import JobState, TurnState

#: A turn that ended so was accounted for as it should be, if nothing was to be refused.
_KEPT = frozenset({TurnState.STORED, TurnState.NOTHING, TurnState.SKIPPED})


@dataclass(frozen=True)
class JobOutcome:
    """What became of one accepted job; `lane` is its user's, in submit order of the jobs."""

    job_id: str
    lane: str
    state: JobState
    turn: TurnState
    events: Sequence[Event]


@dataclass(frozen=True)
class DeliveryReport:
    """Ids of jobs, which are those of their turns; all but the accepted ones are wrong."""

    accepted: frozenset[str]
    lost: frozenset[str]
    unexpected: frozenset[str]
    doubled_replies: frozenset[str]
    torn_replies: frozenset[str]
    doubled_memories: frozenset[str]
    out_of_order: frozenset[str]
    left_open: frozenset[str]

    @property
    def wrong(self) -> dict[str, frozenset[str]]:
        """Return what must be empty and is not, by name."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: ids for name, ids in found.items() if ids and name != "accepted"}


def delivery_report(
    outcomes: Sequence[JobOutcome], rows: Sequence[str], left_open: Iterable[str] = ()
) -> DeliveryReport:
    """Return the report; `rows` are the turns of what mem0 holds, in the order of the adds."""
    accepted = frozenset(one.job_id for one in outcomes)
    return DeliveryReport(
        accepted=accepted,
        lost=_ids(one for one in outcomes if not _answered(one) or one.turn not in _KEPT)
        | _ids(one for one in outcomes if one.turn is TurnState.STORED and one.job_id not in rows),
        unexpected=frozenset(rows) - accepted,
        doubled_replies=_ids(one for one in outcomes if _goes_on(one.events)),
        torn_replies=_ids(one for one in outcomes if _torn(one.events)),
        doubled_memories=frozenset(turn for turn, count in Counter(rows).items() if count > 1),
        out_of_order=_overtaken(outcomes, rows),
        left_open=frozenset(left_open),
    )


def table(title: str, reports: Sequence[DeliveryReport]) -> str:
    """Return the sums of many reports as lines of text."""
    names = [one.name for one in fields(DeliveryReport)]
    sums = {name: sum(len(getattr(each, name)) for each in reports) for name in names}
    lines = (f"  {name.replace('_', ' '):<17}{count:>6}" for name, count in sums.items())
    return "\n".join((title, *lines))


def _ids(outcomes: Iterable[JobOutcome]) -> frozenset[str]:
    return frozenset(one.job_id for one in outcomes)


def _answered(outcome: JobOutcome) -> bool:
    finals = [event for event in outcome.events if event.type == "final"]
    return outcome.state is JobState.SUCCEEDED and bool(finals)


def _goes_on(events: Sequence[Event]) -> bool:
    """Return whether anything follows the first final event."""
    types = [event.type for event in events]
    return "final" in types and types.index("final") != len(types) - 1


def _torn(events: Sequence[Event]) -> bool:
    """Return whether the deltas of the newest attempt are something else than the reply."""
    newest = max((event.attempt for event in events), default=0)
    deltas = (one for one in events if one.type == "delta" and one.attempt == newest)
    told = "".join(delta.text or "" for delta in deltas)
    replies = [event.reply for event in events if event.reply is not None]
    return any(reply.text != told for reply in replies)


def _overtaken(outcomes: Sequence[JobOutcome], rows: Sequence[str]) -> frozenset[str]:
    """Return the turns that mem0 has behind a later one of the same lane."""
    found: set[str] = set()
    for lane in {one.lane for one in outcomes}:
        places = {one.job_id: at for at, one in enumerate(outcomes) if one.lane == lane}
        highest = -1
        for turn in dict.fromkeys(turn for turn in rows if turn in places):
            if places[turn] < highest:
                found.add(turn)
            highest = max(highest, places[turn])
    return frozenset(found)
