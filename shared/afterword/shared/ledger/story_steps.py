"""Reads the lines that the scripts keep of a job; see `with_step` in `lua/_lib.lua`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any, NamedTuple

from afterword.shared.budgets import MICRO
from afterword.shared.ledger.attempt_note import AttemptNote
from afterword.shared.ledger.records import NOBODY, moment
from afterword.shared.ledger.story_records import StepKind, StoryStep

#: The words of each line after its time and its name; the last one takes the rest of the line.
_WORDS = {
    "aside": ("about",),
    "join": ("about",),
    "park": ("code",),
    "cap": ("code",),
    "turn": (),
    "next": (),
    "again": (),
    "claim": ("attempt", "worker"),
    "lost": (),
    "snooze": ("attempt", "kind", "pause", "code", "note"),
    "fail": ("attempt", "fault", "code", "note"),
    "reply": ("attempt", "note"),
    "wait": ("code",),
    "store": ("attempt", "worker", "turns", "about"),
    "extract": ("input", "output", "cost"),
    "postpone": ("kind", "pause", "code"),
    "settle": ("state", "code", "memories", "secrets"),
    "bury": ("fault", "code"),
    "replay": ("about",),
    "discard": (),
    "mend": ("code",),
}

#: What a line of one of these names is, whatever it says.
_KINDS = {
    "aside": StepKind.SET_ASIDE,
    "join": StepKind.JOINED,
    "park": StepKind.PARKED,
    "cap": StepKind.CAPPED,
    "turn": StepKind.PASSED_OVER,
    "next": StepKind.NEXT,
    "again": StepKind.HINTED_AGAIN,
    "claim": StepKind.CLAIMED,
    "lost": StepKind.LEASE_LOST,
    "fail": StepKind.FAILED,
    "reply": StepKind.REPLIED,
    "wait": StepKind.LANE_WAITS,
    "store": StepKind.STORING,
    "extract": StepKind.EXTRACTED,
    "postpone": StepKind.POSTPONED,
    "bury": StepKind.BURIED,
    "replay": StepKind.REPLAYED,
    "discard": StepKind.DISCARDED,
    "mend": StepKind.CORRECTED,
}

#: Lines of waits: each lasts until the next line.
_WAITS = frozenset({"aside", "cap", "park", "turn", "wait"})

#: Of these, those of a job that waits for a worker all the time.
_IN_LINE = frozenset({"cap", "turn"})

_Words = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Line:
    """One line: when, what, and its words by their names; a word that is not known is missing."""

    at: datetime
    name: str
    words: _Words

    @property
    def kind(self) -> StepKind:
        """Raises `ValueError` for what only a newer version knows."""
        named = self.words.get({"snooze": "kind", "settle": "state"}.get(self.name, ""))
        return StepKind(named) if named else _KINDS[self.name]

    @property
    def pause_s(self) -> float:
        return int(self.words.get("pause", 0)) / 1000


class Told(NamedTuple):
    """The steps of a story, oldest first, and what else it says.

    `incomplete`: some lines were left out, or are of a newer version. `left_out` are rows that the
    last search of memory found and the reply was not given, each with why.
    """

    steps: list[StoryStep]
    incomplete: bool
    left_out: Sequence[tuple[str, str]]


def read_story(story: str, since: datetime) -> Told:
    """Return what is told of a job that was accepted then."""
    lines = story.split("\n") if story else []
    known = list(_readable(lines))
    return Told(list(_told(known, since)), len(known) < len(lines), _left_out(known))


def last_recall(steps: Sequence[StoryStep]) -> Mapping[str, Any]:
    """Return what is told of the search for the reply; nothing if there is no reply."""
    if not any(step.kind is StepKind.REPLIED for step in steps):
        return {}
    recalls = [step.details for step in steps if step.kind is StepKind.RECALLED]
    return recalls[-1] if recalls else {}


def _left_out(lines: Sequence[_Line]) -> Sequence[tuple[str, str]]:
    for line in reversed(lines):
        note = AttemptNote.read(line.words["note"]) if "note" in line.words else None
        if note is not None and note.recall is not None:
            return note.recall.left_out
    return ()


def _readable(lines: Sequence[str]) -> Iterator[_Line]:
    for text in lines:
        at, _, rest = text.partition(" ")
        name, _, rest = rest.partition(" ")
        names = _WORDS.get(name)
        if names is None:
            continue
        found = dict(zip(names, rest.split(" ", len(names) - 1), strict=False)) if names else {}
        line = _Line(_time(at), name, {one: word for one, word in found.items() if word != NOBODY})
        if _is_whole(line):
            yield line


def _time(at: str) -> datetime:
    try:
        return moment(at)
    except (ArithmeticError, OSError, ValueError):
        return _NEVER


_NEVER = moment(0)

_NUMBERS = ("attempt", "pause", "turns", "memories", "input", "output", "cost")


def _is_whole(line: _Line) -> bool:
    """Return whether a line can be told."""
    numbers = (line.words.get(name, "0") for name in _NUMBERS)
    try:
        line.kind  # noqa: B018 it may not be known
    except (KeyError, ValueError):
        return False
    return line.at != _NEVER and all(number.isdecimal() for number in numbers)


def _told(lines: Sequence[_Line], since: datetime) -> Iterator[StoryStep]:
    """Yield the steps; how long one took is told from the lines beside it."""
    began: _Line | None = None
    for line, after in zip_longest(lines, lines[1:]):
        if line.name in ("claim", "store"):
            began = line
            yield replace(_step(line), duration_s=_between(since, line.at))
        elif line.name in ("snooze", "fail", "reply"):
            yield from _attempt(line, began)
        elif line.name == "settle":
            took = _between(began.at, line.at) if began else None
            yield replace(_step(line), duration_s=took)
        elif line.name in _WAITS and after:
            yield replace(_step(line), duration_s=_between(line.at, after.at))
        else:
            yield _step(line)
        if line.name not in _IN_LINE:
            since = line.at + timedelta(seconds=line.pause_s)


def _between(before: datetime, after: datetime) -> float:
    return max(0.0, (after - before).total_seconds())


def _attempt(end: _Line, claim: _Line | None) -> Iterator[StoryStep]:
    """Yield what an attempt did, then how it ended."""
    step, note = _step(end), AttemptNote.read(end.words.get("note", ""))
    worker = claim.words.get("worker") if claim else None
    known = StoryStep(end.at, step.kind, attempt=step.attempt, worker=worker)
    at = claim.at if claim else end.at
    if note.recall is not None:
        at = min(at + timedelta(milliseconds=note.recall.took_ms), end.at)
        yield replace(
            known,
            at=at,
            kind=StepKind.RECALLED,
            reason=note.recall.code,
            duration_s=note.recall.took_ms / 1000,
            details={
                "memory": note.recall.status,
                "found": note.recall.found,
                "given": note.recall.given,
                "overlay": note.recall.overlay,
            },
        )
    for call in note.calls:
        at = min(at + timedelta(milliseconds=call.took_ms), end.at)
        yield replace(
            known,
            at=at,
            kind=StepKind.MODEL_CALLED,
            about=call.model,
            reason=call.code,
            duration_s=call.took_ms / 1000,
            details={"request_id": call.request_id} if call.request_id else {},
        )
    took = _between(claim.at, end.at) if claim else None
    yield replace(step, worker=worker, duration_s=took if end.name != "snooze" else end.pause_s)


def _step(line: _Line) -> StoryStep:
    words, attempt = line.words, line.words.get("attempt")
    return StoryStep(
        line.at,
        line.kind,
        reason=words.get("code", ""),
        attempt=int(attempt) if attempt else None,
        worker=words.get("worker"),
        duration_s=line.pause_s if "pause" in words else None,
        about=words.get("about"),
        details=_DETAILS.get(line.name, _no_details)(words),
    )


def _no_details(_words: _Words) -> dict[str, str | int | float]:
    return {}


def _of_fault(words: _Words) -> dict[str, str | int | float]:
    return {"fault": words["fault"]} if "fault" in words else {}


def _of_batch(words: _Words) -> dict[str, str | int | float]:
    return {"turns": int(words.get("turns", 1))}


def _of_postponement(words: _Words) -> dict[str, str | int | float]:
    return {"attempt_is": words.get("kind", "")}


def _of_extraction(words: _Words) -> dict[str, str | int | float]:
    return {
        "input_tokens": int(words.get("input", 0)),
        "output_tokens": int(words.get("output", 0)),
        "cost_usd": int(words.get("cost", 0)) / MICRO,
    }


def _of_settled(words: _Words) -> dict[str, str | int | float]:
    found: dict[str, str | int | float] = {"memories": int(words.get("memories", 0))}
    return found | ({"secrets": words["secrets"]} if "secrets" in words else {})


_DETAILS: dict[str, Callable[[_Words], dict[str, str | int | float]]] = {
    "fail": _of_fault,
    "bury": _of_fault,
    "store": _of_batch,
    "postpone": _of_postponement,
    "settle": _of_settled,
    "extract": _of_extraction,
}
