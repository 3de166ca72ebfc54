"""Importing past conversations: a file of JSON lines, checked as a whole, then turn by turn."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from afterword.shared.clock import utc_now
from afterword.shared.errors import InvalidRequest
from afterword.shared.history import HistoryTurn
from afterword.shared.ledger.imports import ImportOutcome, Imports
from afterword.shared.redaction.policy import Redaction
from afterword.shared.settings import Settings

#: How long an import waits before it looks again whether turns were stored.
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """How many turns an import has looked at, and what became of them."""

    imported: int = 0
    """How many are in the lanes of their users now; a memory worker stores them."""

    known: int = 0
    """How many had been imported before."""

    erased: int = 0
    """How many are of users that are about to be erased: nothing was written of them."""

    @property
    def turns(self) -> int:
        """How many turns that is in all."""
        return self.imported + self.known + self.erased


#: Called after each turn, with the counts so far and the number of turns in all.
ImportProgress: TypeAlias = Callable[[ImportCounts, int], None]


def read_history(path: Path, settings: Settings) -> Iterator[HistoryTurn]:
    """Yield the turns of a file, one a line; blank lines are left out.

    Raises `InvalidRequest`, whose text names the file, the line and the field.
    """
    redaction = Redaction.of(settings)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _turn(line, f"{path.name}, line {number}", settings, redaction)


def _turn(line: bytes, place: str, settings: Settings, redaction: Redaction) -> HistoryTurn:
    try:
        values = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise InvalidRequest(place, "is not valid JSON in UTF-8") from None
    try:
        turn = HistoryTurn.parse(
            values,
            max_bytes=settings.max_message_bytes,
            max_tokens=settings.max_message_tokens,
        )
        redaction.check(turn.tenant, message=turn.message, reply=turn.reply)
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}, {error.field}", error.reason) from None
    if turn.at > utc_now():
        raise InvalidRequest(f"{place}, at", "must not be in the future")
    return turn


def check_history(path: Path, settings: Settings) -> int:
    """Return how many turns a file has, all of them valid; raise `InvalidRequest` for the first."""
    try:
        return sum(1 for _ in read_history(path, settings))
    except OSError as error:
        raise InvalidRequest("path", f"cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL, half of a pair
        raise InvalidRequest("path", "is no path") from None


async def import_turns(
    imports: Imports, turns: Iterable[HistoryTurn], total: int, progress: ImportProgress
) -> ImportCounts:
    """Put turns into the lanes of their users, in the given order; wait while too many wait."""
    found: Counter[ImportOutcome] = Counter()
    counts = ImportCounts()
    for turn in turns:
        found[await _import(imports, turn)] += 1
        counts = ImportCounts(
            found[ImportOutcome.NEW], found[ImportOutcome.SAME], found[ImportOutcome.ERASED]
        )
        progress(counts, total)
    return counts


async def _import(imports: Imports, turn: HistoryTurn) -> ImportOutcome:
    """Import one turn as soon as few enough wait to be stored."""
    while True:
        outcome = await imports.add(turn)
        if outcome is not ImportOutcome.WAIT:
            return outcome
        await asyncio.sleep(_PAUSE_S)
