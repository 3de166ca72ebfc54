"""Batches: which waiting turns of a lane go into one add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afterword.shared.ledger.records import WaitingTurn
from afterword.shared.tokens import estimated_tokens

Batch = tuple[WaitingTurn, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a batch may hold: turns, estimated tokens, seconds from its first turn to its last."""

    turns: int
    tokens: int = 4_000
    span_s: float = 600.0


def batches(turns: Sequence[WaitingTurn], bounds: Bounds) -> list[Batch]:
    """Return all turns in their order, those that go together side by side.

    A batch that was begun stays what it was. All others are within the bounds, unless a single
    turn is too long, and of one day in UTC: an add has one date, and "yesterday" is read by it.
    """
    found: list[Batch] = []
    for turn in turns:
        if found and _goes_with(turn, found[-1], bounds):
            found[-1] += (turn,)
        else:
            found.append((turn,))
    return found


def _goes_with(turn: WaitingTurn, batch: Batch, bounds: Bounds) -> bool:
    first = batch[0]
    if first.batch or turn.batch:
        return turn.id in first.batch
    return (
        len(batch) < bounds.turns
        and sum(map(_tokens, (*batch, turn))) <= bounds.tokens
        and abs((turn.at - first.at).total_seconds()) <= bounds.span_s
        and turn.at.date() == first.at.date()
    )


def _tokens(turn: WaitingTurn) -> int:
    return estimated_tokens(turn.user_text) + estimated_tokens(turn.reply_text)
