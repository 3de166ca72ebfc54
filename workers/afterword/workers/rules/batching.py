"""Batches: which waiting turns of a lane go into one add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afterword.shared.ledger.records import WaitingTurn
from afterword.shared.tokens import estimated_tokens

Batch = tuple[WaitingTurn, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a batch: turns, estimated tokens, seconds between its first and its last turn."""

    turns: int
    tokens: int = 4_000
    span_s: float = 600.0


def batches(turns: Sequence[WaitingTurn], bounds: Bounds) -> list[Batch]:
    """Group turns into batches, in their order.

    A batch that was begun before stays as it was. Others keep within the bounds, except for a
    single turn that is too long, and have turns of one day in the user's time zone: an add has one
    date, which "yesterday" refers to.
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
        and turn.day == first.day
    )


def _tokens(turn: WaitingTurn) -> int:
    return estimated_tokens(turn.user_text) + estimated_tokens(turn.reply_text)
