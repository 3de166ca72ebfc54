"""The earlier turns that a prompt is built of, as scripts answer them: newest first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

from afterword.shared.ledger.records import PastTurn, said_at, text_of
from afterword.shared.settings import Settings

#: Bytes of records for each token of the longest prompt: more would be cut from it anyway.
_BYTES_A_TOKEN = 16


def most_bytes_of_past_turns(settings: Settings) -> int:
    """Return how many bytes of the overlay, and of the conversation, a script reads at most."""
    return settings.prompt_tokens * _BYTES_A_TOKEN


def overlay_in(rows: Sequence[Sequence[str]]) -> tuple[PastTurn, ...]:
    """Return the turns that are not in memory yet, oldest first."""
    return tuple(_overlay_turn(*row) for row in reversed(rows))


def history_in(entries: Sequence[str]) -> tuple[PastTurn, ...]:
    """Return the turns of a conversation, in the order of their submission."""
    return tuple(_history([json.loads(one) for one in reversed(entries)]))


def _overlay_turn(name: str, created: str, body: str, reply: str) -> PastTurn:
    request = json.loads(body)
    return PastTurn(name, said_at(request, created), request["message"], text_of(reply))


def _history(entries: Sequence[dict[str, Any]]) -> Iterator[PastTurn]:
    """Yield the turns in the order of their submission.

    They were written as they ended: a message that was stopped may stand before an earlier one,
    which had its reply later. An entry of version 1 keeps its place.
    """
    newest, placed = 0, []
    for entry in entries:
        placed.append((entry.get("sequence", newest), entry))
        newest = max(newest, placed[-1][0])
    for _, entry in sorted(placed, key=itemgetter(0)):
        yield _history_turn(entry)


def _history_turn(entry: dict[str, Any]) -> PastTurn:
    return PastTurn(
        entry["id"],
        said_at({"at": entry.get("said")}, entry["at"]),
        entry["user"],
        entry["reply"],
        entry.get("stop_reason", ""),
    )
