"""What one attempt to reply did, as its worker notes it in the story of the job."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

#: Most rows that were found and not given, and most calls of models, that one note keeps; and most
#: characters of a name in it.
MOST_LEFT_OUT = 5
MOST_CALLS = 5
MOST_CHARACTERS = 80


class NotedRecall(NamedTuple):
    """A search of memory.

    `code` says why it failed or is incomplete; `found` rows came back, `given` of them are in the
    prompt, with `overlay` earlier turns that were not stored yet. `left_out` are the best of the
    other rows, each with why.
    """

    status: str
    code: str
    found: int
    given: int
    overlay: int
    took_ms: int
    left_out: tuple[tuple[str, str], ...] = ()


class NotedCall(NamedTuple):
    """A call of a model; `code` says why it gave no answer."""

    model: str
    request_id: str
    code: str
    took_ms: int


_KEPT = TypeAdapter(tuple[NotedRecall | None, list[NotedCall]])


class AttemptNote:
    """Fills up while an attempt goes on; its text is short, whatever providers say."""

    def __init__(self) -> None:
        self.recall: NotedRecall | None = None
        self.calls: list[NotedCall] = []

    def add_call(self, model: str, request_id: str | None, code: str, took_s: float) -> None:
        """Note the end of a call; of more than `MOST_CALLS`, the first and the newest are kept."""
        if len(self.calls) == MOST_CALLS:
            del self.calls[1]
        texts = (_short(model), _short(request_id or ""), _short(code))
        self.calls.append(NotedCall(*texts, round(took_s * 1000)))

    @property
    def text(self) -> str:
        """Return the note as the ledger keeps it; "" if nothing was done yet."""
        if self.recall is None and not self.calls:
            return ""
        return to_json([self.recall, self.calls]).decode()

    @classmethod
    def read(cls, text: str) -> AttemptNote:
        """Read what the ledger keeps; of what no version up to this one wrote, nothing is read."""
        note = cls()
        with suppress(ValidationError):
            note.recall, note.calls = _KEPT.validate_json(text)
        return note


def _short(text: str) -> str:
    """Return a name that keeps a story in its lines and its bounds."""
    kept = text[:MOST_CHARACTERS]
    if kept.isprintable():
        return kept
    return "".join(one if one.isprintable() else "?" for one in kept)
